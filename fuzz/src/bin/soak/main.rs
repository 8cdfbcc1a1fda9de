//! Random operations from several threads against a shadow of the heap, as many as asked for.
//!
//! ```text
//! cargo run --release --bin soak -- --operations 1e9 --seed 1 --threads 2
//! ```
//!
//! Ends with 0 when all went well, 1 at the first fault, 130 after Ctrl-C.

mod args;
mod last_words;
mod worker;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Instant;

use args::Args;
use flagstone_fuzz::{Exchange, expect_nothing_live};
use indicatif::{ProgressBar, ProgressStyle};
use worker::{Fault, Progress};

/// What shells report for a program ended by SIGINT.
const INTERRUPTED: u8 = 130;

/// Asks the workers to end: Ctrl-C was pressed, or one found a fault.
static STOP: AtomicBool = AtomicBool::new(false);
static PRESSED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args = args::parse();
    if let Err(error) = ctrlc::set_handler(interrupt) {
        eprintln!("soak: Ctrl-C will end the program at once: {error}");
    }
    last_words::install(args.seed);
    announce(&args);

    let started = Instant::now();
    let exchange = Exchange::new();
    let progress: Vec<Progress> = (0..args.threads).map(|_| Progress::default()).collect();
    let progress = progress.leak();
    last_words::watch(progress);
    let outcome = run(&args, &exchange, progress);
    let outcome = outcome.and_then(|()| end(&exchange, progress));

    let operations: u64 = progress.iter().map(Progress::operations).sum();
    let seconds = started.elapsed().as_secs_f64();
    let million_a_second = operations as f64 / seconds / 1e6;
    println!("{operations} operations in {seconds:.1} s, {million_a_second:.2} million a second");
    match outcome {
        Err(fault) => {
            eprintln!("soak: seed {}: {fault}", args.seed);
            ExitCode::FAILURE
        }
        // ORDERING: Relaxed, the flag publishes nothing but itself.
        Ok(()) if PRESSED.load(Ordering::Relaxed) => {
            println!("interrupted; no fault so far, seed {}", args.seed);
            ExitCode::from(INTERRUPTED)
        }
        Ok(()) => {
            println!("no fault, seed {}", args.seed);
            ExitCode::SUCCESS
        }
    }
}

/// The first Ctrl-C asks for an end in order, the second ends the program at once.
fn interrupt() {
    // ORDERING: Relaxed, the flags publish nothing but themselves.
    if PRESSED.swap(true, Ordering::Relaxed) {
        process::exit(INTERRUPTED.into());
    }
    STOP.store(true, Ordering::Relaxed);
}

/// What is needed to do the same again.
fn announce(args: &Args) {
    let Args {
        seed,
        operations,
        threads,
        slots,
        ..
    } = args;
    println!("seed {seed}, {operations} operations, {threads} threads with {slots} slots each");
    for (name, value) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLAGSTONE_") {
            println!("{}={}", name.display(), value.display());
        }
    }
}

/// Runs the workers and shows how far they are; the first fault.
fn run(args: &Args, exchange: &Exchange, progress: &[Progress]) -> Result<(), Fault> {
    let bar = ProgressBar::new(args.operations);
    let style = "{wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
    let outcome = thread::scope(|scope| {
        let workers: Vec<_> = progress
            .iter()
            .zip(0..)
            .map(|(progress, number)| {
                scope.spawn(move || worker::work(args, number, exchange, progress))
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            bar.set_position(progress.iter().map(Progress::operations).sum());
            thread::sleep(Duration::from_millis(100));
        }
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker reports, it does not panic"))
            .fold(Ok(()), Result::and)
    });
    bar.finish_and_clear();
    outcome
}

/// All threads are gone: nothing may be left.
fn end(exchange: &Exchange, progress: &[Progress]) -> Result<(), Fault> {
    let at_the_end = |what| Fault {
        thread: 0,
        operation: progress[0].operations(),
        what,
    };
    exchange.clear().map_err(at_the_end)?;
    expect_nothing_live().map_err(at_the_end)
}
