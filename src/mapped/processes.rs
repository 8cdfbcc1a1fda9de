//! Who lives: processes by the slots that they have locked. See docs/mapped.md, "Who lives".

use core::ptr::NonNull;

use super::area::Area;
use super::error::MappedError;
use super::header::{Line, SLOTS};
use super::source::refused;
use super::words::Process;
use crate::os::{self, PageLen};
use crate::sync::Ordering;

/// Where the bytes lie that slots are locked by: behind whatever a file holds.
const LOCKS: u64 = 1 << 60;

/// Lets go of a slot's lock, by the page that keeps it.
pub(super) fn let_go(kept: NonNull<u8>) {
    // SAFETY: 1. our own, and nobody reaches it. If the kernel refuses, the slot stays this process's until it ends.
    let _ = unsafe { os::unmap(kept, PageLen::pages(1)) };
}

fn slots() -> impl Iterator<Item = u32> {
    #[expect(clippy::cast_possible_truncation, reason = "some hundred")]
    (1..=SLOTS as u32)
}

impl Line {
    fn is_used(&self) -> bool {
        // ORDERING: a hint: the lock of the byte decides.
        self.is_used.load(Ordering::Relaxed) != 0
    }

    /// Changes hands. By who has locked the slot's byte.
    fn next_generation(&self) -> u32 {
        let next = Process::generation_after(self.generation.load(Ordering::Relaxed));
        // ORDERING: release: pairs with `is_current`. What the last process left is anyone's from here on.
        self.generation.store(next, Ordering::Release);
        next
    }
}

impl Area {
    /// Whether a process has its slot still, as far as anyone noticed.
    pub(super) fn is_current(&self, process: Process) -> bool {
        // ORDERING: pairs with `next_generation`.
        let is_of = |line: &Line| {
            line.generation.load(Ordering::Acquire) == process.generation() && line.is_used()
        };
        self.line(process.slot()).is_some_and(is_of)
    }

    /// Claims a slot for this process, and the page that keeps it locked: the kernel drops it when its memory goes.
    pub(super) fn join(&self) -> Result<(Process, NonNull<u8>), MappedError> {
        let own = self.source.open_anew()?;
        // Those first that nobody has, as far as one can tell.
        let free = slots().filter(|slot| self.line(*slot).is_some_and(|line| !line.is_used()));
        for slot in free.chain(slots()) {
            let Some(line) = self.line(slot) else {
                continue;
            };
            match own.try_lock_byte(LOCKS + u64::from(slot)) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(errno) => {
                    own.close();
                    return Err(refused(errno));
                }
            }
            let process = Process::new(slot, line.next_generation());
            let was_used = line.is_used();
            line.process.store(os::process_number(), Ordering::Relaxed);
            line.is_used.store(1, Ordering::Relaxed);
            let kept = own.keep_open();
            own.close();
            let kept = kept.map_err(|errno| {
                line.is_used.store(0, Ordering::Relaxed);
                refused(errno)
            })?;
            if was_used {
                self.note_reaped();
            }
            return Ok((process, kept));
        }
        own.close();
        Err(MappedError::TooManyProcesses)
    }

    /// Looks for processes that are gone, but for this one; whether there were some. An error if nobody can tell, as the
    /// program closed the descriptor, say.
    pub(super) fn reap(&self, own: Process) -> Result<bool, MappedError> {
        let others = || slots().filter(|slot| *slot != own.slot());
        let used = |slot: &u32| self.line(*slot).is_some_and(Line::is_used);
        if !others().any(|slot| used(&slot)) {
            return Ok(false);
        }
        let file = self.source.open_anew()?;
        let mut found = false;
        for slot in others().filter(used) {
            if let (Some(line), Ok(true)) =
                (self.line(slot), file.try_lock_byte(LOCKS + u64::from(slot)))
            {
                line.next_generation();
                self.note_reaped();
                // Last: should this process end before, the next reaps once more.
                line.is_used.store(0, Ordering::Relaxed);
                found = true;
            }
        }
        file.close();
        Ok(found)
    }

    /// What a process leaves that is gone is to be looked at.
    fn note_reaped(&self) {
        self.set_all_hints();
        // ORDERING: release: after the generation, for who makes units anew.
        self.header().reaped.0.fetch_add(1, Ordering::Release);
    }

    /// Gives this process's slot up; its slabs are anyone's.
    pub(super) fn leave(&self, process: Process) {
        if let Some(line) = self
            .line(process.slot())
            .filter(|_| self.is_current(process))
        {
            line.next_generation();
            self.note_reaped();
            line.is_used.store(0, Ordering::Relaxed);
        }
    }

    /// Processes that have a slot.
    pub(super) fn processes(&self) -> usize {
        slots()
            .filter(|slot| self.line(*slot).is_some_and(Line::is_used))
            .count()
    }
}
