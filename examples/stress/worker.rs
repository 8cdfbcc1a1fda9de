//! One lane's worker: the steps of a thread's life. The state stays in its lane when the thread
//! ends, so the next thread of the lane frees what the last one allocated.

use core::ops::AddAssign;
use core::sync::atomic::Ordering;

use rand::{RngExt, SeedableRng};

use crate::block::Block;
use crate::mix::{self, Random, Step};
use crate::shared::{INBOX, Shared, lock};

/// Blocks that a worker holds at most.
pub(crate) const SLOTS: usize = 8192;

/// A thread ends after at most so many steps.
const LONGEST_LIFE: usize = 1 << 16;

/// Steps between two looks at the inbox and the stop flag.
const CHORES_EVERY: u32 = 64;

/// Chores between two choices of how many blocks to drift towards.
const TARGET_EVERY: u32 = 64;

/// What the workers did.
#[derive(Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) allocs: u64,
    pub(crate) zeroed: u64,
    pub(crate) reallocs: u64,
    pub(crate) frees: u64,
    pub(crate) received: u64,
    pub(crate) checks: u64,
    pub(crate) nulls: u64,
}

impl Tally {
    /// Calls of the allocator.
    pub(crate) fn operations(&self) -> u64 {
        self.allocs + self.zeroed + self.reallocs + self.frees
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.allocs += other.allocs;
        self.zeroed += other.zeroed;
        self.reallocs += other.reallocs;
        self.frees += other.frees;
        self.received += other.received;
        self.checks += other.checks;
        self.nulls += other.nulls;
    }
}

/// A lane's state.
pub(crate) struct Worker {
    lane: usize,
    random: Random,
    slots: Vec<Block>,
    /// Swapped with the inbox, to empty it outside its lock.
    mail: Vec<Block>,
    /// How many blocks to drift towards.
    target: usize,
    pub(crate) tally: Tally,
}

impl Worker {
    pub(crate) fn new(lane: usize, seed: u64) -> Self {
        let own = (lane as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            lane,
            random: Random::seed_from_u64(seed ^ own),
            slots: Vec::with_capacity(SLOTS),
            mail: Vec::with_capacity(INBOX),
            target: SLOTS / 4,
            tally: Tally::default(),
        }
    }

    /// A thread's life.
    pub(crate) fn live(&mut self, shared: &Shared) {
        let life = mix::log_uniform(&mut self.random, LONGEST_LIFE / CHORES_EVERY as usize);
        for _ in 0..life {
            if shared.stopping() {
                return self.free_all(shared);
            }
            self.chores(shared);
            for _ in 0..CHORES_EVERY {
                self.step(shared);
            }
            shared
                .steps
                .fetch_add(CHORES_EVERY.into(), Ordering::Relaxed);
        }
        self.bequeath(shared);
    }

    /// Frees everything that the lane still has. Nobody may hand over to it any more.
    pub(crate) fn free_all(&mut self, shared: &Shared) {
        self.empty_inbox(shared);
        while let Some(block) = self.slots.pop() {
            self.free(shared, block, "at the end");
        }
    }

    fn chores(&mut self, shared: &Shared) {
        self.empty_inbox(shared);
        if self.random.random_ratio(1, TARGET_EVERY) {
            self.target = mix::log_uniform(&mut self.random, SLOTS);
        }
    }

    fn step(&mut self, shared: &Shared) {
        match mix::step(&mut self.random, self.slots.len() < self.target) {
            Step::Alloc => self.alloc(shared, false),
            Step::AllocZeroed => self.alloc(shared, true),
            Step::Realloc => self.realloc(shared),
            Step::Free => self.free_one(shared),
            Step::HandOver => self.hand_over(shared),
            Step::Check => self.check(),
        }
    }

    /// Frees a block instead if there is no room for another.
    fn alloc(&mut self, shared: &Shared, zeroed: bool) {
        let Some(layout) = mix::layout(&mut self.random, shared.max_size) else {
            return;
        };
        if self.slots.len() == SLOTS || !shared.budget.take(layout.size()) {
            return self.free_one(shared);
        }
        let id = self.random.random();
        let (count, block) = if zeroed {
            (&mut self.tally.zeroed, Block::new_zeroed(layout, id))
        } else {
            (&mut self.tally.allocs, Block::new(layout, id))
        };
        *count += 1;
        if let Some(block) = block {
            self.slots.push(block);
        } else {
            self.tally.nulls += 1;
            shared.budget.give(layout.size());
        }
    }

    fn realloc(&mut self, shared: &Shared) {
        let Some(index) = self.pick() else { return };
        let block = &mut self.slots[index];
        let old = block.size();
        let new = mix::new_size(&mut self.random, old, shared.max_size);
        // What `realloc` copies lives twice for a moment; the budget counts what is handed out.
        if !shared.budget.take(new.saturating_sub(old)) {
            return;
        }
        self.tally.reallocs += 1;
        if block.resize(new) {
            shared.budget.give(old.saturating_sub(new));
        } else {
            self.tally.nulls += 1;
            shared.budget.give(new.saturating_sub(old));
        }
    }

    fn free_one(&mut self, shared: &Shared) {
        if let Some(index) = self.pick() {
            let block = self.slots.swap_remove(index);
            self.free(shared, block, "before dealloc");
        }
    }

    fn free(&mut self, shared: &Shared, block: Block, when: &str) {
        shared.budget.give(block.release(when));
        self.tally.frees += 1;
    }

    /// To any lane, at times our own.
    fn hand_over(&mut self, shared: &Shared) {
        let Some(index) = self.pick() else { return };
        let lane = self.random.random_range(0..shared.inboxes.len());
        let block = self.slots.swap_remove(index);
        if let Err(block) = shared.hand_over(lane, block) {
            self.slots.push(block);
        }
    }

    fn check(&mut self) {
        if let Some(index) = self.pick() {
            self.slots[index].check("while in use");
            self.tally.checks += 1;
        }
    }

    /// Checks and frees what others handed over.
    fn empty_inbox(&mut self, shared: &Shared) {
        core::mem::swap(&mut *lock(&shared.inboxes[self.lane]), &mut self.mail);
        while let Some(block) = self.mail.pop() {
            self.free(shared, block, "after handing over");
            self.tally.received += 1;
        }
    }

    /// At the end of a thread's life: half of the blocks go to the other lanes as far as they have
    /// room, the rest to the next thread of this lane.
    fn bequeath(&mut self, shared: &Shared) {
        for _ in 0..self.slots.len() / 2 {
            self.hand_over(shared);
        }
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.slots.is_empty()).then(|| self.random.random_range(0..self.slots.len()))
    }
}
