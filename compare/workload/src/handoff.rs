//! g_: blocks of 64 bytes allocated on one thread and freed on another, in batches.

use std::hint::black_box;
use std::sync::Mutex;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::ring::{BATCH, DEPTH, Receiver, Ring, Sender};
use super::team;

const THREADS: usize = 2;

/// Both ways, each side sends so many batches ahead, so that a short delay of one does not at once
/// stop the other.
const AHEAD: u64 = DEPTH as u64 / 2;

/// What one thread of the pair does.
struct Role<'a> {
    outbox: Option<Sender<'a>>,
    inbox: Option<Receiver<'a>>,
    layout: BlockLayout,
}

impl Role<'_> {
    /// Sends `rounds` batches, receives `rounds`, or both.
    fn run(&mut self, rounds: u64) -> u64 {
        let mut sum = 0_u64;
        for round in 0..rounds + AHEAD {
            if round < rounds {
                self.send(round);
            }
            if round >= AHEAD {
                sum = sum.wrapping_add(self.receive());
            }
        }
        sum
    }

    fn send(&mut self, word: u64) {
        let Some(outbox) = &mut self.outbox else {
            return;
        };
        outbox.send(|batch| {
            for slot in batch {
                *slot = Some(Block::alloc(self.layout, word));
            }
        });
    }

    fn receive(&mut self) -> u64 {
        let Some(inbox) = &mut self.inbox else {
            return 0;
        };
        let mut sum = 0_u64;
        inbox.receive(|batch| {
            for block in batch.iter().flatten() {
                // SAFETY: 1. sent to us, once, and freed only here.
                sum = sum.wrapping_add(unsafe { block.word() });
                // SAFETY: 1. as above; the slot is overwritten before it is sent again.
                // 2. both sides use one layout.
                unsafe { block.free(self.layout) };
            }
        });
        sum
    }
}

/// One thread allocates, the other frees.
pub(crate) fn one_way(meter: &Meter) -> Reading {
    let mut ring = Ring::new();
    let (sender, receiver) = ring.split();
    pair(meter, 4_000, BATCH, |layout| {
        [
            Role {
                outbox: Some(sender),
                inbox: None,
                layout,
            },
            Role {
                outbox: None,
                inbox: Some(receiver),
                layout,
            },
        ]
    })
}

/// Each thread allocates for the other and frees what it gets.
pub(crate) fn both_ways(meter: &Meter) -> Reading {
    let mut there = Ring::new();
    let mut back = Ring::new();
    let (there_sender, there_receiver) = there.split();
    let (back_sender, back_receiver) = back.split();
    pair(meter, 3_000, THREADS * BATCH, |layout| {
        [
            Role {
                outbox: Some(there_sender),
                inbox: Some(back_receiver),
                layout,
            },
            Role {
                outbox: Some(back_sender),
                inbox: Some(there_receiver),
                layout,
            },
        ]
    })
}

fn pair<'a>(
    meter: &Meter,
    rounds: u64,
    ops_per_round: usize,
    roles: impl FnOnce(BlockLayout) -> [Role<'a>; THREADS],
) -> Reading {
    let roles = roles(BlockLayout::new(black_box(64))).map(|role| Mutex::new(Some(role)));
    team::run(meter, THREADS, rounds, ops_per_round, |index| {
        let role = roles[index]
            .lock()
            .expect("no worker panics while it takes its role")
            .take();
        let mut role = role.expect("each worker takes its role once");
        move |rounds| role.run(rounds)
    })
}
