//! What a process knows of a heap: its mapping, its slot, and the parts of its threads. Never unmapped: a handle may come
//! at any time.

use core::ptr::NonNull;

use super::area::Area;
use super::error::MappedError;
use super::header::{Constants, Kind};
use super::opened::Opened;
use super::part::Part;
use super::processes::{Joined, let_go};
use super::source::{Source, no_memory, refused};
use super::words::{MOST_PARTS, Process};
use crate::arena::meta;
use crate::first_class::CONFIG;
use crate::os::failpoints::{self, Point};
use crate::os::shared::{self, File, FileId, IN_USE, SEALED, Sharing};
use crate::os::{self, Held, Lock, PageLen};
use crate::sync::{AtomicU32, AtomicU64, GuardedPtr, GuardedU8, GuardedU32, Link, Ordering};
use crate::thread_cache::ThreadCache;
use crate::threads;

pub(super) struct Attachment {
    pub(super) area: Area,
    /// The slot of this process, and above it the number of forks before the process that has it: a child has none.
    process: AtomicU64,
    /// What this process may do with the heap: the number of a [`State`].
    state: AtomicU32,
    /// Frees that were wrong, and did nothing.
    pub(super) refused: AtomicU32,
    /// What keeps that slot locked.
    kept: GuardedPtr<u8>,
    parts: Lock<Parts>,
    next: Link<Self>,
}

/// What a process may do with a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum State {
    Open,
    /// What is left of it can be read.
    Closed,
    ReadOnly,
}

/// How a process came to a heap: its slot, if it got one by that.
pub(super) struct Found {
    pub(super) opened: Opened,
    pub(super) joined: Option<Joined>,
    pub(super) state: State,
}

/// The parts of this process's threads.
struct Parts {
    first: GuardedPtr<Part>,
    count: GuardedU32,
    /// The process whose parts they are.
    generation: GuardedU32,
    /// How this process, or the one that it was forked from, came to the heap: the number of an [`Opened`].
    opened: GuardedU8,
}

/// The newest of all, and the lock under which one is entered.
static NEWEST: Link<Attachment> = Link::none();
static ENTERING: Lock<()> = Lock::new(());

