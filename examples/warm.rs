//! A server whose cache outlives it: the answers lie in a heap in `/dev/shm`, so one that was killed and begins again
//! knows them at once. A line `GET N` asks how many primes there are below N, which is slow to find out.
//!
//! ```text
//! cargo run --release --example warm -- demo     # serve, ask, kill -9, serve, ask
//! cargo run --release --example warm -- serve &
//! cargo run --release --example warm -- ask 20000000
//! ```
//!
//! What a kill tears is no loss in a cache: it begins anew, empty.
//!
//! Exit code: 0; 1 if something failed; 2 for a bad command line; 130 after Ctrl-C.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;
use std::{env, fs, process, thread};

use clap::{Parser, Subcommand};
use flagstone::mapped::{Guard, LockError, Map, Mutex};
use flagstone::{Flagstone, Mapped, MappedError};

#[expect(dead_code, reason = "the examples do not need all of it")]
#[path = "common/mod.rs"]
mod common;
#[expect(dead_code, reason = "as above")]
#[path = "common/mapped.rs"]
mod mapped;

use common::{human, interrupt, say};
use mapped::{bytes_of, why};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "warm";

/// Room for a million answers.
const CAPACITY: usize = 64 << 20;

/// The largest number that is answered for: a byte of memory for each below it.
const LIMIT: u64 = 200_000_000;

/// A request is no longer.
const LINE: u64 = 64;

/// How often a thread that waits looks whether Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_millis(100);

/// Answer questions from a cache that outlives the server.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    #[command(subcommand)]
    command: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Answer until Ctrl-C
    Serve {
        /// Port on this machine; 0 for any that is free
        #[arg(long, default_value_t = 7878)]
        port: u16,
        /// The file with the cache
        #[arg(long, default_value = "/dev/shm/flagstone-warm")]
        cache: PathBuf,
    },
    /// Ask a server how many primes there are below N
    Ask {
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(..=LIMIT))]
        number: u64,
        #[arg(long, default_value_t = 7878)]
        port: u16,
    },
    /// Start a server, ask it, kill it, start it again, and ask again
    Demo {
        #[arg(value_name = "N", default_value_t = 50_000_000)]
        #[arg(value_parser = clap::value_parser!(u64).range(..=LIMIT))]
        number: u64,
    },
}

