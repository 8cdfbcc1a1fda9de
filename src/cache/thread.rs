//! The life of a thread cache: initialisation of the process, registration, thread exit.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use super::tls::{self, EMPTY, Words};
use super::{
    BANK, Config, NO_CLASS, STRIDE, SizeClass, ThreadCache, careful, fork, helper, parked,
};
use crate::arena::meta;
use crate::config::{self, Refusal};
use crate::heap::{self, Wrong};
use crate::os::{self, Lock, ThreadKey, failpoints};
use crate::random;
use crate::sample;
use crate::sync::{AtomicUsize, GuardedU64, GuardedUsize, Link, Ordering, same};
use crate::valgrind;

/// What [`Words::own`] holds once a thread has ended: served without a cache from then on.
pub(super) static EXITED: u8 = 0;

/// What [`Words::own`] holds while a thread registers or initialises the process, which may allocate.
static REGISTERING: u8 = 1;

/// The threads that have a cache.
pub(super) struct Registry {
    pub(super) lock: Lock<()>,
    /// Caches in use, newest first.
    pub(super) first: Link<ThreadCache>,
    /// Empty caches of threads that are gone.
    unused: Link<ThreadCache>,
    /// Those that have kept their blocks, newest first.
    pub(super) parked: Link<ThreadCache>,
    /// Threads of each heap.
    threads: [GuardedUsize; heap::HEAPS],
    /// Caches that there are, and how many there may be before their threads are looked after.
    caches: GuardedUsize,
    patience: GuardedUsize,
}

pub(super) static REGISTRY: Registry = Registry {
    lock: Lock::new(()),
    first: Link::none(),
    unused: Link::none(),
    parked: Link::none(),
    threads: [const { GuardedUsize::new(0) }; heap::HEAPS],
    caches: GuardedUsize::new(0),
    patience: GuardedUsize::new(2 * BANK),
};

/// 0 until the process is initialised, then [`NO_KEY`], or the key whose destructor ends a thread's
/// cache plus [`FIRST_KEY`].
static KEY: AtomicUsize = AtomicUsize::new(0);

/// There is no key yet, or the program has used up all: threads are served without caches.
const NO_KEY: usize = 1;
const FIRST_KEY: usize = 2;

/// Whether the process is initialised.
pub(super) fn is_ready() -> bool {
    // ORDERING: pairs with the release in `initialise`.
    KEY.load(Ordering::Acquire) != 0
}

fn key() -> Option<ThreadKey> {
    // ORDERING: pairs with the release in `initialise`.
    let bits = KEY.load(Ordering::Acquire).checked_sub(FIRST_KEY)?;
    Some(ThreadKey::from_bits(bits))
}

/// Begins every slow path, with no lock held: initialises the process, and repairs a forked child.
/// `false` without memory.
pub(super) fn prepare(config: &Config) -> bool {
    // First: a thread of the parent may have been initialising, with locks.
    repair_child();
    is_ready() || initialise(config)
}

/// Initialises the process, if no call has yet; without memory the first call that needs it tries again.
pub(crate) fn begin(config: &Config) {
    let _ = prepare(config);
}

/// In a forked child, makes the allocator whole before anything else happens in it.
pub(super) fn repair_child() {
    os::after_fork(fork::recover);
    fork::settle();
}

/// Initialises the process. What the C library or the program's own functions of its names allocate on the way, they get
/// without a cache as soon as there is something to serve them, and null before.
#[cold]
fn initialise(config: &Config) -> bool {
    let words = tls::words();
    // ORDERING: this thread's own word, here and below.
    let own = words.own.load(Ordering::Relaxed);
    if ptr::eq(own, &raw const REGISTERING) {
        return false;
    }
    words
        .own
        .store((&raw const REGISTERING).cast_mut(), Ordering::Relaxed);
    let is_ready = make_ready(config);
    words.own.store(own, Ordering::Relaxed);
    is_ready
}

