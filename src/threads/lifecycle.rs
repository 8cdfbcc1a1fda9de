//! The life of a thread cache: initialisation of the process, registration, thread exit.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use super::fork::{self, Part};
use super::key::{self, is_ready, key};
use super::parked;
use super::registry::{REGISTRY, new_bank};
use crate::config::{self, Background, Config, OptionError};
use crate::demand::DEMAND;
use crate::heap::{self, Wrong};
use crate::os::{self, ThreadKey, failpoints};
use crate::random;
use crate::sample;
use crate::size_class::{CLASS_MAX, Request, SizeClass, classify_to};
use crate::sync::{GuardedU8, Ordering};
use crate::thread_cache::tls::{self, Words};
use crate::thread_cache::{CacheGuard, EXITED, REGISTERING, ThreadCache, is_marker, sharers};
use crate::valgrind;
use crate::wakeup;

/// Begins every slow path, with no lock held: initialises the process, and repairs a forked child.
/// `false` without memory.
#[inline(never)]
pub(crate) fn prepare(config: &Config) -> bool {
    // First: a thread of the parent may have been initialising, with locks.
    repair_child(Part::Some);
    if UNFINISHED.get() != 0 {
        UNFINISHED.set(0);
        // Not in the midst of the repairs: it may allocate.
        while_registering(|| finish(config));
    }
    is_ready() || initialise(config)
}

/// 1 in a forked child without a key, until it has tried to make one.
static UNFINISHED: GuardedU8 = GuardedU8::new(0);

/// Initialises the process, if no call has yet; without memory the first call that needs it tries again.
pub(crate) fn begin(config: &Config) {
    let _ = prepare(config);
}

/// In a forked child, makes the allocator whole before anything else happens in it, and takes back a
/// part of what threads that are gone have held.
pub(crate) fn repair_child(part: Part) {
    os::after_fork(|| {
        fork::recover();
        os::be_at_home();
        // Who was about to make it may be gone.
        UNFINISHED.set(u8::from(key::is_missing()));
    });
    fork::adopt_orphans(part);
}

/// Initialises the process. What the C library or the program's own functions of its names allocate on the way, they get
/// without a cache as soon as there is something to serve them, and null before.
#[cold]
fn initialise(config: &Config) -> bool {
    // ORDERING: this thread's own word.
    let own = tls::words().own.load(Ordering::Relaxed);
    !ptr::eq(own, &raw const REGISTERING) && while_registering(|| make_ready(config))
}

/// Runs what may allocate by means of the C library, which is served without a cache meanwhile.
fn while_registering<R>(work: impl FnOnce() -> R) -> R {
    let words = tls::words();
    // ORDERING: this thread's own word, here and below.
    let own = words.own.load(Ordering::Relaxed);
    words
        .own
        .store((&raw const REGISTERING).cast_mut(), Ordering::Relaxed);
    let result = work();
    words.own.store(own, Ordering::Relaxed);
    result
}

/// Threads that get here at the same time write the same, but for the key, which who comes first makes (and for the
/// options, if the program declares two allocators that differ): no lock is held meanwhile but for tables.
fn make_ready(config: &Config) -> bool {
    os::be_at_home();
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
    if config.wants_hardening() {
        // Before the mode is known: whoever knows it may want a number.
        random::seed(os::random());
    }
    config::apply(config);
    heap::initialise();
    if let Some(limit) = os::memory_limit() {
        DEMAND.limit_to(limit);
    }
    if config::mode().samples() {
        sample::initialise();
    }
    if key::set_ready() {
        finish(&config);
    }
    true
}

/// What is done once the process is ready, as it may allocate.
fn finish(config: &Config) {
    // In other objects the program's own code calls first, when its libraries are ready.
    if !config.stays_loaded() {
        sample::begin();
        os::stay_loaded((&raw const REGISTRY).cast());
    }
    if config.may_start_threads() && config::background() != Background::Off {
        os::prepare_threads();
        if config::background() == Background::On {
            wakeup::want();
        }
    }
    if let Some(key) = ThreadKey::new(at_exit) {
        key::set(key);
    }
}

/// Changes an option of the running process, which is initialised first: that would undo it.
pub(crate) fn set_option(name: &str, value: &[u8], config: &Config) -> Result<(), OptionError> {
    if prepare(config) {
        config::change(name, value)
    } else {
        Err(OptionError::NoMemory)
    }
}

/// The gate of the calling thread's cache, which is registered if it has none. The thread comes
/// back to its fast paths, if it was diverted. `None`: the thread is past its clean-up, or there is
/// no memory for a cache. Calls about a block of a class ask [`lock_own_for`].
pub(crate) fn lock_own(config: &Config) -> Option<CacheGuard> {
    lock_own_if(|| true, config)
}

#[inline(always)]
fn lock_own_if(may_register: impl FnOnce() -> bool, config: &Config) -> Option<CacheGuard> {
    if !prepare(config) {
        return None;
    }
    let gate = own_or_registered(may_register)?.lock();
    gate.cache().come_back();
    Some(gate)
}

