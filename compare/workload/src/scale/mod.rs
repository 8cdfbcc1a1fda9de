//! s_: what a heap of a given size costs, from what fits on a desk to gigabytes. Run by themselves.

mod blocks;
mod drops; // s_drop, s_drop_any, s_holes
mod fork; // s_fork
mod life;
mod long; // s_vec, s_calloc
mod replace; // s_random
mod threads; // s_threads, s_sleepers
mod trees; // s_trees
mod trial;
mod usage;
mod watch;
mod waves; // s_waves, s_waves_slow

use super::rows::{Row, Run};
use watch::{Longest, Unwatched};

/// A row's work is compiled twice: as it is, and with each call timed.
macro_rules! row {
    ($name:literal, $about:literal, $module:ident::$work:ident) => {
        Row {
            name: $name,
            about: $about,
            run: Run::Scale(|setting| {
                if setting.extent.calls {
                    trial::run(setting, $module::$work::<Longest>)
                } else {
                    trial::run(setting, $module::$work::<Unwatched>)
                }
            }),
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    row!(
        "s_waves",
        "the older half freed and filled again, 8 times",
        waves::waves
    ),
    row!(
        "s_waves_slow",
        "the same, 4 times, with 1.5 s between free and fill",
        waves::slow
    ),
    row!(
        "s_trees",
        "trees of 48 B nodes built and dropped, 8 times",
        trees::trees
    ),
    row!(
        "s_vec",
        "a vector pushed and dropped, again and again",
        long::vector
    ),
    row!(
        "s_calloc",
        "zeroed blocks of 1.5 MB, written and freed",
        long::zeroed
    ),
    row!(
        "s_random",
        "random replacement of 16..512 B",
        replace::random
    ),
    row!(
        "s_holes",
        "63 of 64 blocks of 16..512 B freed, then 3 s of light life",
        drops::holes
    ),
    row!(
        "s_drop",
        "16..512 B freed in the order of allocation",
        drops::in_order
    ),
    row!(
        "s_drop_any",
        "16..512 B freed in random order",
        drops::shuffled
    ),
    row!(
        "s_threads",
        "500 threads or more come and go, 16 at a time",
        threads::come_and_go
    ),
    row!(
        "s_sleepers",
        "one thread works beside 500 or more that sleep",
        threads::sleepers
    ),
    row!(
        "s_fork",
        "fork, the child's first large block, its end",
        fork::fork
    ),
];
