//! A program on its way: the slots of one thread, and the operations on them.

use core::alloc::Layout;

use flagstone::Flagstone;

use crate::block::{Block, Wanted};
use crate::{Exchange, Op};

/// Blocks do not grow beyond.
const LONGEST: usize = 16 << 20;

/// What the driver has to do before the next operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Go,
    /// Carry on in another thread.
    Switch,
    /// End this thread and carry on in a new one.
    Retire,
}

/// The state of one run. Dropping it leaks its blocks: [`Run::finish`] frees them.
#[derive(Debug)]
pub struct Run<'a> {
    exchange: &'a Exchange,
    slots: Box<[Option<Block>]>,
    /// Bytes in slots.
    held: usize,
    /// Past so many bytes held, only short blocks are asked for.
    most: usize,
    /// Numbers the contents, so that no two blocks of any thread hold the same.
    tag: u64,
}

impl<'a> Run<'a> {
    /// A run number `number` of this process with `slots` empty slots, which holds about `most` bytes
    /// at a time.
    #[must_use]
    pub fn new(number: u64, slots: usize, most: usize, exchange: &'a Exchange) -> Self {
        Self {
            exchange,
            slots: (0..slots).map(|_| None).collect(),
            held: 0,
            most,
            tag: number << 48,
        }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    ///
    /// What the allocator did wrong.
    #[inline]
    pub fn step(&mut self, op: Op) -> Result<Turn, String> {
        match op {
            Op::Alloc {
                slot,
                size,
                align,
                zeroed,
            } => self.alloc(slot, size, align, zeroed)?,
            Op::Realloc { slot, size } => self.realloc(slot, |_| size)?,
            Op::Scale { slot, eighths } => {
                self.realloc(slot, |old| (old * eighths / 8).clamp(1, LONGEST))?;
            }
            Op::Free { slot } => self.free(slot)?,
            Op::Pass { slot, place } => self.pass(slot, place),
            Op::Purge => {
                Flagstone::purge();
            }
            Op::Verify => verify()?,
            Op::Switch => return Ok(Turn::Switch),
            Op::Retire => return Ok(Turn::Retire),
        }
        Ok(Turn::Go)
    }

    /// Frees what is left.
    ///
    /// # Errors
    ///
    /// What is wrong with a block.
    pub fn finish(mut self) -> Result<(), String> {
        (0..self.slots.len()).try_for_each(|slot| self.free(slot))
    }

    fn slot(&mut self, slot: usize) -> &mut Option<Block> {
        let slot = slot % self.slots.len();
        &mut self.slots[slot]
    }

    fn alloc(
        &mut self,
        slot: usize,
        size: usize,
        align: usize,
        zeroed: bool,
    ) -> Result<(), String> {
        self.free(slot)?;
        let layout = Layout::from_size_align(self.affordable(size), align).expect("a valid layout");
        let wanted = if zeroed { Wanted::Zeroed } else { Wanted::Any };
        self.tag += 1;
        let block = Block::alloc(layout, wanted, self.tag)?;
        let block = block.ok_or_else(|| format!("{layout:?} answered by null"))?;
        self.held += block.size();
        *self.slot(slot) = Some(block);
        Ok(())
    }

    #[inline]
    fn realloc(&mut self, slot: usize, size: impl FnOnce(usize) -> usize) -> Result<(), String> {
        let Some(block) = self.slot(slot).take() else {
            return Ok(());
        };
        self.held -= block.size();
        let size = self.affordable(size(block.size()));
        self.tag += 1;
        let (block, changed) = block.realloc(size, self.tag)?;
        if !changed {
            return Err(format!("growing {block:?} to {size} answered by null"));
        }
        self.held += size;
        *self.slot(slot) = Some(block);
        Ok(())
    }

    #[inline]
    fn free(&mut self, slot: usize) -> Result<(), String> {
        let Some(block) = self.slot(slot).take() else {
            return Ok(());
        };
        self.held -= block.size();
        block.free()
    }

    fn pass(&mut self, slot: usize, place: usize) {
        let given = self.slot(slot).take();
        self.held -= given.as_ref().map_or(0, Block::size);
        let taken = self.exchange.swap(place, given);
        self.held += taken.as_ref().map_or(0, Block::size);
        *self.slot(slot) = taken;
    }

    fn affordable(&self, size: usize) -> usize {
        if self.held + size > self.most {
            size % 4096 + 1
        } else {
            size
        }
    }
}

fn verify() -> Result<(), String> {
    Flagstone::verify().map_err(|violation| violation.to_string())
}

/// Once all blocks are freed: checks that the allocator is whole and knows that nothing is live.
///
/// # Errors
///
/// What is wrong.
pub fn expect_nothing_live() -> Result<(), String> {
    verify()?;
    match Flagstone::stats().map(|stats| stats.live) {
        None => Err("no statistics: not the allocator that is to be tested".to_owned()),
        Some(0) => Ok(()),
        Some(live) => Err(format!("all is freed, yet {live} bytes are live")),
    }
}
