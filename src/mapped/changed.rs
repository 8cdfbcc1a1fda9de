//! Which pages of a private mapping were changed since the last commit, and which words of a page.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::error::MappedError;
use super::logged::WORD;
use super::source::refused;
use crate::os::pagemap::{NotTold, Noted, Pagemap};

/// Bytes that are compared at once.
pub(super) const PIECE: usize = 4096;
/// Runs of pages that are kept, some KiB of the stack. To look for more once more is as quick as to protect each.
const RUNS: usize = 128;

/// A piece of the heap, or of the file, as numbers.
pub(super) type Piece = [u64; PIECE / WORD];

/// The runs of words in which two pieces differ. One equal word between two is taken along: a run has a word before it.
pub(super) fn each_difference(
    old: &Piece,
    new: &Piece,
    mut act: impl FnMut(Range<usize>) -> Result<(), MappedError>,
) -> Result<(), MappedError> {
    let mut run = 0..0;
    let differing = (0..new.len()).filter(|word| old[*word] != new[*word]);
    for word in differing {
        if word > run.end + 1 || run.is_empty() {
            if !run.is_empty() {
                act(run)?;
            }
            run = word..word;
        }
        run.end = word + 1;
    }
    if run.is_empty() {
        return Ok(());
    }
    act(run)
}

impl From<NotTold> for MappedError {
    fn from(NotTold(errno): NotTold) -> Self {
        refused(errno)
    }
}

/// Whether the kernel notes in which pages of the mapping something is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Noting {
    /// Nobody has asked it to.
    No,
    Yes(Noted),
    /// It does not, or no more.
    Refused,
}

impl Noting {
    /// Ends it, as the mapping is another's.
    pub(super) fn end(&mut self) {
        if let Self::Yes(noted) = core::mem::replace(self, Self::No) {
            noted.end();
        }
    }
}

/// How pages are found in which something was stored since the last commit.
pub(super) struct Pages {
    pub(super) map: Pagemap,
    /// Where some can be.
    pub(super) all: Range<usize>,
    pub(super) are_noted: bool,
}

impl Pages {
    /// Calls for each run of them between some addresses.
    pub(super) fn each(
        &self,
        addresses: Range<usize>,
        act: impl FnMut(Range<usize>) -> Result<(), MappedError>,
    ) -> Result<(), MappedError> {
        match self.are_noted {
            true => self.map.each_noted(addresses, act),
            false => self.map.each_changed(addresses, act),
        }
    }
}

/// The runs of pages that a commit is about, if they are few: else they are looked for once more.
pub(super) struct Runs {
    kept: [(usize, usize); RUNS],
    count: usize,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self {
            kept: [(0, 0); RUNS],
            count: 0,
        }
    }

    pub(super) fn add(&mut self, run: Range<usize>) {
        if let Some(place) = self.kept.get_mut(self.count) {
            *place = (run.start, run.end);
        }
        self.count += 1;
    }

    /// All of them, if they were few enough to be kept.
    pub(super) fn all(&self) -> Option<impl Iterator<Item = Range<usize>>> {
        let kept = self.kept.get(..self.count)?;
        Some(kept.iter().map(|(start, end)| *start..*end))
    }

    /// They count as not stored in from here on. What is refused is compared once more.
    pub(super) fn protect(&self, pages: &Pages) {
        if !pages.are_noted {
            return;
        }
        let _ = match self.all() {
            Some(mut all) => all.try_for_each(|run| pages.map.protect(run)),
            None => pages.map.protect(pages.all.clone()),
        };
    }
}
