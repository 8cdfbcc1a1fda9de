//! Openings of heaps in files: whether the last ones who had a heap closed it. See docs/mapped.md, "Files".

use core::mem::offset_of;

use super::area::Area;
use super::error::MappedError;
use super::header::{Header, Kind, Line, SLOTS};
use super::source::refused;
use super::words::Process;
use crate::os::files::{boot_number, sync_mapping};
use crate::os::shared::File;
use crate::os::{self, PageLen};
use crate::sync::Ordering;

/// Where the bytes lie that slots are locked by: behind whatever a file holds.
pub(super) const LOCKS: u64 = 1 << 60;
/// The byte that is locked by who opens or closes a file: far from the slots', with which the kernel would merge it.
const OPENINGS: u64 = 1 << 59;

/// How a process came to a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Opened {
    /// It made the heap.
    Created,
    /// Other processes had it at the time.
    Joined,
    /// It was in a file that nobody had, and that was closed by the last who did.
    Clean,
    /// It was in a file that nobody had, and that somebody did not close. What was stored there is there. What dead processes
    /// had is in use.
    Recovered,
    /// It was in a file that somebody did not close before the machine went down: what was stored there may be there in
    /// parts. So all find it until one says that it is [fit](super::Mapped::mark_fit).
    Dirty,
}

impl Opened {
    /// By its number, as it is kept.
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Created,
            1 => Self::Joined,
            2 => Self::Clean,
            3 => Self::Recovered,
            _ => Self::Dirty,
        }
    }
}

impl Line {
    pub(super) fn is_used(&self) -> bool {
        // ORDERING: a hint: the lock of the byte decides.
        self.is_used.load(Ordering::Relaxed) != 0
    }

    /// Changes hands. By who has locked the slot's byte.
    pub(super) fn pass_on(&self) -> u32 {
        let next = Process::generation_after(self.generation.load(Ordering::Relaxed));
        // ORDERING: release: pairs with `Area::is_current`. What the last process left is anyone's from here on.
        self.generation.store(next, Ordering::Release);
        next
    }
}

impl Header {
    /// No process has a slot, or the lock: what they held is nobody's.
    pub(super) fn forget_lines(&self) {
        // ORDERING: nobody else has the heap, here and below.
        for line in &self.lines {
            line.pass_on();
            line.is_used.store(0, Ordering::Relaxed);
        }
        self.lock.0.store(0, Ordering::Relaxed);
    }

    /// The bitmap of free units is made anew by the next who takes the lock.
    pub(super) fn set_unmended(&self) {
        let reaped = self.reaped.0.load(Ordering::Relaxed);
        self.mended.0.store(!reaped, Ordering::Relaxed);
    }
}

impl Area {
    /// Does something by a file that was opened anew: while nobody else opens or closes the heap, if it is in a file.
    pub(super) fn alone_at_openings<T>(
        &self,
        own: File,
        act: impl FnOnce() -> Result<T, MappedError>,
    ) -> Result<T, MappedError> {
        if !self.source.kind().is_found_by_path() {
            return act();
        }
        own.lock_byte(OPENINGS).map_err(refused)?;
        let done = act();
        own.unlock_byte(OPENINGS);
        done
    }

    /// The number of this boot, for this file: a copy that was made while a heap was in use is of another.
    fn boot_of(&self, file: File) -> Result<u64, MappedError> {
        let own = boot_number().and_then(|boot| Ok(boot ^ file.identity()?));
        Ok(own.map_err(refused)?.max(1))
    }

    /// Whether no process has a slot, but by this open file.
    fn is_unused(&self, own: File) -> Result<bool, MappedError> {
        let is_used = own.is_locked_by_others(LOCKS + 1, SLOTS as u64);
        Ok(!is_used.map_err(refused)?)
    }

    /// Before a process claims a slot, alone at openings: how it finds the heap. From here on a file counts as in use.
    pub(super) fn begin_use(&self, own: File, may_be_dirty: bool) -> Result<Opened, MappedError> {
        if self.source.kind() == Kind::Committed {
            return self.begin_committing(own);
        }
        if self.source.kind() != Kind::File {
            return Ok(Opened::Joined);
        }
        let is_unused = self.is_unused(own)?;
        let now = self.boot_of(own)?;
        // ORDERING: the byte's lock orders it, here and below.
        let opened = match self.header().boot.0.load(Ordering::Relaxed) {
            0 if is_unused => Opened::Clean,
            before if before == 0 || before == now => match is_unused {
                true => Opened::Recovered,
                false => Opened::Joined,
            },
            // However many have it: until somebody says that it is fit.
            _ if may_be_dirty => Opened::Dirty,
            _ => return Err(MappedError::Dirty),
        };
        if is_unused {
            // Before anything is stored.
            self.reserve_again(own, opened == Opened::Dirty)?;
        }
        if opened == Opened::Clean {
            // On disk before anything else is: else a machine that goes down could leave a part of that, and "closed".
            self.write_boot(now)?;
        } else if is_unused {
            self.forget_processes(opened == Opened::Dirty);
        }
        Ok(opened)
    }

