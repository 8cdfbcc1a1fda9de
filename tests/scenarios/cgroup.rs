//! A memory limit of the kernel's for a group of processes: who goes beyond it is killed.

use core::ops::Range;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

use flagstone::Flagstone;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::block::Block;
use crate::common::child::{alone, scenario};
use crate::common::group::Group;
use crate::common::process::{resident, verify};
use crate::{ALLOC, MIB};

const LIMIT: usize = 256 * MIB;
/// What a phase uses: two of them are more than the limit.
const PHASE: usize = 144 * MIB;
/// Sizes that share nothing but pages: of classes, of spans, of mappings, of classes again.
const SIZES: [Range<usize>; 8] = [
    400..513,
    1_000..1_025,
    3_000..4_097,
    20_000..30_000,
    100_000..200_000,
    300_000..900_000,
    2 * MIB..5 * MIB,
    600..800,
];
/// How many of those are classes.
const CLASSES: usize = 5;
/// Where the child finds its group.
const PLACE: &str = "SCENARIOS_GROUP";
/// Set once it is in there.
const JOINED: &str = "SCENARIOS_JOINED";

/// Every phase has `total` bytes of sizes that no other has, every byte written, and `between` comes after
/// each; one block in `kept` stays.
fn phases(sizes: &[Range<usize>], total: usize, kept: Option<usize>, between: fn()) {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut blocks = Vec::with_capacity(total / 400);
    let mut survivors = Vec::with_capacity(total / 400);
    for sizes in sizes {
        let mut held = 0;
        while held < total {
            let size = rng.random_range(sizes.clone());
            blocks.push(Block::filled(&ALLOC, size, 8, blocks.len()));
            held += size;
        }
        for (tag, block) in blocks.drain(..).enumerate() {
            block.check(tag);
            if kept.is_some_and(|kept| tag.is_multiple_of(kept)) {
                survivors.push((tag, block));
            } else {
                block.free(&ALLOC);
            }
        }
        between();
        println!("{sizes:?}: {} MiB resident", resident() / MIB);
    }
    for (tag, block) in survivors {
        block.check(tag);
        block.free(&ALLOC);
    }
    verify();
}

/// Runs `body` in a process of its own below the limit, if there are control groups.
fn below_limit(name: &str, body: fn()) {
    if scenario().is_some() {
        let group = env::var_os(PLACE).expect("a group");
        if env::var_os(JOINED).is_none() {
            let members = Path::new(&group).join("cgroup.procs");
            fs::write(members, process::id().to_string()).expect("a place in the group");
            // The limit is read as a process begins.
            let program = env::current_exe().expect("its own path");
            let again = Command::new(program)
                .args(env::args_os().skip(1))
                .env(JOINED, "1")
                .exec();
            panic!("{again}");
        }
        return alone(name, &[], body);
    }
    let Some(group) = Group::new(name, LIMIT) else {
        return println!("skipped: no control group can be made");
    };
    let place = group.path().to_str().expect("a path in UTF-8");
    alone(name, &[(PLACE, place)], || ());
}

/// The pages of one class serve the next.
#[test]
fn classes_change_from_phase_to_phase() {
    below_limit("cgroup::classes_change_from_phase_to_phase", || {
        phases(&SIZES[..CLASSES], PHASE, None, || ());
    });
}

/// Classes, spans and mappings share no addresses: what a phase leaves goes before the limit is met.
#[test]
fn kinds_change_from_phase_to_phase() {
    below_limit("cgroup::kinds_change_from_phase_to_phase", || {
        phases(&SIZES, 160 * MIB, None, || ());
    });
}

/// Here and there a block stays; what lies between them goes back when the program says so.
#[test]
fn few_blocks_stay_of_each_phase() {
    below_limit("cgroup::few_blocks_stay_of_each_phase", || {
        phases(&SIZES, PHASE, Some(400), || {
            Flagstone::purge();
        });
    });
}
