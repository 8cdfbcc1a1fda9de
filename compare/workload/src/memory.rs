//! The table of memory rows and how they print: `ROW<TAB>key=value<TAB>...`.

use std::fmt::Write;

use super::rss::Resident;
use super::{crowd, spike};

/// What a memory row reports. Keys that end in `_kb` are KiB, the others plain numbers.
pub(crate) type Figures = Vec<(&'static str, f64)>;

pub(crate) struct Setting {
    pub(crate) scale: f64,
    /// Makes the allocator return what memory it can.
    pub(crate) purge: fn(),
}

pub(crate) struct MemoryRow {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    run: fn(&Setting) -> Result<Figures, String>,
}

pub(crate) const MEMORY_ROWS: &[MemoryRow] = &[
    MemoryRow {
        name: "m_hello",
        about: "a program that prints one line",
        run: hello,
    },
    MemoryRow {
        name: "m_keep0",
        about: "1 GiB of 16..512 B blocks, all freed",
        run: spike::keep_none,
    },
    MemoryRow {
        name: "m_keep5",
        about: "the same, but one block in twenty survives",
        run: spike::keep_some,
    },
    MemoryRow {
        name: "m_threads",
        about: "1000 idle threads that have touched 15 sizes",
        run: crowd::idle,
    },
];

fn hello(_: &Setting) -> Result<Figures, String> {
    println!("hello");
    let resident = Resident::read()?;
    Ok(vec![
        ("rss_kb", resident.now_kb as f64),
        ("peak_kb", resident.peak_kb as f64),
    ])
}

pub(crate) fn run(row: &MemoryRow, scale: f64, purge: fn()) -> Result<(), String> {
    let figures = (row.run)(&Setting { scale, purge })?;
    let mut line = row.name.to_owned();
    for (key, value) in figures {
        write!(line, "\t{key}={value:.3}").expect("writing to a string does not fail");
    }
    println!("{line}");
    Ok(())
}
