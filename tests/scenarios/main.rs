//! Without this, the situations that broke other allocators could break this one: limits, a kernel that
//! refuses, signals, threads by the thousand, libraries that go. Each test has a process of its own:
//! they take no turns.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;

#[path = "../oom/chain.rs"]
mod chain;
#[path = "../oom/program.rs"]
#[expect(dead_code, reason = "of the program only the parts are used")]
mod program;

mod allowed;
mod cgroup;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod dynamic;
mod filter;
mod huge;
mod kernel;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod library;
mod limits;
mod locked;
mod mappings;
mod signals;
mod threads;
mod timer;

use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

const MIB: usize = 1 << 20;
