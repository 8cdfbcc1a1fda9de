//! What the allocator holds, counted while nothing moves between magazines and bitmaps.

use super::quiesce::{Gates, countable};
use crate::arena::{self, meta};
use crate::heap;
use crate::large::{self, Stock};
use crate::sample;
use crate::stats::Stats;
use crate::thread_cache::{LockedCache, Safeguards};
use crate::threads::{self, Part, REGISTRY};

/// What the allocator holds.
pub(crate) fn stats() -> Stats {
    if !threads::is_ready() {
        return Stats::default();
    }
    threads::repair_child(Part::All);
    let (used, cached, stocked) = {
        let registry = REGISTRY.lock();
        let gates = Gates::all(&registry);
        let all = || gates.caches().chain(registry.parked());
        let cached: usize = all().map(cached_bytes).sum();
        let stocked: usize = all().map(stocked_bytes).sum();
        (heap::used_bytes(), cached, stocked)
    };
    let (mapped, mapped_resident) = large::committed_and_resident();
    let sampled = sample::live();
    let [in_pools, gigantic] = arena::taken();
    // What has pages of its own, all of which count as resident.
    let apart = sampled + gigantic;
    Stats {
        live: (used + large::live()).saturating_sub(cached) + in_pools + apart,
        cached: cached + stocked,
        committed: arena::committed() + mapped + apart,
        resident: arena::resident() + mapped_resident + apart,
        metadata: meta::resident(),
    }
}

/// Bytes of spans in its stock, about so many if the thread is at work.
fn stocked_bytes(cache: LockedCache<'_>) -> usize {
    cache.stock().map_or(0, Stock::bytes)
}

/// Bytes of blocks in all magazines.
fn cached_bytes(cache: LockedCache<'_>) -> usize {
    let magazines = countable(cache).map(|(class, contents)| contents.blocks() * class.size());
    let waiting = cache.safeguards.get().map_or(0, Safeguards::bytes);
    magazines.sum::<usize>() + waiting
}
