//! What the allocator holds, counted while nothing moves between magazines and bitmaps.

use super::quiesce::Gates;
use crate::arena::{self, meta};
use crate::heap;
use crate::large;
use crate::sample;
use crate::size_class::SizeClass;
use crate::stats::Stats;
use crate::thread_cache::{Safeguards, ThreadCache};
use crate::threads::{self, REGISTRY};

/// What the allocator holds.
pub(crate) fn stats() -> Stats {
    if !threads::is_ready() {
        return Stats::default();
    }
    threads::repair_child();
    let (used, cached) = {
        let registry = REGISTRY.lock();
        let _gates = Gates::all(&registry);
        let all = registry.registered().chain(registry.parked());
        let cached: usize = all.map(ThreadCache::cached_bytes).sum();
        (heap::used_bytes(), cached)
    };
    let (mapped, mapped_resident) = large::committed_and_resident();
    let sampled = sample::live();
    Stats {
        live: (used + large::live()).saturating_sub(cached) + sampled,
        cached,
        committed: arena::committed() + mapped + sampled,
        resident: arena::resident() + mapped_resident + sampled,
        metadata: meta::resident(),
    }
}

impl ThreadCache {
    /// Bytes of blocks in all magazines. The gate is held.
    fn cached_bytes(&'static self) -> usize {
        let in_magazines = |class: SizeClass| self.contents(class).1 * class.size();
        let waiting = self.safeguards.get().map_or(0, Safeguards::bytes);
        self.countable().map(in_magazines).sum::<usize>() + waiting
    }
}
