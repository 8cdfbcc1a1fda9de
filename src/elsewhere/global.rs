//! `Flagstone`, where it passes calls through.

use core::alloc::{GlobalAlloc, Layout};

use super::std::alloc::System;
use crate::config::Config;
use crate::error::{StartError, Violation};
use crate::hardening::{Hardening, MissingSafeguards};
use crate::stats::Stats;

/// The allocator, which on this system passes calls through to the system's own ([`System`]). Declare one as the program's:
///
/// ```
/// use flagstone::Flagstone;
///
/// #[global_allocator]
/// static ALLOCATOR: Flagstone = Flagstone::new();
///
/// let words: Vec<String> = vec!["slab".into(), "span".into()];
/// assert_eq!(words.len(), 2);
/// ```
///
/// So a program for Linux compiles and runs here, too, as it would without flagstone: nothing is faster, and no mistake is
/// noticed. What it can do without is absent in silence: options do nothing, [`purge`](Self::purge) gives 0 bytes back.
/// What it may depend on is a value that says so: [`stats`](Self::stats), [`require`](Self::require),
/// [`start_background`](Self::start_background). The environment is not read.
#[derive(Debug)]
pub struct Flagstone {
    #[expect(dead_code, reason = "nobody reads the options but `Debug`")]
    config: Config,
}

impl Flagstone {
    /// The allocator with default options.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_config(Config::new())
    }

    /// The allocator with these options, which do nothing on this system.
    #[must_use]
    pub const fn with_config(config: Config) -> Self {
        Self { config }
    }

    /// Gives nothing back: 0 bytes.
    pub fn purge() -> usize {
        0
    }

    /// There is no background thread on this system.
    ///
    /// # Errors
    ///
    /// [`StartError`], always.
    pub fn start_background(&self) -> Result<(), StartError> {
        Err(StartError)
    }

    /// Whether these safeguards are on; on this system there are none.
    ///
    /// ```
    /// use flagstone::{Config, Flagstone, Hardening};
    ///
    /// // Not an error: options do nothing here.
    /// static ALLOCATOR: Flagstone = Flagstone::with_config(Config::new().hardening(Hardening::ALL));
    ///
    /// let error = ALLOCATOR.require(Hardening::CHECKS).expect_err("none are on");
    /// assert_eq!(error.missing, Hardening::CHECKS);
    /// ```
    ///
    /// # Errors
    ///
    /// [`MissingSafeguards`] with all that are required, if any are.
    pub fn require(&self, safeguards: Hardening) -> Result<(), MissingSafeguards> {
        MissingSafeguards::check(safeguards, Hardening::NONE)
    }

    /// `None`: the system's allocator does not say what it holds.
    #[must_use]
    pub fn stats() -> Option<Stats> {
        None
    }

    /// There are no tables to check, so nothing is wrong with them.
    ///
    /// # Errors
    ///
    /// None on this system.
    pub fn verify() -> Result<(), Violation> {
        Ok(())
    }
}

impl Default for Flagstone {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: 1. and 2. each call is the system's, whose blocks do not overlap, and which does not unwind.
unsafe impl GlobalAlloc for Flagstone {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: 1. what `GlobalAlloc` asks of its caller.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: 1. what `GlobalAlloc` asks of its caller; all blocks are the system's.
        unsafe { System.dealloc(block, layout) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: 1. what `GlobalAlloc` asks of its caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: 1. what `GlobalAlloc` asks of its caller; all blocks are the system's.
        unsafe { System.realloc(block, layout, size) }
    }
}
