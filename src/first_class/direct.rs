//! Blocks of a heap that the engine serves one by one: those that are too long for a sub-slab, and all in a hardened
//! process. A table by address remembers their layouts, so that the heap can give them back.
//!
//! Linear probing. What a thread leaves that vanished in the midst of a step is a table as it was before, or after:
//! each step ends with one store.

use core::ptr::NonNull;

use super::engine;
use super::memory::Memory;
use super::store::Store;
use super::wanted::Refused;
use crate::sync::{GuardedPtr, GuardedUsize};

/// The layout that the engine knows a block by, and how many bytes of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) size: usize,
    pub(super) align: usize,
    pub(super) length: usize,
}

/// One block. All zero is none.
struct Entry {
    /// Null, [`GONE`], or the block; written last.
    block: GuardedPtr<u8>,
    size: GuardedUsize,
    align: GuardedUsize,
    length: GuardedUsize,
}

/// There was one: a search goes on behind it.
const GONE: NonNull<u8> = NonNull::dangling();

/// What stands in front of the entries.
struct Head {
    /// log2 of the number of entries.
    shift: u32,
    /// Entries that are not empty, at most.
    filled: GuardedUsize,
}

/// Entries of the first table, log2.
const FIRST: u32 = 4;

/// The table, guarded by the lock of the heap. All zero is empty.
pub(super) struct Direct {
    head: GuardedPtr<Head>,
    /// Blocks, and their bytes.
    live: [GuardedUsize; 2],
}

const fn bytes(shift: u32) -> usize {
    size_of::<Head>() + (size_of::<Entry>() << shift)
}

impl Head {
    fn entries(&self) -> &[Entry] {
        let whole = NonNull::from(self).cast::<u8>();
        // SAFETY: 1. the entries follow the head (`Direct::make`).
        let first = unsafe { crate::ptr::advance::<Entry>(whole, size_of::<Self>()) };
        // SAFETY: 1. so many were written; cells, so that nobody has them alone.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), 1 << self.shift) }
    }

    /// The entries in the order in which a block at `address` is searched for.
    fn from(&self, address: usize) -> impl Iterator<Item = &Entry> {
        // The golden ratio spreads what differs in few bits.
        let hash = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.shift);
        let entries = self.entries();
        let (before, behind) = entries.split_at(hash as usize);
        behind.iter().chain(before)
    }

    fn insert(&self, block: NonNull<u8>, layout: Layout) {
        let mut places = self.from(block.addr().get());
        let place = places.find(|entry| entry.block().is_none());
        // There is room: see `Direct::make_room`.
        let Some(entry) = place else { return };
        if entry.block.get().is_none() {
            self.filled.set(self.filled.get() + 1);
        }
        entry.size.set(layout.size);
        entry.align.set(layout.align);
        entry.length.set(layout.length);
        entry.block.set(Some(block));
    }
}

impl Entry {
    fn block(&self) -> Option<NonNull<u8>> {
        self.block.get().filter(|block| *block != GONE)
    }

    fn layout(&self) -> Layout {
        Layout {
            size: self.size.get(),
            align: self.align.get(),
            length: self.length.get(),
        }
    }
}

impl Direct {
    pub(super) const fn new() -> Self {
        Self {
            head: GuardedPtr::null(),
            live: [const { GuardedUsize::new(0) }; 2],
        }
    }

    fn table(&self) -> Option<&Head> {
        // SAFETY: 1. begun by `make`, and given back once it is not the table any more.
        self.head.get().map(|head| unsafe { head.as_ref() })
    }

