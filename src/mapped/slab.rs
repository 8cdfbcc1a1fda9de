//! A slab's descriptor, in the mapping: two bitmaps, a bit for each block that is free.
//!
//! | bitmap | set by | cleared by |
//! |---|---|---|
//! | `own` | the owner: when it frees, and when it collects | the owner, when it allocates |
//! | `second` | anyone else who frees | the owner, when it collects; an adopter, of what its last owner was collecting |
//!
//! The owner alone writes `own`, by loads and stores. Who owns the slab stands in its unit's word (`words`), which
//! publishes `own` from one owner to the next.

use crate::sync::{AtomicU64, Ordering};

/// Words of a bitmap: the shortest blocks of a unit.
pub(super) const WORDS: usize = if cfg!(all(test, loom)) { 1 } else { 64 };
const BITS: usize = u64::BITS as usize;

/// All zero is one without blocks.
#[repr(C, align(64))]
pub(super) struct Slab {
    /// Units of the run that begins here, while the unit's word says that one does. Written with the heap's lock.
    pub(super) length: AtomicU64,
    own: [AtomicU64; WORDS],
    second: [AtomicU64; WORDS],
}

/// The block is free already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freed;

/// The bits of a word that are blocks.
fn all_of(word: usize, blocks: usize) -> u64 {
    match blocks.saturating_sub(word * BITS) {
        0 => 0,
        count if count < BITS => (1 << count) - 1,
        _ => u64::MAX,
    }
}

impl Slab {
    /// Has so many blocks, all free. By who has the unit to himself.
    pub(super) fn begin(&self, blocks: usize) {
        for (word, (own, second)) in self.own.iter().zip(&self.second).enumerate() {
            // ORDERING: the unit's word publishes them.
            second.store(0, Ordering::Relaxed);
            own.store(all_of(word, blocks), Ordering::Relaxed);
        }
    }

    /// Takes a free block, from this word on, around to it; the block's number. By the owner.
    #[inline(always)]
    pub(super) fn take(&self, word: usize) -> Option<usize> {
        let word = word % WORDS;
        // ORDERING: the owner's own, here and below.
        let bits = self.own[word].load(Ordering::Relaxed);
        if bits != 0 {
            self.own[word].store(bits & (bits - 1), Ordering::Relaxed);
            return Some(word * BITS + bits.trailing_zeros() as usize);
        }
        None
    }

    /// The first word with a free block, from this one on, around to it. By the owner.
    pub(super) fn next_word(&self, from: usize) -> Option<usize> {
        let has_some = |word: &usize| self.own[*word].load(Ordering::Relaxed) != 0;
        let from = from % WORDS;
        (from..WORDS).chain(0..from).find(has_some)
    }

    /// Takes a block back, by the owner.
    #[inline(always)]
    pub(super) fn put(&self, block: usize) -> Result<(), Freed> {
        let (word, bit) = (block / BITS % WORDS, 1 << (block % BITS));
        let bits = self.own[word].load(Ordering::Relaxed);
        // ORDERING: a check.
        if (bits | self.second[word].load(Ordering::Relaxed)) & bit != 0 {
            return Err(Freed);
        }
        self.own[word].store(bits | bit, Ordering::Relaxed);
        Ok(())
    }

    /// Whether all blocks of a block's word are free, as far as they were collected. By the owner.
    #[cfg(not(all(test, loom)))]
    pub(super) fn is_word_free(&self, block: usize, blocks: usize) -> bool {
        let word = block / BITS % WORDS;
        self.own[word].load(Ordering::Relaxed) == all_of(word, blocks)
    }

    /// Takes a block back, by anyone else. The slab is not looked at any more once its last block is back: it may be
    /// another's.
    pub(super) fn give_back(&self, block: usize) -> Result<(), Freed> {
        let (word, bit) = (block / BITS % WORDS, 1 << (block % BITS));
        // ORDERING: a check. A bit that an owner sets meanwhile is another block's.
        if self.own[word].load(Ordering::Relaxed) & bit != 0 {
            return Err(Freed);
        }
        // ORDERING: release: pairs with `collect`, by which the block's next user has what its last one did. More than that
        // for the hint, which is looked at next: see `hints`.
        let before = self.second[word].fetch_or(bit, Ordering::SeqCst);
        if before & bit == 0 {
            Ok(())
        } else {
            Err(Freed)
        }
    }

