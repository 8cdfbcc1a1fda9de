//! The recorder in child processes: threads, failures, `fork`, ends of all kinds. Without this a
//! recording could lack events or hold up the program that is recorded.
//!
//! Each child is a test of this file, ignored unless its parent asks for it by name.

mod common;

use std::alloc::{GlobalAlloc, Layout, System, alloc_zeroed, dealloc, realloc};
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use trace::{Kind, PackError, Recorder, Trace};

type Checked = Result<(), Box<dyn Error>>;

/// Counts below the recorder what the recorder writes down.
struct Counting {
    // ORDERING: relaxed; read when the threads that counted were joined.
    live_bytes: AtomicUsize,
}

// SAFETY: 1. every call is answered by `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.live_bytes.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: 1. the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.live_bytes.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: 1. the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: 1. the caller's promise.
        let moved = unsafe { System.realloc(block, layout, size) };
        if !moved.is_null() {
            self.live_bytes.fetch_add(size, Ordering::Relaxed);
            self.live_bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.live_bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: 1. the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Recorder<Counting> = Recorder::new(Counting {
    live_bytes: AtomicUsize::new(0),
});

/// Sizes that nothing else asks for.
const MARK: usize = 1_000_003;
const FORKED: usize = 777_777;

fn live_bytes() -> usize {
    ALLOCATOR.inner().live_bytes.load(Ordering::Relaxed)
}

fn mark(size: usize) {
    drop(black_box(Vec::<u8>::with_capacity(size)));
}

/// Runs a test of this file in a process of its own, perhaps by way of a shell.
fn run(child: &str, raw: Option<&Path>, shell: Option<&str>) -> Result<Output, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let mut command = match shell {
        Some(script) => {
            let mut command = Command::new("sh");
            command
                .args(["-c", &format!("{script}; exec \"$0\" \"$@\"")])
                .arg(own);
            command
        }
        None => Command::new(own),
    };
    command.args(["--exact", child, "--ignored", "--nocapture"]);
    command.env_remove("ALLOC_TRACE");
    if let Some(raw) = raw {
        command.env("ALLOC_TRACE", raw);
    }
    Ok(command.output()?)
}

fn messages(output: &Output) -> Vec<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines = errors.lines().filter(|line| line.contains("ALLOC_TRACE"));
    lines.map(str::to_owned).collect()
}

fn count(trace: &Trace, size: usize) -> usize {
    trace.ops().iter().filter(|op| op.size() == size).count()
}

/// Live bytes before the first operation of this size.
fn live_before(trace: &Trace, size: usize) -> usize {
    let mut slots = vec![0; trace.slots()];
    for op in trace.ops().iter().take_while(|op| op.size() != size) {
        slots[op.slot()] = if op.kind() == Kind::Free {
            0
        } else {
            op.size()
        };
    }
    slots.iter().sum()
}

#[test]
#[ignore = "a child of `threads_are_recorded_in_an_order_that_makes_sense`"]
fn child_threads() {
    thread::scope(|scope| {
        for _ in 0..2 {
            let (sender, receiver) = mpsc::channel::<Vec<u32>>();
            scope.spawn(move || {
                for length in 0..3000 {
                    let mut block = Vec::new();
                    (0..length % 50).for_each(|value| block.push(value));
                    // The receiver is there until the sender goes.
                    let _ = sender.send(block);
                }
            });
            scope.spawn(move || {
                let mut kept = Vec::new();
                for mut block in receiver {
                    block.extend(0..3);
                    kept.push(block);
                    if kept.len() > 20 {
                        kept.swap_remove(7);
                    }
                }
            });
        }
    });
    let layout = Layout::from_size_align(4096, 256).expect("a layout");
    // SAFETY: 1. the size is not 0.
    let block = unsafe { alloc_zeroed(layout) };
    // SAFETY: 1. the block is live and of this layout. 2. the size makes a layout; there is no room.
    let moved = unsafe { realloc(block, layout, isize::MAX as usize - 4095) };
    assert!(moved.is_null());
    // SAFETY: 1. as above; it did not move.
    let block = unsafe { realloc(block, layout, 100) };
    let layout = Layout::from_size_align(100, 256).expect("a layout");
    // SAFETY: 1. the block is live and of this layout.
    unsafe { dealloc(block, layout) };
    let live = live_bytes();
    mark(MARK);
    println!("live={live}.");
}

