//! g_: blocks of 64 bytes allocated on one thread and freed on another, in batches.
//!
//! Rounds pair the threads off, one sender with one receiver, so that the traffic is fixed and
//! nobody waits for a batch that is not to come.

use std::hint::black_box;
use std::sync::Mutex;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::ring::{BATCH, DEPTH, Receiver, Ring, Sender};
use super::team;

/// Both ways, each side sends so many batches ahead, so that a short delay of one does not at once
/// stop the other.
const AHEAD: u64 = DEPTH as u64 / 2;

/// g_4p4c: so many producers, and so many consumers.
const SIDE: usize = 4;

/// What one thread does. It turns to its boxes round by round; it need not have any of a kind.
#[derive(Default)]
struct Role<'a> {
    outboxes: Vec<Sender<'a>>,
    inboxes: Vec<Receiver<'a>>,
}

/// The box whose turn it is.
fn turn<T>(boxes: &mut [T], round: u64) -> Option<&mut T> {
    let index = (round as usize).checked_rem(boxes.len())?;
    Some(&mut boxes[index])
}

impl Role<'_> {
    /// Sends `rounds` batches, receives `rounds`, or both.
    fn run(&mut self, rounds: u64, layout: BlockLayout) -> u64 {
        let mut sum = 0_u64;
        for round in 0..rounds + AHEAD {
            if round < rounds {
                self.send(round, layout);
            }
            if round >= AHEAD {
                sum = sum.wrapping_add(self.receive(round - AHEAD, layout));
            }
        }
        sum
    }

    fn send(&mut self, round: u64, layout: BlockLayout) {
        let Some(outbox) = turn(&mut self.outboxes, round) else {
            return;
        };
        outbox.send(|batch| {
            for slot in batch {
                *slot = Some(Block::alloc(layout, round));
            }
        });
    }

    fn receive(&mut self, round: u64, layout: BlockLayout) -> u64 {
        let Some(inbox) = turn(&mut self.inboxes, round) else {
            return 0;
        };
        let mut sum = 0_u64;
        inbox.receive(|batch| {
            for block in batch.iter().flatten() {
                // SAFETY: 1. sent to us, once, and freed only here.
                sum = sum.wrapping_add(unsafe { block.word() });
                // SAFETY: 1. as above; the slot is overwritten before it is sent again.
                // 2. both sides use one layout.
                unsafe { block.free(layout) };
            }
        });
        sum
    }
}

/// One thread allocates, the other frees.
pub(crate) fn one_way(meter: &Meter) -> Reading {
    let mut ring = Ring::new();
    let mut roles = [Role::default(), Role::default()];
    let (sender, receiver) = ring.split();
    roles[0].outboxes.push(sender);
    roles[1].inboxes.push(receiver);
    play(meter, 4_000, BATCH, roles)
}

/// Each thread allocates for the other and frees what it gets.
pub(crate) fn both_ways(meter: &Meter) -> Reading {
    let mut rings = [Ring::new(), Ring::new()];
    let mut roles = [Role::default(), Role::default()];
    for (index, ring) in rings.iter_mut().enumerate() {
        let (sender, receiver) = ring.split();
        roles[index].outboxes.push(sender);
        roles[1 - index].inboxes.push(receiver);
    }
    play(meter, 3_000, 2 * BATCH, roles)
}

/// Each of four threads allocates for each of four others.
pub(crate) fn many_to_many(meter: &Meter) -> Reading {
    let mut rings: Vec<Ring> = (0..SIDE * SIDE).map(|_| Ring::new()).collect();
    let mut producers: [Role; SIDE] = Default::default();
    let mut consumers: [Role; SIDE] = Default::default();
    for (index, ring) in rings.iter_mut().enumerate() {
        let (producer, consumer) = (index / SIDE, index % SIDE);
        let (sender, receiver) = ring.split();
        producers[producer].outboxes.push(sender);
        consumers[consumer].inboxes.push(receiver);
    }
    // in round r, producer p sends to consumer p + r, so consumer c receives from producer c - r
    for (index, (producer, consumer)) in producers.iter_mut().zip(&mut consumers).enumerate() {
        producer.outboxes.rotate_left(index);
        consumer.inboxes.reverse();
        consumer.inboxes.rotate_right(index + 1);
    }
    let roles = producers.into_iter().chain(consumers);
    play(meter, 1_000, SIDE * BATCH, roles)
}

fn play<'a>(
    meter: &Meter,
    rounds: u64,
    ops_per_round: usize,
    roles: impl IntoIterator<Item = Role<'a>>,
) -> Reading {
    let layout = BlockLayout::new(black_box(64));
    let roles: Vec<_> = roles.into_iter().map(|r| Mutex::new(Some(r))).collect();
    team::run(meter, roles.len(), rounds, ops_per_round, |index| {
        let role = roles[index]
            .lock()
            .expect("no worker panics while it takes its role")
            .take();
        let mut role = role.expect("each worker takes its role once");
        move |rounds| role.run(rounds, layout)
    })
}
