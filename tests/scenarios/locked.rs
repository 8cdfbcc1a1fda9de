//! A process that locks its memory: what is mapped is in memory at once, and nothing can be purged.

use std::fs;

use crate::common::block::Block;
use crate::common::child::alone;
use crate::common::process::{resident, stats, verify};
use crate::kernel::use_and_zero;
use crate::{ALLOC, MIB};

/// Locks what is mapped and what will be. `false`, and a line that says so, without the right to.
#[expect(
    clippy::disallowed_methods,
    reason = "the allocator has to live with a program that does this"
)]
fn lock_all() -> bool {
    let all = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // Where this is refused the next may be, too.
    // SAFETY: the limit is a valid, initialised value.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) };
    // SAFETY: locks pages, changes none.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } == 0;
    if !locked {
        println!("skipped: the process may not lock its memory");
    }
    locked
}

/// A line of `/proc/self/status` in bytes.
fn status(field: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.expect("a number of KiB") << 10
}

#[test]
fn zeroed_memory_is_zero() {
    alone("locked::zeroed_memory_is_zero", &[], || {
        use_and_zero(1);
        if lock_all() {
            use_and_zero(2);
        }
    });
}

/// Reserved addresses are not touched: what is in memory stays near what is used.
#[test]
fn reservations_cost_no_memory() {
    const HELD: usize = 64 * MIB;
    alone("locked::reservations_cost_no_memory", &[], || {
        if !lock_all() {
            return;
        }
        let before = resident();
        let mut blocks = Vec::with_capacity(HELD / 1_000);
        blocks.extend((0..HELD / 1_000).map(|tag| Block::filled(&ALLOC, 1_000, 8, tag)));
        let grown = resident() - before;
        println!(
            "{HELD} bytes: {grown} resident, {} locked, {} before",
            status("VmLck"),
            before
        );
        assert!(grown < HELD + HELD / 4, "{grown} bytes for {HELD}");
        let stats = stats();
        for (tag, block) in blocks.into_iter().enumerate() {
            block.check(tag);
            block.free(&ALLOC);
        }
        println!("{stats:?}");
        verify();
    });
}
