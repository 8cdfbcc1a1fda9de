//! Pages that were changed since the last commit: found by each way that kernels tell, also those that are swapped out.

use core::ptr::NonNull;
use std::fs;

use flagstone::{Committed, MappedError, failpoints};

use crate::commit_load::State;
use crate::commits::open;
use crate::common::process::begin;
use crate::files::{Folder, in_child};

const CAPACITY: usize = 12 << 20;

fn commit_with(heap: Committed, refused_after: Option<usize>) -> Result<(), MappedError> {
    if let Some(calls) = refused_after {
        failpoints::refuse_after(calls, false);
    }
    // SAFETY: nobody else uses it.
    let done = unsafe { heap.commit() };
    let refused = failpoints::refuse_none();
    assert_eq!(refused, usize::from(refused_after.is_some()));
    done
}

/// Calls of a commit or rollback before the one that newer kernels have: a look at the descriptor, and the page map opened.
const BEFORE_SCAN: usize = 2;

#[test]
fn older_kernels_tell_the_same() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let mut states = vec![State::default()];
    (0..40).for_each(|_| states.push(states[states.len() - 1].next(21)));
    in_child(|| {
        let heap = Committed::options().capacity(CAPACITY).create(&path);
        let heap = heap.expect("a heap");
        for (number, states) in states.windows(2).enumerate() {
            states[1].store(heap, &states[0]).expect("room");
            let refused = commit_with(heap, Some(0));
            assert_eq!(refused, Err(MappedError::Closed));
            let refused = commit_with(heap, Some(1));
            assert!(
                matches!(refused, Err(MappedError::System { .. })),
                "{refused:?}"
            );
            // In turn, so that what the one way had missed the other would have to find.
            let older = (number % 3 != 0).then_some(BEFORE_SCAN);
            assert_eq!(commit_with(heap, older), Ok(()));
            let other = states[1].next(22);
            other.store(heap, &states[1]).expect("room");
            if number % 2 == 0 {
                failpoints::refuse_after(BEFORE_SCAN, false);
            }
            // SAFETY: nobody else uses it, and nothing of it.
            unsafe { heap.rollback() }.expect("the last commit");
            assert_eq!(failpoints::refuse_none(), usize::from(number % 2 == 0));
            assert!(states[1].is_in(heap), "commit {number}");
        }
    });
    in_child(|| assert!(states[40].is_in(open(&path).expect("the heap"))));
}

/// Bytes of a mapping that are swapped out.
fn swapped(base: NonNull<u8>) -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").expect("a list of mappings");
    let first = format!("{:x}-", base.addr());
    let own = maps.lines().skip_while(|line| !line.starts_with(&first));
    let swap = own.into_iter().find_map(|line| line.strip_prefix("Swap:"));
    let text = swap.and_then(|line| line.trim().strip_suffix(" kB"));
    text.map_or(0, |text| text.parse::<usize>().expect("a number") << 10)
}

/// Has the kernel swap all of a heap out; bytes that it did.
#[expect(clippy::disallowed_methods, reason = "a wish of the kernel alone")]
fn swap_out(base: NonNull<u8>) -> usize {
    // SAFETY: changes no byte.
    let told = unsafe { libc::madvise(base.as_ptr().cast(), CAPACITY, libc::MADV_PAGEOUT) };
    assert_eq!(told, 0, "madvise refused");
    swapped(base)
}

#[test]
fn what_is_swapped_out_is_committed() {
    let _turn = begin();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        println!("skipped: nothing can be swapped out");
        return;
    }
    for folder in Folder::all() {
        let path = folder.path("heap");
        let mut states = vec![State::default()];
        (0..30).for_each(|_| states.push(states[states.len() - 1].next(31)));
        in_child(|| {
            let heap = Committed::options().capacity(CAPACITY).create(&path);
            let heap = heap.expect("a heap");
            let mut most = 0;
            for (number, states) in states.windows(2).enumerate() {
                states[1].store(heap, &states[0]).expect("room");
                most = most.max(swap_out(heap.base()));
                let older = (number % 2 == 0).then_some(BEFORE_SCAN);
                assert_eq!(commit_with(heap, older), Ok(()));
                let other = states[1].next(22);
                other.store(heap, &states[1]).expect("room");
                most = most.max(swap_out(heap.base()));
                // SAFETY: nobody else uses it, and nothing of it.
                unsafe { heap.rollback() }.expect("the last commit");
                assert!(states[1].is_in(heap), "commit {number}");
            }
            println!("{most} bytes were swapped out");
            assert_ne!(most, 0);
        });
        in_child(|| assert!(states[30].is_in(open(&path).expect("the heap"))));
    }
}
