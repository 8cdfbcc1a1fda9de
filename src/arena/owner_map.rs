//! From any address to the chunk that holds it, and to the magazine of its blocks: two levels, read without a
//! lock.

use core::ptr::NonNull;

use super::chunk::Chunk;
use super::tags::Tags;
use super::{Locked, meta};
use crate::size_map::MagazineOffset;
use crate::sync::{AtomicU32, Link, Ordering};
use crate::units::{ADDRESS_BITS, CHUNK_SHIFT, UNIT_SHIFT, UNITS_PER_CHUNK, UnitCount, UnitIndex};

/// Chunks of one leaf, and leaves: together all addresses. A leaf's addresses are those of 32 bits, so that
/// a unit's index in it is a shift of a register's half.
const LEAF: usize = 1 << LEAF_SHIFT;
const LEAF_SHIFT: u32 = 32 - CHUNK_SHIFT;
const ROOT: usize = 1 << (ADDRESS_BITS - LEAF_SHIFT - CHUNK_SHIFT);

/// The chunks of 4 GiB of addresses, their tags and the magazine offsets of their units: one look less than by way of
/// the chunk. All zero is empty.
struct Leaf {
    chunks: [Link<Chunk>; LEAF],
    tags: [Link<Tags>; LEAF],
    /// Set before the unit's first block is handed out, cleared before it belongs to anything else: who has
    /// a live block reads its own.
    magazines: [AtomicU32; LEAF * UNITS_PER_CHUNK],
}

/// The map. Chunks are entered and removed under the arena's lock, magazine offsets noted by who owns the span; both are
/// read without a lock.
pub(super) struct OwnerMap([Link<Leaf>; ROOT]);

impl OwnerMap {
    pub(super) const fn new() -> Self {
        Self([const { Link::none() }; ROOT])
    }

    fn place(address: usize) -> (usize, usize) {
        let number = Chunk::number(address);
        (number >> LEAF_SHIFT, number % LEAF)
    }

    /// The chunk that holds `address`, if it is ours.
    #[inline]
    pub(super) fn get(&self, address: usize) -> Option<&'static Chunk> {
        let (root, leaf) = Self::place(address);
        self.0.get(root)?.get()?.chunks[leaf].get()
    }

    /// The tags of the chunk that holds `address`, if it is ours and has any.
    #[inline(always)]
    pub(super) fn tags(&self, address: usize) -> Option<&'static Tags> {
        let (root, leaf) = Self::place(address);
        self.0.get(root)?.get()?.tags[leaf].get()
    }

    /// What was noted for the blocks of the unit that holds `address`; `None` far from any of ours.
    #[inline(always)]
    pub(super) fn magazine_offset(&self, address: usize) -> Option<MagazineOffset> {
        let leaf = self.0.get(address >> 32)?.get()?;
        // Above the cast's bits is what chose the leaf.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let unit = (address as u32 >> UNIT_SHIFT) as usize;
        // ORDERING: of a live block, the offset is older than the block, which travels by its user; of what is
        // none, any value will do.
        let bits = leaf.magazines[unit].load(Ordering::Relaxed);
        Some(MagazineOffset::from_bits(bits))
    }

    /// Notes the magazine of all blocks in a run of units of one chunk, which is in the map.
    pub(super) fn set_magazine(&self, address: usize, units: UnitCount, offset: MagazineOffset) {
        let (root, leaf) = Self::place(address);
        if let Some(table) = self.0[root].get() {
            let first = leaf * UNITS_PER_CHUNK + UnitIndex::of(address).get();
            let run = &table.magazines[first..first + units.get() as usize];
            // ORDERING: before the first block leaves the slab, or after the last came back; see `magazine_offset`.
            run.iter()
                .for_each(|kept| kept.store(offset.to_bits(), Ordering::Relaxed));
        }
    }

    /// A leaf for [`add_leaf`](Self::add_leaf); `None` without memory, or for an address beyond the map.
    /// Called without the arena's lock, as it may map memory.
    #[must_use]
    pub(super) fn prepare(&self, address: usize) -> Option<NonNull<u8>> {
        meta::alloc(size_of::<Leaf>()).filter(|_| Self::place(address).0 < ROOT)
    }

    pub(super) fn has_leaf(&self, address: usize) -> bool {
        self.0
            .get(Self::place(address).0)
            .is_some_and(|leaf| leaf.get().is_some())
    }

    /// Hangs a leaf from [`prepare`](Self::prepare) in.
    pub(super) fn add_leaf(&self, _: &Locked, address: usize, leaf: NonNull<u8>) {
        // SAFETY: 1. zeroed metadata of a leaf's size, aligned to a line, never freed; all zero is
        // an empty leaf.
        let leaf: &'static Leaf = unsafe { leaf.cast::<Leaf>().as_ref() };
        self.0[Self::place(address).0].set(Some(leaf));
    }

    /// Enters or removes a chunk, for whose address there is a leaf.
    pub(super) fn set(&self, _: &Locked, address: usize, chunk: Option<&'static Chunk>) {
        let (root, leaf) = Self::place(address);
        if let Some(table) = self.0[root].get() {
            table.tags[leaf].set(chunk.and_then(|chunk| chunk.tags.get()));
            table.chunks[leaf].set(chunk);
        }
    }
}
