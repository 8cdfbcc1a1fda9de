//! s_fork: what a large heap costs a process that forks, and its child.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::super::block::{Block, BlockLayout};
use super::blocks::{Heap, SMALL, Sizes};
use super::trial::{Done, Trial};
use super::watch::Watch;

const ROUNDS: usize = 9;
/// More than a cache of small blocks has, so the child's allocator has to find out where it stands.
const FIRST: usize = 100_000;

/// A word that a child shares with its parent.
struct Shared(NonNull<AtomicU64>);

impl Shared {
    fn new() -> Result<Self, String> {
        // SAFETY: 1. a fresh anonymous mapping, placed by the kernel, touches nothing else.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err("no page to share with a child".to_owned());
        }
        let word = NonNull::new(address.cast()).ok_or("the mapping is at address zero")?;
        Ok(Self(word))
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: 1. mapped, aligned and zero at first; it stays mapped until the process ends.
        unsafe { self.0.as_ref() }
    }
}

/// A call is a fork with all that follows, until the child has ended.
pub(super) fn fork<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let sizes = Sizes::new(SMALL);
    let mut heap = Heap::new(trial.bytes, &sizes)?;
    heap.fill();
    let shared = Shared::new()?;
    let (mut forks, mut firsts) = (Vec::new(), Vec::new());
    for _ in 0..trial.repeats(ROUNDS) {
        trial.timed(|_| {
            let start = Instant::now();
            // SAFETY: 1. this process has one thread that could hold a lock: the one that forks.
            let child = unsafe { libc::fork() };
            match child {
                0 => in_child(&shared),
                -1 => return Err("no child".to_owned()),
                _ => forks.push(start.elapsed().as_nanos() as f64),
            }
            let mut status = 0;
            // SAFETY: 1. the pointer is valid for a status.
            let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
            if ended != child || status != 0 {
                return Err(format!("the child ended with status {status}"));
            }
            Ok(Done { calls: 1, sum: 1 })
        })?;
        // ORDERING: the child has ended, which publishes what it stored.
        firsts.push(shared.word().load(Ordering::Relaxed) as f64);
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    trial.extra = vec![("fork_ns", median(forks)), ("first_ns", median(firsts))];
    Ok(())
}

/// Allocates once and ends.
fn in_child(shared: &Shared) -> ! {
    let start = Instant::now();
    let block = Block::alloc(BlockLayout::new(FIRST), 1);
    let time = start.elapsed().as_nanos() as u64;
    // SAFETY: 1. allocated above.
    let word = unsafe { block.word() };
    // ORDERING: the end of the process publishes it.
    shared.word().store(time, Ordering::Relaxed);
    // SAFETY: 1. nothing of the parent's is run at the end, and nothing follows.
    unsafe { libc::_exit(i32::from(word != 1)) }
}
