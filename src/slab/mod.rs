//! A slab: a span holding blocks of one class, described by a bitmap elsewhere.
//!
//! The bitmap is the truth: a set bit is a free block. Count and summary are derived from it.

mod age;
mod bitmap;
pub(crate) mod holes;
mod put;

use core::ptr::NonNull;

use static_assertions::const_assert;

pub(crate) use self::put::{Place, Stopped, address_in};

use self::age::{Links, TOUCHED};
use self::bitmap::Bitmap;
use crate::arena::{self, Chunk, Span, UNIT_META, UnitKind, Zeroed};
use crate::error::{Misuse, Violation};
use crate::hardening::FRONT;
use crate::size_class::{ClassInfo, SizeClass};
use crate::size_map::MagazineOffset;
use crate::sync::{AtomicPtr, GuardedU8, GuardedU16, GuardedU32, Link, Ordering, fence};
use crate::units::{LINE, UNIT_SHIFT, UnitIndex, colour, part_of};

/// Where a slab is, as its heap sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SlabState {
    /// In no list: no free block, or on the way from one list to another.
    Full = 0,
    /// In the bin of its free count.
    Binned = 1,
    /// All blocks free, kept by the class for its next refill.
    Spare = 2,
    /// Out of the lists while free pages are purged.
    Holes = 3,
    /// As [`Binned`](Self::Binned), and no free page was written since a purge.
    Clean = 4,
}

/// What lies in the lock of a class, and nowhere else: a reference to it shows that such a lock is
/// held. Whoever calls what asks for one has that of the slab's own class in the heap that owns the
/// slab.
pub(crate) struct ClassLock(());

/// A slab's descriptor, kept with its chunk's. All fields are guarded by the lock of the class in
/// the heap that owns the slab ([`ClassLock`]); class, heap and base do not change during the
/// slab's life.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slab {
    base: AtomicPtr<u8>,
    pub(crate) next: Link<Self>,
    pub(crate) previous: Link<Self>,
    /// The list of slabs that may have something to purge.
    pub(crate) by_age: Links,
    /// Free blocks.
    free: GuardedU16,
    /// Where refills begin, different from slab to slab: equal offsets collide in the caches.
    colour: GuardedU16,
    /// Index of the heap: two bytes, for more heaps than processors.
    heap: GuardedU16,
    /// Free blocks from which on `bin` is not the right one any more; 0 where there is none.
    outgrown_at: GuardedU16,
    class: GuardedU8,
    place: GuardedU8,
    /// The bin, where `place` is [`SlabState::Binned`] or [`SlabState::Clean`].
    bin: GuardedU8,
    /// How lately blocks left or returned: see [`Slab::age`].
    touched: GuardedU8,
    /// 1 in the list by age.
    is_by_age: GuardedU8,
    /// When [`Slab::age`] last looked, in milliseconds, modulo 2^32.
    looked_at: GuardedU32,
    bitmap: Bitmap,
}

const_assert!(size_of::<Slab>() <= UNIT_META);