    /// Makes room for one block more.
    pub(super) fn make_room(&self, memory: &Memory) -> Result<(), Refused> {
        let Some(old) = self.table() else {
            return self.make(FIRST, memory);
        };
        let entries = 1_usize << old.shift;
        if old.filled.get() < entries / 4 * 3 {
            return Ok(());
        }
        let [live, _] = self.live();
        // Many may be gone.
        let shift = if live * 2 < entries {
            old.shift
        } else {
            old.shift + 1
        };
        let larger = Self::new();
        if let Err(refused) = larger.make(shift, memory) {
            // What is gone, and the last empty ones, will do.
            return if live < entries - 1 {
                Ok(())
            } else {
                Err(refused)
            };
        }
        if let Some(new) = larger.table() {
            self.blocks()
                .for_each(|(block, layout)| new.insert(block, layout));
        }
        let (before, head) = (bytes(old.shift), NonNull::from(old));
        self.head.set(larger.head.get());
        // SAFETY: 1. `make` had it with this layout. 2. it is not the table any more.
        unsafe { memory.give_back(head.cast(), before, align_of::<Head>()) };
        Ok(())
    }

    fn make(&self, shift: u32, memory: &Memory) -> Result<(), Refused> {
        let table = memory.charged(bytes(shift), align_of::<Head>())?;
        // SAFETY: 1. a block of so many bytes. Zero is an empty entry.
        unsafe { table.write_bytes(0, bytes(shift)) };
        let head = table.cast::<Head>();
        let empty = Head {
            shift,
            filled: GuardedUsize::new(0),
        };
        // SAFETY: 1. its first bytes, aligned so.
        unsafe { head.write(empty) };
        self.head.set(Some(head));
        Ok(())
    }

    /// Enters a block, for which there is [room](Self::make_room).
    pub(super) fn insert(&self, block: NonNull<u8>, layout: Layout) {
        if let Some(table) = self.table() {
            table.insert(block, layout);
            self.count(usize::wrapping_add, layout);
        }
    }

    fn count(&self, change: impl Fn(usize, usize) -> usize, layout: Layout) {
        for (live, more) in self.live.iter().zip([1, layout.length]) {
            live.set(change(live.get(), more));
        }
    }

    /// Counts anew, for a thread that vanished with the lock.
    pub(super) fn recount(&self) {
        self.live.iter().for_each(|live| live.set(0));
        self.blocks()
            .for_each(|(_, layout)| self.count(usize::wrapping_add, layout));
    }

    fn find(&self, block: NonNull<u8>) -> Option<&Entry> {
        let mut searched = self.table()?.from(block.addr().get());
        let found = searched.find(|entry| [None, Some(block)].contains(&entry.block.get()))?;
        found.block.get().map(|_| found)
    }

    pub(super) fn get(&self, block: NonNull<u8>) -> Option<Layout> {
        self.find(block).map(Entry::layout)
    }

    pub(super) fn remove(&self, block: NonNull<u8>) -> Option<Layout> {
        let found = self.find(block)?;
        let layout = found.layout();
        found.block.set(Some(GONE));
        // OVERFLOW: in a child of a fork they may be about to be counted anew.
        self.count(usize::wrapping_sub, layout);
        Some(layout)
    }

    /// All blocks.
    fn blocks(&self) -> impl Iterator<Item = (NonNull<u8>, Layout)> {
        let entries = self.table().into_iter().flat_map(Head::entries);
        entries.filter_map(|entry| Some((entry.block()?, entry.layout())))
    }

    /// How many blocks there are, and their bytes.
    pub(super) fn live(&self) -> [usize; 2] {
        self.live.each_ref().map(GuardedUsize::get)
    }

    /// Gives all blocks back, and the table.
    ///
    /// # Safety
    /// 1. Nobody uses the blocks any more, and they are this store's.
    pub(super) unsafe fn clear(&self, store: Store) {
        for (block, layout) in self.blocks() {
            // SAFETY: 1. entered with the layout that the engine gave it for. 2. our own.
            unsafe { store.give_back(block, layout.size, layout.align) };
        }
        self.live.iter().for_each(|live| live.set(0));
        if let Some(head) = self.head.get() {
            // SAFETY: 1. begun by `make`.
            let shift = unsafe { head.as_ref() }.shift;
            self.head.set(None);
            // SAFETY: 1. `make` had it with this layout. 2. it is not the table any more.
            unsafe { engine::give_back(head.cast(), bytes(shift), align_of::<Head>()) };
        }
    }
}
