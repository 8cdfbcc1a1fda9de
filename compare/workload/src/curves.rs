//! The table of rows that make curves. They run only when they are asked for.

use super::curve;
use super::outcome::Outcome;
use super::rows::{Row, Run};
use super::setting::Setting;

const fn row(
    name: &'static str,
    about: &'static str,
    run: fn(&Setting) -> Result<Outcome, String>,
) -> Row {
    Row {
        name,
        about,
        run: Run::Curve(run),
    }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "n_live3",
        "replacement of the oldest of 10^3 live blocks",
        |s| curve::live(s, 1_000),
    ),
    row(
        "n_live4",
        "replacement of the oldest of 10^4 live blocks",
        |s| curve::live(s, 10_000),
    ),
    row(
        "n_live5",
        "replacement of the oldest of 10^5 live blocks",
        |s| curve::live(s, 100_000),
    ),
    row(
        "n_live6",
        "replacement of the oldest of 10^6 live blocks",
        |s| curve::live(s, 1_000_000),
    ),
    row(
        "n_live7",
        "replacement of the oldest of 10^7 live blocks",
        |s| curve::live(s, 10_000_000),
    ),
    row(
        "n_live8",
        "replacement of the oldest of 10^8 live blocks",
        |s| curve::live(s, 100_000_000),
    ),
    row(
        "n_set1",
        "random replacement, 1 thread of 5000 live blocks",
        |s| curve::sets(s, 1),
    ),
    row(
        "n_set2",
        "random replacement, 2 threads of 5000 live blocks",
        |s| curve::sets(s, 2),
    ),
    row(
        "n_set4",
        "random replacement, 4 threads of 5000 live blocks",
        |s| curve::sets(s, 4),
    ),
    row(
        "n_set8",
        "random replacement, 8 threads of 5000 live blocks",
        |s| curve::sets(s, 8),
    ),
    row(
        "n_set16",
        "random replacement, 16 threads of 5000 live blocks",
        |s| curve::sets(s, 16),
    ),
    row(
        "n_set32",
        "random replacement, 32 threads of 5000 live blocks",
        |s| curve::sets(s, 32),
    ),
    row(
        "n_set64",
        "random replacement, 64 threads of 5000 live blocks",
        |s| curve::sets(s, 64),
    ),
    row("n_burst1", "bursts of one size, 1 thread", |s| {
        curve::bursts(s, 1)
    }),
    row("n_burst2", "bursts of one size, 2 threads", |s| {
        curve::bursts(s, 2)
    }),
    row("n_burst4", "bursts of one size, 4 threads", |s| {
        curve::bursts(s, 4)
    }),
    row("n_burst8", "bursts of one size, 8 threads", |s| {
        curve::bursts(s, 8)
    }),
    row("n_burst16", "bursts of one size, 16 threads", |s| {
        curve::bursts(s, 16)
    }),
    row("n_burst32", "bursts of one size, 32 threads", |s| {
        curve::bursts(s, 32)
    }),
    row("n_burst64", "bursts of one size, 64 threads", |s| {
        curve::bursts(s, 64)
    }),
    row(
        "n_40k_1",
        "random replacement of some 40 KiB, 1 thread of 32 MiB",
        |s| curve::long(s, 40 << 10, 1),
    ),
    row(
        "n_40k_2",
        "random replacement of some 40 KiB, 2 threads of 32 MiB",
        |s| curve::long(s, 40 << 10, 2),
    ),
    row(
        "n_40k_4",
        "random replacement of some 40 KiB, 4 threads of 32 MiB",
        |s| curve::long(s, 40 << 10, 4),
    ),
    row(
        "n_40k_8",
        "random replacement of some 40 KiB, 8 threads of 32 MiB",
        |s| curve::long(s, 40 << 10, 8),
    ),
    row(
        "n_100k_1",
        "random replacement of some 100 KiB, 1 thread of 32 MiB",
        |s| curve::long(s, 100 << 10, 1),
    ),
    row(
        "n_100k_2",
        "random replacement of some 100 KiB, 2 threads of 32 MiB",
        |s| curve::long(s, 100 << 10, 2),
    ),
    row(
        "n_100k_4",
        "random replacement of some 100 KiB, 4 threads of 32 MiB",
        |s| curve::long(s, 100 << 10, 4),
    ),
    row(
        "n_100k_8",
        "random replacement of some 100 KiB, 8 threads of 32 MiB",
        |s| curve::long(s, 100 << 10, 8),
    ),
    row(
        "n_300k_1",
        "random replacement of some 300 KiB, 1 thread of 32 MiB",
        |s| curve::long(s, 300 << 10, 1),
    ),
    row(
        "n_300k_2",
        "random replacement of some 300 KiB, 2 threads of 32 MiB",
        |s| curve::long(s, 300 << 10, 2),
    ),
    row(
        "n_300k_4",
        "random replacement of some 300 KiB, 4 threads of 32 MiB",
        |s| curve::long(s, 300 << 10, 4),
    ),
    row(
        "n_300k_8",
        "random replacement of some 300 KiB, 8 threads of 32 MiB",
        |s| curve::long(s, 300 << 10, 8),
    ),
    row(
        "n_2m_1",
        "random replacement of some 2 MiB, 1 thread of 32 MiB",
        |s| curve::long(s, 2 << 20, 1),
    ),
    row(
        "n_2m_2",
        "random replacement of some 2 MiB, 2 threads of 32 MiB",
        |s| curve::long(s, 2 << 20, 2),
    ),
    row(
        "n_2m_4",
        "random replacement of some 2 MiB, 4 threads of 32 MiB",
        |s| curve::long(s, 2 << 20, 4),
    ),
    row(
        "n_2m_8",
        "random replacement of some 2 MiB, 8 threads of 32 MiB",
        |s| curve::long(s, 2 << 20, 8),
    ),
];