    /// Takes in what others gave back, by the owner; the first word that gained some.
    pub(super) fn collect(&self, blocks: usize) -> Option<usize> {
        let mut first = None;
        for (word, (own, second)) in self.own.iter().zip(&self.second).enumerate() {
            // ORDERING: acquire: pairs with `give_back`. More than that after the hint was cleared: see `hints`.
            let bits = second.load(Ordering::SeqCst) & all_of(word, blocks);
            if bits != 0 {
                own.store(own.load(Ordering::Relaxed) | bits, Ordering::Relaxed);
                // ORDERING: of these bits nobody else knows; others come in meanwhile.
                second.fetch_and(!bits, Ordering::Relaxed);
                first = first.or(Some(word));
            }
        }
        first
    }

    /// Ends what a last owner that is gone was collecting, and drops bits that are no blocks. By who adopted the slab, before
    /// anything else.
    pub(super) fn finish(&self, blocks: usize) {
        for (word, (own, second)) in self.own.iter().zip(&self.second).enumerate() {
            let all = all_of(word, blocks);
            let bits = own.load(Ordering::Relaxed) & all;
            own.store(bits, Ordering::Relaxed);
            // ORDERING: what is in both was collected, but for this step.
            second.fetch_and(!bits & all, Ordering::Relaxed);
        }
    }

    /// Frees all blocks but those whose bits `kept` has for a word; how many were not free. By who has the slab to himself.
    #[cfg(not(all(test, loom)))]
    pub(super) fn keep(&self, blocks: usize, kept: impl Fn(usize) -> u64) -> usize {
        let words = self.own.iter().zip(&self.second).enumerate();
        let freed = words.map(|(word, (own, second))| {
            let (all, kept) = (all_of(word, blocks), kept(word));
            // ORDERING: the heap's lock orders it.
            let free = own.load(Ordering::Relaxed) | second.load(Ordering::Relaxed);
            own.store(all & !kept, Ordering::Relaxed);
            second.store(0, Ordering::Relaxed);
            (all & !kept & !free).count_ones() as usize
        });
        freed.sum()
    }

    /// Whether all blocks may be free, by the first word: by anyone, who looks closer if so.
    #[cfg(not(all(test, loom)))]
    pub(super) fn may_be_empty(&self, blocks: usize) -> bool {
        // ORDERING: a hint.
        let bits = self.own[0].load(Ordering::Relaxed) | self.second[0].load(Ordering::Relaxed);
        bits & all_of(0, blocks) == all_of(0, blocks)
    }

    /// Whether all blocks are free and collected.
    pub(super) fn is_empty(&self, blocks: usize) -> bool {
        let mut words = self.own.iter().enumerate();
        // ORDERING: the owner's own.
        words.all(|(word, own)| own.load(Ordering::Relaxed) == all_of(word, blocks))
    }

    /// Blocks that are free, at some moment.
    #[cfg(not(all(test, loom)))]
    pub(super) fn free_blocks(&self, blocks: usize) -> usize {
        let words = self.own.iter().zip(&self.second).enumerate();
        let free = words.map(|(word, (own, second))| {
            // ORDERING: statistics.
            let bits = own.load(Ordering::Relaxed) | second.load(Ordering::Relaxed);
            (bits & all_of(word, blocks)).count_ones() as usize
        });
        free.sum()
    }

    /// Whether some bit is set that is no block's.
    #[cfg(not(all(test, loom)))]
    pub(super) fn has_stray_bits(&self, blocks: usize) -> bool {
        let mut words = self.own.iter().zip(&self.second).enumerate();
        // ORDERING: a check.
        words.any(|(word, (own, second))| {
            let bits = own.load(Ordering::Relaxed) | second.load(Ordering::Relaxed);
            bits & !all_of(word, blocks) != 0
        })
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicU32;
    use loom::cell::UnsafeCell;
    use std::boxed::Box;

    /// A slab of two blocks with their memory, and the word that says whose it is: 0 nobody's.
    struct Model {
        slab: Slab,
        owner: AtomicU32,
        memory: [UnsafeCell<u32>; 2],
    }

    // SAFETY: 1. the model checks the accesses to the memory.
    unsafe impl Sync for Model {}

    fn model(free: u64) -> &'static Model {
        Box::leak(Box::new(Model {
            slab: Slab {
                length: AtomicU64::new(0),
                own: [AtomicU64::new(free)],
                second: [AtomicU64::new(0)],
            },
            owner: AtomicU32::new(1),
            memory: [UnsafeCell::new(0), UnsafeCell::new(0)],
        }))
    }

