//! m_threads: what an idle thread costs that once allocated a little of everything.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;

use super::block::{Block, BlockLayout};
use super::outcome::Outcome;
use super::rss::Resident;
use super::setting::Setting;

const THREADS: f64 = 1000.0;
const STACK: usize = 64 << 10;
/// Touched before the first reading, so that a deeper call later adds no page of stack.
const STACK_TOUCHED: usize = 40 << 10;
const SIZES: [usize; 15] = [
    16, 32, 48, 64, 80, 96, 112, 128, 192, 256, 320, 384, 512, 768, 1024,
];

/// The points at which all threads and the reader meet.
struct Meetings {
    started: Barrier,
    go: Barrier,
    allocated: Barrier,
    end: Barrier,
}

impl Meetings {
    fn new(parties: usize) -> Self {
        let barrier = || Barrier::new(parties);
        Self {
            started: barrier(),
            go: barrier(),
            allocated: barrier(),
            end: barrier(),
        }
    }
}

#[inline(never)]
fn touch_stack() {
    let mut bytes = [0_u8; STACK_TOUCHED];
    black_box(bytes.as_mut_ptr());
}

/// Nothing here but the fifteen blocks uses the allocator.
fn attend(meetings: &Meetings) {
    touch_stack();
    meetings.started.wait();
    meetings.go.wait();
    let blocks = SIZES.map(|size| {
        let layout = BlockLayout::new(size);
        let block = Block::alloc(layout, 0);
        // SAFETY: 1. allocated above. 2. with this layout.
        unsafe { block.fill(layout, 1) };
        (block, layout)
    });
    let free_every_second = |remainder: usize| {
        for (block, layout) in blocks.iter().skip(remainder).step_by(2) {
            // SAFETY: 1. each remainder is freed once. 2. its layout.
            unsafe { block.free(*layout) };
        }
    };
    free_every_second(0);
    meetings.allocated.wait();
    meetings.end.wait();
    free_every_second(1);
}

pub(crate) fn idle(setting: &Setting) -> Result<Outcome, String> {
    let threads = ((THREADS * setting.scale) as usize).max(1);
    let meetings = Arc::new(Meetings::new(threads + 1));
    let mut handles = Vec::with_capacity(threads);
    for _ in 0..threads {
        let meetings = Arc::clone(&meetings);
        let handle = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || attend(&meetings));
        handles.push(handle.map_err(|error| format!("a thread cannot be started: {error}"))?);
    }
    meetings.started.wait();
    let before = Resident::read()?;
    meetings.go.wait();
    meetings.allocated.wait();
    let after = Resident::read()?;
    meetings.end.wait();
    for handle in handles {
        handle.join().map_err(|_| "a thread panicked")?;
    }
    let grown = after.now_kb as f64 - before.now_kb as f64;
    let kept: usize = SIZES.iter().skip(1).step_by(2).sum();
    Ok(Outcome::of(vec![
        ("before_kb", before.now_kb as f64),
        ("after_kb", after.now_kb as f64),
        ("bytes_per_thread", grown * 1024.0 / threads as f64),
        ("live_bytes_per_thread", kept as f64),
    ]))
}
