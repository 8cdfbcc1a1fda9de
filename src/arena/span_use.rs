//! Who has a span that was handed out whole.

use core::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, GuardedU8, GuardedU32, Ordering};
use crate::units::{LINE, UNIT, UnitCount, colour};

/// What the user of a span of the kind `UnitKind::Span` has of it, kept for its first unit. Each has a
/// cache line of its own: threads that take spans from their stocks and put them back there write nothing else
/// that others read, whichever chunks these lie in.
///
/// | `block` | means | written |
/// |---|---|---|
/// | null | nobody has it | by who releases it, under the arena's lock |
/// | an address | its user has it: that of his block | by who hands it out, before anyone can know it |
/// | that and [`STOCKED`] | it lies in the stock of number `stock` | by that stock's thread, which takes it back |
///
/// It leaves its user by a compare-exchange: of two frees of a span at once, the second finds it gone.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct SpanUse {
    block: AtomicPtr<u8>,
    stock: GuardedU32,
    units: GuardedU8,
}

/// Added to the address of a block that is none any more. Blocks of spans are aligned to lines.
const STOCKED: usize = 1;

/// Places in a page that blocks begin at, a cache line apart.
const COLOURS: usize = 64;

impl SpanUse {
    /// Hands a span out to the user of `size` bytes aligned to `align`: his block. Where there is room, and no
    /// alignment forbids it, that begins at a place in its first page that goes with the span: programs go through
    /// long blocks with long strides, and those that begin at equal places in pages evict each other from the caches.
    pub(crate) fn hand_out(
        &self,
        base: NonNull<u8>,
        units: UnitCount,
        size: usize,
        align: usize,
    ) -> NonNull<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        self.units.set(units.get() as u8);
        let block = place_in(base, units.bytes(), size, align);
        // ORDERING: its address travels to whoever reads this by a way of the program's own.
        self.block.store(block.as_ptr(), Ordering::Relaxed);
        block
    }

    /// As [`hand_out`](Self::hand_out), a span that lies in a stock.
    #[inline(always)]
    pub(crate) fn hand_out_again(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        // ORDERING: who has the stock wrote it.
        let before = self.block.load(Ordering::Relaxed).wrapping_sub(STOCKED);
        let (offset, bytes) = (before.addr() % UNIT, self.bytes());
        let block = if offset.is_multiple_of(align) && offset + size <= bytes {
            NonNull::new(before)?
        } else {
            place_in(
                NonNull::new(before.wrapping_sub(offset))?,
                bytes,
                size,
                align,
            )
        };
        // ORDERING: as in `hand_out`.
        self.block.store(block.as_ptr(), Ordering::Relaxed);
        Some(block)
    }

    /// Takes the span of `block` from its user, for the stock of this number; `false` if it is not his.
    #[inline(always)]
    pub(crate) fn take_back(&self, block: NonNull<u8>, stock: u32) -> bool {
        self.stock.set(stock);
        self.exchange(block, block.as_ptr().wrapping_add(STOCKED))
    }

    /// Takes the span of `block` from its user, for the arena, whose lock is held; `false` if it is not his.
    pub(crate) fn give_back(&self, block: NonNull<u8>) -> bool {
        self.exchange(block, ptr::null_mut())
    }

    #[inline(always)]
    fn exchange(&self, block: NonNull<u8>, next: *mut u8) -> bool {
        // ORDERING: decides between two frees only. What the user wrote is published with the span, by the
        // lock under which the arena takes it.
        let (own, order) = (block.as_ptr(), Ordering::Relaxed);
        self.block.compare_exchange(own, next, order, order).is_ok()
    }

    /// Nobody has the span any more. The arena's lock is held.
    pub(super) fn forget(&self) {
        // ORDERING: the lock orders it.
        self.block.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// The block, and [`STOCKED`] if it is none any more.
    fn block(&self) -> *mut u8 {
        // ORDERING: who has a block got its address after it stood here; for anyone else any answer will do.
        self.block.load(Ordering::Relaxed)
    }

    /// Whether a user has it.
    pub(crate) fn is_live(&self) -> bool {
        let address = self.block().addr();
        address != 0 && address % 2 != STOCKED
    }

    /// Whether `block` is his.
    pub(crate) fn is_of(&self, block: NonNull<u8>) -> bool {
        ptr::eq(self.block(), block.as_ptr())
    }

    /// Whether the span lies in a stock, and was that of `block`.
    pub(crate) fn was_of(&self, block: NonNull<u8>) -> bool {
        ptr::eq(self.block(), block.as_ptr().wrapping_add(STOCKED))
    }

    /// Whether it lies in the stock of this number.
    pub(crate) fn is_stocked_in(&self, stock: u32) -> bool {
        self.block().addr() % 2 == STOCKED && self.stock.get() == stock
    }

    /// An address in its first unit.
    pub(super) fn address(&self) -> usize {
        self.block().addr()
    }

    /// Whether neither a user nor a stock has it.
    pub(super) fn is_unused(&self) -> bool {
        self.block().is_null()
    }

    /// Units of the span that was handed out last; 0 before the first.
    #[inline(always)]
    pub(crate) fn units(&self) -> u8 {
        self.units.get()
    }

    fn bytes(&self) -> usize {
        usize::from(self.units()) * UNIT
    }

    /// Bytes from the user's block to the end of the span.
    pub(crate) fn length(&self) -> usize {
        self.bytes() - self.block().addr() % UNIT
    }
}

/// Where in a span of so many bytes a block begins.
fn place_in(base: NonNull<u8>, bytes: usize, size: usize, align: usize) -> NonNull<u8> {
    let room = (bytes - size) / LINE;
    let lines = if align > LINE {
        0
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "at most COLOURS")]
        colour(base.addr().get(), (room + 1).min(COLOURS) as u16)
    };
    // SAFETY: 1. the span holds the block behind it.
    unsafe { crate::ptr::advance(base, usize::from(lines) * LINE) }
}
