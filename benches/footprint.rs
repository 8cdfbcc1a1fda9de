//! Resident memory before, during and after a spike of small blocks: all of them freed, or all but
//! 5 % scattered survivors. A plain program, no Criterion: it runs itself once for each row, as the
//! allocator of a process cannot be changed once it runs.
//!
//! As under Criterion, the full size needs `--bench` (which `cargo bench` passes); without it, or
//! with `--test`, the spike is tiny. Other arguments are ignored.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering};
use std::alloc::System;
use std::env;
use std::process::{Command, ExitCode, Stdio};

use flagstone::Flagstone;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

#[path = "../examples/common/rss.rs"]
mod rss;

/// Names a child's allocator; set for children only.
const VARIABLE: &CStr = c"FLAGSTONE_FOOTPRINT_ALLOCATOR";

/// First argument of a child; the spike in MiB and the survivors in percent follow.
const CHILD: &str = "--footprint-child";

const ALLOCATORS: [&str; 2] = ["flagstone", "system"];

/// Percent of the blocks that survive.
const SURVIVORS: [u32; 2] = [0, 5];

const FULL_MIB: usize = 256;
const TINY_MIB: usize = 1;

/// Seed of sizes and survivors.
const SEED: u64 = 1;

/// Forwards to the allocator that the environment names, Flagstone if none.
struct Switch;

#[global_allocator]
static GLOBAL: Switch = Switch;

static FLAGSTONE: Flagstone = Flagstone::new();

/// 0: not yet read.
static CHOICE: AtomicU8 = AtomicU8::new(0);
const CHOSE_FLAGSTONE: u8 = 1;
const CHOSE_SYSTEM: u8 = 2;

/// Whether to forward to the system. Reads the environment once, at the first allocation.
fn is_system() -> bool {
    // ORDERING: Relaxed, the value stands for itself; racing first readers agree.
    match CHOICE.load(Ordering::Relaxed) {
        0 => {
            let choice = choose();
            CHOICE.store(choice, Ordering::Relaxed);
            choice == CHOSE_SYSTEM
        }
        choice => choice == CHOSE_SYSTEM,
    }
}

/// `std::env::var` would allocate.
fn choose() -> u8 {
    // SAFETY: 1. the name ends with NUL. 2. nobody changes the environment.
    let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    if value.is_null() {
        return CHOSE_FLAGSTONE;
    }
    // SAFETY: 1. not null, so a string that ends with NUL. 2. nobody changes the environment.
    let value = unsafe { CStr::from_ptr(value) };
    if value == c"system" {
        CHOSE_SYSTEM
    } else {
        CHOSE_FLAGSTONE
    }
}

// SAFETY: every method forwards its arguments to one and the same sound allocator.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_system() {
            // SAFETY: the caller's promises are the callee's.
            unsafe { System.alloc(layout) }
        } else {
            // SAFETY: the caller's promises are the callee's.
            unsafe { FLAGSTONE.alloc(layout) }
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if is_system() {
            // SAFETY: the caller's promises are the callee's; the choice never changes.
            unsafe { System.dealloc(start, layout) }
        } else {
            // SAFETY: the caller's promises are the callee's; the choice never changes.
            unsafe { FLAGSTONE.dealloc(start, layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_system() {
            // SAFETY: the caller's promises are the callee's.
            unsafe { System.alloc_zeroed(layout) }
        } else {
            // SAFETY: the caller's promises are the callee's.
            unsafe { FLAGSTONE.alloc_zeroed(layout) }
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_system() {
            // SAFETY: the caller's promises are the callee's; the choice never changes.
            unsafe { System.realloc(start, layout, size) }
        } else {
            // SAFETY: the caller's promises are the callee's; the choice never changes.
            unsafe { FLAGSTONE.realloc(start, layout, size) }
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let result = match &arguments[..] {
        [child, mib, percent] if child == CHILD => run_child(mib, percent),
        // A test runner asks for the names of tests: there are none.
        _ if has("--list") => Ok(()),
        _ if has("--bench") && !has("--test") => run_all(FULL_MIB),
        _ => run_all(TINY_MIB),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("footprint: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table, each row by a child of its own.
fn run_all(mib: usize) -> Result<(), String> {
    if rss::now().is_none() {
        println!("footprint: this system does not tell resident memory");
        return Ok(());
    }
    println!("Resident MiB around {mib} MiB of blocks of 16 to 512 bytes");
    println!(
        "{:<24}{:>10}{:>10}{:>10}{:>10}",
        "", "start-up", "spike", "freed", "purged"
    );
    for percent in SURVIVORS {
        for allocator in ALLOCATORS {
            let row = run_row(allocator, mib, percent)?;
            println!("{:<24}{row}", format!("{percent} % kept, {allocator}"));
        }
    }
    Ok(())
}

fn run_row(allocator: &str, mib: usize, percent: u32) -> Result<String, String> {
    let program = env::current_exe().map_err(|error| format!("cannot find itself: {error}"))?;
    let child = Command::new(program)
        .args([CHILD, &mib.to_string(), &percent.to_string()])
        .env(VARIABLE.to_string_lossy().as_ref(), allocator)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run itself: {error}"))?;
    if !child.status.success() {
        return Err(format!(
            "the run with {allocator} ended with {}",
            child.status
        ));
    }
    Ok(String::from_utf8_lossy(&child.stdout).trim_end().to_owned())
}

fn run_child(mib: &str, percent: &str) -> Result<(), String> {
    let mib: usize = mib.parse().map_err(|_| "the spike is not a number")?;
    let percent: u32 = percent
        .parse()
        .map_err(|_| "the survivors are not a number")?;
    let readings = measure(mib << 20, percent.min(100));
    let mut row = String::new();
    for reading in readings {
        let bytes = reading.ok_or("resident memory cannot be read")?;
        row += &format!("{:>10.1}", bytes as f64 / f64::from(1 << 20));
    }
    println!("{row}");
    Ok(())
}

/// Resident memory at start-up, at the spike, after freeing and after purging.
fn measure(bytes: usize, percent: u32) -> [Option<usize>; 4] {
    let start_up = rss::now();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut blocks = fill(bytes, &mut random);
    let spike = rss::now();
    blocks.retain(|_| random.random_ratio(percent, 100));
    blocks.shrink_to_fit();
    let freed = rss::now();
    purge();
    let purged = rss::now();
    drop(blocks);
    [start_up, spike, freed, purged]
}

/// Blocks of together `bytes`, every byte written.
fn fill(bytes: usize, random: &mut Xoshiro256PlusPlus) -> Vec<Box<[u8]>> {
    // The mean size, less a margin, so that the table never has to grow.
    let mut blocks = Vec::with_capacity(bytes / 250);
    let mut filled = 0;
    while filled < bytes {
        let block = vec![1_u8; random.random_range(16..=512)].into_boxed_slice();
        filled += block.len();
        blocks.push(block);
    }
    blocks
}

/// Asks the allocator in use to return what it can.
fn purge() {
    if !is_system() {
        Flagstone::purge();
        return;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
