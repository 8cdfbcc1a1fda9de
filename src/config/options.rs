//! The options, each with its default and its name in the environment.
#![forbid(unsafe_code)]

use core::cell::Cell;
use core::fmt;

use crate::available;
use crate::hardening::Hardening;

/// Whether to ask the kernel for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Never ask.
    Off,
    /// Ask once a huge page is an eighth of the heap, and while that grows because it is full.
    Advise,
    /// The same, while huge pages cost less than they save on this machine, which is measured as chunks
    /// and long mappings are made. Of blocks with mappings of their own, only those that begin with at most 64 MiB.
    Auto,
}

/// Whether a thread of the allocator's own gives memory back ([`crate::Flagstone::start_background`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Background {
    /// Only if the program starts it.
    Off,
    /// While the program has two threads or more: it starts once they have memory worth returning, and ends when
    /// one of them is left.
    Auto,
    /// From the first call on that a thread's own cache does not serve, and for good.
    On,
}

/// Options of the allocator, all with defaults. The first [`crate::Flagstone`] that serves a call
/// decides for the process; then the environment overrides it, unless the process runs with raised
/// privileges (`AT_SECURE`).
///
/// | method | environment | unit | default |
/// |---|---|---|---|
/// | [`purge_delay_ms`](Self::purge_delay_ms) | `FLAGSTONE_PURGE_DELAY_MS` | milliseconds | 500 |
/// | [`dirty_budget`](Self::dirty_budget) | `FLAGSTONE_DIRTY_BUDGET` | bytes, `K` `M` `G` | none |
/// | [`large_cache`](Self::large_cache) | `FLAGSTONE_LARGE_CACHE` | bytes, `K` `M` `G` | none |
/// | [`thread_cache`](Self::thread_cache) | `FLAGSTONE_THREAD_CACHE` | bytes, `K` `M` `G` | 4 MiB |
/// | [`huge_pages`](Self::huge_pages) | `FLAGSTONE_HUGE_PAGES` | `off`, `advise`, `auto` | `auto` |
/// | [`background`](Self::background) | `FLAGSTONE_BACKGROUND` | `off`, `auto`, `on` | `auto` |
/// | [`hardening`](Self::hardening) | `FLAGSTONE_HARDENED` | `0`, `1`, words | `0` |
/// | [`sample_one_in`](Self::sample_one_in) | `FLAGSTONE_SAMPLE` | allocations | 0: none |
///
/// A value that does not parse is named in one line on standard error and ignored: what the program set holds.
///
/// ```
/// use flagstone::{Config, Flagstone, HugePages};
///
/// #[global_allocator]
/// static ALLOCATOR: Flagstone = Flagstone::with_config(
///     Config::new()
///         .dirty_budget(16 << 20)
///         .huge_pages(HugePages::Off)
///         .sample_one_in(10_000),
/// );
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub(super) purge_delay_ms: usize,
    pub(super) dirty_budget: usize,
    pub(super) large_cache: usize,
    pub(super) thread_cache: usize,
    pub(super) huge_pages: HugePages,
    pub(super) background: Background,
    pub(super) hardening: Hardening,
    pub(super) sample_one_in: usize,
    /// Whether calls may come from the C library, and the object that the allocator is part of is never unloaded.
    pub(super) is_of_c: bool,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            purge_delay_ms: 500,
            dirty_budget: usize::MAX,
            large_cache: usize::MAX,
            thread_cache: 4 << 20,
            huge_pages: HugePages::Auto,
            background: Background::Auto,
            hardening: Hardening::NONE,
            sample_one_in: 0,
            is_of_c: false,
        }
    }

    /// For callers that may be the C library, under its locks, and an object that the linker was told never to
    /// unload.
    pub(crate) const fn for_c(mut self) -> Self {
        self.is_of_c = true;
        self.background = Background::Off;
        self
    }

    pub(crate) fn stays_loaded(&self) -> bool {
        self.is_of_c
    }

    /// Whether there is to be a background thread: of callers that may not start one, only if they ask.
    pub(super) fn thread(&self) -> Background {
        match self.background {
            Background::Auto if self.is_of_c => Background::Off,
            thread => thread,
        }
    }

    /// Whether a slow path of its callers may start a thread.
    pub(crate) fn may_start_threads(&self) -> bool {
        !self.is_of_c
    }

    /// How long free pages stay resident before they go back to the kernel, in milliseconds: they go when they
    /// were free and unused at two looks, half of this apart. The clock is looked at when slabs, spans and mappings are freed and every 256 slow paths of a
    /// thread, so an idle process keeps them until [`crate::Flagstone::purge`], unless it has the
    /// [background thread](Self::background).
    #[must_use]
    pub const fn purge_delay_ms(mut self, milliseconds: u32) -> Self {
        self.purge_delay_ms = milliseconds as usize;
        self
    }

    /// Most bytes of free units (64 KiB) that stay resident, however young; those of the chunk not
    /// looked at for longest go first. By default there is no such bound: free memory stays up to
    /// what the program had in use at its peak in the last delay or so, and longer where it is wanted
    /// again. What threads keep at hand comes on top, see [`thread_cache`](Self::thread_cache).
    #[must_use]
    pub const fn dirty_budget(mut self, bytes: usize) -> Self {
        self.dirty_budget = bytes;
        self
    }

    /// Most bytes of freed mappings, which serve blocks of more than 1 MiB and those that grew, kept
    /// for reuse; 0 keeps none. By default as many as [`dirty_budget`](Self::dirty_budget) says.
    #[must_use]
    pub const fn large_cache(mut self, bytes: usize) -> Self {
        self.large_cache = bytes;
        self
    }

    /// Most bytes of free blocks that one thread keeps at hand, and as many of freed spans (blocks of 64 KiB to
    /// 1 MiB). Threads at work that share a processor share it, down to a quarter each. All threads together keep little
    /// more than twice what one for each processor may, or twice an eighth of what is in use; those at work twice
    /// `thread_cache` for each processor more. Every class that a thread uses keeps one block even so, and every thread 16 KiB.
    #[must_use]
    pub const fn thread_cache(mut self, bytes: usize) -> Self {
        self.thread_cache = bytes;
        self
    }

    /// Whether to ask for huge pages.
    #[must_use]
    pub const fn huge_pages(mut self, advice: HugePages) -> Self {
        self.huge_pages = advice;
        self
    }

    /// Whether a thread of the allocator's own gives memory back: see
    /// [`Flagstone::start_background`](crate::Flagstone::start_background), which starts it whatever this says.
    /// Decided at the first call of the process. In `flagstone::raw` and the C library the default is
    /// [`Background::Off`], `Auto` is the same, and `On` starts it in `raw::begin`.
    ///
    /// A crate that serves C's `malloc` by a `Flagstone` must say `Off`, as the C library may call it under locks
    /// that a new thread wants. (`flagstone::raw` is meant for that.)
    #[must_use]
    pub const fn background(mut self, thread: Background) -> Self {
        self.background = thread;
        self
    }

    /// Which safeguards are on. With none, which is the default, they cost nothing. The environment may turn them off, and
    /// on some systems there are none: a program that depends on them asks by
    /// [`Flagstone::require`](crate::Flagstone::require).
    #[must_use]
    pub const fn hardening(mut self, safeguards: Hardening) -> Self {
        self.hardening = safeguards;
        self
    }

    /// Puts one in so many allocations of up to a page on a page of its own, whose neighbours cannot
    /// be accessed, and which cannot be accessed either once the block is freed: an overflow or a use
    /// after free of such a block is reported with the places that allocated and freed it. 0, the
    /// default, none; it costs nothing then. At most 64 blocks at a time.
    #[must_use]
    pub const fn sample_one_in(mut self, allocations: u32) -> Self {
        self.sample_one_in = allocations as usize;
        self
    }

    /// Sets one option, `name` and `value` as in the environment.
    ///
    /// ```
    /// use flagstone::{Config, OptionError};
    ///
    /// let config = Config::new().with_option("FLAGSTONE_LARGE_CACHE", b"16M");
    /// assert_eq!(config, Ok(Config::new().large_cache(16 << 20)));
    /// let misspelt = Config::new().with_option("FLAGSTONE_LARGE_CASH", b"16M");
    /// assert_eq!(misspelt, Err(OptionError::Name));
    /// ```
    ///
    /// # Errors
    ///
    /// [`OptionError::Name`] or [`OptionError::Value`]; [`OptionError::Unsupported`] for safeguards or samples where there
    /// are none.
    pub fn with_option(self, name: &str, value: &[u8]) -> Result<Self, OptionError> {
        let (known, bad) = (Cell::new(false), Cell::new(false));
        let lookup = |asked: &str| {
            let is_it = asked == name;
            known.set(known.get() || is_it);
            is_it.then_some(value)
        };
        let config = self.overridden(lookup, |_, _, _| bad.set(true));
        match (known.get(), bad.get()) {
            (false, _) => Err(OptionError::Name),
            (true, true) => Err(OptionError::Value),
            _ if !available::ENGINE
                && [HARDENED, SAMPLE].contains(&name)
                && config.finds_mistakes() =>
            {
                Err(OptionError::Unsupported)
            }
            (true, false) => Ok(config),
        }
    }

    fn finds_mistakes(&self) -> bool {
        self.hardening != Hardening::NONE || self.sample_one_in != 0
    }

    /// `self` overridden by what `lookup` finds; each bad value goes to `complain`.
    pub(crate) fn overridden<'a>(
        mut self,
        lookup: impl Fn(&str) -> Option<&'a [u8]>,
        mut complain: impl FnMut(&str, &[u8], &str),
    ) -> Self {
        let numbers: [(&str, &mut usize, Parse, &str); 5] = [
            (
                "FLAGSTONE_PURGE_DELAY_MS",
                &mut self.purge_delay_ms,
                digits,
                NUMBER,
            ),
            (
                "FLAGSTONE_DIRTY_BUDGET",
                &mut self.dirty_budget,
                bytes,
                SIZE,
            ),
            ("FLAGSTONE_LARGE_CACHE", &mut self.large_cache, bytes, SIZE),
            (
                "FLAGSTONE_THREAD_CACHE",
                &mut self.thread_cache,
                bytes,
                SIZE,
            ),
            (SAMPLE, &mut self.sample_one_in, digits, NUMBER),
        ];
        for (name, value, parse, wanted) in numbers {
            let Some(text) = lookup(name) else { continue };
            match parse(text) {
                Some(number) => *value = number,
                None => complain(name, text, wanted),
            }
        }
        match lookup(HUGE_PAGES) {
            None => {}
            Some(b"off") => self.huge_pages = HugePages::Off,
            Some(b"advise") => self.huge_pages = HugePages::Advise,
            Some(b"auto") => self.huge_pages = HugePages::Auto,
            Some(text) => complain(HUGE_PAGES, text, "off, advise or auto"),
        }
        match lookup(BACKGROUND) {
            None => {}
            Some(b"off" | b"0") => self.background = Background::Off,
            Some(b"auto") => self.background = Background::Auto,
            Some(b"on" | b"1") => self.background = Background::On,
            Some(text) => complain(BACKGROUND, text, "off, auto or on"),
        }
        if let Some(text) = lookup(HARDENED) {
            match Hardening::parse(text) {
                Some(safeguards) => self.hardening = safeguards,
                None => complain(HARDENED, text, "0, 1 or a list of safeguards"),
            }
        }
        self
    }
}

