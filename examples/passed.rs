//! Two programs with one heap: the first makes it and sends its descriptor over a socket. The second attaches it and
//! answers a question in the heap itself. Both allocate, and each frees what the other did.
//!
//! ```text
//! cargo run --release --example passed
//! ```
//!
//! The second program is this one again, with `--guest PATH`. Exit code: 0, or 1 if something failed.

use core::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, error, fs, io, process};

use clap::Parser;
use flagstone::allocator_api2::boxed::Box as MappedBox;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Flagstone, Handle, Mapped};
use rustix::net;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// Send a heap to another program, which answers in it.
#[derive(Parser)]
#[command(name = "passed")]
struct Args {
    /// Be the other program, and get the heap from the socket at PATH
    #[arg(long, value_name = "PATH")]
    guest: Option<PathBuf>,
    /// Numbers that are asked for
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    count: u32,
}

/// What both programs know of each other: this program's own types, which it is twice.
struct Question {
    numbers: MappedVec<u64, Handle>,
    answer: Option<MappedVec<u64, Handle>>,
}

type Outcome = Result<(), Box<dyn error::Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.guest {
        Some(path) => answer(path),
        None => ask(args.count),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("passed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first program.
fn ask(count: u32) -> Outcome {
    // Room for the numbers, for as many in the answer, and for what either becomes when it grows.
    let bytes = count as usize * size_of::<u64>();
    let capacity = (bytes * 8 + (16 << 20)).next_multiple_of(1 << 16);
    let heap = Mapped::options()
        .name("passed")
        .capacity(capacity)
        .create()?;
    let mut numbers = MappedVec::new_in(heap.handle());
    numbers.extend(1..=u64::from(count));
    let question = Question {
        numbers,
        answer: None,
    };
    let question = MappedBox::leak(MappedBox::new_in(question, heap.handle()));
    heap.set_root("question", &raw const *question, 0)?;

    let path = env::temp_dir().join(format!("passed-{}", process::id()));
    let listener = UnixListener::bind(&path)?;
    let guest = Command::new(env::current_exe()?)
        .arg("--guest")
        .arg(&path)
        .spawn();
    let accepted = guest.and_then(|guest| Ok((guest, listener.accept()?)));
    fs::remove_file(&path)?;
    let (mut guest, (socket, _)) = accepted?;
    // SAFETY: the heap's, which stays open.
    send(&socket, unsafe { BorrowedFd::borrow_raw(heap.as_raw_fd()) })?;
    if !guest.wait()?.success() {
        return Err("the other program failed".into());
    }
    // SAFETY: made above; the other program, which could change it, is gone.
    let question = unsafe { MappedBox::from_raw_in(question, heap.handle()) };
    let answer = question.answer.as_ref().ok_or("there is no answer")?;
    if !answer
        .iter()
        .zip(&question.numbers)
        .all(|(root, number)| root == number)
    {
        return Err("the answer is wrong".into());
    }
    println!(
        "{count} answers by another program, at {:p} in both",
        answer.as_ptr()
    );
    drop(question);
    let stats = heap.stats();
    println!(
        "all freed by this one: {} bytes live, {} processes were there",
        stats.live, stats.processes
    );
    Ok(())
}

/// The second program.
fn answer(path: &Path) -> Outcome {
    let socket = UnixStream::connect(path)?;
    let descriptor = receive(&socket)?;
    // SAFETY: the first program is this one's own, and waits until this one ends.
    let heap = unsafe { Mapped::attach(descriptor.as_raw_fd()) }?;
    let (place, _) = heap.root("question").ok_or("there is no question")?;
    // SAFETY: the first program left it there, and waits.
    let question: &mut Question = unsafe { place.cast().as_mut() };
    let mut answer = MappedVec::new_in(heap.handle());
    // Which number has this square?
    answer.extend(
        question
            .numbers
            .iter()
            .map(|number| (number * number).isqrt()),
    );
    question.answer = Some(answer);
    Ok(())
}

/// Sends a descriptor, with one byte, as a message has to have some.
fn send(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = net::SendAncillaryBuffer::new(&mut room);
    let descriptors = [descriptor];
    control.push(net::SendAncillaryMessage::ScmRights(&descriptors));
    let byte = [io::IoSlice::new(b"h")];
    net::sendmsg(socket.as_fd(), &byte, &mut control, net::SendFlags::empty())?;
    Ok(())
}

/// Receives one.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = net::RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    net::recvmsg(
        socket.as_fd(),
        &mut parts,
        &mut control,
        net::RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        net::RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptors
        .next()
        .ok_or_else(|| io::Error::other("no descriptor came"))
}
