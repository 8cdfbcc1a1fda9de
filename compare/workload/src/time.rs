//! The table of time rows. A new row is one function and one entry here.

use super::large::Shape;
use super::meter::{Meter, Reading};
use super::order::Order;
use super::rows::{Row, Run};
use super::{
    churn, growth, handoff, json, large, maps, order, pairs, replace, replay, sharing, trees,
    zeroed,
};

const MEDIUM: Shape = Shape {
    live: 64,
    min: 32 << 10,
    max: 256 << 10,
    rounds: 50_000,
};
const LARGE: Shape = Shape {
    live: 8,
    min: 1 << 20,
    max: 8 << 20,
    rounds: 200,
};

const fn row(name: &'static str, about: &'static str, run: fn(&Meter) -> Reading) -> Row {
    Row {
        name,
        about,
        run: Run::Time(run),
    }
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
    row("a_32", "pair: 32 B, size unknown", |m| {
        pairs::sized(m, 32, 4_000_000)
    }),
    row("a_64", "pair: 64 B, size unknown", |m| {
        pairs::sized(m, 64, 4_000_000)
    }),
    row("a_128", "pair: 128 B, size unknown", |m| {
        pairs::sized(m, 128, 4_000_000)
    }),
    row("a_256", "pair: 256 B, size unknown", |m| {
        pairs::sized(m, 256, 4_000_000)
    }),
    row("a_512", "pair: 512 B, size unknown", |m| {
        pairs::sized(m, 512, 4_000_000)
    }),
    row("a_1024", "pair: 1 KiB, size unknown", |m| {
        pairs::sized(m, 1024, 3_000_000)
    }),
    row("a_2k", "pair: 2 KiB, size unknown", |m| {
        pairs::sized(m, 2048, 2_000_000)
    }),
    row("a_4k", "pair: 4 KiB, size unknown", |m| {
        pairs::sized(m, 4096, 2_000_000)
    }),
    row("a_8k", "pair: 8 KiB, size unknown", |m| {
        pairs::sized(m, 8192, 1_500_000)
    }),
    row("a_16k", "pair: 16 KiB, size unknown", |m| {
        pairs::sized(m, 16384, 1_500_000)
    }),
    row("a_32k", "pair: 32 KiB, size unknown", |m| {
        pairs::sized(m, 32768, 1_000_000)
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
    row("b_fifobig", "block: 200 of 1..16 KiB, in order", |m| {
        order::big(m, Order::Fifo)
    }),
    row("b_randbig", "block: 200 of 1..16 KiB, random order", |m| {
        order::big(m, Order::Random)
    }),
    row("c_ws2k", "replacement: at random, 2 000 live", |m| {
        replace::working_set(m, 2_000, 2_500_000)
    }),
    row("c_ws100k", "replacement: at random, 100 000 live", |m| {
        replace::working_set(m, 100_000, 600_000)
    }),
    row("c_ws1m", "replacement: at random, 1 000 000 live", |m| {
        replace::working_set(m, 1_000_000, 120_000)
    }),
    row("d_push", "push: a Vec pushed to 8 MiB", growth::push),
    row(
        "d_small",
        "Vec: short vectors pushed from empty, 256 kept",
        growth::small,
    ),
    row(
        "d_ext",
        "KiB: a Vec extended to 8 MiB by 1 KiB",
        growth::extend,
    ),
    row(
        "d_ext2",
        "KiB: the same, two Vecs in turn",
        growth::extend_two,
    ),
    row(
        "d_str",
        "String: of 10..120 B, formatted or pushed, 1000 kept",
        growth::strings,
    ),
    row(
        "d_realloc",
        "realloc: 64 blocks grow and shrink, 16 B..64 KiB",
        growth::realloc,
    ),
    row("e_med", "replacement: 32..256 KiB, 64 live", |m| {
        large::replace(m, &MEDIUM)
    }),
    row("e_large", "replacement: 1..8 MiB, 8 live", |m| {
        large::replace(m, &LARGE)
    }),
    row(
        "e_zero",
        "table: 256 KiB..8 MiB of zeros, 8 bytes touched, 4 live",
        zeroed::sparse,
    ),
    row(
        "e_zsmall",
        "replacement: 64..4096 B of zeros, 64 live",
        zeroed::small,
    ),
    row("f_ws1", "replacement: 1 thread, 50 000 live", |m| {
        replace::threaded(m, 1)
    }),
    row("f_ws2", "replacement: 2 threads, 50 000 live each", |m| {
        replace::threaded(m, 2)
    }),
    row("f_ws4", "replacement: 4 threads, 50 000 live each", |m| {
        replace::threaded(m, 4)
    }),
    row("f_ws8", "replacement: 8 threads, 50 000 live each", |m| {
        replace::threaded(m, 8)
    }),
    row(
        "f_pair8",
        "block: 8 threads, 64 of 16..128 B each, freed in order",
        |m| order::threaded(m, 8),
    ),
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
        "g_4p4c",
        "block: 64 B from 4 producers, each to 4 consumers",
        handoff::many_to_many,
    ),
    row(
        "h_churn",
        "thread: short lives of 100 blocks, 20 survive",
        churn::churn,
    ),
    row(
        "h_larson",
        "replacement: 4 sections of 1000, handed from thread to thread",
        replace::larson,
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
    row(
        "i_tree",
        "node: binary trees built, counted, dropped",
        trees::binary,
    ),
    row(
        "i_lru",
        "use: a cache of 10 000 values under String keys",
        maps::lru,
    ),
    row(
        "j_json",
        "byte: 8 MiB of JSON parsed and dropped",
        json::long,
    ),
    row(
        "j_short",
        "byte: 64 KiB of JSON parsed and dropped, again and again",
        json::short,
    ),
    row(
        "k_scratch",
        "burst of writes: 2 threads, blocks given by the main thread freed first",
        sharing::scratch,
    ),
    row(
        "k_thrash",
        "burst of writes: 2 threads, each to blocks of its own of 8 B",
        sharing::thrash,
    ),
    row(
        "t_syn",
        "call: recorded, a parser of Rust sources",
        replay::rust_sources,
    ),
    row(
        "t_docs",
        "call: recorded, Markdown made into a site",
        replay::doc_site,
    ),
    row(
        "t_search",
        "call: recorded, a server of searches with six threads, on one",
        replay::search_server,
    ),
];