/// Why an option could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no option of that name.
    Name,
    /// The value does not parse.
    Value,
    /// The option is decided at the first call of the process.
    Decided,
    /// There is no memory for the first call of the process.
    NoMemory,
    /// This system's memory is not served by flagstone, which passes calls through.
    Unsupported,
}

impl fmt::Display for OptionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Name => "no option has this name",
            Self::Value => "the option has no such value",
            Self::Decided => "the option is decided at the first call of the process",
            Self::NoMemory => "there is no memory for the first call of the process",
            Self::Unsupported => "on this system calls pass through to its own allocator, without safeguards and samples",
        })
    }
}

impl core::error::Error for OptionError {}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

const HUGE_PAGES: &str = "FLAGSTONE_HUGE_PAGES";
pub(super) const BACKGROUND: &str = "FLAGSTONE_BACKGROUND";
pub(super) const SAMPLE: &str = "FLAGSTONE_SAMPLE";
pub(super) const HARDENED: &str = "FLAGSTONE_HARDENED";
const NUMBER: &str = "a number below 2^32";
const SIZE: &str = "a number of bytes, K, M or G";

/// Reads a number, `None` if it is none.
type Parse = fn(&[u8]) -> Option<usize>;

fn digits(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text)
        .ok()?
        .parse::<u32>()
        .ok()
        .map(|number| number as usize)
}

