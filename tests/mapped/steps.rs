//! A process that is killed at each instruction of a call in turn, while another allocates: the others go on, and lose
//! one block at most. The test takes some of the instructions, with `TEST_LONG` in the environment more, and with
//! `MAPPED_ALL` all.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::{env, thread};

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use flagstone::{Handle, Mapped};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::process::begin;
use crate::kinds::{Kind, of_each};
use crate::step_calls::{CALLS, CAPACITY, Call, SIZE, UNIT, alloc, free, layout, name};
use crate::tracer::{Point, kill_at, may_trace, run, stopped, walk};

/// Kills in one heap, at most.
const ROUND: usize = 32;

/// Whether a process is killed at all instructions, which takes some minutes.
fn takes_all() -> bool {
    env::var_os("MAPPED_ALL").is_some()
}

/// Kills in a call, about so many.
pub(crate) fn budget() -> usize {
    match env::var_os("TEST_LONG") {
        _ if takes_all() => usize::MAX,
        Some(_) => 200,
        None => 20,
    }
}

/// Ways of more instructions than this are not gone to each visit of an instruction, but to the first, the second and
/// the last.
const ALL_VISITS: usize = 6_000;

/// What the survivor and the test tell each other.
#[derive(Default)]
struct Words {
    steps: AtomicU64,
    /// 1 asks the survivor to come out of all calls, and 2 says that it has.
    pause: AtomicU64,
    /// Bytes of its blocks then.
    live: AtomicUsize,
    /// Blocks that children had when they were stopped.
    prepared: AtomicUsize,
}

/// Allocates and frees until it is killed, and checks that what it has stays as it is.
fn survive(heap: &Mapped, words: &Words) {
    let mut model = Model::new(heap.handle(), 3);
    loop {
        model.try_step().expect("room");
        words.steps.fetch_add(1, Ordering::Relaxed);
        if words.pause.load(Ordering::Acquire) == 1 {
            assert_eq!(heap.stats().refused, 0);
            words.live.store(model.live().1, Ordering::Relaxed);
            words.pause.store(2, Ordering::Release);
            loop {
                // SAFETY: `pause` has no preconditions.
                unsafe { libc::pause() };
            }
        }
    }
}

/// What is nobody's can be had, all of it.
fn expect_the_rest(heap: &Mapped, name: &str) {
    let (stats, unit) = (heap.stats(), UNIT);
    let count = (stats.capacity - stats.tables - stats.held) / unit;
    let handle = heap.handle();
    let had: Vec<_> = (0..count)
        .map_while(|_| handle.allocate(layout(unit)).ok())
        .collect();
    assert_eq!(had.len(), count, "{name}");
    let blocks = had.into_iter().map(NonNull::cast);
    blocks.for_each(|block| free(handle, block, unit));
}