impl Slab {
    /// A slab of `class` in a fresh span, all blocks free, in no list, owned by heap `heap`.
    pub(crate) fn create(
        span: Span,
        class: SizeClass,
        heap: u16,
        locked: &ClassLock,
    ) -> &'static Self {
        let slab = Self::at(span.chunk, span.first);
        let info = class.info();
        // ORDERING: published with the kind of the units, before any block leaves the slab.
        slab.base.store(span.base().as_ptr(), Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "CLASSES fits a byte")]
        slab.class.set(class.index() as u8);
        slab.heap.set(heap);
        slab.set_state(SlabState::Full, locked);
        slab.touched.set(TOUCHED);
        slab.is_by_age.set(0);
        slab.free.set(info.blocks);
        slab.colour
            .set(colour(span.base().addr().get(), info.blocks));
        slab.bitmap.fill(info.blocks as usize);
        // ORDERING: pairs with the fence in `is_of`.
        fence(Ordering::Release);
        span.note_magazine(MagazineOffset::noted(class));
        span.become_kind(UnitKind::Slab);
        slab
    }

    /// Zeroes the fronts of the blocks that a slab of `class` in this span is going to have, unless the last
    /// slab there was of the same class, and left them so.
    pub(crate) fn prepare_fronts(span: &Span, class: SizeClass, zeroed: Zeroed) {
        let info = class.info();
        let note = u8::try_from(class.index() + 1).unwrap_or(0);
        if zeroed == Zeroed::No && span.fronts() != note {
            let size = info.size as usize;
            for block in 0..usize::from(info.blocks) {
                // SAFETY: 1. the blocks of a slab of this class lie in a span of its units.
                let front = unsafe { crate::ptr::advance::<u8>(span.base(), block * size) };
                // SAFETY: 1. the front of a block, and who has the span has its bytes.
                unsafe { front.write_bytes(0, size.min(FRONT)) };
            }
        }
        span.set_fronts(note);
    }

    /// Is no slab any more: all blocks are free, and no list leads to it. Who holds the lock can
    /// rely on [`is_of`](Self::is_of).
    pub(crate) fn resign(&'static self, _: &ClassLock) {
        let (chunk, unit) = self.site();
        // SAFETY: 1. the slab was its span's owner. The span is dropped, which leaves it to
        // `resigned_span`.
        unsafe { chunk.span(unit) }.become_kind(UnitKind::Claimed);
    }

    /// The span of a slab that has [resigned](Self::resign).
    ///
    /// # Safety
    /// 1. The caller holds the last link to the slab.
    pub(crate) unsafe fn resigned_span(&'static self) -> Span {
        let (chunk, unit) = self.site();
        debug_assert!(self.free.get() == self.info().blocks);
        self.bitmap.clear();
        // SAFETY: 1. the slab was its span's owner, and nothing leads to the slab any more.
        unsafe { chunk.span(unit) }
    }

    /// The descriptor of the slab that begins at `unit`, if one does.
    fn at(chunk: &'static Chunk, unit: UnitIndex) -> &'static Self {
        // SAFETY: 1. metadata set aside for this unit, aligned to a line, zero at first, which is a
        // slab without blocks; every field is atomic, so that a stale descriptor is harmless.
        unsafe { chunk.unit_meta(unit).cast::<Self>().as_ref() }
    }

    /// The slab that holds the block at `address`, and the block's index, if that is a block of
    /// `class`. Lock-free. The answer is about a live block; nothing is known about others.
    pub(crate) fn locate(
        address: usize,
        class: SizeClass,
    ) -> Result<(&'static Self, usize), Misuse> {
        let slab =
            Self::holding(address).ok_or_else(|| arena::why_none(address, UnitKind::Slab))?;
        if slab.class.get() as usize != class.index() {
            return Err(Misuse::WrongClass);
        }
        slab.block_of(address, class.info())
            .map(|block| (slab, block))
    }

    /// The slab in whose units `address` lies. Lock-free; an answer about a live block.
    pub(crate) fn holding(address: usize) -> Option<&'static Self> {
        let chunk = arena::owner(address)?;
        let unit = UnitIndex::of(address);
        (chunk.kind(unit) == UnitKind::Slab).then(|| Self::at(chunk, chunk.head(unit)))
    }

    /// The index of the block at `address`, which lies in the slab's units.
    pub(crate) fn block_of(&self, address: usize, info: &ClassInfo) -> Result<usize, Misuse> {
        // OVERFLOW: a slab's base is at most any address in its units.
        let (block, inside) = info.locate(address.wrapping_sub(self.start()));
        if inside == 0 && block < info.blocks as usize {
            Ok(block)
        } else {
            Err(Misuse::Interior)
        }
    }

    /// Whether `address` lies in the slab's units.
    pub(crate) fn holds(&self, address: usize, info: &ClassInfo) -> bool {
        // OVERFLOW: wraps to a large number below the base, which is the answer.
        address.wrapping_sub(self.start()) < info.units.bytes()
    }

    /// Every slab of a chunk.
    pub(crate) fn of_chunk(chunk: &'static Chunk) -> impl Iterator<Item = &'static Self> {
        UnitIndex::all().filter_map(move |unit| {
            let begins = chunk.kind(unit) == UnitKind::Slab && chunk.head(unit) == unit;
            begins.then(|| Self::at(chunk, unit))
        })
    }

    /// Whether the slab still is one, of this class and heap. Under that class's lock the answer
    /// holds until the lock is let go.
    pub(crate) fn is_of(&self, class: SizeClass, heap: usize) -> bool {
        let is_slab = self.known_site().is_some_and(|(chunk, unit)| {
            let begins = chunk.kind(unit) == UnitKind::Slab && chunk.head(unit) == unit;
            begins && core::ptr::eq(Self::at(chunk, unit), self)
        });
        // ORDERING: pairs with the fence in `create`: of a slab made anew since, the new class is read.
        fence(Ordering::Acquire);
        is_slab && self.class() == class && self.heap() == heap
    }

    /// Whether the slab has blocks of `class` and belongs to that heap, of one that holds a live block.
    #[inline]
    pub(crate) fn is_at(&self, class: SizeClass, heap: usize) -> bool {
        self.class.get() as usize == class.index() && self.heap() == heap
    }

    /// The chunk and unit that this descriptor belongs to; `None` for one whose chunk has gone.
    fn known_site(&self) -> Option<(&'static Chunk, UnitIndex)> {
        let address = self.start();
        arena::owner(address).map(|chunk| (chunk, UnitIndex::of(address)))
    }

    /// The same while the slab owns its span.
    fn site(&self) -> (&'static Chunk, UnitIndex) {
        self.known_site()
            .expect("a slab's chunk is in the owner map")
    }

    /// See [`Chunk::stay_small`].
    pub(crate) fn stay_small(&self) {
        self.site().0.stay_small();
    }

    /// The address of the first byte.
    #[inline]
    pub(crate) fn start(&self) -> usize {
        // ORDERING: set before the descriptor was published, see `create`.
        self.base.load(Ordering::Relaxed).addr()
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        // ORDERING: set before the descriptor was published, see `create`.
        NonNull::new(self.base.load(Ordering::Relaxed)).expect("a slab has a base")
    }

    pub(crate) fn class(&self) -> SizeClass {
        SizeClass::new(self.class.get() as usize)
    }

    pub(crate) fn info(&self) -> &'static ClassInfo {
        self.class().info()
    }

    /// Index of the heap that owns the slab.
    pub(crate) fn heap(&self) -> usize {
        self.heap.get() as usize
    }

    /// Free blocks.
    pub(crate) fn free(&self) -> usize {
        self.free.get() as usize
    }

    pub(crate) fn state(&self) -> SlabState {
        match self.place.get() {
            1 => SlabState::Binned,
            2 => SlabState::Spare,
            3 => SlabState::Holes,
            4 => SlabState::Clean,
            _ => SlabState::Full,
        }
    }

    /// Notes that no bin holds the slab, or has a flush ask where it belongs.
    pub(crate) fn set_state(&self, place: SlabState, _: &ClassLock) {
        self.place.set(place as u8);
        self.outgrown_at.set(0);
    }

    /// The bin that holds the slab, if one does.
    pub(crate) fn bin(&self) -> usize {
        self.bin.get() as usize
    }

    /// Notes the bin that holds the slab, right below `outgrown_at` free blocks.
    pub(crate) fn set_bin(&self, bin: usize, outgrown_at: usize, _: &ClassLock) {
        self.place.set(SlabState::Binned as u8);
        #[expect(clippy::cast_possible_truncation, reason = "one of 8")]
        self.bin.set(bin as u8);
        #[expect(clippy::cast_possible_truncation, reason = "at most the slab's blocks")]
        self.outgrown_at.set(outgrown_at as u16);
    }

    /// Whether more blocks are free than fit the slab's bin, or no bin holds it.
    #[inline]
    pub(crate) fn has_outgrown_its_bin(&self) -> bool {
        self.free.get() >= self.outgrown_at.get()
    }

    /// Has refills begin elsewhere.
    pub(crate) fn recolour(&self, random: u64, _: &ClassLock) {
        self.colour.set(part_of(random, self.info().blocks));
    }

    /// Takes `count` free blocks, at most [`free`](Self::free), in ascending order from the colour
    /// on. What is among the first that a thread takes lies
    /// apart from others where several share a cache line, if that can be.
    pub(crate) fn take(
        &self,
        count: usize,
        is_first: bool,
        info: &ClassInfo,
        mut emit: impl FnMut(NonNull<u8>),
        _: &ClassLock,
    ) {
        let (base, size) = (self.base(), info.size as usize);
        self.touched.set(TOUCHED);
        let apart = (is_first && size < LINE).then(|| self.bitmap.whole_word());
        self.bitmap.take(
            count,
            apart.flatten().unwrap_or(self.colour.get() as u32),
            info.blocks as usize,
            |block| {
                // SAFETY: 1. blocks of a bitmap lie inside the slab.
                emit(unsafe { crate::ptr::advance(base, block * size) });
            },
        );
        #[expect(clippy::cast_possible_truncation, reason = "at most the free blocks")]
        self.free.set(self.free.get() - count as u16);
    }

    /// A copy of the bitmap.
    pub(crate) fn free_bits(&self, _: &ClassLock) -> [u64; 64] {
        self.bitmap.copy()
    }

    /// In a forked child: count and summary from the bitmap, in no list.
    pub(crate) fn rebuild(&self, locked: &ClassLock) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a slab has at most 4096 blocks"
        )]
        self.free.set(self.bitmap.rebuild() as u16);
        self.note_by_age(false, locked);
        self.touch(locked);
    }

    /// Puts back a block that a vanished thread held, if it is not back already.
    pub(crate) fn put_again(&self, block: usize, locked: &ClassLock) {
        if self.bitmap.put(block).is_ok() {
            self.free.set(self.free.get() + 1);
            self.touch(locked);
        }
    }

    /// Checks what is derived from the bitmap (docs/states.md, I3 and I4).
    pub(crate) fn verify(&self, _: &ClassLock) -> Result<(), Violation> {
        let address = self.base().addr().get();
        let info = self.info();
        if !self.bitmap.is_consistent(info.blocks as usize, self.free()) {
            return Err(Violation {
                invariant: "I3: count and summary agree with the bitmap",
                address,
            });
        }
        if arena::magazine_offset(address) != Some(MagazineOffset::noted(self.class())) {
            return Err(Violation {
                invariant: "I10: a slab's units have the magazine of its class",
                address,
            });
        }
        let (chunk, unit) = self.site();
        let is_span = u32::from(chunk.span_length(unit)) == info.units.get();
        if !is_span || !address.is_multiple_of(1 << UNIT_SHIFT) {
            return Err(Violation {
                invariant: "I4: a slab is a span of its class's length",
                address,
            });
        }
        Ok(())
    }
}
