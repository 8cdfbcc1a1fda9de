//! What the user sees.

use core::fmt::Display;
use std::io::{self, Write};

use crate::common::{human, rss};
use crate::tenant::Row;

/// The name comes last, because nobody knows how wide a terminal draws it.
pub(crate) fn table(rows: &[Row]) {
    if rows.is_empty() {
        print("no tenants");
        return;
    }
    let [entries, live, held, peak, limit] = ["entries", "live", "held", "peak", "limit"];
    print(format_args!(
        "{entries:>9} {live:>11} {held:>11} {peak:>11} {limit:>11} {:>9}  tenant",
        "refused"
    ));
    for row in rows {
        let stats = [row.stats.live, row.stats.held, row.stats.peak];
        let [live, held, peak] = stats.map(human::bytes);
        let limit = row.limit.map_or_else(|| "none".into(), human::bytes);
        print(format_args!(
            "{:>9} {live:>11} {held:>11} {peak:>11} {limit:>11} {:>9}  {}",
            row.entries, row.stats.refused, row.name
        ));
    }
    let held = human::bytes(rows.iter().map(|row| row.stats.held).sum());
    let resident = rss::now().map_or_else(|| "?".into(), human::bytes);
    print(format_args!(
        "{held} held by {} tenants, {resident} resident",
        rows.len()
    ));
}

pub(crate) fn dropped(row: &Row) {
    let held = human::bytes(row.stats.held);
    print(format_args!(
        "dropped {}: {} entries, {} blocks, {held} held",
        row.name, row.entries, row.stats.blocks
    ));
}

/// A line on stdout; a reader that has gone away does not stop the program.
fn print(line: impl Display) {
    // The exit code says what matters.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