/// Threads that get here at the same time write the same, but for the key, which who comes first makes (and for the
/// options, if the program declares two allocators that differ): no lock is held meanwhile but for tables.
fn make_ready(config: &Config) -> bool {
    // The clock is looked for here: it will be read under locks.
    let _ = os::now_ms();
    // Before anything is complained about, which is not to happen with each call that finds no memory.
    if !os::watch_forks() {
        return false;
    }
    let config = if os::is_privileged() {
        *config
    } else {
        config.overridden(os::env, |name, value, wanted| {
            let value = core::str::from_utf8(value).unwrap_or("?");
            os::complain(format_args!(
                "{name}={value}: not {wanted}; ignored, the program's own setting holds"
            ));
        })
    };
    if config.wants_care() {
        // Before the mode is known: whoever knows it may want a number.
        random::seed(os::random());
    }
    config::apply(config);
    heap::initialise();
    if config::mode().samples() {
        sample::initialise();
    }
    // ORDERING: publishes the above to `is_ready`; who loses has published nothing.
    let first = KEY.compare_exchange(0, NO_KEY, Ordering::Release, Ordering::Relaxed);
    if first.is_err() {
        return true;
    }
    // In other objects the program's own code calls first, when its libraries are ready.
    if !config.stays_loaded() {
        sample::begin();
        os::stay_loaded((&raw const REGISTRY).cast());
    }
    make_key();
    true
}

fn make_key() {
    if let Some(key) = ThreadKey::new(at_exit) {
        // ORDERING: publishes what `make_ready` did to `key`.
        KEY.store(key.to_bits() + FIRST_KEY, Ordering::Release);
    }
}

/// Changes an option of the running process, which is initialised first: that would undo it.
pub(crate) fn set_option(name: &str, value: &[u8], config: &Config) -> Result<(), Refusal> {
    if prepare(config) {
        config::change(name, value)
    } else {
        Err(Refusal::NoMemory)
    }
}

/// The calling thread's cache, registered if it has none. `None`: the thread is past its clean-up, or there is no
/// memory for a cache. Not for an allocation, which asks [`enter_for`].
pub(super) fn enter(config: &Config) -> Option<&'static ThreadCache> {
    if !prepare(config) {
        return None;
    }
    let words = tls::words();
    // ORDERING: only this thread writes `own`.
    let own = words.own.load(Ordering::Relaxed);
    if own.is_null() {
        return register(words);
    }
    if is_marker(own) {
        return None;
    }
    // SAFETY: 1. not a marker, so the thread's cache, which is never unmapped.
    Some(unsafe { &*own.cast::<ThreadCache>() })
}

/// As [`enter`], for an allocation from `class`. `None` as well while a thread is not registered and the block may be
/// one of the C library's [tables of keys' values](ThreadKey::TABLE), about to hold this thread's: what
/// [`ThreadKey::arm`] sets now, in another such table, would be lost with that when the call returns.
pub(super) fn enter_for(class: SizeClass, config: &Config) -> Option<&'static ThreadCache> {
    if is_for_a_table(class) && ThreadCache::own().is_none() {
        // The next call of any other kind registers the thread.
        let _ = prepare(config);
        return None;
    }
    enter(config)
}

fn is_for_a_table(class: SizeClass) -> bool {
    let is_in_a_table = || key().is_some_and(ThreadKey::is_in_a_table);
    careful::class_for(ThreadKey::TABLE) == Some(class) && is_in_a_table()
}

fn is_marker(own: *mut u8) -> bool {
    ptr::eq(own, &raw const EXITED) || ptr::eq(own, &raw const REGISTERING)
}

#[cold]
fn register(words: &'static Words) -> Option<&'static ThreadCache> {
    let key = key()?;
    let cache = new_cache().unwrap_or_else(|wrong| wrong.report())?;
    // ORDERING: this thread's own words, here and below.
    words
        .own
        .store((&raw const REGISTERING).cast_mut(), Ordering::Relaxed);
    // May call the allocator, which serves this thread without a cache meanwhile.
    if !key.arm(NonNull::from(cache).cast()) {
        words.own.store(ptr::null_mut(), Ordering::Relaxed);
        let emptied = {
            let _held = REGISTRY.lock.lock();
            cache.empty_all().map(|()| cache.recycle())
        };
        emptied.unwrap_or_else(|wrong| wrong.report());
        return None;
    }
    cache.busy.set(NO_CLASS);
    cache.take_care();
    {
        let _held = REGISTRY.lock.lock();
        failpoints::at(failpoints::Point::Registry);
        let heap = least_used_heap();
        REGISTRY.threads[heap].set(REGISTRY.threads[heap].get() + 1);
        #[expect(clippy::cast_possible_truncation, reason = "below HEAPS")]
        cache.heap.set(heap as u8);
        // ORDERING: guarded by the registry's lock.
        cache
            .words
            .store(ptr::from_ref(words).cast_mut(), Ordering::Relaxed);
        cache.belong_here();
        cache.link();
    }
    let own = ptr::from_ref(cache).cast_mut().cast::<u8>();
    words.own.store(own, Ordering::Relaxed);
    words.active().store(own, Ordering::Relaxed);
    Some(cache)
}

fn least_used_heap() -> usize {
    let threads = |heap: &usize| REGISTRY.threads[*heap].get();
    (0..heap::count()).min_by_key(threads).unwrap_or(0)
}

/// A cache for the calling thread: a parked one, one without blocks, or, if there is none, a new one.
fn new_cache() -> Result<Option<&'static ThreadCache>, Wrong> {
    loop {
        {
            let _held = REGISTRY.lock.lock();
            if let Some(cache) = ThreadCache::next_parked() {
                return Ok(Some(cache));
            }
            if REGISTRY.unused.get().is_none() {
                dissolve_dead()?;
            }
            if let Some(cache) = REGISTRY.unused.get() {
                REGISTRY.unused.set(cache.next.get());
                return Ok(Some(cache));
            }
        }
        if new_bank().is_none() {
            return Ok(None);
        }
    }
}

