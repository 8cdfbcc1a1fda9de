//! The options in force: decided at the first call of the process, or changed since.
#![forbid(unsafe_code)]

use super::{Config, HARDENED, HugePages, OptionError, SAMPLE};
use crate::hardening::{CANARY, Hardening};
use crate::sync::{AtomicUsize, GuardedU8, GuardedUsize, Ordering};

/// The options in force, written by the initialisation of the process and by [`change`].
static CURRENT: Settings = Settings {
    purge_delay_ms: GuardedUsize::new(Config::new().purge_delay_ms),
    dirty_budget: GuardedUsize::new(Config::new().dirty_budget),
    large_cache: GuardedUsize::new(Config::new().large_cache),
    thread_cache: GuardedUsize::new(Config::new().thread_cache),
    huge_pages: GuardedU8::new(1),
    sample_one_in: GuardedUsize::new(0),
};

struct Settings {
    purge_delay_ms: GuardedUsize,
    dirty_budget: GuardedUsize,
    large_cache: GuardedUsize,
    thread_cache: GuardedUsize,
    huge_pages: GuardedU8,
    sample_one_in: GuardedUsize,
}

/// What is done besides allocating and freeing: decided once, by whoever initialises the process
/// first, because blocks made in one mode must not be freed in another.
static MODE: AtomicUsize = AtomicUsize::new(Mode::UNDECIDED);

/// What a process does besides allocating and freeing: nothing (it is *plain*), some safeguards or
/// samples (it is *hardened*), or that is not decided yet (it is neither, and has no safeguard).
#[derive(Clone, Copy)]
pub(crate) struct Mode(usize);

impl Mode {
    /// All safeguards, nothing sampled.
    pub(crate) const ALL: Self = Self(Hardening::ALL.bits() as usize);

    const SAMPLING: usize = 1 << 8;
    /// Alone in its word.
    const UNDECIDED: usize = 1 << 9;
    /// What makes a process hardened. Isolation concerns tables only.
    const HARDENED: usize =
        Self::SAMPLING | Hardening::ALL.bits() as usize & !(Hardening::ISOLATION.bits() as usize);

    pub(super) fn of(config: &Config) -> Self {
        let sampling = if config.sample_one_in == 0 {
            0
        } else {
            Self::SAMPLING
        };
        Self(usize::from(config.hardening.bits()) | sampling)
    }

    #[inline(always)]
    pub(crate) fn is_decided(self) -> bool {
        self.0 != Self::UNDECIDED
    }

    /// Whether it is decided that calls need not look for safeguards and samples.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & (Self::HARDENED | Self::UNDECIDED) == 0
    }

    /// Whether it is decided that every call looks for safeguards and samples.
    #[inline(always)]
    pub(crate) fn is_hardened(self) -> bool {
        self.0 & Self::HARDENED != 0
    }

    #[inline(always)]
    pub(crate) fn is_all(self) -> bool {
        self.0 == Self::ALL.0
    }

    #[inline(always)]
    pub(crate) fn has(self, safeguard: Hardening) -> bool {
        self.0 & usize::from(safeguard.bits()) != 0
    }

    #[inline(always)]
    pub(crate) fn samples(self) -> bool {
        self.0 & Self::SAMPLING != 0
    }

    /// Bytes of the canary behind each block.
    #[inline(always)]
    pub(crate) fn canary_bytes(self) -> usize {
        if self.has(Hardening::CANARIES) {
            CANARY
        } else {
            0
        }
    }
}

/// The mode in force.
#[inline(always)]
pub(crate) fn mode() -> Mode {
    // ORDERING: a number that is written once; nothing is published through it.
    Mode(MODE.load(Ordering::Relaxed))
}

/// Puts `config` in force.
pub(crate) fn apply(config: Config) {
    let (undecided, mode) = (Mode::UNDECIDED, Mode::of(&config).0);
    if config.sample_one_in > 0 {
        // Before it is known that there is any sampling.
        CURRENT.sample_one_in.set(config.sample_one_in);
    }
    // ORDERING: as in `mode`. Of threads that get here at once one decides.
    let first = MODE.compare_exchange(undecided, mode, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_ok() {
        // Later, it would undo what the other has changed since.
        store_changes(&Config::new(), &config);
    }
}

/// In a forked child whose parent was not initialised: whoever is next decides.
pub(crate) fn forget() {
    // ORDERING: as in `mode`; the child has one thread.
    MODE.store(Mode::UNDECIDED, Ordering::Relaxed);
}

/// Changes one option in force, named as in the environment.
pub(crate) fn change(name: &str, value: &[u8]) -> Result<(), OptionError> {
    let before = current();
    let after = before.with_option(name, value)?;
    if name == HARDENED || name == SAMPLE {
        return Err(OptionError::Decided);
    }
    store_changes(&before, &after);
    Ok(())
}

/// The options in force, but for those that [`MODE`] keeps.
fn current() -> Config {
    Config {
        purge_delay_ms: CURRENT.purge_delay_ms.get(),
        dirty_budget: CURRENT.dirty_budget.get(),
        large_cache: CURRENT.large_cache.get(),
        thread_cache: CURRENT.thread_cache.get(),
        huge_pages: if huge_pages() {
            HugePages::Advise
        } else {
            HugePages::Off
        },
        ..Config::new()
    }
}

/// Puts in force what differs: other threads may be changing the rest.
fn store_changes(before: &Config, after: &Config) {
    let set = |cell: &GuardedUsize, before: usize, after: usize| {
        if before != after {
            cell.set(after);
        }
    };
    set(
        &CURRENT.purge_delay_ms,
        before.purge_delay_ms,
        after.purge_delay_ms,
    );
    set(
        &CURRENT.dirty_budget,
        before.dirty_budget,
        after.dirty_budget,
    );
    set(&CURRENT.large_cache, before.large_cache, after.large_cache);
    set(
        &CURRENT.thread_cache,
        before.thread_cache,
        after.thread_cache,
    );
    if before.huge_pages != after.huge_pages {
        CURRENT
            .huge_pages
            .set(u8::from(after.huge_pages == HugePages::Advise));
    }
}

pub(crate) fn purge_delay_ms() -> u64 {
    CURRENT.purge_delay_ms.get() as u64
}

pub(crate) fn dirty_budget() -> usize {
    CURRENT.dirty_budget.get()
}

pub(crate) fn large_cache() -> usize {
    CURRENT.large_cache.get()
}

pub(crate) fn thread_cache() -> usize {
    CURRENT.thread_cache.get()
}

/// Allocations for each one that is sampled, at least 1.
pub(crate) fn sample_one_in() -> usize {
    CURRENT.sample_one_in.get().max(1)
}

pub(crate) fn huge_pages() -> bool {
    CURRENT.huge_pages.get() != 0
}
