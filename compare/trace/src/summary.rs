//! `Summary`: what is in a trace, for people.

use std::collections::BTreeMap;
use std::fmt;

use crate::op::Kind;
use crate::read::Trace;

/// Counts over a trace; displayed as the report of `trace info`.
#[derive(Debug)]
pub struct Summary {
    /// Operations: allocations, those of zeroed memory, reallocations, frees.
    pub kinds: [u64; 4],
    /// Frees on another thread than the one that allocated or last reallocated the block.
    pub foreign_frees: u64,
    /// Operations of each thread.
    pub threads: Vec<u64>,
    /// The most blocks that were live at once.
    pub peak_live_blocks: usize,
    /// The most bytes that were live at once.
    pub peak_live_bytes: u64,
    /// Blocks that were never freed.
    pub end_live_blocks: u64,
    /// Their bytes.
    pub end_live_bytes: u64,
    /// How many requests (allocations and reallocations) were of up to so many bytes, a power of two,
    /// and more than half of that.
    pub sizes: BTreeMap<u64, u64>,
}

impl Summary {
    /// Counts.
    pub fn of(trace: &Trace) -> Self {
        let mut summary = Self {
            kinds: [0; 4],
            foreign_frees: 0,
            threads: vec![0; trace.threads()],
            peak_live_blocks: trace.slots(),
            peak_live_bytes: trace.peak_live_bytes(),
            end_live_blocks: 0,
            end_live_bytes: trace.end_live_bytes(),
            sizes: BTreeMap::new(),
        };
        let mut owners = vec![0; trace.slots()];
        for op in trace.ops() {
            summary.kinds[op.kind() as usize] += 1;
            summary.threads[op.thread()] += 1;
            if op.kind() == Kind::Free {
                summary.foreign_frees += u64::from(owners[op.slot()] != op.thread());
            } else {
                owners[op.slot()] = op.thread();
                // A size is at most `isize::MAX`.
                let bucket = (op.size() as u64).next_power_of_two();
                *summary.sizes.entry(bucket).or_default() += 1;
            }
        }
        let [allocs, zeroed, _, frees] = summary.kinds;
        summary.end_live_blocks = allocs + zeroed - frees;
        summary
    }

    /// All operations.
    pub fn ops(&self) -> u64 {
        self.kinds.iter().sum()
    }
}

/// `part` of `whole` in percent; of nothing, nothing.
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops = self.ops();
        let [allocs, zeroed, reallocs, frees] = self.kinds;
        let mut line = |name: &str, count: u64, of: u64, note: &str| {
            let share = percent(count, of);
            writeln!(f, "{name:<16} {count:>10}  {share:5.1} %{note}")
        };
        line("operations", ops, ops, "")?;
        line("  alloc", allocs, ops, "")?;
        line("  alloc_zeroed", zeroed, ops, "")?;
        line("  realloc", reallocs, ops, "")?;
        line("  dealloc", frees, ops, "")?;
        line("foreign frees", self.foreign_frees, frees, " of the frees")?;
        for (thread, &count) in self.threads.iter().enumerate() {
            line(&format!("thread {thread}"), count, ops, "")?;
        }
        for (name, bytes, blocks) in [
            (
                "peak live",
                self.peak_live_bytes,
                self.peak_live_blocks as u64,
            ),
            ("live at the end", self.end_live_bytes, self.end_live_blocks),
        ] {
            writeln!(f, "{name:<16} {bytes:>10}  bytes, {blocks:>8} blocks")?;
        }
        let requests = self.sizes.values().sum();
        writeln!(f, "requests of up to")?;
        for (&bucket, &count) in &self.sizes {
            let share = percent(count, requests);
            writeln!(f, "{bucket:>14} B {count:>10}  {share:5.1} %")?;
        }
        Ok(())
    }
}