/// Takes back the caches of threads that ended without [`at_exit`]: whenever there are twice as many caches as had
/// a living thread at the last look. So they stay within twice what lives at once, for one question to the kernel
/// or so for each thread. The registry's lock is held.
fn dissolve_dead() -> Result<(), Wrong> {
    if REGISTRY.caches.get() < REGISTRY.patience.get() {
        return Ok(());
    }
    for cache in ThreadCache::listed(&REGISTRY.first) {
        if cache.is_of_this_process() && cache.is_abandoned() && !cache.gate.is_locked() {
            cache.dissolve()?;
        }
    }
    let living: usize = REGISTRY.threads.iter().map(GuardedUsize::get).sum();
    REGISTRY.patience.set(2 * living.max(BANK));
    Ok(())
}

/// More caches, on pages of their own, so that far parts share none with near ones.
fn new_bank() -> Option<()> {
    let length = (BANK - 1) * STRIDE + size_of::<ThreadCache>();
    let bank = meta::alloc_pages(length)?;
    let _held = REGISTRY.lock.lock();
    REGISTRY.caches.set(REGISTRY.caches.get() + BANK);
    for index in 0..BANK {
        // SAFETY: 1. inside the bank, see its length.
        let place = unsafe { crate::ptr::advance::<ThreadCache>(bank, index * STRIDE) };
        // SAFETY: 1. zeroed metadata, aligned, never freed; all zero is a cache without blocks. What
        // it overlaps with its neighbours is its gap.
        unsafe { place.as_ref() }.recycle();
    }
    Some(())
}

impl ThreadCache {
    /// The caches of a list of the registry, whose lock is held. One may leave while it is looked at.
    pub(super) fn listed(first: &Link<Self>) -> impl Iterator<Item = &'static Self> {
        let mut next = first.get();
        core::iter::from_fn(move || {
            let cache = next?;
            next = cache.next.get();
            Some(cache)
        })
    }

    /// Enters the registry. Its lock is held.
    fn link(&'static self) {
        let first = REGISTRY.first.get();
        self.previous.set(None);
        self.next.set(first);
        if let Some(first) = first {
            first.previous.set(Some(self));
        }
        REGISTRY.first.set(Some(self));
    }

    /// Leaves the registry. Its lock is held.
    pub(super) fn unlink(&'static self) {
        let (previous, next) = (self.previous.get(), self.next.get());
        previous
            .map_or(&REGISTRY.first, |before| &before.next)
            .set(next);
        if let Some(after) = next {
            after.previous.set(previous);
        }
        let threads = &REGISTRY.threads[self.heap.get() as usize];
        threads.set(threads.get() - 1);
    }

    /// Waits for the next thread. The registry's lock is held, the cache is empty.
    pub(super) fn recycle(&'static self) {
        self.begin_anew();
        self.next.set(REGISTRY.unused.get());
        REGISTRY.unused.set(Some(self));
    }

    /// The calling thread's cache, if it has one.
    pub(super) fn own() -> Option<&'static Self> {
        // ORDERING: this thread's own word.
        let own = tls::words().own.load(Ordering::Relaxed);
        if own.is_null() || is_marker(own) {
            return None;
        }
        // SAFETY: 1. as in `enter`.
        Some(unsafe { &*own.cast::<Self>() })
    }

    /// Brings the thread back to its fast paths, if it was diverted. Its own gate is held.
    pub(super) fn come_back(&'static self) {
        // ORDERING: only this thread reads the word, others write it under the gate.
        tls::words()
            .active()
            .store(ptr::from_ref(self).cast_mut().cast(), Ordering::Relaxed);
    }

    /// Whether the thread ended without its clean-up, as one does whose first call to the allocator
    /// comes in the last round of its key destructors.
    pub(super) fn is_abandoned(&self) -> bool {
        !os::is_alive(self.thread.get())
    }

    /// Takes back what an abandoned thread left. The registry's lock is held.
    pub(super) fn dissolve(&'static self) -> Result<(), Wrong> {
        let emptied = {
            let _held = self.gate.lock();
            self.empty_all()
        };
        self.unlink();
        emptied?;
        self.recycle();
        Ok(())
    }

    /// Sends the thread's next call to the slow path. The registry's lock and the gate are held, and the
    /// thread was just found not to be abandoned. So it has not ended and its words are there: a thread
    /// that cleans up waits for both locks. One that registered in the last round of its key destructors
    /// does not clean up, and could end in these few instructions (ALGORITHM.md, what is left out).
    pub(super) fn divert(&self) {
        let empty = (&raw const EMPTY).cast::<u8>().cast_mut();
        // ORDERING: guarded by the registry's lock.
        let words = self.words.load(Ordering::Relaxed);
        // SAFETY: 1. the words of a thread that has not ended, see above.
        let words = unsafe { &*words };
        // ORDERING: `os::process_barrier` orders it before what the diverting thread reads next.
        words.active().store(empty, Ordering::Relaxed);
    }
}

