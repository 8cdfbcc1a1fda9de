//! Who lives: processes by the slots that they have locked. See docs/mapped.md, "Who lives".

use core::ptr::NonNull;

use super::area::Area;
use super::error::MappedError;
use super::header::{Line, SLOTS};
use super::opened::{LOCKS, Opened};
use super::source::refused;
use super::words::Process;
use crate::os::failpoints::{self, Point};
use crate::os::shared::File;
use crate::os::{self, PageLen};
use crate::sync::Ordering;

/// What a process gets of a heap: its slot, the page that keeps it, and how it found the heap.
pub(super) struct Joined {
    pub(super) process: Process,
    pub(super) kept: NonNull<u8>,
    pub(super) opened: Opened,
}

/// Lets go of a slot's lock, by the page that keeps it.
pub(super) fn let_go(kept: NonNull<u8>) {
    // SAFETY: 1. our own, and nobody reaches it. If the kernel refuses, the slot stays this process's until it ends.
    let _ = unsafe { os::unmap(kept, PageLen::pages(1)) };
}

fn slots() -> impl Iterator<Item = u32> {
    #[expect(clippy::cast_possible_truncation, reason = "some hundred")]
    (1..=SLOTS as u32)
}

impl Area {
    /// Whether a process has its slot still, as far as anyone noticed.
    pub(super) fn is_current(&self, process: Process) -> bool {
        // ORDERING: pairs with `Line::pass_on`.
        let is_of = |line: &Line| {
            line.generation.load(Ordering::Acquire) == process.generation() && line.is_used()
        };
        self.line(process.slot()).is_some_and(is_of)
    }

    /// Claims a slot for this process, and the page that keeps it locked: the kernel drops it when its memory goes.
    pub(super) fn join(&self, may_be_dirty: bool) -> Result<Joined, MappedError> {
        let claim = |own, opened| {
            let (process, kept) = self.claim_slot(own)?;
            Ok(Joined {
                process,
                kept,
                opened,
            })
        };
        self.source.with_own(|own| {
            self.alone_at_openings(own, || {
                let opened = self.begin_use(own, may_be_dirty)?;
                claim(own, opened).inspect_err(|_| {
                    if opened == Opened::Clean {
                        // As it was found, or as one that nobody closed.
                        let _ = self.end_use(own);
                    }
                })
            })
        })
    }

    fn claim_slot(&self, own: File) -> Result<(Process, NonNull<u8>), MappedError> {
        // Those first that nobody has, as far as one can tell.
        let free = slots().filter(|slot| self.line(*slot).is_some_and(|line| !line.is_used()));
        for slot in free.chain(slots()) {
            let Some(line) = self.line(slot) else {
                continue;
            };
            let is_ours = own
                .try_lock_byte(LOCKS + u64::from(slot))
                .map_err(refused)?;
            if !is_ours {
                continue;
            }
            let process = Process::new(slot, line.pass_on());
            let was_used = line.is_used();
            line.process.store(os::process_number(), Ordering::Relaxed);
            line.is_used.store(1, Ordering::Relaxed);
            if was_used {
                self.note_reaped();
            }
            failpoints::at(Point::Slot);
            let kept = own.keep_open().map_err(|errno| {
                line.is_used.store(0, Ordering::Relaxed);
                refused(errno)
            })?;
            return Ok((process, kept));
        }
        Err(MappedError::TooManyProcesses)
    }

    /// Claims the slot of this process anew, which has it, after the heap's tables became those of another time.
    pub(super) fn claim_again(&self, process: Process) -> Process {
        self.forget_processes(false);
        let Some(line) = self.line(process.slot()) else {
            return process;
        };
        line.process.store(os::process_number(), Ordering::Relaxed);
        line.is_used.store(1, Ordering::Relaxed);
        Process::new(process.slot(), line.pass_on())
    }

    /// Looks for processes that are gone, but for this one; whether there were some. An error if nobody can tell, as the
    /// program closed the descriptor, say.
    pub(super) fn reap(&self, own: Process) -> Result<bool, MappedError> {
        let others = || slots().filter(|slot| *slot != own.slot());
        let used = |slot: &u32| self.line(*slot).is_some_and(Line::is_used);
        if !others().any(|slot| used(&slot)) {
            return Ok(false);
        }
        self.source.with_own(|file| {
            let mut found = false;
            for slot in others().filter(used) {
                let place = LOCKS + u64::from(slot);
                if let (Some(line), Ok(true)) = (self.line(slot), file.try_lock_byte(place)) {
                    line.pass_on();
                    self.note_reaped();
                    // Last: should this process end before, the next reaps once more.
                    line.is_used.store(0, Ordering::Relaxed);
                    file.unlock_byte(place);
                    found = true;
                }
            }
            Ok(found)
        })
    }

    /// Gives this process's slot up; its slabs are anyone's.
    pub(super) fn leave(&self, process: Process) {
        if let Some(line) = self
            .line(process.slot())
            .filter(|_| self.is_current(process))
        {
            line.pass_on();
            self.note_reaped();
            line.is_used.store(0, Ordering::Relaxed);
        }
    }

    /// The numbers of the processes that have a slot.
    pub(super) fn process_numbers(&self) -> impl Iterator<Item = u32> {
        let lines = slots().filter_map(|slot| self.line(slot));
        let used = lines.filter(|line| line.is_used());
        // ORDERING: for people.
        used.map(|line| line.process.load(Ordering::Relaxed))
    }
}
