//! A bag of blocks that knows how many bytes it holds.

use std::mem;

use super::held::{Held, Touch};
use super::mapped::MappedArray;

pub(crate) struct Bag {
    slots: MappedArray<Held>,
    count: usize,
    bytes: usize,
    next_tag: u32,
    touch: Touch,
}

impl Bag {
    pub(crate) fn new(capacity: usize, touch: Touch) -> Result<Self, String> {
        Ok(Self {
            slots: MappedArray::new(capacity)?,
            count: 0,
            bytes: 0,
            next_tag: 0,
            touch,
        })
    }

    /// A bag for about `bytes` in blocks of `mean` bytes on average; the least sizes are not so
    /// far from the mean that half as many again do not suffice.
    pub(crate) fn for_bytes(bytes: usize, mean: usize) -> Result<Self, String> {
        Self::new(bytes / mean * 3 / 2 + 1024, Touch::All)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn tag(&self, index: usize) -> u32 {
        self.slots[index].tag()
    }

    /// Allocates.
    pub(crate) fn add(&mut self, size: usize) {
        let held = Held::alloc(size, self.next_tag, self.touch);
        self.next_tag = self.next_tag.wrapping_add(1);
        self.put(held);
    }

    pub(crate) fn put(&mut self, held: Held) {
        self.bytes += held.size();
        self.slots[self.count] = held;
        self.count += 1;
    }

    /// Takes a block out; the last one takes its place.
    pub(crate) fn take(&mut self, index: usize) -> Held {
        assert!(index < self.count, "there is no such block");
        self.count -= 1;
        self.slots.swap(index, self.count);
        let held = mem::take(&mut self.slots[self.count]);
        self.bytes -= held.size();
        held
    }

    /// Frees a block.
    pub(crate) fn free(&mut self, index: usize) -> Result<(), String> {
        self.take(index).free()?;
        Ok(())
    }

    /// Frees all, the newest first but for the places taken over.
    pub(crate) fn empty(&mut self) -> Result<(), String> {
        while self.count > 0 {
            self.free(self.count - 1)?;
        }
        Ok(())
    }
}