/// The pthread destructor: gives back, or leaves to the next thread, everything that the thread holds.
unsafe extern "C" fn at_exit(cache: *mut c_void) {
    // SAFETY: 1. `register` armed the key with the thread's cache.
    valgrind::quietly(|| end(unsafe { &*cache.cast::<ThreadCache>() }));
}

fn end(cache: &'static ThreadCache) {
    repair_child();
    let words = tls::words();
    // ORDERING: this thread's own word. Later calls are served without a cache.
    words
        .own
        .store((&raw const EXITED).cast_mut(), Ordering::Relaxed);
    let keeps = {
        let _held = cache.gate.lock();
        let empty = (&raw const EMPTY).cast::<u8>().cast_mut();
        // ORDERING: only this thread reads the word, others write it under the gate.
        words.active().store(empty, Ordering::Relaxed);
        // Still in the registry: a child of a fork meanwhile takes back what is left.
        cache.leave()
    };
    let keeps = keeps.unwrap_or_else(|wrong| wrong.report());
    {
        let _held = REGISTRY.lock.lock();
        cache.unlink();
        if keeps {
            cache.park();
        } else {
            cache.recycle();
        }
    }
    helper::notice();
}

/// When free pages were last looked at, in milliseconds.
static TENDED: GuardedU64 = GuardedU64::new(0);

/// Threads that share `heap`, as of some moment not long ago.
pub(super) fn sharers(heap: usize) -> usize {
    REGISTRY.threads[heap].get()
}

/// Whether a purge delay has passed since the last look, which is noted if so: two where there is a helper that
/// looks by itself. Of two threads at once both may hear so, which costs a second look.
pub(super) fn is_time() -> bool {
    let (now, delay) = (os::now_ms(), config::purge_delay_ms());
    let patience = if helper::is_awake() { 2 * delay } else { delay };
    if now < TENDED.get() + patience {
        return false;
    }
    TENDED.set(now);
    true
}

/// Notes that the helper looks.
pub(super) fn tended() {
    TENDED.set(os::now_ms());
}

/// In a forked child: the registry as the only thread left finds it.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it holds no lock.
pub(super) unsafe fn break_locks() {
    // SAFETY: 1. the caller's.
    unsafe { REGISTRY.lock.force_unlock() };
    // A thread that was entering or leaving may have set one link of two: `next` is the truth.
    REGISTRY.threads.iter().for_each(|threads| threads.set(0));
    let mut previous = None;
    let mut next = REGISTRY.first.get();
    while let Some(cache) = next {
        // SAFETY: 1. the caller's: who held the gate is gone, or is this thread before its first lock.
        unsafe { cache.gate.force_unlock() };
        cache.previous.set(previous);
        let threads = &REGISTRY.threads[cache.heap.get() as usize];
        threads.set(threads.get() + 1);
        previous = Some(cache);
        next = cache.next.get();
    }
    parked::recover();
    // ORDERING: the child has one thread.
    if KEY.load(Ordering::Relaxed) == NO_KEY {
        // Who was about to make it is gone.
        make_key();
    }
}

/// Whether this cache belongs to the calling thread.
pub(super) fn is_own(cache: &'static ThreadCache) -> bool {
    same(ThreadCache::own(), cache)
}
