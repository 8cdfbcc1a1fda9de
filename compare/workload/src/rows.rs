//! The table of time rows. A new row is one function and one entry here.

use super::large::Shape;
use super::meter::{Meter, Reading};
use super::order::Order;
use super::{churn, growth, handoff, json, large, maps, order, pairs, replace};

pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What one operation is, and what the row does.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Meter) -> Reading,
}

const MEDIUM: Shape = Shape {
    live: 64,
    min: 32 << 10,
    max: 256 << 10,
    rounds: 100_000,
};
const LARGE: Shape = Shape {
    live: 8,
    min: 1 << 20,
    max: 8 << 20,
    rounds: 800,
};

const fn row(name: &'static str, about: &'static str, run: fn(&Meter) -> Reading) -> Row {
    Row { name, about, run }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "a_const40",
        "pair: Box<[u8; 40]>, size known to the compiler",
        pairs::const40,
    ),
    row(
        "a_const64",
        "pair: Box<[u64; 8]>, size known to the compiler",
        pairs::const64,
    ),
    row("a_16", "pair: 16 B, size unknown", |m| {
        pairs::sized(m, 16, 4_000_000)
    }),
    row("a_64", "pair: 64 B, size unknown", |m| {
        pairs::sized(m, 64, 4_000_000)
    }),
    row("a_256", "pair: 256 B, size unknown", |m| {
        pairs::sized(m, 256, 4_000_000)
    }),
    row("a_1024", "pair: 1 KiB, size unknown", |m| {
        pairs::sized(m, 1024, 3_000_000)
    }),
    row("a_8k", "pair: 8 KiB, size unknown", |m| {
        pairs::sized(m, 8192, 1_500_000)
    }),
    row("b_fifo64", "block: 1000 of 64 B, freed in order", |m| {
        order::same(m, Order::Fifo)
    }),
    row("b_lifo64", "block: 1000 of 64 B, freed in reverse", |m| {
        order::same(m, Order::Lifo)
    }),
    row(
        "b_rand64",
        "block: 1000 of 64 B, freed in random order",
        |m| order::same(m, Order::Random),
    ),
    row("b_fifomix", "block: 1000 of 16..512 B, in order", |m| {
        order::mixed(m, Order::Fifo)
    }),
    row("b_lifomix", "block: 1000 of 16..512 B, in reverse", |m| {
        order::mixed(m, Order::Lifo)
    }),
    row("b_randmix", "block: 1000 of 16..512 B, random order", |m| {
        order::mixed(m, Order::Random)
    }),
    row("c_ws2k", "replacement: at random, 2 000 live", |m| {
        replace::working_set(m, 2_000, 4_000_000)
    }),
    row("c_ws100k", "replacement: at random, 100 000 live", |m| {
        replace::working_set(m, 100_000, 1_000_000)
    }),
    row("d_push", "push: a Vec pushed to 8 MiB", growth::push),
    row(
        "d_small",
        "Vec: short vectors pushed from empty, 256 kept",
        growth::small,
    ),
    row("e_med", "replacement: 32..256 KiB, 64 live", |m| {
        large::replace(m, &MEDIUM)
    }),
    row("e_large", "replacement: 1..8 MiB, 8 live", |m| {
        large::replace(m, &LARGE)
    }),
    row("f_ws2", "replacement: 2 threads, 50 000 live each", |m| {
        replace::threaded(m, 2)
    }),
    row(
        "g_1p1c",
        "block: 64 B from a producer to a consumer",
        handoff::one_way,
    ),
    row(
        "g_both",
        "block: 64 B both ways between two threads",
        handoff::both_ways,
    ),
    row(
        "h_churn",
        "thread: short lives of 100 blocks, 20 survive",
        churn::churn,
    ),
    row(
        "i_hash",
        "push: HashMap<String, Vec<u32>> filled and dropped",
        maps::hash,
    ),
    row(
        "i_btree",
        "insertion: BTreeMap<u64, String> filled, halved, dropped",
        maps::btree,
    ),
    row("j_json", "byte: JSON text parsed and dropped", json::parse),
];