#[test]
fn threads_are_recorded_in_an_order_that_makes_sense() -> Checked {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("recording.raw");
    let output = run("child_threads", Some(&raw), None)?;
    assert!(output.status.success() && messages(&output).is_empty());
    let trace = common::pack(&raw)?;
    common::replay(&trace);
    assert!(trace.threads() >= 5 && trace.ops().len() > 20_000);
    let text = String::from_utf8(output.stdout)?;
    let live = text
        .split("live=")
        .nth(1)
        .and_then(|rest| rest.split('.').next());
    assert_eq!(live, Some(live_before(&trace, MARK).to_string().as_str()));
    Ok(())
}

#[test]
#[ignore = "a child of `a_forked_child_is_not_recorded`"]
fn child_fork() {
    // SAFETY: 1. the child only allocates, which the C library's malloc allows after `fork`, and exits.
    let process = unsafe { libc::fork() };
    assert!(process >= 0);
    for _ in 0..5000 {
        mark(if process == 0 { FORKED } else { MARK });
    }
    if process == 0 {
        // SAFETY: 1. ends the process; its handlers are those of this crate and of the libraries.
        unsafe { libc::exit(0) };
    }
    let mut status = 0;
    // SAFETY: 1. `status` is writable.
    let waited = unsafe { libc::waitpid(process, &raw mut status, 0) };
    assert_eq!((waited, status), (process, 0));
}

#[test]
fn a_forked_child_is_not_recorded() -> Checked {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("recording.raw");
    let output = run("child_fork", Some(&raw), None)?;
    assert!(output.status.success() && messages(&output).is_empty());
    let trace = common::pack(&raw)?;
    assert_eq!(count(&trace, FORKED), 0);
    assert_eq!(count(&trace, MARK), 2 * 5000);
    Ok(())
}

#[test]
#[ignore = "a child of several tests"]
fn child_many() {
    (0..20_000).for_each(|_| mark(MARK));
}

#[test]
fn a_full_disk_stops_the_recording_and_not_the_program() -> Checked {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("recording.raw");
    // The limit stands for the disk: 512 or 1024 bytes a block, as the shell likes it.
    let output = run(
        "child_many",
        Some(&raw),
        Some("ulimit -f 300; trap '' XFSZ"),
    )?;
    assert!(output.status.success());
    let messages = messages(&output);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].contains("recording stops"), "{messages:?}");
    let Err(PackError::CutOff(ops)) = trace::pack(&*fs::read(&raw)?, None) else {
        panic!("the recording is complete");
    };
    let packed = trace::pack(&*fs::read(&raw)?, Some(ops))?;
    let trace = Trace::from_bytes(&packed)?;
    assert!(ops > 1000 && trace.ops().len() as u64 == ops);
    common::replay(&trace);
    Ok(())
}

#[test]
#[ignore = "a child of `a_program_that_aborts_leaves_a_recording_that_is_cut_off`"]
fn child_abort() {
    (0..20_000).for_each(|_| mark(MARK));
    std::process::abort();
}

#[test]
fn a_program_that_aborts_leaves_a_recording_that_is_cut_off() -> Checked {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("recording.raw");
    let output = run("child_abort", Some(&raw), Some("ulimit -c 0"))?;
    assert!(!output.status.success());
    let packed = trace::pack(&*fs::read(&raw)?, None);
    assert!(matches!(packed, Err(PackError::CutOff(1000..))));
    Ok(())
}

#[test]
fn nothing_is_recorded_unless_asked_for() -> Checked {
    let output = run("child_many", None, None)?;
    assert!(output.status.success() && messages(&output).is_empty());
    Ok(())
}

#[test]
fn a_file_that_cannot_be_made_is_named_and_the_program_goes_on() -> Checked {
    let folder = tempfile::tempdir()?;
    let kept = folder.path().join("kept");
    fs::write(&kept, "kept")?;
    for path in [kept.clone(), folder.path().join("no/folder")] {
        let output = run("child_many", Some(&path), None)?;
        assert!(output.status.success());
        let messages = messages(&output);
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(messages[0].contains("cannot be created"), "{messages:?}");
    }
    assert_eq!(fs::read(&kept)?, b"kept");
    Ok(())
}

/// The program `trace` on files that are not what it wants.
#[test]
fn the_program_says_what_is_wrong_with_a_file() -> Checked {
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("text");
    fs::write(
        &text,
        "neither raw nor packed, but long enough for both headers and then some more..",
    )?;
    let out = folder.path().join("out");
    for arguments in [
        vec!["pack".as_ref(), text.as_path(), &out],
        vec!["info".as_ref(), &text],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_trace"))
            .args(arguments)
            .output()?;
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr)?;
        assert!(
            errors.contains("not a ") && errors.lines().count() == 1,
            "{errors}"
        );
    }
    assert!(!out.exists());
    Ok(())
}