#[inline(always)]
fn own_or_registered(may_register: impl FnOnce() -> bool) -> Option<&'static ThreadCache> {
    let words = tls::words();
    // ORDERING: only this thread writes `own`.
    let own = words.own.load(Ordering::Relaxed);
    if own.is_null() {
        return may_register().then(|| register(words))?;
    }
    if is_marker(own) {
        return None;
    }
    // SAFETY: 1. not a marker, so the thread's cache, which is never unmapped.
    Some(unsafe { &*own.cast::<ThreadCache>() })
}

/// As [`lock_own`], for a call about a block of `class`. `None` as well while a thread is not
/// registered and the block may be one of the C library's [tables of keys'
/// values](ThreadKey::TABLE). If it is about to hold this thread's, what [`ThreadKey::arm`] sets
/// now, in another such table, would be lost with that when the call returns; if it is given back,
/// the thread's keys were cleaned up, and the next thread on this stack would find what is set now.
pub(crate) fn lock_own_for(class: SizeClass, config: &Config) -> Option<CacheGuard> {
    // The next call about any other block registers the thread.
    lock_own_if(|| !is_for_a_table(class), config)
}

/// Whether a block of `class` may be such a table, and the process's key stands in one.
pub(crate) fn is_for_a_table(class: SizeClass) -> bool {
    let size = ThreadKey::TABLE + config::mode().canary_bytes();
    let is_long_enough = classify_to(CLASS_MAX, size, 1) == Request::Block(class);
    is_long_enough && key().is_some_and(ThreadKey::is_in_a_table)
}

/// A cache for the calling thread. No fast path uses it yet: the thread comes to them when it first
/// has the gate, so that nobody who holds it off meanwhile is missed.
#[cold]
fn register(words: &'static Words) -> Option<&'static ThreadCache> {
    let key = key()?;
    if !os::is_at_home() {
        // A child of `vfork` shares the words of the thread that waits for it, and ends.
        return None;
    }
    let cache = new_cache().unwrap_or_else(|wrong| wrong.report())?;
    // SAFETY: 1. taken out of the registry, and used before it enters it again.
    let locked = unsafe { cache.assume_locked() };
    if !while_registering(|| key.arm(NonNull::from(cache).cast())) {
        let emptied = {
            let registry = REGISTRY.lock();
            locked.empty_all().map(|()| registry.recycle(cache))
        };
        emptied.unwrap_or_else(|wrong| wrong.report());
        return None;
    }
    locked.end_work();
    // Which said of a parked one that it was seen.
    cache.stir();
    locked.equip();
    {
        let registry = REGISTRY.lock();
        failpoints::at(failpoints::Point::Registry);
        let heap = sharers::least_used();
        sharers::join(heap);
        #[expect(clippy::cast_possible_truncation, reason = "below HEAPS")]
        cache.heap.set(heap as u16);
        // ORDERING: guarded by the registry's lock.
        cache
            .words
            .store(ptr::from_ref(words).cast_mut(), Ordering::Relaxed);
        registry.belong_here(cache);
        registry.insert(cache);
    }
    let own = ptr::from_ref(cache).cast_mut().cast::<u8>();
    words.own.store(own, Ordering::Relaxed);
    Some(cache)
}

/// A cache for the calling thread: a parked one, one without blocks, or, if there is none, a new one.
fn new_cache() -> Result<Option<&'static ThreadCache>, Wrong> {
    loop {
        {
            let mut registry = REGISTRY.lock();
            if let Some(cache) = registry.unpark() {
                return Ok(Some(cache));
            }
            if let Some(cache) = registry.reuse()? {
                return Ok(Some(cache));
            }
        }
        if new_bank().is_none() {
            return Ok(None);
        }
    }
}

/// The pthread destructor: gives back, or leaves to the next thread, everything that the thread holds.
unsafe extern "C" fn at_exit(cache: *mut c_void) {
    // SAFETY: 1. `register` armed the key with the thread's cache.
    valgrind::quietly(|| end(unsafe { &*cache.cast::<ThreadCache>() }));
}

fn end(cache: &'static ThreadCache) {
    // The last thread that could may be ending.
    repair_child(Part::All);
    let words = tls::words();
    // ORDERING: this thread's own word. Later calls are served without a cache.
    words
        .own
        .store((&raw const EXITED).cast_mut(), Ordering::Relaxed);
    // Before the cache's life ends below.
    #[cfg(feature = "heaps")]
    words.heaps.forget();
    let keeps = {
        let gate = cache.lock();
        gate.cache().step_aside();
        // Still in the registry: a child of a fork meanwhile takes back what is left.
        parked::empty_or_keep(gate.cache())
    };
    let keeps = keeps.unwrap_or_else(|wrong| wrong.report());
    {
        let registry = REGISTRY.lock();
        registry.remove(cache);
        if keeps {
            registry.park(cache);
        } else {
            registry.recycle(cache);
        }
    }
    wakeup::notice();
}
