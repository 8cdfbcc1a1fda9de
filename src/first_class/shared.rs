//! What the threads of a heap share, in its first page: how it is found, its lock, its parts, and the blocks that the
//! engine serves one by one.
//!
//! The lock comes before all of the engine's. It is not taken by an allocation or a free that a sub-slab serves, but
//! for a thread's first, and for one that finds no block and looks for parts without an owner.

use core::ptr::{self, NonNull};

use super::class::Class;
use super::direct::Direct;
use super::engine::{self, CONFIG};
use super::magazines::Leaving;
use super::memory::{Memory, PAGE, Page};
use super::name::Name;
use super::part::{self, Part, Wrong, why_not};
use super::store::Store;
use super::sub_slab::SubSlab;
use super::wanted::{Refused, Wanted};
use crate::arena::Zeroed;
use crate::error::{Call, Misuse};
use crate::os::{self, Held, Lock, failpoints};
use crate::sync::{AtomicUsize, GuardedPtr, GuardedU8, GuardedUsize, Ordering};
use crate::thread_cache::{ThreadCache, tls};
use crate::threads;

/// What the lock guards.
pub(super) struct Guarded {
    /// Parts, newest first.
    pub(super) parts: GuardedPtr<Part>,
    pub(super) direct: Direct,
}

/// In front of the first part, in the heap's first page.
#[repr(C, align(64))]
pub(super) struct Shared {
    /// 1 if a limit panics.
    panics: GuardedU8,
    /// 1 from when a forked child finds the lock held until it has counted anew.
    torn: GuardedU8,
    pub(super) memory: Memory,
    /// How many parts there are.
    pub(super) parts: GuardedUsize,
    /// Requests that were refused.
    pub(super) refused: AtomicUsize,
    /// Blocks and bytes that were freed by threads without a part.
    pub(super) freed: [AtomicUsize; 2],
    lock: Lock<Guarded>,
    pub(super) name: Name,
}

/// Where the first part lies behind the head of its page.
pub(super) const BEFORE_PART: usize = size_of::<Shared>();

impl Shared {
    /// A heap of one page, alone in it.
    pub(super) fn create(wanted: Wanted<'_>) -> Result<NonNull<Self>, Refused> {
        if wanted.limit < PAGE {
            return Err(Refused::Limit);
        }
        let store = Store::of(wanted.attributes)?;
        let page = engine::block(PAGE, PAGE, Zeroed::No)?;
        // SAFETY: 1. inside the page, behind its head.
        let shared = unsafe { crate::ptr::advance::<Self>(page, size_of::<Page>()) };
        let fresh = Self {
            panics: GuardedU8::new(u8::from(wanted.panics)),
            torn: GuardedU8::new(0),
            memory: Memory::new(wanted.limit, PAGE, store),
            parts: GuardedUsize::new(0),
            refused: AtomicUsize::new(0),
            freed: [const { AtomicUsize::new(0) }; 2],
            lock: Lock::new(Guarded {
                parts: GuardedPtr::null(),
                direct: Direct::new(),
            }),
            name: Name::new(wanted.name),
        };
        // SAFETY: 1. nobody else has the page; aligned as the type is, behind a head that is.
        unsafe { shared.write(fresh) };
        // SAFETY: 1. just written, and it stays until the heap is dropped.
        let all = unsafe { shared.as_ref() };
        all.add_part(page, BEFORE_PART);
        Ok(shared)
    }

    /// Begins a page with a part behind `before` bytes, and enters that.
    pub(super) fn add_part(&self, page: NonNull<u8>, before: usize) -> &Part {
        let begun = Page::begin(page, None, before + size_of::<Part>());
        // SAFETY: 1. inside the page, see what it was told to reserve.
        let part = unsafe { crate::ptr::advance::<Part>(page, size_of::<Page>() + before) };
        // SAFETY: 1. nobody else has it; aligned as the type is.
        let part = unsafe { Part::begin_at(part, NonNull::from(&self.memory), begun) };
        let guarded = self.lock();
        part.next.set(guarded.parts.get());
        guarded.parts.set(Some(part.into()));
        self.parts.set(self.parts.get() + 1);
        part
    }

    pub(super) fn panics(&self) -> bool {
        self.panics.get() != 0
    }