fn bytes(text: &[u8]) -> Option<usize> {
    let (number, unit) = match text.split_last()? {
        (b'K' | b'k', rest) => (rest, 1 << 10),
        (b'M' | b'm', rest) => (rest, 1 << 20),
        (b'G' | b'g', rest) => (rest, 1 << 30),
        _ => (text, 1),
    };
    core::str::from_utf8(number)
        .ok()?
        .parse::<usize>()
        .ok()?
        .checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, text: &'static [u8]) -> (Config, usize) {
        let mut complaints = 0;
        let lookup = |asked: &str| (asked == name).then_some(text);
        let config = Config::new().overridden(lookup, |_, _, _| complaints += 1);
        (config, complaints)
    }

    #[test]
    fn good_values_override() {
        let mut expected = Config::new();
        expected.dirty_budget = 3 << 20;
        assert_eq!(with("FLAGSTONE_DIRTY_BUDGET", b"3M"), (expected, 0));
        assert_eq!(
            with("FLAGSTONE_PURGE_DELAY_MS", b"0"),
            (Config::new().purge_delay_ms(0), 0)
        );
        let off = Config::new().huge_pages(HugePages::Off);
        assert_eq!(with("FLAGSTONE_HUGE_PAGES", b"off"), (off, 0));
        for (value, thread) in [
            (&b"off"[..], Background::Off),
            (b"0", Background::Off),
            (b"auto", Background::Auto),
            (b"on", Background::On),
            (b"1", Background::On),
        ] {
            let expected = Config::new().background(thread);
            assert_eq!(with(BACKGROUND, value), (expected, 0));
        }
    }

    #[test]
    fn an_option_is_set_by_its_name() {
        let config = Config::new();
        assert_eq!(
            config.with_option("FLAGSTONE_THREAD_CACHE", b"1M"),
            Ok(config.thread_cache(1 << 20))
        );
        assert_eq!(
            config.with_option("THREAD_CACHE", b"1M"),
            Err(OptionError::Name)
        );
        assert_eq!(
            config.with_option(HARDENED, b"a lot"),
            Err(OptionError::Value)
        );
        let sampled = if available::ENGINE {
            Ok(config.sample_one_in(7))
        } else {
            Err(OptionError::Unsupported)
        };
        assert_eq!(config.with_option(SAMPLE, b"7"), sampled);
        assert_eq!(config.with_option(SAMPLE, b"0"), Ok(config));
    }

    #[test]
    fn bad_values_are_named_and_ignored() {
        for text in [
            &b""[..],
            b"-1",
            b"1T",
            b"K",
            b"99999999999999999999",
            b"18446744073709551615G",
            b"\xff",
        ] {
            assert_eq!(
                with("FLAGSTONE_LARGE_CACHE", text),
                (Config::new(), 1),
                "{text:?}"
            );
        }
        assert_eq!(with("FLAGSTONE_HUGE_PAGES", b"yes"), (Config::new(), 1));
        assert_eq!(with(BACKGROUND, b"yes"), (Config::new(), 1));
        assert_eq!(with("FLAGSTONE_PURGE_DELAY_MS", b"1s"), (Config::new(), 1));
    }
}
