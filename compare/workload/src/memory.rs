//! The table of memory rows. A new row is one function and one entry here.

use super::outcome::Outcome;
use super::rows::{Row, Run};
use super::rss::Resident;
use super::setting::Setting;
use super::spike::{self, Survivors};
use super::{crowd, drift, pool, server, shift, steps};

const fn row(
    name: &'static str,
    about: &'static str,
    run: fn(&Setting) -> Result<Outcome, String>,
) -> Row {
    Row {
        name,
        about,
        run: Run::Memory(run),
    }
}

pub(crate) const ROWS: &[Row] = &[
    row("m_hello", "a program that prints one line", hello),
    row(
        "m_peak",
        "256 MiB of 16 B..64 KiB blocks pile up",
        steps::peak,
    ),
    row("m_keep0", "1 GiB of 16..512 B blocks, all freed", |s| {
        spike::keep(s, Survivors::None)
    }),
    row("m_keep1", "the same, 1 % of the blocks survive", |s| {
        spike::keep(s, Survivors::OneIn(100))
    }),
    row("m_keep5", "the same, 5 % survive", |s| {
        spike::keep(s, Survivors::OneIn(20))
    }),
    row("m_keep20", "the same, 20 % survive", |s| {
        spike::keep(s, Survivors::OneIn(5))
    }),
    row("m_life0", "m_keep0, but the program lives on", |s| {
        spike::live_on(s, Survivors::None)
    }),
    row("m_life5", "m_keep5, but the program lives on", |s| {
        spike::live_on(s, Survivors::OneIn(20))
    }),
    row(
        "m_shift",
        "64 MiB live, sizes in use change by phases",
        shift::shift,
    ),
    row(
        "m_drift",
        "64 MiB live, the usual size drifts slowly",
        drift::drift,
    ),
    row(
        "m_pool",
        "a pool of 4 to 64 threads, three times",
        pool::pool,
    ),
    row(
        "m_maps",
        "5000 blocks of 300 KB..2 MB come and go",
        steps::large,
    ),
    row(
        "m_threads",
        "1000 idle threads that have touched 15 sizes",
        crowd::idle,
    ),
    row(
        "m_server",
        "connections in bursts, a cache, a log buffer",
        server::serve,
    ),
];

fn hello(_: &Setting) -> Result<Outcome, String> {
    println!("hello");
    let resident = Resident::read()?;
    Ok(Outcome::of(vec![("rss_kb", resident.now_kb as f64)]))
}
