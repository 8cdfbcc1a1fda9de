//! Where threads lay blocks down for each other.

use std::sync::{Mutex, PoisonError};

use crate::block::Block;

/// Places where a block may lie; enough that two threads seldom want the same.
const PLACES: usize = 256;

/// Blocks on their way from thread to thread.
#[derive(Debug)]
pub struct Exchange([Mutex<Option<Block>>; PLACES]);

impl Exchange {
    /// Nothing lies there.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { Mutex::new(None) }; PLACES])
    }

    /// Lays a block down, or nothing, and takes what lies there.
    pub(crate) fn swap(&self, place: usize, block: Option<Block>) -> Option<Block> {
        let place = &self.0[place % PLACES];
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        core::mem::replace(&mut place, block)
    }

    /// Frees what lies there.
    ///
    /// # Errors
    ///
    /// What is wrong with a block.
    pub fn clear(&self) -> Result<(), String> {
        (0..PLACES)
            .filter_map(|place| self.swap(place, None))
            .try_for_each(Block::free)
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}
