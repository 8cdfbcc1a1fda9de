//! A heap over a mapping beside Boost.Interprocess's, used by several processes at once.

mod contestant;

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::json;

#[cfg(boost)]
use contestant::Boost;
use contestant::{Contestant, Flagstone};

/// Runs the rows for each contestant in turn, and prints medians: millions of allocations a second, all processes
/// together.
#[derive(Parser)]
struct Args {
    /// Repetitions of each cell
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Write what was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

const SIZE: usize = 64;
/// Allocations of a process in a cell: as many as take some tenths of a second.
const PAIRS: [usize; 2] = [4_000_000, 400_000];
/// Blocks between two processes: batches, and how many are in one.
const BATCHES: usize = 8;
const BLOCKS: usize = 100;

/// What processes share beside the heap: who is ready, and blocks on their way.
#[repr(C)]
struct Board {
    ready: AtomicUsize,
    batches: [Batch; BATCHES],
}

#[repr(C, align(128))]
struct Batch {
    is_full: AtomicUsize,
    blocks: [AtomicPtr<u8>; BLOCKS],
}

fn board() -> &'static Board {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: 1. a fresh mapping replaces nothing.
    let place = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            size_of::<Board>(),
            access,
            kind,
            -1,
            0,
        )
    };
    assert_ne!(place, libc::MAP_FAILED, "memory");
    // SAFETY: 1. mapped, zero, and never unmapped: a few pages for each cell.
    unsafe { &*place.cast::<Board>() }
}

/// Runs `work` in so many forked children that begin at once; seconds until the last is done.
fn in_processes(count: usize, board: &Board, work: impl Fn(usize)) -> f64 {
    let mut children = Vec::new();
    for number in 0..count {
        // SAFETY: 1. this process has one thread.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "a process");
        if child == 0 {
            board.ready.fetch_add(1, Ordering::AcqRel);
            while board.ready.load(Ordering::Acquire) <= count {
                std::thread::yield_now();
            }
            work(number);
            // SAFETY: 1. no preconditions.
            unsafe { libc::_exit(0) };
        }
        children.push(child);
    }
    while board.ready.load(Ordering::Acquire) < count {
        std::thread::yield_now();
    }
    let begin = Instant::now();
    board.ready.fetch_add(1, Ordering::AcqRel);
    for child in children {
        let mut status = 0;
        // SAFETY: 1. the status is writable.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(
            waited == child && status == 0,
            "a process failed: {status:#x}"
        );
    }
    begin.elapsed().as_secs_f64()
}

/// Each process allocates and frees one block at a time.
fn pairs<C: Contestant>(processes: usize, each: usize) -> f64 {
    let (heap, board) = (C::new(), board());
    let seconds = in_processes(processes, board, |_| {
        for _ in 0..each {
            let block = black_box(heap.alloc(SIZE));
            // SAFETY: 1. as long.
            unsafe { block.write(1) };
            // SAFETY: 1. live, not used any more.
            unsafe { heap.free(block, SIZE) };
        }
    });
    (processes * each) as f64 / seconds / 1e6
}

/// One process allocates, another frees, by batches.
fn handed<C: Contestant>(_: usize, each: usize) -> f64 {
    let (heap, board) = (C::new(), board());
    let wait = |batch: &Batch, is_full: usize| {
        let mut looks = 0;
        while batch.is_full.load(Ordering::Acquire) != is_full {
            looks += 1;
            if looks % 100 == 0 {
                std::thread::yield_now();
            }
        }
    };
    let seconds = in_processes(2, board, |number| {
        for turn in 0..each / BLOCKS {
            let batch = &board.batches[turn % BATCHES];
            wait(batch, number);
            for place in &batch.blocks {
                if number == 0 {
                    let block = heap.alloc(SIZE);
                    // SAFETY: 1. as long.
                    unsafe { block.write(1) };
                    place.store(block, Ordering::Relaxed);
                } else {
                    let block = place.load(Ordering::Relaxed);
                    // SAFETY: 1. live, not used any more.
                    unsafe { heap.free(block, SIZE) };
                }
            }
            batch.is_full.store(1 - number, Ordering::Release);
        }
    });
    each as f64 / seconds / 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

type Run = fn(usize, usize) -> f64;

/// The medians of both, with repetitions taking turns.
fn measure(own: Run, other: Option<Run>, processes: usize, reps: usize) -> (f64, Option<f64>) {
    let (mut owns, mut others) = (Vec::new(), Vec::new());
    for _ in 0..reps.max(1) {
        owns.push(own(processes, PAIRS[0]));
        others.extend(other.map(|other| other(processes, PAIRS[1])));
    }
    (median(owns), (!others.is_empty()).then(|| median(others)))
}

#[cfg(boost)]
const OTHER: (&str, Option<Run>, Option<Run>) =
    (Boost::NAME, Some(pairs::<Boost>), Some(handed::<Boost>));
#[cfg(not(boost))]
const OTHER: (&str, Option<Run>, Option<Run>) = ("(not here)", None, None);

fn main() -> ExitCode {
    let args = Args::parse();
    let rows: [(&str, Run, Option<Run>, usize); 4] = [
        ("pairs, one process", pairs::<Flagstone>, OTHER.1, 1),
        ("pairs, two processes", pairs::<Flagstone>, OTHER.1, 2),
        ("pairs, eight processes", pairs::<Flagstone>, OTHER.1, 8),
        ("freed by another process", handed::<Flagstone>, OTHER.2, 2),
    ];
    println!(
        "{:26}{:>12}{:>12}{:>8}   millions of allocations a second",
        "row",
        Flagstone::NAME,
        OTHER.0,
        "times"
    );
    let mut measured = Vec::new();
    for (name, own, other, processes) in rows {
        let (own, other) = measure(own, other, processes, args.reps);
        let shown = other.map_or("-".into(), |other| format!("{other:.3}"));
        let times = other.map_or("-".into(), |other| format!("{:.1}", own / other));
        println!("{name:26}{own:12.2}{shown:>12}{times:>8}");
        measured.push(json!({ "row": name, "flagstone": own, "boost": other }));
    }
    if let Some(out) = args.json {
        let text =
            json!({ "reps": args.reps, "unit": "1e6 allocations a second", "rows": measured });
        if let Err(error) = fs::write(&out, text.to_string()) {
            eprintln!("mapped: {}: {error}", out.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
