//! Test hooks: refuse a chosen kernel call, and run a callback inside a critical section.
//!
//! Not part of the interface: behind the feature `failpoints`, for this package's own tests.
#![forbid(unsafe_code)]

use crate::sync::{AtomicUsize, Link, Ordering};

/// Kernel calls left before one is refused; `usize::MAX` refuses none.
static COUNTDOWN: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Kernel calls refused so far.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// Set once the countdown has run out and every later call is refused too.
static FOREVER: AtomicUsize = AtomicUsize::new(0);

/// Lets `calls` kernel calls pass, then refuses one, or all that follow with `forever`.
pub fn refuse_after(calls: usize, forever: bool) {
    // ORDERING: a test sets these before it makes the calls, on one thread.
    FOREVER.store(usize::from(forever), Ordering::Relaxed);
    COUNTDOWN.store(calls, Ordering::Relaxed);
}

/// Refuses no more, and says how many calls were refused since the last time.
pub fn refuse_none() -> usize {
    // ORDERING: as in `refuse_after`.
    COUNTDOWN.store(usize::MAX, Ordering::Relaxed);
    REFUSED.swap(0, Ordering::Relaxed)
}

/// Whether the kernel call about to be made is to fail.
pub(super) fn refuses() -> bool {
    // ORDERING: a counter, nothing is published through it.
    let left = COUNTDOWN.load(Ordering::Relaxed);
    match left {
        usize::MAX => return false,
        0 if FOREVER.load(Ordering::Relaxed) != 0 => {}
        0 => COUNTDOWN.store(usize::MAX, Ordering::Relaxed),
        _ => {
            COUNTDOWN.store(left - 1, Ordering::Relaxed);
            return false;
        }
    }
    REFUSED.fetch_add(1, Ordering::Relaxed);
    true
}

/// Not 0 while waiters of locks may not sleep in the kernel.
static NO_WAITING: AtomicUsize = AtomicUsize::new(0);

/// From now on the kernel forbids waiters of locks to sleep by a word, as a filter may, or allows it.
pub fn forbid_waiting(forbidden: bool) {
    // ORDERING: a flag, nothing is published through it.
    NO_WAITING.store(usize::from(forbidden), Ordering::Relaxed);
}

/// Whether the kernel would refuse to let a waiter sleep.
pub(super) fn forbids_waiting() -> bool {
    // ORDERING: as above.
    NO_WAITING.load(Ordering::Relaxed) != 0
}

/// What huge pages cost in tests; `usize::MAX`: what they cost.
static HUGE_PRICE: AtomicUsize = AtomicUsize::new(usize::MAX);

/// From now on the allocator finds that a huge page costs as much as so many small ones.
pub fn set_huge_price(price: usize) {
    // ORDERING: a number, nothing is published through it.
    HUGE_PRICE.store(price, Ordering::Relaxed);
}

/// What a test says that a huge page costs.
pub(crate) fn huge_price() -> Option<u64> {
    // ORDERING: as above.
    let price = HUGE_PRICE.load(Ordering::Relaxed);
    (price != usize::MAX).then_some(price as u64)
}

/// A place inside a critical section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point {
    /// A thread cache's gate is held, nothing else.
    Gate,
    /// A class is locked, a refill has taken some of its blocks.
    Refill,
    /// A class is locked, a flush has returned some of its blocks.
    Flush,
    /// The chunks are locked, a run of units is marked but not yet taken from the free ones.
    Claim,
    /// The chunks are locked, a run of units is marked free but not yet among the free ones.
    Release,
    /// A purge holds threads off, whose gates and the registry are locked.
    Hold,
    /// It is about to let them go.
    LetGo,
    /// A slab is out of its list while its free pages are purged, nothing is locked.
    Holes,
    /// Free units are claimed for a purge, nothing is locked.
    Purge,
    /// A thread makes a chunk: addresses were reserved and are nobody's yet. Others who need a chunk wait for it;
    /// no more than a gate is locked besides.
    Reserve,
    /// In a child, a block that waited in quarantine is taken back; the registry is locked.
    Adopt,
    /// The table of large mappings is locked.
    Large,
    /// A heap's stock of spans is locked, a span is on its way in or out.
    Stock,
    /// The registry of threads is locked.
    Registry,
    /// The metadata is locked.
    Meta,
    /// What the threads of a first-class heap share is locked.
    Heap,
    /// A thread is in the midst of a step on its part of a first-class heap; nothing is locked.
    Part,
    /// A heap over a mapping is locked, and perhaps in the midst of a change of its units.
    Units,
    /// A process has locked its slot of such a heap by a descriptor that is still open.
    Slot,
    /// The parts of a process's threads in such a heap are locked.
    Parts,
    /// A process is about to know such a heap, and has mapped it. Others who look for one wait.
    Enter,
}

/// Chunks, slabs, classes, mappings, threads and blocks that this process looked at to repair itself
/// after a fork.
static STEPS: AtomicUsize = AtomicUsize::new(0);

/// Forgets the steps of repairs so far, and says how many there were.
pub fn take_steps() -> usize {
    // ORDERING: a counter, nothing is published through it; here and below.
    STEPS.swap(0, Ordering::Relaxed)
}

/// Counts a step of a repair.
pub(crate) fn count_step() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// What a test runs at a point.
pub type Callback = fn(Point);

static CALLBACK: Link<Callback> = Link::none();

/// Runs `callback` at every point from now on; `None` ends it.
pub fn at_points(callback: Option<&'static Callback>) {
    CALLBACK.set(callback);
}

/// Runs the callback, if there is one.
pub(crate) fn at(point: Point) {
    if let Some(callback) = CALLBACK.get() {
        callback(point);
    }
}

/// What a file was told, for tests that make the disks which a loss of power could leave.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Written<'a> {
    /// Bytes from a place on.
    Bytes {
        /// Where the first lies in the file.
        place: usize,
        /// These.
        bytes: &'a [u8],
    },
    /// The file's length.
    Length(usize),
    /// Bytes that are zero, and have no space.
    Hole {
        /// Where the first lies in the file.
        place: usize,
        /// How many.
        length: usize,
    },
    /// These bytes are on the disk.
    SyncedRange {
        /// Where the first lies in the file.
        place: usize,
        /// How many.
        length: usize,
    },
    /// All that was written before is on the disk.
    Synced,
}

/// What a test does with it; the first is the file's descriptor.
pub type Recorder = fn(i32, Written<'_>);

static RECORDER: Link<Recorder> = Link::none();

/// Tells `recorder` of all that files are told from now on; `None` ends it.
pub fn record(recorder: Option<&'static Recorder>) {
    RECORDER.set(recorder);
}

#[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))]
pub(crate) fn tell<'a>(file: i32, what: impl FnOnce() -> Written<'a>) {
    if let Some(recorder) = RECORDER.get() {
        recorder(file, what());
    }
}
