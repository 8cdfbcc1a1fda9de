//! Without this, a heap that processes share could hand a block out twice, lose memory with a process, or hang.
#![cfg(not(any(miri, flagstone_portable)))]

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;

mod arcs;
mod attach;
mod calls;
mod children;
mod commit_disks;
mod commit_image;
mod commit_images;
mod commit_kills;
mod commit_load;
mod commit_pages;
mod commit_refused;
mod commits;
mod disks;
mod files;
mod forks;
mod image;
mod images;
mod inside;
mod kernel;
mod kills;
mod kinds;
mod locks;
mod looks;
mod maps;
mod power;
mod power_disk;
mod published;
mod readers;
mod refused;
mod snapshot_disks;
mod snapshots;
mod step_calls;
mod steps;
mod steps_inside;
mod sweeps;
mod tables;
mod tracer;
mod types;

use flagstone::{Background, Config, Flagstone};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));
