//! Without this, the situations that broke other allocators could break this one: limits, a kernel that
//! refuses, signals, threads by the thousand, libraries that go.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

#[path = "oom/chain.rs"]
mod chain;
#[path = "oom/program.rs"]
#[expect(dead_code, reason = "of the program only the parts are used")]
mod program;

#[path = "scenarios/allowed.rs"]
mod allowed;
#[path = "scenarios/cgroup.rs"]
mod cgroup;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
#[path = "scenarios/dynamic.rs"]
mod dynamic;
#[path = "scenarios/filter.rs"]
mod filter;
#[path = "scenarios/huge.rs"]
mod huge;
#[path = "scenarios/kernel.rs"]
mod kernel;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
#[path = "scenarios/library.rs"]
mod library;
#[path = "scenarios/limits.rs"]
mod limits;
#[path = "scenarios/locked.rs"]
mod locked;
#[path = "scenarios/mappings.rs"]
mod mappings;
#[path = "scenarios/signals.rs"]
mod signals;
#[path = "scenarios/threads.rs"]
mod threads;
#[path = "scenarios/timer.rs"]
mod timer;

use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

const MIB: usize = 1 << 20;

/// Sizes of every kind: classes near and far, gated ones, spans, mappings, one that may have huge pages.
const SIZES: [usize; 9] = [
    24,
    700,
    4_096,
    20_000,
    40_000,
    200_000,
    400_000,
    2 * MIB,
    9 * MIB,
];
