//! What threads are doing to chunks without the arena's lock: spans that are nobody's yet or any more, and
//! chunks that are purged. A child of a fork looks at these instead of at all chunks.

use core::ptr;

use static_assertions::const_assert;

use super::Locked;
use super::chunk::Chunk;
use crate::sync::{AtomicPtr, AtomicUsize, Link, Ordering};
use crate::units::{UNITS_PER_CHUNK, UnitIndex};

/// Spans of a kind that are noted at a time, one for each thread that is at it: as many threads as
/// processors may run, and as many again that were stopped in between. More are only counted.
const PLACES: usize = 64;

/// Spans on their way, and chunks that are purged.
pub(super) struct UnderWay {
    /// Spans claimed, whose takers have not said what they become.
    claimed: Spans,
    /// Spans of what was a slab, until they are free.
    leaving: Spans,
    /// Spans that found no place.
    unnoted: AtomicUsize,
    /// Chunks that are purged, linked by `next_purged`. The arena's lock guards it.
    purged: Link<Chunk>,
}

/// The name of a span: its chunk, aligned to as many bytes as it has units, and its first unit.
type Name = *mut Chunk;
const_assert!(align_of::<Chunk>() >= UNITS_PER_CHUNK);

fn name(chunk: &'static Chunk, first: UnitIndex) -> Name {
    let chunk = ptr::from_ref(chunk).cast_mut();
    chunk.wrapping_byte_add(first.get())
}

/// Names of spans, on lines of their own: owners clear theirs without a lock.
#[repr(align(64))]
struct Spans([AtomicPtr<Chunk>; PLACES]);

impl Spans {
    const fn new() -> Self {
        Self([const { AtomicPtr::new(ptr::null_mut()) }; PLACES])
    }

    /// The first place that holds this, most often the very first.
    #[inline(always)]
    fn find(&self, name: Name) -> Option<&AtomicPtr<Chunk>> {
        // ORDERING: a child of a fork finds the stores of a thread in their order, and nobody else
        // reads them but to find a place; here and below.
        let first = &self.0[0];
        if first.load(Ordering::Relaxed) == name {
            return Some(first);
        }
        self.find_behind(name)
    }

    #[cold]
    #[inline(never)]
    fn find_behind(&self, name: Name) -> Option<&AtomicPtr<Chunk>> {
        let mut places = self.0.iter();
        places.find(|place| place.load(Ordering::Relaxed) == name)
    }
}

impl UnderWay {
    pub(super) const fn new() -> Self {
        Self {
            claimed: Spans::new(),
            leaving: Spans::new(),
            unnoted: AtomicUsize::new(0),
            purged: Link::none(),
        }
    }

    /// Before the span is marked as claimed. Nobody else takes a place meanwhile.
    #[inline]
    pub(super) fn begin_claim(&self, chunk: &'static Chunk, first: UnitIndex, _: &Locked) {
        match self.claimed.find(ptr::null_mut()) {
            // ORDERING: as in `find`, here and below.
            Some(place) => place.store(name(chunk, first), Ordering::Relaxed),
            None => self.do_without(),
        }
    }

    /// Once it is marked as what it became.
    #[inline]
    pub(super) fn end_claim(&self, chunk: &'static Chunk, first: UnitIndex) {
        match self.claimed.find(name(chunk, first)) {
            Some(place) => place.store(ptr::null_mut(), Ordering::Relaxed),
            None => self.end_without(),
        }
    }

    /// Before the span of a slab is marked as claimed.
    pub(super) fn begin_leaving(&self, chunk: &'static Chunk, first: UnitIndex) {
        let (none, name) = (ptr::null_mut(), name(chunk, first));
        while let Some(place) = self.leaving.find(none) {
            let taken = place.compare_exchange(none, name, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                return;
            }
        }
        self.do_without();
    }

    /// Once it is free.
    pub(super) fn end_leaving(&self, chunk: &'static Chunk, first: UnitIndex) {
        match self.leaving.find(name(chunk, first)) {
            Some(place) => place.store(ptr::null_mut(), Ordering::Relaxed),
            None => self.end_without(),
        }
    }

    #[cold]
    fn do_without(&self) {
        self.unnoted.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    fn end_without(&self) {
        self.unnoted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Before units of a chunk are taken for a purge.
    pub(super) fn begin_purge(&self, chunk: &'static Chunk, arena: &Locked) {
        if chunk.listed(arena).masks.purging() == 0 {
            chunk.listed(arena).next_purged.set(self.purged.get());
            self.purged.set(Some(chunk));
        }
    }

    /// Once they are back, or gone.
    pub(super) fn end_purge(&self, chunk: &'static Chunk, arena: &Locked) {
        if chunk.listed(arena).masks.purging() != 0 {
            return;
        }
        let mut link = &self.purged;
        while let Some(other) = link.get() {
            let next = &other.listed(arena).next_purged;
            if ptr::eq(other, chunk) {
                return link.set(next.get());
            }
            link = next;
        }
    }

    /// In a forked child: whether some of it is known by its number only.
    pub(super) fn is_in_part_unknown(&self) -> bool {
        self.unnoted.load(Ordering::Relaxed) != 0
    }

    /// In a forked child: the chunks that threads which are gone were purging.
    pub(super) fn purged(&self, arena: &Locked) -> impl Iterator<Item = &'static Chunk> {
        core::iter::successors(self.purged.get(), |chunk| {
            chunk.listed(arena).next_purged.get()
        })
    }

    /// In a forked child: the chunks of spans that are nobody's.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &'static Chunk> {
        let places = self.claimed.0.iter().chain(&self.leaving.0);
        let chunks = places.map(|place| {
            let name = place.load(Ordering::Relaxed);
            name.map_addr(|address| address & !(UNITS_PER_CHUNK - 1))
        });
        // SAFETY: 1. null, or what `name` made of a `&'static Chunk`.
        chunks.filter_map(|chunk| unsafe { chunk.as_ref() })
    }

    /// In a forked child, once all is repaired.
    pub(super) fn forget(&self, _: &Locked) {
        self.purged.set(None);
        for place in self.claimed.0.iter().chain(&self.leaving.0) {
            place.store(ptr::null_mut(), Ordering::Relaxed);
        }
        self.unnoted.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::mem::MaybeUninit;
    use std::boxed::Box;

    #[test]
    fn what_finds_no_place_is_counted_until_it_ends() {
        let chunk = || {
            let zeroed = Box::leak(Box::new(MaybeUninit::<Chunk>::zeroed()));
            // SAFETY: 1. all zero is a descriptor without a chunk.
            let chunk: &'static Chunk = unsafe { zeroed.assume_init_ref() };
            chunk
        };
        let (under_way, chunks) = (UnderWay::new(), [(); 2].map(|()| chunk()));
        let spans = || {
            chunks
                .into_iter()
                .flat_map(|chunk| UnitIndex::all().map(move |unit| (chunk, unit)))
        };
        for (chunk, unit) in spans() {
            under_way.begin_leaving(chunk, unit);
        }
        assert!(under_way.is_in_part_unknown());
        assert_eq!(under_way.chunks().count(), PLACES);
        assert!(under_way.chunks().all(|chunk| ptr::eq(chunk, chunks[0])));
        // Those that have a place last.
        let mut backwards = spans().collect::<std::vec::Vec<_>>();
        backwards.reverse();
        for (chunk, unit) in backwards {
            under_way.end_leaving(chunk, unit);
        }
        assert!(!under_way.is_in_part_unknown());
        assert_eq!(under_way.chunks().count(), 0);
    }
}
