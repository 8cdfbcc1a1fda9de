//! A thread that stops at a chosen place inside the allocator, and another that forks there.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::{self, MaybeUninit};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use flagstone::failpoints::{self, Callback, Point};

use super::child::Ended;
use crate::ALLOC;
use crate::common::block::Block;

/// The actor stops when it comes to its point for this many times already.
const STOPS: [usize; 5] = [0, 1, 2, 9, 40];

pub(crate) const POINTS: [Point; 15] = [
    Point::Gate,
    Point::Refill,
    Point::Flush,
    Point::Claim,
    Point::Release,
    Point::Hold,
    Point::LetGo,
    Point::Holes,
    Point::Purge,
    Point::Reserve,
    Point::Adopt,
    Point::Large,
    Point::Stock,
    Point::Registry,
    Point::Meta,
];

/// The thread that stops, its place in [`POINTS`], and how often it came there.
static ACTOR: AtomicUsize = AtomicUsize::new(0);
static POINT: AtomicUsize = AtomicUsize::new(0);
static VISITS: AtomicUsize = AtomicUsize::new(0);
/// Whether the actor passes without a stop for now.
static PASSES: AtomicBool = AtomicBool::new(false);

static STATE: AtomicU32 = AtomicU32::new(RUNS);
const RUNS: u32 = 0;
const STANDS: u32 = 1;

static CALLBACK: Callback = stop;

/// The number of a point.
fn number(point: Point) -> usize {
    let found = POINTS.iter().position(|other| *other == point);
    found.expect("a point of the list")
}

fn current_thread() -> usize {
    // SAFETY: `pthread_self` has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    usize::try_from(thread).expect("as wide as a pointer")
}

/// Runs at every point of every thread, inside the allocator: must not enter it.
fn stop(point: Point) {
    if ACTOR.load(Ordering::Relaxed) != current_thread()
        || POINT.load(Ordering::Relaxed) != number(point)
    {
        return;
    }
    let visit = VISITS.fetch_add(1, Ordering::Relaxed);
    if STOPS.contains(&visit) {
        stand();
    }
}

/// Has the actor pass its point without a stop, or no longer so.
pub(crate) fn pass(passes: bool) {
    PASSES.store(passes, Ordering::Relaxed);
}

/// Stands still until [`Actor::perform`] lets the thread go on.
pub(crate) fn stand() {
    if PASSES.load(Ordering::Relaxed) {
        return;
    }
    STATE.store(STANDS, Ordering::Release);
    while STATE.load(Ordering::Acquire) == STANDS {
        thread::yield_now();
    }
}

/// Whether the actor is in a call of the allocator, and not busy with its blocks.
static IS_INSIDE: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_inside() -> bool {
    IS_INSIDE.load(Ordering::Relaxed)
}

pub(crate) fn set_inside(is_inside: bool) {
    IS_INSIDE.store(is_inside, Ordering::Relaxed);
}

/// Calls the allocator.
pub(crate) fn inside<R>(call: impl FnOnce() -> R) -> R {
    set_inside(true);
    let result = call();
    set_inside(false);
    result
}

/// What the actor holds. Only the actor changes it; others look while it stands still.
pub(crate) struct Props {
    blocks: UnsafeCell<Vec<Block>>,
    /// Most bytes of a block that is neither in `blocks` nor free.
    in_hand: AtomicUsize,
}

// SAFETY: `blocks` is what blocks the auto impl; `perform` and the actor take turns by `STATE`, and no
// reference into it lives while the allocator is at work, where the actor stands still.
unsafe impl Sync for Props {}

impl Props {
    pub(crate) fn new() -> Self {
        Self {
            blocks: UnsafeCell::new(Vec::with_capacity(3_000)),
            in_hand: AtomicUsize::new(0),
        }
    }

    /// The blocks. For the thread whose turn it is, for one operation that does not allocate.
    fn with_blocks<R>(&self, operation: impl FnOnce(&mut Vec<Block>) -> R) -> R {
        // SAFETY: it is this thread's turn, and there is no other reference.
        operation(unsafe { &mut *self.blocks.get() })
    }

