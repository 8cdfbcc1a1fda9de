//! What was found, on the terminal and as a file.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::args::Lto;
use crate::error::Error;
use crate::measure::{Count, Mode};
use crate::trees::Commit;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The commit below this tree, and whether there is more.
    this: String,
    /// The other commit.
    that: Option<String>,
    /// `null` is Cargo's default release profile.
    lto: Option<Lto>,
    modes: Vec<Part>,
}

/// The counts in one mode: instructions for each operation.
#[derive(Debug, Serialize)]
struct Part {
    mode: Mode,
    rows: Vec<Count>,
}

impl Report {
    pub(crate) fn new(this: String, that: Option<&Commit>, lto: Option<Lto>) -> Self {
        Self {
            this,
            that: that.map(|commit| commit.short().to_owned()),
            lto,
            modes: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, mode: Mode, rows: Vec<Count>) {
        self.modes.push(Part { mode, rows });
    }

    /// The rows that take over `percent` more than in the other tree, a line for each.
    pub(crate) fn grown(&self, percent: f64) -> Vec<String> {
        let counts = self
            .modes
            .iter()
            .flat_map(|part| part.rows.iter().map(|count| (part.mode, count)));
        counts
            .filter_map(|(mode, count)| {
                let difference = count
                    .difference()
                    .filter(|difference| *difference > percent)?;
                let (row, mode) = (&count.row, mode.name());
                Some(format!(
                    "{row} grew by {difference:.2} % ({mode} mode), over {percent} %"
                ))
            })
            .collect()
    }

    pub(crate) fn print(&self) -> Result<(), Error> {
        match self.show(&mut io::stdout().lock()) {
            // Who reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            shown => shown.map_err(Error::Output),
        }
    }

    fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let lto = self.lto.map_or("no", Lto::name);
        writeln!(
            out,
            "Instructions for each operation, release, {lto} LTO; this tree is {}.",
            self.this
        )?;
        for Part { mode, rows } in &self.modes {
            let name = format!("{} mode", mode.name());
            write!(out, "\n{name:<14}{:>12}", "this tree")?;
            if let Some(that) = &self.that {
                write!(out, "{that:>12}{:>12}", "difference")?;
            }
            writeln!(out)?;
            for count in rows {
                write!(out, "{:<14}{:>12.2}", count.row, count.this)?;
                if let Some((that, difference)) = count.that.zip(count.difference()) {
                    write!(out, "{that:>12.2}{:>12}", signed(difference))?;
                }
                writeln!(out)?;
            }
        }
        out.flush()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::from);
        text.and_then(|text| fs::write(path, text))
            .map_err(Error::file(path))
    }
}

/// Per cent with a sign; what rounds to nothing has none.
fn signed(percent: f64) -> String {
    let text = format!("{percent:+.2} %");
    match text.as_str() {
        "+0.00 %" | "-0.00 %" => "0.00 %".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let count = |row: &str, this, that| Count {
            row: row.to_owned(),
            this,
            that: Some(that),
        };
        let mut report = Report {
            that: Some("0123456789".to_owned()),
            ..Report::new("abc and changes".to_owned(), None, None)
        };
        report.add(
            Mode::Default,
            vec![count("a_64", 55.0, 55.001), count("b_lifo64", 70.0, 69.0)],
        );
        report.add(Mode::Hardened, vec![count("a_64", 330.0, 300.0)]);
        report
    }

    #[test]
    fn the_table_has_each_mode() {
        let mut out = Vec::new();
        report().show(&mut out).expect("memory does not fail");
        let expected = "\
Instructions for each operation, release, no LTO; this tree is abc and changes.

default mode     this tree  0123456789  difference
a_64                 55.00       55.00      0.00 %
b_lifo64             70.00       69.00     +1.45 %

hardened mode    this tree  0123456789  difference
a_64                330.00      300.00    +10.00 %
";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn rows_that_grew_beyond_the_bound_are_named() {
        assert_eq!(report().grown(10.1), [""; 0]);
        assert_eq!(
            report().grown(2.0),
            ["a_64 grew by 10.00 % (hardened mode), over 2 %"]
        );
        assert_eq!(report().grown(0.0).len(), 2);
    }
}
