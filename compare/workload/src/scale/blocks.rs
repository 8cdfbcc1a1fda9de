//! Blocks whose sizes lie beside their addresses, as those of vectors and strings do.

use super::super::block::{Block, BlockLayout, Unwritten};
use super::super::mapped::{MappedArray, Zeroed};
use super::super::random::{Random, mix};
use super::watch::{Unwatched, Watch};

/// Bytes of most programs' blocks.
pub(super) const SMALL: (usize, usize) = (16, 512);

/// Sizes drawn beforehand; a power of two.
const DRAWN: usize = 4096;

/// Sizes between two bounds: each doubling is as likely as another.
pub(super) struct Sizes {
    layouts: [BlockLayout; DRAWN],
    mean: usize,
}

impl Sizes {
    pub(super) fn new((least, most): (usize, usize)) -> Self {
        let mut random = Random::new(least as u64);
        let ratio = (most + 1) as f64 / least as f64;
        let mut total = 0;
        let layouts = std::array::from_fn(|_| {
            let uniform = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
            let size = (least as f64 * ratio.powf(uniform)) as usize;
            total += size;
            BlockLayout::new(size)
        });
        Self {
            layouts,
            mean: total / DRAWN,
        }
    }

    /// How many blocks have so many bytes together.
    pub(super) fn count(&self, bytes: usize) -> usize {
        (bytes / self.mean).max(1)
    }

    /// Which of the sizes the block of this number has.
    #[inline(always)]
    fn drawn(number: u64) -> u16 {
        (mix(number) as usize % DRAWN) as u16
    }

    #[inline(always)]
    fn of(&self, drawn: u16) -> BlockLayout {
        self.layouts[drawn as usize % DRAWN]
    }
}

/// A block whose first word is its number, or none, and its size: what frees a block in Rust has both from the owner.
/// From the block itself the size would come a cache miss later, which no program waits for.
#[derive(Default)]
pub(super) struct Slot {
    block: Option<Block>,
    drawn: u16,
}

// SAFETY: 1. an `Option<Block>` and a number. 2. aligned to 8.
unsafe impl Zeroed for Slot {}

impl Slot {
    pub(super) const EMPTY: Self = Self {
        block: None,
        drawn: 0,
    };
}

/// Slots and what is in them.
pub(super) struct Heap<'a, S: AsMut<[Slot]>> {
    slots: S,
    sizes: &'a Sizes,
}

impl<'a> Heap<'a, MappedArray<Slot>> {
    /// Room for `bytes` of blocks.
    pub(super) fn new(bytes: usize, sizes: &'a Sizes) -> Result<Self, String> {
        let slots = MappedArray::new(sizes.count(bytes))?;
        Ok(Self { slots, sizes })
    }
}

impl<'a, S: AsMut<[Slot]>> Heap<'a, S> {
    /// No slot holds a block yet.
    pub(super) fn over(slots: S, sizes: &'a Sizes) -> Self {
        Self { slots, sizes }
    }

    #[inline(always)]
    pub(super) fn len(&mut self) -> usize {
        self.slots.as_mut().len()
    }

    /// Allocates the block of this number, writes its first word and its last; the slot is empty.
    #[inline(always)]
    pub(super) fn put(&mut self, watch: &mut impl Watch, slot: usize, number: u64) {
        let drawn = Sizes::drawn(number);
        let layout = self.sizes.of(drawn);
        let block = watch.time(|| Unwritten::alloc(layout)).write(number);
        let last = (layout.size() / size_of::<u64>() - 1) * size_of::<u64>();
        if last > 0 {
            // SAFETY: 1. a word before the block's end.
            let end = unsafe { block.address().byte_add(last) };
            // SAFETY: 1. within the block. 2. a multiple of a word from its start, so aligned.
            unsafe { end.write(number) };
        }
        let block = Some(block);
        self.slots.as_mut()[slot] = Slot { block, drawn };
    }

    /// Frees the slot's block and returns its number, 0 of an empty slot.
    #[inline(always)]
    pub(super) fn take(&mut self, watch: &mut impl Watch, slot: usize) -> u64 {
        let slot = &mut self.slots.as_mut()[slot];
        let Some(block) = slot.block.take() else {
            return 0;
        };
        let layout = self.sizes.of(slot.drawn);
        // SAFETY: 1. live: it was in its slot.
        let number = unsafe { block.word() };
        // SAFETY: 1. out of its slot, and there is no other handle. 2. `put` took this layout.
        watch.time(|| unsafe { block.free(layout) });
        number
    }

    /// Replaces the blocks of slots at random, so many times; the sum of the numbers of those freed.
    #[inline(always)]
    pub(super) fn replace(
        &mut self,
        watch: &mut impl Watch,
        random: &mut Random,
        rounds: u64,
    ) -> u64 {
        let (mut sum, slots) = (0_u64, self.len());
        for _ in 0..rounds {
            let slot = random.below(slots);
            sum = sum.wrapping_add(self.take(watch, slot));
            self.put(watch, slot, random.next());
        }
        sum
    }

    /// Puts a block into every slot.
    pub(super) fn fill(&mut self) {
        for slot in 0..self.len() {
            self.put(&mut Unwatched, slot, slot as u64);
        }
    }

    /// Another order of the slots.
    pub(super) fn shuffle(&mut self) {
        let mut random = Random::new(11);
        let slots = self.slots.as_mut();
        for last in (1..slots.len()).rev() {
            slots.swap(last, random.below(last + 1));
        }
    }
}

impl<S: AsMut<[Slot]>> Drop for Heap<'_, S> {
    fn drop(&mut self) {
        for slot in 0..self.len() {
            self.take(&mut Unwatched, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_their_bounds_and_half_are_below_the_geometric_mean() {
        let sizes = Sizes::new((64, 4096));
        let all = || sizes.layouts.iter().map(|layout| layout.size());
        assert!(all().all(|size| (64..=4096).contains(&size)));
        let below = all().filter(|size| *size < 512).count();
        assert!((DRAWN * 45 / 100..DRAWN * 55 / 100).contains(&below));
        assert!((900..1040).contains(&sizes.mean), "{}", sizes.mean);
    }

    #[test]
    fn a_block_is_found_by_its_number_wherever_it_lies() {
        let sizes = Sizes::new((8, 100));
        let mut heap = Heap::over([const { Slot::EMPTY }; 50], &sizes);
        heap.fill();
        heap.shuffle();
        let mut numbers: Vec<u64> = (0..50)
            .map(|slot| heap.take(&mut Unwatched, slot))
            .collect();
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..50));
        assert_eq!(heap.take(&mut Unwatched, 0), 0);
    }
}
