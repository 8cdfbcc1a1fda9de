//! Without this, overlapping blocks, lost contents and leaks in some order of calls would go unnoticed.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::{GlobalAlloc, Layout};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::env;
use std::io::{self, Write};

use common::child::one_in;
use common::process::begin;
use common::program::{Op, generate, run, shrink};
use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// Programs of one run at most; `FLAGSTONE_SEED` runs a single one.
const SEEDS: usize = 30;

#[test]
fn programs_get_right_answers() {
    let _turn = begin();
    let seeds = match env::var("FLAGSTONE_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("FLAGSTONE_SEED is a decimal number");
            seed..=seed
        }
        Err(_) => 0..=(SEEDS / one_in(1, 3) - 1) as u64,
    };
    say_seed_on_death();
    for seed in seeds {
        SEED.store(seed, Ordering::Relaxed);
        let program = generate(seed);
        if let Err(fault) = run(&ALLOC, &program) {
            // Past the harness and at once: shrinking on a damaged allocator may end the process.
            writeln!(io::stderr(), "FLAGSTONE_SEED={seed}: {fault}").expect("a message");
            let program = shrink(program, |part| run(&ALLOC, part).is_err());
            let fault =
                run(&ALLOC, &program).map_or_else(|fault| fault.to_string(), |()| "gone".into());
            panic!("FLAGSTONE_SEED={seed}, shrunk to {program:#?}: {fault}");
        }
    }
}

/// The seed in use, for [`say_seed`].
static SEED: AtomicU64 = AtomicU64::new(0);

/// The allocator may abort or crash in the middle of a program: the seed is worth most then.
fn say_seed_on_death() {
    for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGALRM] {
        // SAFETY: all-zero bytes are a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = say_seed as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
        // SAFETY: the action is initialised and its handler only writes and raises.
        let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        assert_eq!(result, 0, "sigaction refused");
    }
}

extern "C" fn say_seed(signal: libc::c_int) {
    let mut line = *b"FLAGSTONE_SEED=00000000000000000000: killed\n";
    let mut seed = SEED.load(Ordering::Relaxed);
    for digit in line[15..35].iter_mut().rev() {
        *digit = b"0123456789"[(seed % 10) as usize];
        seed /= 10;
    }
    // SAFETY: the buffer is readable for its whole length.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    // SAFETY: `raise` has no preconditions; the handler is gone, so this ends the process.
    unsafe { libc::raise(signal) };
}

#[test]
fn the_model_sees_an_overlap() {
    expect_fault(Defect::Overlap, "lies in a live block");
}

#[test]
fn the_model_sees_a_wrong_alignment() {
    expect_fault(Defect::Misaligned, "is not aligned");
}

#[test]
fn the_model_sees_dirty_memory() {
    expect_fault(Defect::NotZero, "is not zero");
}

#[test]
fn the_model_sees_lost_contents() {
    expect_fault(Defect::LosesContents, "did not come along");
}

#[test]
fn the_model_sees_a_foreign_write() {
    expect_fault(Defect::WritesToLiveBlock, "was overwritten");
}

#[test]
fn the_model_sees_a_leak() {
    expect_fault(Defect::Leaks, "live bytes");
}

#[test]
fn a_failing_program_shrinks() {
    let _turn = begin();
    let fails = |part: &[Op]| run(&Broken::new(Defect::Misaligned), part).is_err();
    let program = shrink(generate(0), fails);
    assert_eq!(program.len(), 1, "{program:?}");
    assert!(
        fails(&program),
        "the shrunk program no longer fails: {program:?}"
    );
}

#[track_caller]
fn expect_fault(defect: Defect, words: &str) {
    let _turn = begin();
    let heap = Broken::new(defect);
    let fault = run(&heap, &generate(0)).expect_err("the defect was not seen");
    assert!(fault.what.contains(words), "{fault}");
}

/// An allocator with one defect. A run stops at the defect, before it hands a wrong pointer back.
struct Broken {
    defect: Defect,
    allocs: AtomicUsize,
    /// The block of allocation number [`KEPT`], still live when the next allocation comes.
    kept: AtomicPtr<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    Overlap,
    Misaligned,
    NotZero,
    LosesContents,
    WritesToLiveBlock,
    Leaks,
}

const KEPT: usize = 100;
const MAX_ALIGN: usize = 64 << 10;

impl Broken {
    fn new(defect: Defect) -> Self {
        let kept = AtomicPtr::new(ptr::null_mut());
        Self {
            defect,
            allocs: AtomicUsize::new(0),
            kept,
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }
}

// SAFETY: it breaks the contract, on purpose. Only the model calls it, and the model stops at the first
// wrong answer without using it.
unsafe impl GlobalAlloc for Broken {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let number = self.allocs.fetch_add(1, Ordering::Relaxed);
        // The block that is handed out twice has to suit any second caller.
        let suits_all = self.has(Defect::Overlap) && number == KEPT;
        let align = if suits_all { MAX_ALIGN } else { layout.align() };
        let layout = Layout::from_size_align(layout.size(), align).expect("a valid layout");
        // SAFETY: the size is not zero, as the caller promised.
        let block = unsafe { ALLOC.alloc(layout) };
        if number == KEPT {
            self.kept.store(block, Ordering::Relaxed);
        }
        let kept = self.kept.load(Ordering::Relaxed);
        match self.defect {
            Defect::Overlap if number == KEPT + 1 => kept,
            Defect::Misaligned if align > 1 => block.wrapping_add(1),
            Defect::WritesToLiveBlock if number == KEPT + 1 => {
                // SAFETY: the program holds this block and the program is this thread.
                let byte = unsafe { &mut *kept };
                *byte = !*byte;
                block
            }
            _ => block,
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        let block = unsafe { ALLOC.alloc_zeroed(layout) };
        if self.has(Defect::NotZero) {
            // SAFETY: the block has this size and it is not zero.
            let last = unsafe { block.add(layout.size() - 1) };
            // SAFETY: the last byte of a block that nobody has yet.
            unsafe { last.write(1) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        let block = unsafe { ALLOC.realloc(block, layout, new_size) };
        if self.has(Defect::LosesContents) {
            // SAFETY: the first byte of a block that nobody has yet.
            let byte = unsafe { &mut *block };
            *byte = !*byte;
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.has(Defect::Leaks) && layout.size() < 64 {
            return;
        }
        // SAFETY: the caller keeps the same contract.
        unsafe { ALLOC.dealloc(block, layout) }
    }
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