    impl Model {
        fn write(&self, block: usize) {
            // SAFETY: 1. the model checks the access.
            self.memory[block].with_mut(|word| unsafe { *word += 1 });
        }

        fn take_all(&self) -> usize {
            let mut count = 0;
            while let Some(block) = self.slab.take(0) {
                self.write(block);
                count += 1;
            }
            count
        }
    }

    /// Proves: what others give back is collected once, and what its last user wrote is seen. Fails with a relaxed
    /// `fetch_or`, with a relaxed load in `collect`, and when that stores 0 instead of clearing what it read.
    #[test]
    fn loom_what_is_given_back_is_collected_once() {
        loom::model(|| {
            let model = model(0);
            let threads = [0, 1].map(|block| {
                loom::thread::spawn(move || {
                    model.write(block);
                    model.slab.give_back(block).unwrap();
                })
            });
            model.slab.collect(2);
            let early = model.take_all();
            for thread in threads {
                thread.join().unwrap();
            }
            model.slab.collect(2);
            assert_eq!(early + model.take_all(), 2);
        });
    }

    /// Proves: an owner that gives up publishes `own` to who adopts, while another frees. Fails with a relaxed store of
    /// the owner, or a relaxed exchange.
    #[test]
    fn loom_an_adopter_has_what_the_last_owner_left() {
        loom::model(|| {
            let model = model(0b01);
            let owner = loom::thread::spawn(move || {
                // Uses its block and frees it, then gives up.
                let block = model.slab.take(0).unwrap();
                model.write(block);
                model.slab.put(block).unwrap();
                model.owner.store(0, Ordering::Release);
            });
            let freer = loom::thread::spawn(move || {
                model.write(1);
                model.slab.give_back(1).unwrap();
            });
            let adopted = model
                .owner
                .compare_exchange(0, 2, Ordering::Acquire, Ordering::Relaxed);
            if adopted.is_ok() {
                model.slab.finish(2);
                model.slab.collect(2);
                let count = model.take_all();
                assert!(count >= 1);
            }
            owner.join().unwrap();
            freer.join().unwrap();
        });
    }

    /// Proves: a collection cut short by a kill gives no block twice to who adopts, and loses none. Fails when `finish`
    /// leaves what is in both.
    #[test]
    fn loom_a_collection_that_was_cut_short_is_finished() {
        loom::model(|| {
            let model = model(0);
            let freer = loom::thread::spawn(move || {
                model.write(0);
                model.slab.give_back(0).unwrap();
            });
            // Dies between the two stores of `collect`.
            let bits = model.slab.second[0].load(Ordering::Acquire);
            model.slab.own[0].store(bits, Ordering::Relaxed);
            model.owner.store(0, Ordering::Release);
            freer.join().unwrap();
            model
                .owner
                .compare_exchange(0, 2, Ordering::Acquire, Ordering::Relaxed)
                .unwrap();
            model.slab.finish(2);
            let early = model.take_all();
            model.slab.collect(2);
            assert_eq!(early + model.take_all(), 1);
        });
    }

    /// Proves: a block that comes back while somebody looks is found, or has a hint. The fences stand for the order of
    /// sequentially consistent accesses, which the checker takes for acquire and release. Fails without either, when the
    /// look clears the hint after it collects, and when the freer looks at the hint first.
    #[test]
    fn loom_a_block_that_comes_back_is_found_or_has_a_hint() {
        use loom::sync::atomic::fence;
        loom::model(|| {
            let model = model(0);
            let hint: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(1)));
            let freer = loom::thread::spawn(move || {
                model.write(0);
                model.slab.give_back(0).unwrap();
                fence(Ordering::SeqCst);
                // As `set_hint` has it.
                if hint.load(Ordering::SeqCst) == 0 {
                    hint.fetch_or(1, Ordering::SeqCst);
                }
            });
            hint.fetch_and(0, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            model.slab.collect(2);
            let found = model.take_all();
            freer.join().unwrap();
            assert!(found == 1 || hint.load(Ordering::SeqCst) == 1);
        });
    }
}
