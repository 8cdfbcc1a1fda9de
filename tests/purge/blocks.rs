//! Many blocks whose contents are known, and the pages that they lie in.

use core::ops::Range;
use std::fs;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::ALLOC;
use crate::common::block::Block;
use crate::common::process::page_size;

/// Blocks by tag. Its own memory is touched before the test measures anything, and does not grow.
pub(crate) struct Blocks(pub(crate) Vec<Option<Block>>);

impl Blocks {
    pub(crate) fn with_room(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    /// Allocates and fills blocks of random sizes until they hold `total` bytes.
    pub(crate) fn fill(&mut self, rng: &mut SmallRng, sizes: Range<usize>, total: usize) {
        let mut held = 0;
        for (tag, slot) in self.0.iter_mut().enumerate() {
            if held >= total {
                return;
            }
            let size = rng.random_range(sizes.clone());
            *slot = Some(Block::filled(&ALLOC, size, 8, tag));
            held += size;
        }
        assert!(held >= total, "room for more blocks is needed");
    }

    /// Frees the blocks that `keep` does not want, after a look at their contents.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut() -> bool) {
        for (tag, slot) in self.0.iter_mut().enumerate() {
            if slot.is_some() && !keep() {
                let block = slot.take().expect("checked above");
                block.check(tag);
                block.free(&ALLOC);
            }
        }
    }

    pub(crate) fn free_all(&mut self) {
        self.retain(|| false);
    }

    pub(crate) fn check(&self) {
        for (tag, slot) in self.0.iter().enumerate() {
            if let Some(block) = slot {
                block.check(tag);
            }
        }
    }

    /// Whether the kernel marks all mappings that blocks begin in with `flag` (`VmFlags`).
    pub(crate) fn are_all_in_mappings_with(&self, flag: &str) -> bool {
        let all = fs::read_to_string("/proc/self/smaps").expect("a list of mappings");
        let mut marked = Vec::new();
        let mut range = 0..0;
        for line in all.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                if flags.split_whitespace().any(|word| word == flag) {
                    marked.push(range.clone());
                }
            } else if let Some(found) = addresses_of(line) {
                range = found;
            }
        }
        let is_marked = |block: &Block| marked.iter().any(|range| range.contains(&block.addr()));
        self.0.iter().flatten().all(is_marked)
    }

    /// Bytes of the pages that hold a part of a block.
    pub(crate) fn page_bytes(&self) -> usize {
        let mut pages: Vec<usize> = self.0.iter().flatten().flat_map(pages_of).collect();
        pages.sort_unstable();
        pages.dedup();
        pages.len() * page_size()
    }
}

/// The range at the beginning of a mapping's first line.
fn addresses_of(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some(parse(start)?..parse(end)?)
}

/// The addresses of the pages that hold a part of `block`.
pub(crate) fn pages_of(block: &Block) -> impl Iterator<Item = usize> + use<> {
    let first = block.addr() - block.addr() % page_size();
    (first..block.addr() + block.size()).step_by(page_size())
}
