//! Prints what the index holds, what it took and what the allocator says about it.

use core::cmp::Reverse;
use core::time::Duration;
use std::io::{self, BufWriter, ErrorKind, Write};

use flagstone::Flagstone;

use crate::PROGRAM;
use crate::build::{Part, Tally};
use crate::common::{human, say};
use crate::postings::Index;

/// One line of the table.
struct Row<'a> {
    word: &'a str,
    files: usize,
    occurrences: u64,
}

/// Prints to stdout. `false` if that failed; a reader that has gone away is no failure.
pub(crate) fn print(part: &Part, top: usize, elapsed: Duration) -> bool {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out, part, top, elapsed).and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => true,
        Err(error) => {
            say::line(PROGRAM, format_args!("cannot write the result: {error}"));
            false
        }
    }
}

fn write(out: &mut impl Write, part: &Part, top: usize, elapsed: Duration) -> io::Result<()> {
    let rows = rows(&part.index);
    words(out, &rows[..top.min(rows.len())])?;
    totals(out, &part.tally, &rows)?;
    memory(out)?;
    time(out, &part.tally, elapsed)
}

/// Every word, the most frequent first, equally frequent ones by name.
fn rows(index: &Index) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = index
        .words
        .iter()
        .map(|(word, postings)| Row {
            word,
            files: postings.len(),
            occurrences: postings
                .iter()
                .map(|posting| u64::from(posting.count))
                .sum(),
        })
        .collect();
    rows.sort_unstable_by_key(|row| (Reverse(row.occurrences), row.word));
    rows
}

/// The word comes last, because nobody knows how wide a terminal draws it.
fn words(out: &mut impl Write, rows: &[Row<'_>]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "{:>12}  {:>8}  word", "occurrences", "files")?;
    for row in rows {
        writeln!(
            out,
            "{:>12}  {:>8}  {}",
            row.occurrences, row.files, row.word
        )?;
    }
    writeln!(out)
}

fn totals(out: &mut impl Write, tally: &Tally, rows: &[Row<'_>]) -> io::Result<()> {
    writeln!(
        out,
        "files      {} ({})",
        tally.files,
        human::bytes(tally.bytes)
    )?;
    let skipped = tally.binary + tally.not_utf8;
    let Tally {
        binary, not_utf8, ..
    } = tally;
    writeln!(
        out,
        "skipped    {skipped} ({binary} binary, {not_utf8} not UTF-8)"
    )?;
    if tally.unreadable > 0 {
        writeln!(out, "unreadable {}", tally.unreadable)?;
    }
    writeln!(out, "words      {} distinct", rows.len())?;
    writeln!(
        out,
        "postings   {}",
        rows.iter().map(|row| row.files).sum::<usize>()
    )
}

fn memory(out: &mut impl Write) -> io::Result<()> {
    let Some(stats) = Flagstone::stats() else {
        return writeln!(out, "memory     by the system's allocator");
    };
    let parts = [
        ("live", stats.live),
        ("cached", stats.cached),
        ("committed", stats.committed),
        ("resident", stats.resident),
        ("metadata", stats.metadata),
    ];
    let parts = parts.map(|(name, bytes)| format!("{name} {}", human::bytes(bytes)));
    writeln!(out, "memory     {}", parts.join(", "))
}

fn time(out: &mut impl Write, tally: &Tally, elapsed: Duration) -> io::Result<()> {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let mib = tally.bytes as f64 / f64::from(1 << 20);
    let files = tally.files as f64;
    let (mib_rate, file_rate) = (mib / seconds, files / seconds);
    writeln!(
        out,
        "time       {seconds:.3} s, {mib_rate:.1} MiB/s, {file_rate:.0} files/s"
    )
}