impl Attachment {
    /// Held while a heap is looked for, mapped and entered.
    pub(super) fn entering() -> Held<'static, ()> {
        threads::begin(&CONFIG);
        ENTERING.break_inherited();
        ENTERING.lock()
    }

    /// Remembers a heap that was just mapped, and how this process came to it.
    pub(super) fn enter(
        _: &Held<'static, ()>,
        area: Area,
        found: Found,
    ) -> Result<&'static Self, MappedError> {
        let Some(place) = meta::alloc(size_of::<Self>()) else {
            if let Some(joined) = &found.joined {
                area.leave(joined.process);
                let_go(joined.kept);
            }
            return Err(no_memory());
        };
        let place = place.cast::<Self>();
        let fresh = Self {
            area,
            process: AtomicU64::new(0),
            kept: GuardedPtr::null(),
            state: AtomicU32::new(State::Closed as u32),
            refused: AtomicU32::new(0),
            parts: Lock::new(Parts {
                first: GuardedPtr::null(),
                count: GuardedU32::new(0),
                generation: GuardedU32::new(0),
                opened: GuardedU8::new(0),
            }),
            next: Link::none(),
        };
        // SAFETY: 1. metadata of this size, aligned to a line, that nobody else has.
        unsafe { place.write(fresh) };
        // SAFETY: 1. just written, and never freed.
        let fresh: &'static Self = unsafe { place.as_ref() };
        fresh.begin(found);
        fresh.next.set(NEWEST.get());
        failpoints::at(Point::Enter);
        NEWEST.set(Some(fresh));
        Ok(fresh)
    }

    /// That of the heap at this address.
    pub(super) fn at(base: usize) -> Option<&'static Self> {
        all_attached().find(|attachment| attachment.area.base().addr().get() == base)
    }

    /// That of the heap in this file, which says this of itself.
    pub(super) fn of(id: FileId, constants: Constants) -> Option<&'static Self> {
        let is_it = |source: &Source| source.id == id && source.constants == constants;
        all_attached().find(|attachment| is_it(&attachment.area.source))
    }

    /// The slot that this process has got, if it has, and how it came to the heap.
    fn begin(&self, found: Found) {
        let parts = self.parts();
        parts.opened.set(found.opened as u8);
        self.process.store(0, Ordering::Relaxed);
        if let Some(joined) = found.joined {
            self.keep(&joined);
        }
        self.be(found.state);
    }

    fn be(&self, state: State) {
        // ORDERING: release: pairs with `state`.
        self.state.store(state as u32, Ordering::Release);
    }

    fn keep(&self, joined: &Joined) {
        self.kept.set(Some(joined.kept));
        self.be_process(joined.process);
    }

    fn be_process(&self, process: Process) {
        let own = u64::from(os::fork_generation().number()) << u32::BITS;
        // ORDERING: a number that does not change in a process once it is there.
        let word = u64::from(process.bits()) | own;
        self.process.store(word, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) -> Opened {
        Opened::from_number(self.parts().opened.get())
    }

    /// Opens a heap again that was closed in this process, by a descriptor of the same file. What lay there is what the
    /// file has now. The process may have had it once: its threads' parts own nothing.
    pub(super) fn open_again(
        &self,
        _: &Held<'static, ()>,
        (file, sharing): (File, Sharing),
        join: impl FnOnce(&Area) -> Result<Found, MappedError>,
    ) -> Result<(), MappedError> {
        let (base, length) = (self.area.base(), PageLen::kept(self.area.geometry.bytes()));
        // SAFETY: 1. our own, in which nobody stores anything since the heap was closed.
        let mapped = unsafe { file.map_over(base, length, sharing) };
        mapped.map_err(|errno| match errno {
            SEALED => MappedError::ReadOnly,
            errno => refused(errno),
        })?;
        let before = self.area.source.file();
        self.area.source.set(file);
        let found = join(&self.area).inspect_err(|_| {
            self.area.source.set(before);
            // SAFETY: 1. as above. If the kernel refuses, the file stays there, which nobody uses.
            let _ = unsafe { file.map_over(base, length, Sharing::Copy) };
        })?;
        self.begin(found);
        Ok(())
    }

    pub(super) fn state(&self) -> State {
        // ORDERING: acquire: pairs with `be`. Who closes sees to it that nobody is in a call.
        match self.state.load(Ordering::Acquire) {
            0 => State::Open,
            1 => State::Closed,
            _ => State::ReadOnly,
        }
    }

    /// That of the heap which an address lies in.
    pub(super) fn over(address: usize) -> Option<&'static Self> {
        all_attached().find(|attachment| attachment.area.locate(address).is_some())
    }

    /// From here on a forked child is of a generation of its own.
    pub(super) fn know_forks() {
        threads::begin(&CONFIG);
    }

    /// An error unless this process may change the heap.
    pub(super) fn writable(&self) -> Result<(), MappedError> {
        match self.state() {
            State::Open => Ok(()),
            State::Closed => Err(MappedError::Closed),
            State::ReadOnly => Err(MappedError::ReadOnly),
        }
    }

    /// The lock of the parts. In a forked child the parent's parts are forgotten.
    fn parts(&self) -> Held<'_, Parts> {
        threads::begin(&CONFIG);
        self.parts.break_inherited();
        let parts = self.parts.lock();
        let own = os::fork_generation().number();
        if parts.generation.get() != own {
            // Their pages are zero here, or their first stores are lost with who made them.
            parts.first.set(None);
            parts.count.set(0);
            parts.generation.set(own);
        }
        failpoints::at(Point::Parts);
        parts
    }

    /// The slot of this process, which is claimed if it has none.
    pub(super) fn process(&self) -> Result<Process, MappedError> {
        threads::begin(&CONFIG);
        self.writable()?;
        if let Some(process) = self.own_process() {
            return Ok(process);
        }
        let _held = self.parts();
        if let Some(process) = self.own_process() {
            return Ok(process);
        }
        self.writable()?;
        if self.area.commits.is_some() {
            // Who opened it has a slot.
            return Err(MappedError::Forked);
        }
        // Whoever brought this process the heap knew what state it was in.
        let joined = self.area.join(true)?;
        self.keep(&joined);
        Ok(joined.process)
    }

    /// The calling thread's part, or one that is made its own.
    pub(super) fn part(&'static self) -> Result<&'static Part, MappedError> {
        let process = self.process()?;
        if ThreadCache::own().is_none() {
            drop(threads::lock_own(&CONFIG));
        }
        // A thread that is ending has none.
        let own = ThreadCache::own().ok_or(MappedError::Closed)?;
        let parts = self.parts();
        self.writable()?;
        let found = all(parts.first.get()).find(|part| part.thread.is(own));
        if let Some(part) =
            found.or_else(|| all(parts.first.get()).find(|part| part.thread.is_gone()))
        {
            part.begin_anew(&self.area, process);
            part.thread.set(own);
            return Ok(part);
        }
        let number = parts.count.get() + 1;
        if number > MOST_PARTS {
            return Err(MappedError::NoSpace);
        }
        let page = PageLen::pages(1);
        let place = shared::map_wiped(page).ok_or(no_memory())?;
        // SAFETY: 1. a page of its own, zero, that is never unmapped.
        let part = unsafe { Part::begin_at(place.cast(), &self.area, process.part(number)) };
        part.next.set(parts.first.get());
        part.thread.set(own);
        parts.count.set(number);
        parts.first.set(Some(part.into()));
        Ok(part)
    }

    /// Has the parts of threads that ended give up what they own.
    fn give_up_gone(&self) {
        let parts = self.parts();
        let is_left = |part: &&Part| part.thread.is_gone() && !part.has_nothing();
        all(parts.first.get())
            .filter(is_left)
            .for_each(Part::give_up);
    }

    /// Has all threads' parts give up what they own, and go on with nothing.
    pub(super) fn give_up_all(&'static self, process: Process) {
        let parts = self.parts();
        for part in all(parts.first.get()) {
            part.give_up();
            part.begin_anew(&self.area, process);
        }
    }

    /// Makes durable what was stored.
    ///
    /// # Safety
    /// 1. Nobody else stores in the heap, or is in a call for it.
    pub(super) unsafe fn commit(&self) -> Result<(), MappedError> {
        self.process()?;
        self.area.commit()
    }

    /// Drops what was stored since the last commit.
    ///
    /// # Safety
    /// 1. Nobody else is in a call for the heap, and nobody uses what lies in it.
    pub(super) unsafe fn rollback(&'static self) -> Result<(), MappedError> {
        let process = self.process()?;
        let parts = self.parts();
        self.area.drop_changes()?;
        let process = self.area.claim_again(process);
        self.be_process(process);
        for part in all(parts.first.get()) {
            part.forget();
            part.begin_anew(&self.area, process);
        }
        Ok(())
    }

    /// Commits, and gives the space of free units back to the disk.
    ///
    /// # Safety
    /// 1. As for [`commit`](Self::commit).
    pub(super) unsafe fn compact(&'static self) -> Result<(), MappedError> {
        self.process()?;
        self.give_up_gone();
        self.part()?.sweep();
        let area = &self.area;
        area.free_runs().for_each(drop);
        area.commit()?;
        // What the log has of these units is older.
        area.checkpoint()?;
        let punched = area
            .free_runs()
            .try_for_each(|(first, count)| area.punch(first, count));
        // Also if the kernel did so with some of them only.
        area.keep_holes().and(punched)
    }

    /// What lies in the heap was found to be whole.
    pub(super) fn mark_fit(&self) -> Result<(), MappedError> {
        self.process()?;
        if self.area.source.kind() != Kind::File {
            return Ok(());
        }
        let area = &self.area;
        let act = |own| area.alone_at_openings(own, || area.end_dirt(own));
        area.source.with_own(act)
    }

    /// Looks for processes and threads that are gone, and takes note of what they left.
    pub(super) fn reap(&self, process: Process) {
        // If nobody can tell, nobody is.
        let _ = self.area.reap(process);
        self.give_up_gone();
    }

    /// Gives up all that this process's threads own, and lets nobody have more.
    fn rest(&self) -> Result<(), MappedError> {
        let parts = self.parts();
        self.writable()?;
        self.be(State::Closed);
        all(parts.first.get()).for_each(Part::give_up);
        all(parts.first.get()).for_each(Part::end);
        Ok(())
    }

    /// Gives up all that this process owns, and puts a private copy in the mapping's place.
    ///
    /// # Safety
    /// 1. No other thread of this process is in a call for the heap.
    pub(super) unsafe fn close(&self) -> Result<(), MappedError> {
        // Nobody opens it meanwhile.
        let _entering = Self::entering();
        if self.state() == State::ReadOnly {
            self.be(State::Closed);
            self.close_descriptor();
            return Ok(());
        }
        self.rest()?;
        // Not by the descriptor itself: the program may have closed it, and have another file by its number.
        let closed = self
            .area
            .source
            .with_own(|file| self.area.alone_at_openings(file, || self.leave(file)));
        if closed.is_err() {
            self.give_slot_up();
        }
        self.close_descriptor();
        closed
    }

    fn close_descriptor(&self) {
        if let Some(own) = self.area.source.open() {
            own.close();
        }
    }

    /// Gives up all that this process owns, and has the kernel see to it that nobody stores in the heap any more.
    ///
    /// # Safety
    /// 1. As for [`close`](Self::close).
    pub(super) unsafe fn freeze(&self) -> Result<(), MappedError> {
        self.writable()?;
        if self.area.source.kind() != Kind::Object {
            return Err(MappedError::Unsupported);
        }
        let _entering = Self::entering();
        self.area.source.with_own(|file| {
            self.rest()?;
            self.give_slot_up();
            self.freeze_file(file)
        })
    }

    fn freeze_file(&self, file: File) -> Result<(), MappedError> {
        let (base, length) = (self.area.base(), PageLen::kept(self.area.geometry.bytes()));
        // The kernel counts each mapping in which something could be stored, this process's first.
        // SAFETY: 1. our own mapping of this file, in which nobody stores any more.
        let frozen = unsafe { file.map_over(base, length, Sharing::Frozen) };
        let frozen = frozen.and_then(|()| file.freeze());
        if frozen.is_ok() {
            self.be(State::ReadOnly);
            return Ok(());
        }
        // SAFETY: 1. our own. If the kernel refuses, it can be read, and is closed.
        unsafe { file.map_over(base, length, Sharing::All) }.map_err(refused)?;
        self.process.store(0, Ordering::Relaxed);
        self.be(State::Open);
        frozen.map_err(|errno| match errno {
            IN_USE => MappedError::InUse,
            errno => refused(errno),
        })
    }

    /// Gives this process's slot up, and what it maps.
    fn leave(&self, file: File) -> Result<(), MappedError> {
        // Of a heap that commits a forked child has a copy, and the log is its parent's.
        let is_copy = self.area.commits.is_some() && self.own_process().is_none();
        self.give_slot_up();
        let (base, length) = (self.area.base(), PageLen::kept(self.area.geometry.bytes()));
        // SAFETY: 1. our own mapping of this file.
        unsafe { file.map_over(base, length, Sharing::Copy) }.map_err(refused)?;
        if is_copy {
            return Ok(());
        }
        self.area.end_use(file)
    }

    /// The slot that this process has, and not the one that it was forked from.
    fn own_process(&self) -> Option<Process> {
        let own = os::fork_generation().number();
        // ORDERING: a number that does not change in a process once it is there.
        process_of(self.process.load(Ordering::Relaxed), own)
    }

    fn give_slot_up(&self) {
        if let Some(process) = self.own_process() {
            self.area.leave(process);
            if let Some(page) = self.kept.get() {
                self.kept.set(None);
                let_go(page);
            }
        }
    }
}

fn all_attached() -> impl Iterator<Item = &'static Attachment> {
    core::iter::successors(NEWEST.get(), |attachment| attachment.next.get())
}

fn process_of(word: u64, generation: u32) -> Option<Process> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let bits = word as u32;
    Process::from_bits(bits).filter(|_| word >> u32::BITS == u64::from(generation))
}

fn all(first: Option<NonNull<Part>>) -> impl Iterator<Item = &'static Part> {
    let mut next = first;
    core::iter::from_fn(move || {
        // SAFETY: 1. in the list of parts, whose pages are never unmapped.
        let part: &'static Part = unsafe { next?.as_ref() };
        next = part.next.get();
        Some(part)
    })
}