    /// Allocates a block.
    pub(crate) fn alloc(&self, size: usize) {
        self.in_hand.store(size, Ordering::Relaxed);
        let layout = Layout::from_size_align(size, 8).expect("a valid layout");
        let block = inside(|| Block::alloc(&ALLOC, layout)).expect("memory");
        // Something has to be there for who must not find it later.
        assert!(block.is_usable_at_both_ends(), "{layout:?}");
        self.put(block);
    }

    fn put(&self, block: Block) {
        self.with_blocks(|blocks| {
            assert!(blocks.len() < blocks.capacity(), "too many blocks");
            blocks.push(block);
        });
        self.in_hand.store(0, Ordering::Relaxed);
    }

    fn take(&self, place: usize) -> Block {
        let block = self.with_blocks(|blocks| blocks.swap_remove(place));
        self.in_hand.store(block.size(), Ordering::Relaxed);
        block
    }

    pub(crate) fn free(&self, place: usize) {
        let block = self.take(place);
        inside(|| block.free(&ALLOC));
        self.in_hand.store(0, Ordering::Relaxed);
    }

    pub(crate) fn free_all(&self) {
        // The first one first: the order in which slabs and spans become free.
        while self.len() > 0 {
            self.free(0);
        }
    }

    pub(crate) fn realloc(&self, place: usize, size: usize) {
        let block = self.take(place);
        self.in_hand.fetch_add(size, Ordering::Relaxed);
        let block = inside(|| block.realloc(&ALLOC, size));
        self.put(block.expect("memory"));
    }

    fn len(&self) -> usize {
        self.with_blocks(|blocks| blocks.len())
    }

    /// In the child: everything that the actor had, and how many bytes it had in hand.
    pub(crate) fn inherit(&self) -> (Vec<Block>, usize) {
        (
            self.with_blocks(mem::take),
            self.in_hand.load(Ordering::Relaxed),
        )
    }
}

/// What an actor does.
pub(crate) type Scene = fn(&Props);

struct Start<'a> {
    scene: Scene,
    props: &'a Props,
}

extern "C" fn act(start: *mut c_void) -> *mut c_void {
    // SAFETY: `perform` passes a `Start` that outlives the thread.
    let start = unsafe { &*start.cast::<Start<'_>>() };
    ACTOR.store(current_thread(), Ordering::Relaxed);
    (start.scene)(start.props);
    ptr::null_mut()
}

/// Has a new thread act, and runs `meanwhile`, which must not enter the allocator, each time that the
/// thread stands at `point`, be it in the scene or on its way in or out. How often it stood there.
#[track_caller]
pub(crate) fn perform(
    scene: Scene,
    props: &Props,
    point: Option<Point>,
    mut meanwhile: impl FnMut() -> Ended,
) -> usize {
    let mut start = Start { scene, props };
    VISITS.store(0, Ordering::Relaxed);
    pass(false);
    if let Some(point) = point {
        POINT.store(number(point), Ordering::Relaxed);
        failpoints::at_points(Some(&CALLBACK));
    }
    let mut thread = MaybeUninit::uninit();
    // SAFETY: 1. `thread` is writable. 2. `act` expects a `Start`. 3. it outlives the thread, which is
    // joined below.
    let result = unsafe {
        libc::pthread_create(
            thread.as_mut_ptr(),
            ptr::null(),
            act,
            (&raw mut start).cast(),
        )
    };
    assert_eq!(result, 0, "pthread_create refused");
    // SAFETY: `pthread_create` succeeded and wrote it.
    let thread = unsafe { thread.assume_init() };
    let mut stops = 0;
    let mut last = None;
    // SAFETY: the thread is joinable, and not joined before this succeeds.
    while unsafe { libc::pthread_tryjoin_np(thread, ptr::null_mut()) } != 0 {
        if STATE.load(Ordering::Acquire) == STANDS {
            stops += 1;
            let ended = meanwhile();
            last = Some(ended);
            if !ended.is_fine() {
                // The actor goes on to its end, so that a lock that it may hold is let go.
                pass(true);
            }
            STATE.store(RUNS, Ordering::Release);
        }
        thread::yield_now();
    }
    ACTOR.store(0, Ordering::Relaxed);
    failpoints::at_points(None);
    if let Some(ended) = last {
        ended.expect_fine();
    }
    stops
}
