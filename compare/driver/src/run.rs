//! Running one program: the protocol between the driver and the allocators' programs.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::args::Kind;

/// A cell takes a second or two; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(5);

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) about: String,
}

/// One named figure of a cell, in the order in which the program prints them.
pub(crate) struct Figure {
    pub(crate) key: String,
    pub(crate) value: f64,
}

/// What one run of one row yields.
pub(crate) struct Cell {
    pub(crate) figures: Vec<Figure>,
    /// Equal under every allocator; memory rows have none.
    pub(crate) checksum: Option<String>,
}

/// The figures of a time row.
pub(crate) const TIME: &str = "ns";
pub(crate) const PEAK: &str = "peak_kb";

/// The rows that a program knows: lines `NAME<TAB>ABOUT`.
pub(crate) fn list(binary: &Path, kind: Kind) -> Result<Vec<Row>, String> {
    let option = match kind {
        Kind::Time => "--list",
        Kind::Memory => "--memory",
    };
    let text = output(binary, &[option])?;
    text.lines()
        .map(|line| {
            let (name, about) = line.split_once('\t').ok_or_else(|| not_understood(line))?;
            Ok(Row {
                name: name.to_owned(),
                about: about.to_owned(),
            })
        })
        .collect()
}

/// Runs one row in a process of its own.
pub(crate) fn cell(binary: &Path, row: &str, kind: Kind, scale: f64) -> Result<Cell, String> {
    let text = output(binary, &[row, "--scale", &scale.to_string()])?;
    // a row may print lines of its own
    let line = text
        .lines()
        .find(|line| line.split('\t').next() == Some(row));
    let line = line.ok_or_else(|| not_understood(&text))?;
    let fields: Vec<&str> = line.split('\t').skip(1).collect();
    match kind {
        Kind::Time => time_cell(&fields),
        Kind::Memory => memory_cell(&fields),
    }
    .ok_or_else(|| not_understood(line))
}

fn time_cell(fields: &[&str]) -> Option<Cell> {
    let [ns, checksum, peak] = fields else {
        return None;
    };
    let figure = |key: &str, text: &str| {
        Some(Figure {
            key: key.to_owned(),
            value: number(text)?,
        })
    };
    Some(Cell {
        figures: vec![figure(TIME, ns)?, figure(PEAK, peak)?],
        checksum: Some((*checksum).to_owned()),
    })
}

fn memory_cell(fields: &[&str]) -> Option<Cell> {
    let figures = fields.iter().map(|field| {
        let (key, value) = field.split_once('=')?;
        Some(Figure {
            key: key.to_owned(),
            value: number(value)?,
        })
    });
    Some(Cell {
        figures: figures.collect::<Option<_>>()?,
        checksum: None,
    })
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

fn not_understood(text: &str) -> String {
    format!(
        "its output is not understood: {:?}",
        text.lines().next().unwrap_or("")
    )
}

/// The program's standard output, if it ends well and in time.
fn output(binary: &Path, args: &[&str]) -> Result<String, String> {
    let mut child = Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it does not start: {error}"))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < LIMIT => sleep(POLL),
            Ok(None) => {
                // it may have ended this very moment: nothing to do about a failed kill
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("stopped after {} s", LIMIT.as_secs()));
            }
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    };
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        pipe.map(|pipe| pipe.read_to_string(&mut text));
        text
    };
    let stdout = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    let stderr = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    if status.success() {
        Ok(stdout)
    } else {
        Err(failure(status, &stderr))
    }
}

fn failure(status: ExitStatus, stderr: &str) -> String {
    match stderr.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("{status}: {line}"),
        None => status.to_string(),
    }
}