/// What the heap has by name.
type Cache = Mutex<Map<u64, u64>>;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    let done = match args.command {
        Mode::Serve { port, cache } => serve(port, &cache),
        Mode::Ask { number, port } => ask(port, number).and_then(|answer| print(&answer)),
        Mode::Demo { number } => demo(number),
    };
    if interrupt::requested() {
        say::line(PROGRAM, format_args!("interrupted"));
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say::line(PROGRAM, format_args!("{message}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. A reader that has gone away is no failure.
fn print(line: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write: {error}"))
        }
        _ => Ok(()),
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn serve(port: u16, path: &Path) -> Result<(), String> {
    let listener = TcpListener::bind(local(port));
    let listener = listener.map_err(|error| format!("{}: {error}", local(port)))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (heap, cache) =
        open(path).map_err(|error| format!("{}: {}", path.display(), hint(error)))?;
    let known = lock(cache)?.len().map_err(why)?;
    let (live, found) = (human::bytes(heap.stats().live), heap.opened());
    print(&format!(
        "serving {address}: answers known: {known} ({live}), {found:?}"
    ))?;
    thread::scope(|scope| {
        // Wakes the thread that accepts.
        scope.spawn(|| {
            while !interrupt::requested() {
                thread::sleep(PATIENCE);
            }
            let _ = TcpStream::connect(address);
        });
        while !interrupt::requested() {
            let accepted = listener.accept();
            match accepted {
                Ok((stream, _)) => {
                    let answering = thread::Builder::new();
                    let started = answering.spawn_scoped(scope, move || answer(stream, cache));
                    if let Err(error) = started {
                        say::line(PROGRAM, format_args!("a client is turned away: {error}"));
                    }
                }
                Err(error) => {
                    say::line(PROGRAM, format_args!("cannot accept: {error}"));
                    thread::sleep(PATIENCE);
                }
            }
        }
    });
    // SAFETY: 1. the threads have ended.
    unsafe { heap.close() }.map_err(why)
}

fn hint(error: MappedError) -> String {
    match error {
        MappedError::Dirty => {
            "left by a machine that went down: remove it, as a cache is no loss".into()
        }
        MappedError::NotFound => "there is no such folder".into(),
        MappedError::NoHeap => "this is no cache, but another file".into(),
        error => why(error),
    }
}

/// The cache of an earlier server, or a new one.
fn open(path: &Path) -> Result<(Mapped, &'static Cache), MappedError> {
    // SAFETY: 1. who uses the heap is this program. 2. as the user sees to.
    let heap = unsafe {
        Mapped::options()
            .capacity(CAPACITY)
            .open_or_create(bytes_of(path))
    }?;
    loop {
        if let Some(cache) = heap.get("cache")? {
            return Ok((heap, cache));
        }
        match heap.insert("cache", Mutex::new(Map::new_in(heap.handle()))) {
            // Another server was faster.
            Err(MappedError::Exists) => {}
            made => return Ok((heap, made?)),
        }
    }
}

/// The answers, of which those are forgotten that a kill has torn.
fn lock(cache: &Cache) -> Result<Guard<'_, Map<u64, u64>>, String> {
    let mut answers = match cache.lock() {
        Err(LockError::Abandoned(mut answers)) => {
            answers.mark_fit();
            answers
        }
        locked => locked.map_err(|error| error.to_string())?,
    };
    if answers.is_torn() {
        answers.reset();
    }
    Ok(answers)
}

/// Answers what a client asks, until it goes or Ctrl-C is pressed.
fn answer(stream: TcpStream, cache: &Cache) {
    // A client that says nothing must not keep the server.
    if stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let mut lines = BufReader::new(&stream);
    let mut line = Vec::new();
    while !interrupt::requested() {
        let room = LINE.saturating_sub(line.len() as u64);
        match lines.by_ref().take(room).read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => {}
            // At its end, or too long.
            Ok(_) => return,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        }
        let said = match request(&line) {
            Some(number) => primes(cache, number),
            None => Err(format!("GET N, where N is at most {LIMIT}")),
        };
        let said = said.unwrap_or_else(|message| format!("error: {message}"));
        if writeln!(&stream, "{said}").is_err() {
            return;
        }
        line.clear();
    }
}

fn request(line: &[u8]) -> Option<u64> {
    let number = str::from_utf8(line).ok()?.trim_end().strip_prefix("GET ")?;
    number.parse().ok().filter(|number| *number <= LIMIT)
}

/// How many primes there are below a number, and how that is known.
fn primes(cache: &Cache, number: u64) -> Result<String, String> {
    let begin = Instant::now();
    let known = lock(cache)?.get(&number).map_err(why)?.copied();
    let (count, how) = match known {
        Some(count) => (count, "known"),
        None => {
            // Without the lock: others are answered meanwhile.
            let count = sieve(number)?;
            match lock(cache)?.insert(number, count) {
                Err(MappedError::NoSpace) => (count, "found, and forgotten: the cache is full"),
                kept => (count, kept.map(|_| "found").map_err(why)?),
            }
        }
    };
    Ok(format!(
        "{count} primes below {number}: {how} in {:?}",
        begin.elapsed()
    ))
}

/// Counts primes, without any cleverness.
fn sieve(number: u64) -> Result<u64, String> {
    let length = usize::try_from(number).map_err(|error| error.to_string())?;
    let mut is_prime = Vec::new();
    let reserved = is_prime.try_reserve_exact(length);
    reserved.map_err(|error| error.to_string())?;
    is_prime.resize(length, true);
    let mut count = 0;
    for candidate in 2..length {
        if is_prime[candidate] {
            count += 1;
            let multiples = (candidate * candidate..length).step_by(candidate);
            multiples.for_each(|multiple| is_prime[multiple] = false);
        }
    }
    Ok(count)
}

fn ask(port: u16, number: u64) -> Result<String, String> {
    let refuse = |error: io::Error| format!("{}: {error}", local(port));
    let mut stream = TcpStream::connect(local(port)).map_err(refuse)?;
    writeln!(stream, "GET {number}").map_err(refuse)?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .map_err(refuse)?;
    match line.trim_end() {
        "" => Err("the server has gone".into()),
        said if said.starts_with("error: ") => Err(said.into()),
        said => Ok(said.into()),
    }
}

/// A server of the demonstration, which is killed when this is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(cache: &Path) -> Result<Self, String> {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["serve", "--port", "0", "--cache"]).arg(cache);
        let child = command.stdout(Stdio::piped()).spawn();
        let mut server = Self {
            child: child.map_err(|error| format!("cannot start a server: {error}"))?,
            port: 0,
        };
        let mut line = String::new();
        let out = server.child.stdout.take().ok_or("no pipe")?;
        // The server prints one line, and is not disturbed by a closed pipe.
        let read = BufReader::new(out).read_line(&mut line);
        read.map_err(|error| error.to_string())?;
        let port = line.strip_prefix("serving 127.0.0.1:").and_then(|rest| {
            let (port, _) = rest.split_once(':')?;
            port.parse().ok()
        });
        server.port = port.ok_or("the server did not start")?;
        print(line.trim_end())?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // As `kill -9`: without a word to it. One that has ended has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that is removed when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn demo(number: u64) -> Result<(), String> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        memory.to_owned()
    } else {
        env::temp_dir()
    };
    let cache = Removed(folder.join(format!("flagstone-warm-{}", process::id())));
    let mut times = [Duration::ZERO; 2];
    for (time, which) in times.iter_mut().zip(["the first server", "the second"]) {
        let begin = Instant::now();
        let server = Server::start(&cache.0)?;
        let answer = ask(server.port, number)?;
        *time = begin.elapsed();
        print(&format!(
            "{answer}\n{which} took {time:?} from its start to this answer"
        ))?;
        drop(server);
        print("killed")?;
    }
    let [cold, warm] = times;
    let times = cold.as_secs_f64() / warm.as_secs_f64().max(1e-9);
    print(&format!(
        "with the cache of the one that was killed {times:.0} times as fast"
    ))
}
