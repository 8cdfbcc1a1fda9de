//! What the command writes: columns, sizes, and text that others chose.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes all of it to standard output. Who does not read to the end has read enough.
pub(crate) fn write(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows in columns, two spaces between them.
pub(crate) fn columns(sides: &[Side], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..sides.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(sides).zip(&widths);
        let cells = cells.map(|((cell, side), width)| match side {
            Side::Left => format!("{cell:<width$}"),
            Side::Right => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes as people read them.
pub(crate) fn size(bytes: usize) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut shift = 10;
    while unit + 1 < UNITS.len() && bytes >> (shift + 10) != 0 {
        unit += 1;
        shift += 10;
    }
    let tenths = (bytes as u128 * 10) >> shift;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Text that somebody else chose: nothing in it moves the cursor.
pub(crate) fn tame(text: &str) -> String {
    let tamed = |character: char| match character.is_control() {
        true => character.escape_default().collect::<String>(),
        false => character.to_string(),
    };
    text.chars().map(tamed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cells() {
        let rows = [["a", "1"], ["bcd", "22"]].map(|row| row.map(String::from).to_vec());
        let text = columns(&[Side::Left, Side::Right], &rows);
        assert_eq!(text, "a     1\nbcd  22\n");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0.0 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (usize::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn no_text_clears_the_screen() {
        assert_eq!(tame("a\u{1b}[2Jb\n\u{e9}"), "a\\u{1b}[2Jb\\n\u{e9}");
    }
}
