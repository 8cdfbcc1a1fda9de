//! Without this, threads that allocate little could go without samples. The allocator is not the program's: all
//! places for samples are this test's.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::{GlobalAlloc, Layout};

use common::child::alone;
use common::process::{begin, is_readable, page_size};
use common::raw_thread::on_raw_thread;
use flagstone::{Background, Config, Flagstone, raw};

static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const SAMPLE: &str = "FLAGSTONE_SAMPLE";

/// Threads that live at the same time, fewer than there are places: each has a cache that no thread had before.
const THREADS: usize = 40;
const SIZE: usize = 43;

fn layout() -> Layout {
    Layout::from_size_align(SIZE, 8).expect("a layout")
}

/// Whether a block lies on a page between inaccessible ones.
fn is_sampled(block: *mut u8) -> bool {
    assert!(!block.is_null(), "no memory");
    let page = block.addr() - block.addr() % page_size();
    !is_readable(page - 1) && !is_readable(page + page_size())
}

fn by_layout() -> *mut u8 {
    // SAFETY: the size is not 0.
    unsafe { ALLOC.alloc(layout()) }
}

fn by_address() -> *mut u8 {
    raw::alloc(SIZE, raw::ALIGN)
}

/// What is left to do: threads to begin, each by the one before.
struct Chain {
    threads: usize,
    alloc: fn() -> *mut u8,
    sampled: usize,
}

impl Chain {
    /// Allocates one block, the thread's only one, and has the others do the same meanwhile.
    fn run(&mut self) {
        self.sampled += usize::from(is_sampled((self.alloc)()));
        self.threads -= 1;
        if self.threads > 0 {
            on_raw_thread(self, Self::run);
        }
    }
}

/// Samples among the first allocations of new threads.
fn first_samples(alloc: fn() -> *mut u8) -> usize {
    let mut chain = Chain {
        threads: THREADS,
        alloc,
        sampled: 0,
    };
    on_raw_thread(&mut chain, Chain::run);
    chain.sampled
}

/// One in one is each, the process's first call and that of each thread among them.
#[test]
fn one_in_one_is_every_allocation() {
    let _turn = begin();
    alone("one_in_one_is_every_allocation", &[(SAMPLE, "1")], || {
        for number in 0..20 {
            let block = by_layout();
            assert!(is_sampled(block), "allocation {number}");
            // SAFETY: allocated above.
            unsafe { ALLOC.dealloc(block, layout()) };
        }
        assert_eq!(first_samples(by_layout), THREADS);
    });
}

/// The same by address, once the program says that its libraries are initialised.
#[test]
fn one_in_one_is_every_allocation_by_address() {
    let _turn = begin();
    let name = "one_in_one_is_every_allocation_by_address";
    alone(name, &[(SAMPLE, "1")], || {
        assert!(!is_sampled(by_address()), "before the beginning");
        raw::begin();
        assert!(is_sampled(by_address()));
        assert_eq!(first_samples(by_address), THREADS);
    });
}

/// What a purge on another thread takes from a thread's magazines, it does not take from its samples.
#[test]
fn a_purge_elsewhere_skips_none() {
    let _turn = begin();
    alone("a_purge_elsewhere_skips_none", &[(SAMPLE, "1")], || {
        for number in 0..THREADS {
            on_raw_thread(&mut (), |()| {
                Flagstone::purge();
            });
            assert!(is_sampled(by_layout()), "allocation {number}");
        }
    });
}

/// One in two is about half, of threads that allocate once as of others: by chance fewer than five or more than 35 of
/// 40 once in a million runs.
#[test]
fn one_in_two_is_half_of_the_first() {
    let _turn = begin();
    alone("one_in_two_is_half_of_the_first", &[(SAMPLE, "2")], || {
        let samples = first_samples(by_layout);
        assert!((5..=35).contains(&samples), "{samples} of {THREADS}");
    });
}