    /// The same for a heap that commits, and is one process's.
    fn begin_committing(&self, own: File) -> Result<Opened, MappedError> {
        if !self.is_unused(own)? {
            return Err(MappedError::InUse);
        }
        let was_left = self.recover()?;
        self.reserve_again(own, false)?;
        // Those that had it at the last commit.
        self.forget_processes(false);
        Ok(match was_left {
            true => Opened::Recovered,
            false => Opened::Clean,
        })
    }

    fn write_boot(&self, number: u64) -> Result<(), MappedError> {
        let boot = &self.header().boot.0;
        let before = boot.swap(number, Ordering::Relaxed);
        let written = sync_mapping(self.base(), PageLen::pages(1));
        written.map_err(|errno| {
            boot.store(before, Ordering::Relaxed);
            refused(errno)
        })
    }

    /// What lies in the heap was found to be whole, alone at openings: it is on the disk before the heap counts as such.
    pub(super) fn end_dirt(&self, own: File) -> Result<(), MappedError> {
        let now = self.boot_of(own)?;
        if self.header().boot.0.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        self.flush()?;
        self.write_boot(now)
    }

    /// What a process leaves that is gone is to be looked at.
    pub(super) fn note_reaped(&self) {
        self.set_all_hints();
        // ORDERING: release: after the generation, for who makes units anew.
        self.header().reaped.0.fetch_add(1, Ordering::Release);
    }

    /// How a process finds the heap that only reads it, and is none of its users.
    pub(super) fn look(&self, may_be_dirty: bool) -> Result<Opened, MappedError> {
        if self.source.kind() == Kind::Committed {
            return self.look_at_commits();
        }
        if self.source.kind() != Kind::File {
            return Ok(Opened::Joined);
        }
        match self.condition()? {
            Opened::Dirty if !may_be_dirty => Err(MappedError::Dirty),
            found => Ok(found),
        }
    }

    /// The same of a heap that commits: a copy of the last commit, while nobody has it.
    fn look_at_commits(&self) -> Result<Opened, MappedError> {
        let file = self.source.open().ok_or(MappedError::Closed)?;
        if !self.is_unused(file)? {
            return Err(MappedError::InUse);
        }
        let was_left = self.recover_copy()?;
        self.forget_processes(false);
        Ok(match was_left {
            true => Opened::Recovered,
            false => Opened::Clean,
        })
    }

    /// How a process that opens the heap now finds it.
    pub(super) fn condition(&self) -> Result<Opened, MappedError> {
        let file = self.source.open().ok_or(MappedError::Closed)?;
        // ORDERING: others may change it at any time, which the locks tell, or the second look.
        let boot = || self.header().boot.0.load(Ordering::Acquire);
        let before = boot();
        let is_dirty =
            self.source.kind() == Kind::File && before != 0 && before != self.boot_of(file)?;
        if is_dirty {
            return Ok(Opened::Dirty);
        }
        let is_opening = file.is_locked_by_others(OPENINGS, 1).map_err(refused)?;
        if is_opening || !self.is_unused(file)? || boot() != before {
            return Ok(Opened::Joined);
        }
        let is_left = match self.source.kind() {
            Kind::File => before != 0,
            Kind::Committed => self.has_log_left(),
            _ => self.header().lines.iter().any(Line::is_used),
        };
        Ok(if is_left {
            Opened::Recovered
        } else {
            Opened::Clean
        })
    }

    /// No process has the heap: what they held is nobody's.
    pub(super) fn forget_processes(&self, may_be_torn: bool) {
        let header = self.header();
        if may_be_torn {
            for line in &header.lines {
                // The words of locks may be younger than this: what they name shall not come again.
                #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
                let random = os::random()[0] as u32;
                line.generation.store(random, Ordering::Relaxed);
            }
        }
        header.forget_lines();
        self.note_reaped();
        // Whatever stood there.
        header.set_unmended();
    }

    /// After a process gave up its slot, alone at openings: what is in the file reaches the disk, and it counts as closed,
    /// unless others have it, or it is dirty.
    pub(super) fn end_use(&self, own: File) -> Result<(), MappedError> {
        if self.source.kind() == Kind::Committed {
            return self.checkpoint();
        }
        if self.source.kind() != Kind::File || !self.is_unused(own)? {
            return Ok(());
        }
        own.sync().map_err(refused)?;
        // A copy of the page, in which nothing was stored.
        if self.header().boot.0.load(Ordering::Relaxed) != self.boot_of(own)? {
            return Ok(());
        }
        // Not by the mapping, which is private by now.
        own.write_words(offset_of!(Header, boot), &[0])
            .map_err(refused)?;
        own.sync().map_err(refused)
    }

    /// Waits until what was stored is on disk.
    pub(super) fn flush(&self) -> Result<(), MappedError> {
        if self.source.kind() != Kind::File {
            return Ok(());
        }
        let length = PageLen::kept(self.geometry.bytes());
        sync_mapping(self.base(), length).map_err(refused)
    }
}
