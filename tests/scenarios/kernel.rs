//! The kernel refuses system calls for good, as under a strict seccomp filter.

use core::ffi::c_long;

use flagstone::Flagstone;

use crate::chain::Chain;
use crate::common::block::{Block, SIZES};
use crate::common::child::alone;
use crate::common::process::{live, verify};
use crate::filter::refuse;
use crate::program::{free_quietly, layout};
use crate::{ALLOC, MIB};

/// Every call that makes, changes or returns memory.
const MEMORY: [c_long; 6] = [
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
];

/// Bytes of each size that a round uses, and at most so many blocks.
const TOTAL: usize = 16 * MIB;
const BLOCKS: usize = 2_000;

/// Memory that was used, freed and, if the kernel takes it, given back comes zeroed when it has to.
pub(crate) fn use_and_zero(rounds: usize) {
    let before = live();
    let mut blocks: Vec<Block> = Vec::with_capacity(BLOCKS);
    let room = live() - before;
    for round in 0..rounds {
        for size in SIZES {
            let count = (TOTAL / size).clamp(2, BLOCKS);
            blocks.extend((0..count).map(|tag| Block::filled(&ALLOC, size, 8, tag)));
            // A neighbour stays, so that whole slabs and chunks do not go.
            let kept = blocks.pop().expect("just made");
            blocks
                .drain(..)
                .for_each(|block| free_quietly(|| block.free(&ALLOC)));
            Flagstone::purge();
            for _ in 1..count {
                let block = Block::alloc_zeroed(&ALLOC, layout(size, 8)).expect("memory");
                assert!(block.is_zero(), "round {round}: {size} bytes are not zero");
                block.fill(round);
                blocks.push(block);
            }
            kept.check(count - 1);
            kept.free(&ALLOC);
            for block in blocks.drain(..) {
                block.check(round);
                free_quietly(|| block.free(&ALLOC));
            }
        }
        verify();
    }
    assert_eq!(live(), before + room);
}

/// Nothing goes back, so nothing may be taken for zero.
fn without_madvise(name: &str, errno: i32) {
    alone(name, &[], || {
        use_and_zero(1);
        if refuse(&[libc::SYS_madvise], errno) {
            use_and_zero(3);
        }
    });
}

#[test]
fn madvise_says_invalid() {
    without_madvise("kernel::madvise_says_invalid", libc::EINVAL);
}

#[test]
fn madvise_says_no_memory() {
    without_madvise("kernel::madvise_says_no_memory", libc::ENOMEM);
}

/// What is at hand serves, over and over; what is not is null, and the block at hand stays.
#[test]
fn no_memory_call_is_left() {
    const NAME: &str = "kernel::no_memory_call_is_left";
    /// Nothing is given back before the filter is there.
    const NEVER: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4000000000");
    alone(NAME, &[NEVER], || {
        let mut chains = SIZES.map(Chain::new);
        for chain in &mut chains {
            chain.grow(chain.blocks(TOTAL).clamp(2, BLOCKS));
        }
        chains.iter_mut().for_each(Chain::free);
        let before = live();
        if !refuse(&MEMORY, libc::ENOMEM) {
            return;
        }
        let mut counts = [[0; SIZES.len()]; 3];
        for round in &mut counts {
            for (count, chain) in round.iter_mut().zip(&mut chains) {
                chain.grow(usize::MAX);
                *count = chain.count;
                chain.free();
            }
        }
        // Null for what cannot be had, and the old block stays.
        let huge = Block::alloc(&ALLOC, layout(1 << 30, 8));
        assert!(huge.is_none(), "1 GiB without a system call");
        for size in SIZES {
            let Some(block) = Block::alloc(&ALLOC, layout(size, 8)) else {
                continue;
            };
            block.fill(9);
            let block = block.realloc(&ALLOC, 1 << 30).expect_err("no memory");
            block.check(9);
            block.free(&ALLOC);
        }
        Flagstone::purge();
        verify();
        assert_eq!(live(), before);
        println!("{SIZES:?}: {counts:?}");
        for (index, size) in SIZES.iter().enumerate() {
            let first = counts[0][index];
            // The longest may have gone while there were system calls.
            assert!(first > 0 || *size > MIB, "{size}: {counts:?}");
            for round in counts {
                assert!(round[index] * 10 >= first * 9, "{size}: {counts:?}");
            }
        }
    });
}
