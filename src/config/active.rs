//! The options in force: decided at the first call of the process, or changed since.
#![forbid(unsafe_code)]

use super::options::{BACKGROUND, Background, Config, HARDENED, HugePages, OptionError, SAMPLE};
use crate::hardening::{CANARY, Hardening};
use crate::sync::{AtomicUsize, GuardedU8, GuardedUsize, Ordering};

/// The numbers that may change while the process runs, with the type that their readers want. Written
/// by the initialisation of the process and by [`change`].
macro_rules! numbers {
    ($($(#[$doc:meta])* $option:ident: $type:ty),* $(,)?) => {
        struct Numbers {
            $($option: GuardedUsize,)*
        }

        static NUMBERS: Numbers = Numbers {
            $($option: GuardedUsize::new(Config::new().$option),)*
        };

        impl Numbers {
            /// `config` with the numbers in force.
            fn read(&self, config: Config) -> Config {
                Config {
                    $($option: self.$option.get(),)*
                    ..config
                }
            }

            /// Puts in force what differs.
            fn store_changes(&self, before: &Config, after: &Config) {
                $(if before.$option != after.$option {
                    self.$option.set(after.$option);
                })*
            }
        }

        $(
            $(#[$doc])*
            pub(crate) fn $option() -> $type {
                NUMBERS.$option.get() as $type
            }
        )*
    };
}

numbers! {
    /// See [`Config::purge_delay_ms`].
    purge_delay_ms: u64,
    /// See [`Config::dirty_budget`].
    dirty_budget: usize,
    /// See [`Config::large_cache`].
    large_cache: usize,
    /// See [`Config::thread_cache`].
    thread_cache: usize,
}

/// Which of [`HugePages`], by its number.
static HUGE_PAGES: GuardedU8 = GuardedU8::new(Config::new().huge_pages as u8);
/// Which of [`Background`], by its number. Decided with the mode.
static THREAD: GuardedU8 = GuardedU8::new(Background::Off as u8);
/// Allocations for each one that is sampled.
static SAMPLE_ONE_IN: GuardedUsize = GuardedUsize::new(0);

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

    fn of(config: &Config) -> Self {
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

    /// The safeguards that are on.
    pub(crate) fn safeguards(self) -> Hardening {
        let [bits, ..] = self.0.to_le_bytes();
        Hardening::of_bits(bits)
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

impl Config {
    /// Whether the process is hardened: calls look for safeguards and samples.
    pub(crate) fn wants_hardening(&self) -> bool {
        Mode::of(self).is_hardened()
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
        SAMPLE_ONE_IN.set(config.sample_one_in);
    }
    // ORDERING: as in `mode`. Of threads that get here at once one decides.
    let first = MODE.compare_exchange(undecided, mode, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_ok() {
        // Later, it would undo what the other has changed since.
        store_changes(&Config::new(), &config);
        THREAD.set(config.thread() as u8);
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
    if [HARDENED, SAMPLE, BACKGROUND].contains(&name) {
        return Err(OptionError::Decided);
    }
    store_changes(&before, &after);
    Ok(())
}

/// The options in force, but for those that [`MODE`] keeps.
fn current() -> Config {
    NUMBERS.read(Config::new().huge_pages(huge_pages()))
}

/// Puts in force what differs: other threads may be changing the rest.
fn store_changes(before: &Config, after: &Config) {
    NUMBERS.store_changes(before, after);
    if before.huge_pages != after.huge_pages {
        HUGE_PAGES.set(after.huge_pages as u8);
    }
}

/// Allocations for each one that is sampled, at least 1.
pub(crate) fn sample_one_in() -> usize {
    SAMPLE_ONE_IN.get().max(1)
}

/// Whether there is to be a background thread.
pub(crate) fn background() -> Background {
    match THREAD.get() {
        0 => Background::Off,
        1 => Background::Auto,
        _ => Background::On,
    }
}

/// Whether to ask for huge pages.
pub(crate) fn huge_pages() -> HugePages {
    match HUGE_PAGES.get() {
        0 => HugePages::Off,
        1 => HugePages::Advise,
        _ => HugePages::Auto,
    }
}