/// Kills a child at each of these points, in a heap of its own. How many came there.
/// Without points one child goes its way to the end: the points on it.
fn round(kind: &Kind, call: &Call, points: &[Point]) -> (usize, Vec<Point>) {
    let heap = (kind.create)(CAPACITY).expect("a heap");
    let handle = heap.handle();
    let words: &Words = Box::leak(Box::new_in(Words::default(), handle));
    let first = alloc(handle, SIZE);
    name(&heap, first);
    let survivor = start(|| survive(&heap, words));
    let mut model = Model::new(handle, 5);
    let length = length_of(handle, call.size);
    let (mut reached, mut way, mut children) = (0, Vec::new(), 0);
    let mut child = || {
        // What the child is to free is this process's, if that is its call.
        if call.name.contains("another's") {
            let block = alloc(handle, SIZE);
            heap.set_root("block", block.as_ptr(), 0).expect("room");
        }
        children += 1;
        let prepare = || {
            let (block, count) = (call.prepare)(&heap);
            words.prepared.fetch_add(count, Ordering::Relaxed);
            block
        };
        stopped(prepare, |block| (call.call)(&heap, block)).expect("it may be traced")
    };
    for point in points {
        reached += usize::from(kill_at(child(), *point));
        let told = |error: &dyn core::fmt::Debug| format!("{}: {point:x?}: {error:?}", call.name);
        for _ in 0..5 {
            model
                .try_step()
                .unwrap_or_else(|error| panic!("{}", told(&error)));
        }
        heap.verify()
            .unwrap_or_else(|error| panic!("{}", told(&error)));
        if let Some((place, kind)) = heap.root("name") {
            assert_eq!(place.addr().get() as u64, kind, "{}", told(&"a name"));
        } else {
            assert!(call.name.contains("taken"), "{}", told(&"no name"));
        }
    }
    if points.is_empty() {
        // The first finds a heap that is not as the others find it.
        run(child());
        way = walk(child());
    }
    // The survivor is at work, and lives.
    let before = words.steps.load(Ordering::Relaxed);
    while words.steps.load(Ordering::Relaxed) < before + 10 {
        thread::yield_now();
    }
    words.pause.store(1, Ordering::Relaxed);
    while words.pause.load(Ordering::Acquire) != 2 {
        thread::yield_now();
    }
    // Nothing is lost but the block that a child had in hand.
    let stats = heap.stats();
    let own = [size_of::<Words>(), SIZE].map(|size| length_of(handle, size));
    let known = own[0] + own[1] + words.live.load(Ordering::Relaxed) + model.live().1;
    let prepared = words.prepared.load(Ordering::Relaxed) * length;
    let found = stats.live.cast_signed() - (known + prepared).cast_signed();
    let most = (children * length).cast_signed() * call.gain;
    assert!(
        (most.min(0)..=most.max(0)).contains(&found),
        "{}: {found} bytes, not up to {most}, of {children} children",
        call.name
    );
    assert_eq!(stats.refused, 0, "{}", call.name);
    heap.verify().expect("a sound heap");
    expect_the_rest(&heap, call.name);
    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(survivor, libc::SIGKILL) }, 0);
    assert_eq!(end_of(survivor) & 0x7f, libc::SIGKILL);
    model.free_all();
    heap.verify().expect("a sound heap");
    // SAFETY: all others are gone.
    unsafe { heap.close() }.expect("not closed yet");
    (reached, way)
}

/// How long a block for so many bytes is.
fn length_of(handle: Handle, size: usize) -> usize {
    let found = handle.allocate(layout(size)).expect("memory");
    free(handle, found.cast(), size);
    found.len()
}

/// Kills processes in a call, all over a way that one of them went; how many, and how many of them where it was wanted.
fn kill_all_over(kind: &Kind, call: &Call, budget: usize) -> (usize, usize) {
    let (_, way) = round(kind, call, &[]);
    let all = way.len() <= ALL_VISITS && takes_all();
    let chosen = |point: &&Point| all || point.visit < 2 || point.is_last;
    let points: Vec<_> = way.iter().filter(chosen).copied().collect();
    // A budget's worth of them, others in each process that runs this.
    let step = points.len().div_ceil(budget);
    let from = usize::try_from(std::process::id()).expect("32 bits") % step;
    let points: Vec<_> = points.into_iter().skip(from).step_by(step).collect();
    let mut reached = 0;
    for points in points.chunks(ROUND) {
        let (came, _) = round(kind, call, points);
        reached += came;
    }
    println!(
        "{}, {}: {} instructions, {} kills, {reached} where they were wanted",
        kind.name,
        call.name,
        way.len(),
        points.len()
    );
    (points.len(), reached)
}

/// Kills processes in calls, in the first kind of file in all. As to walk a way takes as long as some hundred kills, in
/// other kinds it takes a few calls, others in each process that runs this, and kills more in each.
fn kill_in_calls(kind: &Kind) {
    let step = kind.one_call_in();
    let from = usize::try_from(std::process::id()).expect("32 bits") % step;
    let budget = kind.share(budget().saturating_mul(step));
    for call in CALLS.iter().skip(from).step_by(step) {
        // SAFETY: `alarm` has no preconditions. All of them take longer than a test may.
        unsafe { libc::alarm(600) };
        // The way of one that waited for another is seldom gone again. Of few kills all may miss.
        let is_enough = |(kills, reached): (usize, usize)| reached * 4 > kills || kills < 30;
        assert!(
            (0..5).any(|_| is_enough(kill_all_over(kind, call, budget))),
            "{}, {}: few kills where they were wanted",
            kind.name,
            call.name
        );
    }
}

#[test]
fn a_kill_at_any_instruction_loses_one_block() {
    let _turn = begin();
    if may_trace() {
        of_each(kill_in_calls);
    } else {
        println!("skipped: nobody may trace here");
    }
}