    /// The lock; in a forked child, taken from a thread that is gone.
    pub(super) fn lock(&self) -> Held<'_, Guarded> {
        // First: who takes a lock is known by the generation, which a child learns of here.
        threads::begin(&CONFIG);
        if self.lock.is_inherited() {
            // Before the lock is broken: a child of this child finds it free.
            self.torn.set(1);
            self.lock.break_inherited();
        }
        let held = self.lock.lock();
        if self.torn.get() != 0 {
            held.direct.recount();
            self.torn.set(0);
        }
        held
    }

    /// The calling thread's part of this heap, whose number is told, if it is at hand.
    #[inline(always)]
    pub(super) fn part_at_hand(&self, number: u64) -> Option<&Part> {
        let part = tls::words().heaps.part(number)?;
        // SAFETY: 1. kept for this heap's number, which it has had since its last reset: one of its parts.
        Some(unsafe { part.cast::<Part>().as_ref() })
    }

    /// The same, if the thread remembers it at all.
    pub(super) fn part_remembered(&self, number: u64) -> Option<&Part> {
        self.part_at_hand(number).or_else(|| {
            let part = tls::words().heaps.second(number)?;
            // SAFETY: 1. as in `part_at_hand`.
            Some(unsafe { part.cast::<Part>().as_ref() })
        })
    }

    /// The same, or one that is made the thread's. `None` for a thread without a cache, which is ending, in a process
    /// with safeguards or samples, where the engine serves each block, and without memory.
    #[cold]
    pub(super) fn part(&self, number: u64) -> Option<&Part> {
        if let Some(part) = self.part_remembered(number) {
            return Some(part);
        }
        if !threads::prepare(&CONFIG) || !self.memory.store.cuts() {
            return None;
        }
        if ThreadCache::own().is_none() {
            drop(threads::lock_own(&CONFIG)?);
        }
        let own = ThreadCache::own()?;
        let part = self.part_of(own)?;
        let place = NonNull::from(part).cast();
        tls::words().heaps.keep(number, place);
        Some(part)
    }

    fn part_of(&self, own: &'static ThreadCache) -> Option<&Part> {
        {
            let guarded = self.lock();
            if let Some(part) = self.parts(&guarded).find(|part| part.owner.is(own)) {
                return Some(part);
            }
            if let Some(part) = self.parts(&guarded).find(|part| part.owner.is_gone()) {
                self.make_whole(&guarded, part);
                failpoints::at(failpoints::Point::Heap);
                part.owner.set(own);
                return Some(part);
            }
        }
        let page = self.memory.page().ok()?;
        let part = self.add_part(page, 0);
        // Between the two another thread may have taken it.
        let guarded = self.lock();
        if part.owner.is_gone() {
            part.owner.set(own);
            return Some(part);
        }
        drop(guarded);
        self.part_of(own)
    }

    /// Repairs a part whose last owner may have vanished in the midst of a step.
    fn make_whole(&self, guarded: &Guarded, part: &Part) {
        if part.owner.has_vanished() {
            part.rebuild(self.parts(guarded).flat_map(Part::sub_slabs));
        }
    }

    pub(super) fn parts(&self, guarded: &Guarded) -> impl Iterator<Item = &Part> {
        let mut next = guarded.parts.get();
        core::iter::from_fn(move || {
            // SAFETY: 1. in the list of parts, which live as long as the heap's memory.
            let part: &Part = unsafe { next?.as_ref() };
            next = part.next.get();
            Some(part)
        })
    }

    /// Gives back what the thread's part and those without an owner have of empty sub-slabs; takes what the latter have
    /// free of a class, if one is named.
    pub(super) fn tidy(&self, part: &Part, class: Option<Class>) {
        let lost = |block| self.free_direct(block, None);
        let tidied = part.tidy(lost).and_then(|()| self.tidy_others(part, class));
        if let Err((misuse, wrong)) = tidied {
            die(misuse, Call::Free, wrong);
        }
    }

    fn tidy_others(&self, part: &Part, class: Option<Class>) -> Result<(), Wrong> {
        let Some(own) = ThreadCache::own() else {
            return Ok(());
        };
        let guarded = self.lock();
        for other in self.parts(&guarded) {
            if ptr::eq(other, part) || !other.owner.is_gone() {
                continue;
            }
            self.make_whole(&guarded, other);
            // Whoever finds this thread gone in the midst of it repairs the part.
            other.owner.set(own);
            failpoints::at(failpoints::Point::Heap);
            // In a process without safeguards, in which nothing is found to be wrong with the block under the lock.
            let lost = |block| {
                let found = self.take_direct(&guarded, block, None)?;
                // SAFETY: 1. and 2. just taken from the table.
                unsafe { self.give_back(block, found) };
                Ok(())
            };
            let tidied = other.tidy(lost);
            if let (Ok(()), Some(class)) = (tidied, class) {
                part.take_over(other, class);
            }
            other.owner.leave();
            tidied?;
        }
        Ok(())
    }

    /// A block of `class`, of which the thread's part has none at hand.
    pub(super) fn refill(&self, part: &Part, class: Class) -> Result<NonNull<u8>, Refused> {
        if let Some(block) = part.refill(class) {
            return Ok(block);
        }
        if self.parts.get() > 1 && part.is_time_to_look(self.parts.get()) {
            if let Err((misuse, wrong)) = self.tidy_others(part, Some(class)) {
                die(misuse, Call::Free, wrong);
            }
            if let Some(block) = part.refill(class) {
                return Ok(block);
            }
        }
        if part.is_time_for_stuck() {
            let guarded = self.lock();
            part.look_for_stuck(self.parts(&guarded).flat_map(Part::sub_slabs));
            drop(guarded);
            if let Some(block) = part.refill(class) {
                return Ok(block);
            }
        }
        let refused = match part.refill_fresh(class) {
            Ok(block) => return Ok(block),
            Err(refused) => refused,
        };
        // What is free but kept may make room, or others may have left some.
        self.tidy(part, Some(class));
        match part.refill(class) {
            Some(block) => Ok(block),
            None => part.refill_fresh(class).map_err(|_| refused),
        }
    }

    /// Takes back a block whose magazine is full.
    pub(super) fn make_room(&self, part: &Part, class: Class, block: NonNull<u8>) {
        if !part.enlarge(class) {
            let flushed = part.flush(class, Leaving::Half, |block| self.free_direct(block, None));
            if let Err((misuse, wrong)) = flushed {
                die(misuse, Call::Free, wrong);
            }
        }
        if !part.push(class, block) {
            self.free(block, None);
        }
    }

    /// Takes back a block, by a thread without a part, or one that is none of a sub-slab; `layout` is what its user says
    /// it has, if he does.
    pub(super) fn free(&self, block: NonNull<u8>, layout: Option<(usize, usize)>) {
        let freed = match self.sub_slab(block) {
            Some((slab, distance)) => self.free_in(slab, distance, layout),
            None => self.free_direct(block, layout),
        };
        freed.unwrap_or_else(|misuse| die(misuse, Call::Free, block));
    }

    /// Takes back a block of a sub-slab of this heap, past the magazine.
    pub(super) fn free_own(&self, part: &Part, class: Class, block: NonNull<u8>) {
        if let Err(misuse) = part.put(class, block) {
            die(misuse, Call::Free, block);
        }
    }

    fn free_in(
        &self,
        slab: &SubSlab,
        distance: usize,
        layout: Option<(usize, usize)>,
    ) -> Result<(), Misuse> {
        if let Some((size, align)) = layout
            && Class::of(size, align) != Some(slab.class())
        {
            return Err(Misuse::WrongClass);
        }
        let size = slab.size();
        part::give_back(slab, distance)?;
        for (freed, more) in self.freed.iter().zip([1, size]) {
            // ORDERING: a count.
            freed.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The sub-slab of this heap that `block` lies in, and how far inside.
    pub(super) fn sub_slab(&self, block: NonNull<u8>) -> Option<(&SubSlab, usize)> {
        part::slab_at(block.addr().get()).filter(|(slab, _)| {
            part::memory_of(slab).is_some_and(|memory| ptr::eq(memory, &raw const self.memory))
        })
    }

    /// Bytes that the user of a live block may use.
    pub(super) fn length(&self, block: NonNull<u8>, call: Call) -> usize {
        let found = match self.sub_slab(block) {
            Some((slab, distance)) => slab.live_at(distance).map(|_| slab.size()),
            None => {
                let direct = self.lock().direct.get(block);
                direct
                    .map(|layout| layout.length)
                    .ok_or_else(|| why_not(block))
            }
        };
        found.unwrap_or_else(|misuse| die(misuse, call, block))
    }
}

#[cold]
fn die(misuse: Misuse, call: Call, block: NonNull<u8>) -> ! {
    let (fault, thread) = (misuse.by(call), os::thread_id());
    os::die(format_args!(
        "{fault}: {block:p} in a heap, thread {thread}"
    ))
}
