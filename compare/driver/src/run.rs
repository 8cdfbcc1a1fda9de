//! Running one program: the protocol between the driver and the allocators' programs.

use std::env;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::args::Kind;
use crate::model::Sample;
use crate::size::Size;

/// A cell takes seconds; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(180);
/// The same where rows are told to take minutes.
const SOAK_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The same for rows that hold gigabytes.
const SCALE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Where a C++ library may have to be looked for: the one variable that programs inherit.
const LIBRARIES: &str = "LD_LIBRARY_PATH";
const POLL: Duration = Duration::from_millis(2);

pub(crate) struct RowName {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) about: String,
    /// Of a scale row.
    pub(crate) size: Option<Size>,
}

/// What one run of one row yields: the line that the program prints.
#[derive(Deserialize)]
pub(crate) struct Cell {
    row: String,
    /// In the order in which they are to be shown.
    pub(crate) figures: Vec<(String, f64)>,
    /// Equal under every allocator.
    pub(crate) checksum: Option<String>,
    pub(crate) series: Vec<Sample>,
}

/// How much of its work a program is to do, and how.
#[derive(Clone, Copy)]
pub(crate) struct Amount {
    pub(crate) scale: f64,
    pub(crate) soak: bool,
    /// Without huge pages.
    pub(crate) small_pages: bool,
    /// Of a scale row.
    pub(crate) extent: Option<Extent>,
}

/// What scale rows are told besides.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) size: Size,
    pub(crate) look: Look,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// At the work alone.
    Work,
    /// At a light life after it, too.
    Settle,
    /// At the longest call alone, which slows the others down.
    Calls,
}

impl Amount {
    fn arguments(self) -> Vec<String> {
        let mut arguments = vec!["--scale".to_owned(), self.scale.to_string()];
        let mut add = |argument: &str| arguments.push(argument.to_owned());
        if self.soak {
            add("--soak");
        }
        if self.small_pages {
            add("--small-pages");
        }
        if let Some(Extent { size, look }) = self.extent {
            add("--bytes");
            add(&size.bytes().to_string());
            match look {
                Look::Work => {}
                Look::Settle => add("--settle"),
                Look::Calls => add("--calls"),
            }
        }
        arguments
    }

    fn limit(self) -> Duration {
        match (self.soak, self.extent) {
            (true, _) => SOAK_LIMIT,
            (false, Some(_)) => SCALE_LIMIT,
            (false, None) => LIMIT,
        }
    }
}

/// The rows that a program knows: lines `NAME<TAB>KIND<TAB>ABOUT`.
pub(crate) fn list(binary: &Path) -> Result<Vec<RowName>, String> {
    let text = output(binary, &[], &["--list"], LIMIT)?;
    let row = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let name = fields.next()?.to_owned();
        let kind = <Kind as clap::ValueEnum>::from_str(fields.next()?, false).ok()?;
        let about = fields.next()?.to_owned();
        Some(RowName {
            name,
            kind,
            about,
            size: None,
        })
    };
    text.lines()
        .map(|line| row(line).ok_or_else(|| not_understood(line)))
        .collect()
}

/// Variables of a program's environment.
type Options = &'static [(&'static str, &'static str)];

/// Runs one row in a process of its own.
pub(crate) fn cell(
    binary: &Path,
    options: Options,
    row: &str,
    amount: Amount,
) -> Result<Cell, String> {
    let arguments = amount.arguments();
    let args: Vec<&str> = [row]
        .into_iter()
        .chain(arguments.iter().map(String::as_str))
        .collect();
    let text = output(binary, options, &args, amount.limit())?;
    // a row may print lines of its own
    let line = text.lines().rfind(|line| line.starts_with('{'));
    let line = line.ok_or_else(|| not_understood(&text))?;
    let cell: Cell = serde_json::from_str(line).map_err(|_| not_understood(line))?;
    let is_sound = cell.row == row && cell.figures.iter().all(|(_, value)| value.is_finite());
    is_sound.then_some(cell).ok_or_else(|| not_understood(line))
}

fn not_understood(text: &str) -> String {
    format!(
        "its output is not understood: {:?}",
        text.lines().next().unwrap_or("")
    )
}

/// The program's standard output, if it ends well and in time.
fn output(
    binary: &Path,
    options: Options,
    args: &[&str],
    limit: Duration,
) -> Result<String, String> {
    // what is set where we run would tune one of them, or preload another into all
    let kept = env::var_os(LIBRARIES).map(|path| (LIBRARIES, path));
    let mut child = Command::new(binary)
        .args(args)
        .env_clear()
        .envs(kept)
        .envs(options.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it does not start: {error}"))?;
    let start = Instant::now();
    // drained on the side: a curve is longer than a pipe
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < limit => sleep(POLL),
            Ok(None) => {
                // it may have ended this very moment: nothing to do about a failed kill
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("stopped after {} s", limit.as_secs()));
            }
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    };
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    if status.success() {
        Ok(stdout)
    } else {
        Err(failure(status, &stderr))
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // what was read before an error is all there is to show
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn failure(status: ExitStatus, stderr: &str) -> String {
    match stderr.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("{status}: {line}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_row_is_told_its_size_and_what_to_look_at() {
        let amount = |look| Amount {
            scale: 1.0,
            soak: false,
            small_pages: true,
            extent: Some(Extent {
                size: "64M".parse().expect("a size"),
                look,
            }),
        };
        let told = |look| amount(look).arguments().join(" ");
        let bytes = "--scale 1 --small-pages --bytes 67108864";
        assert_eq!(told(Look::Work), bytes);
        assert_eq!(told(Look::Settle), format!("{bytes} --settle"));
        assert_eq!(told(Look::Calls), format!("{bytes} --calls"));
        assert_eq!(amount(Look::Work).limit(), SCALE_LIMIT);
    }
}
