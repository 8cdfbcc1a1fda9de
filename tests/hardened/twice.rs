//! The second free of a block is the last thing a program does, whichever threads do them.

use super::common::raw_thread::on_raw_thread;
use super::{Address, End, block, expect_noticed};

/// Classes with and without a gate, and more than a class.
const SIZES: [usize; 7] = [32, 1_000, 4_096, 40_000, 262_144, 400_000, 3 << 20];

#[derive(Clone, Copy, Debug)]
enum Order {
    SameThread,
    OthersBetween,
    ManyBetween,
    RemoteThenOwner,
    OwnerThenRemote,
    RemoteTwice,
    TwoRemotes,
}

const ORDERS: [Order; 7] = [
    Order::SameThread,
    Order::OthersBetween,
    Order::ManyBetween,
    Order::RemoteThenOwner,
    Order::OwnerThenRemote,
    Order::RemoteTwice,
    Order::TwoRemotes,
];

fn on_another_thread(mut address: Address, work: fn(&mut Address)) {
    on_raw_thread(&mut address, work);
}

fn free_twice(&(order, size): &(Order, usize)) {
    let others = [block(size), block(size)];
    let address = Address::of(&block(size));
    let free = |address: &mut Address| address.free();
    match order {
        Order::SameThread => {
            address.free();
            address.free();
        }
        Order::OthersBetween => {
            address.free();
            others
                .into_iter()
                .for_each(|other| other.free(&super::ALLOC));
            address.free();
        }
        Order::ManyBetween => {
            address.free();
            // Live blocks only: the address may not be handed out again.
            let mut kept = Vec::with_capacity(8);
            kept.extend((0..8).map(|_| block(size)));
            address.free();
        }
        Order::RemoteThenOwner => {
            on_another_thread(address, free);
            address.free();
        }
        Order::OwnerThenRemote => {
            address.free();
            on_another_thread(address, free);
        }
        Order::RemoteTwice => on_another_thread(address, |address| {
            address.free();
            address.free();
        }),
        Order::TwoRemotes => {
            on_another_thread(address, free);
            on_another_thread(address, free);
        }
    }
}

#[test]
fn every_double_free_is_noticed_at_once() {
    let says = End::Says(&["double free", "not allocated here"]);
    let mut mistakes = Vec::new();
    for order in ORDERS {
        for size in SIZES {
            mistakes.push((format!("{order:?} {size}"), (order, size), says));
        }
    }
    let name = "twice::every_double_free_is_noticed_at_once";
    expect_noticed(name, "1", &mistakes, free_twice);
}

/// The tags alone have to do for blocks of classes, unless the block was handed out again meanwhile.
#[test]
fn checks_alone_notice_them_too() {
    let says = End::Says(&["double free"]);
    let mistakes: Vec<_> = ORDERS
        .into_iter()
        .filter(|order| !matches!(order, Order::ManyBetween))
        .map(|order| (format!("{order:?}"), (order, 100), says))
        .collect();
    let name = "twice::checks_alone_notice_them_too";
    expect_noticed(name, "checks", &mistakes, free_twice);
}

/// So have the canaries: that of a freed block is gone.
#[test]
fn canaries_alone_notice_them_too() {
    let says = End::Says(&["double free"]);
    let mistakes: Vec<_> = ORDERS
        .into_iter()
        .filter(|order| !matches!(order, Order::ManyBetween))
        .flat_map(|order| SIZES.map(|size| (format!("{order:?} {size}"), (order, size), says)))
        .collect();
    let name = "twice::canaries_alone_notice_them_too";
    expect_noticed(name, "canaries", &mistakes, free_twice);
}
