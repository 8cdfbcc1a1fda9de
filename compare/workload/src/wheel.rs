//! A timing wheel: blocks that are to be freed at a later tick.

use std::mem;

use super::held::Held;
use super::mapped::{MappedArray, Zeroed};

/// One entry and the number, plus one, of the next with the same tick or the next unused one.
#[derive(Default)]
struct Entry {
    held: Held,
    next: u64,
}

// SAFETY: 1. no block, no next. 2. aligned to 8.
unsafe impl Zeroed for Entry {}

pub(crate) struct Wheel {
    entries: MappedArray<Entry>,
    /// Heads of the lists, by tick modulo their number.
    ticks: MappedArray<u64>,
    unused: u64,
    /// Entries that have ever been used.
    used: usize,
    now: usize,
    bytes: usize,
}

impl Wheel {
    /// For so many blocks that live for fewer than so many ticks.
    pub(crate) fn new(capacity: usize, ticks: usize) -> Result<Self, String> {
        Ok(Self {
            entries: MappedArray::new(capacity)?,
            ticks: MappedArray::new(ticks)?,
            unused: 0,
            used: 0,
            now: 0,
            bytes: 0,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a block for so many ticks.
    pub(crate) fn keep(&mut self, held: Held, ticks: usize) {
        assert!(
            (1..self.ticks.len()).contains(&ticks),
            "within a turn of the wheel"
        );
        let index = match self.unused.checked_sub(1) {
            Some(index) => {
                self.unused = self.entries[index as usize].next;
                index as usize
            }
            None => {
                self.used += 1;
                self.used - 1
            }
        };
        self.bytes += held.size();
        let tick = (self.now + ticks) % self.ticks.len();
        let next = mem::replace(&mut self.ticks[tick], index as u64 + 1);
        self.entries[index] = Entry { held, next };
    }

    /// Moves on by a tick and frees what is due.
    pub(crate) fn turn(&mut self) -> Result<(), String> {
        self.now = (self.now + 1) % self.ticks.len();
        let mut head = mem::take(&mut self.ticks[self.now]);
        while let Some(index) = head.checked_sub(1) {
            let entry = &mut self.entries[index as usize];
            let held = mem::take(&mut entry.held);
            head = mem::replace(&mut entry.next, self.unused);
            self.unused = index + 1;
            self.bytes -= held.free()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::held::Touch;
    use super::*;

    #[test]
    fn blocks_go_at_their_tick() {
        let mut wheel = Wheel::new(3, 5).expect("memory");
        for turn in 0..20 {
            wheel.keep(Held::alloc(100, turn, Touch::All), 2);
            assert_eq!(wheel.bytes(), if turn == 0 { 100 } else { 200 });
            wheel.turn().expect("nobody wrote");
        }
        wheel.turn().expect("nobody wrote");
        assert_eq!(wheel.bytes(), 0);
    }
}
