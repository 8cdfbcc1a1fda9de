//! Running a program under callgrind, and reading what it wrote.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::SplitAsciiWhitespace;

use serde::Deserialize;

use crate::error::Error;

/// What a program inherits: where valgrind is, and its parts. No user's options, no tuning.
const KEPT: [&str; 2] = ["PATH", "VALGRIND_LIB"];

/// One run of one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) instructions: u64,
    pub(crate) ops: f64,
    pub(crate) checksum: Option<String>,
}

/// What a program prints in the end.
#[derive(Deserialize)]
struct Line {
    figures: Vec<(String, f64)>,
    checksum: Option<String>,
}

fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .env_clear()
        .envs(
            KEPT.iter()
                .filter_map(|name| Some((name, env::var_os(name)?))),
        )
        .arg("--tool=callgrind")
        .stdin(Stdio::null());
    valgrind
}

/// Whether there is a valgrind with callgrind.
pub(crate) fn is_there() -> Result<(), Error> {
    let output = valgrind()
        .arg("--version")
        .output()
        .map_err(Error::NoValgrind)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::NoCallgrind(first_words(&output.stderr)))
}

/// Runs `binary` with these arguments and counts; `file` is where callgrind writes meanwhile.
/// Errors are reasons, for who knows what was run.
pub(crate) fn count(
    binary: &Path,
    args: &[String],
    options: &[(&str, &str)],
    file: &Path,
) -> Result<Run, String> {
    let mut valgrind = valgrind();
    if let Some(folder) = file.parent() {
        valgrind.current_dir(folder);
    }
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(file);
    let output = valgrind
        .arg(out)
        .arg(binary)
        .args(args)
        .envs(options.iter().copied())
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{}: {}",
            output.status,
            first_words(&output.stderr)
        ));
    }
    let counted =
        fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    // Left behind, it would do no harm.
    let _ = fs::remove_file(file);
    let (ops, checksum) = work(&String::from_utf8_lossy(&output.stdout))?;
    Ok(Run {
        instructions: instructions(&counted)?,
        ops,
        checksum,
    })
}

/// The first line that is the program's own or, if it says nothing, the first of valgrind's.
fn first_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let is_own = |line: &&str| !line.starts_with("==") && !line.trim().is_empty();
    let line = text.lines().find(is_own).or_else(|| text.lines().next());
    line.unwrap_or("it says nothing").to_owned()
}

/// The operations that a program reports, and the checksum of its work.
fn work(stdout: &str) -> Result<(f64, Option<String>), String> {
    let not_understood = || format!("its output is not understood: {:?}", stdout.trim());
    // A row may print lines of its own.
    let line = stdout.lines().rfind(|line| line.starts_with('{'));
    let line: Line = line
        .and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(not_understood)?;
    let ops = line.figures.iter().find(|(name, _)| name == "ops");
    let (_, ops) = ops.ok_or_else(not_understood)?;
    Ok((*ops, line.checksum))
}

/// The executed instructions in a file in callgrind's format: the header `events:` names the
/// columns, `totals:` ends each part with their sums.
fn instructions(text: &str) -> Result<u64, String> {
    let mut events = fields(text, "events:");
    let column = events
        .next()
        .and_then(|mut names| names.position(|name| name == "Ir"))
        .ok_or("callgrind counted no instructions (no event Ir)")?;
    let mut totals = fields(text, "totals:");
    let (Some(mut total), None) = (totals.next(), totals.next()) else {
        return Err("callgrind's file does not have one line of totals".to_owned());
    };
    total
        .nth(column)
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| "callgrind's totals are not understood".to_owned())
}

/// The fields of each line that begins with `key`.
fn fields<'t>(text: &'t str, key: &'static str) -> impl Iterator<Item = SplitAsciiWhitespace<'t>> {
    let lines = text.lines().filter_map(move |line| line.strip_prefix(key));
    lines.map(str::split_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As valgrind 3.19 writes it, shortened.
    const FILE: &str = "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\npid: 6446\n\
        cmd:  ./with-flagstone a_16 --scale 0.05\npart: 1\n\n\
        desc: I1 cache: \ndesc: Trigger: Program termination\n\n\
        positions: line\nevents: Ir\nsummary: 66415039\n\n\
        ob=(3) /usr/lib/libc.so.6\nfl=(35) ???\nfn=(1266) 0x00000000000277a0\n0 11\n\
        cfn=(1268) (below main)\ncalls=1 0 \n0 66000000\n\ntotals: 66415050\n";

    #[test]
    fn the_total_is_read() {
        assert_eq!(instructions(FILE), Ok(66_415_050));
    }

    #[test]
    fn the_column_is_found_by_its_name() {
        let text = FILE.replace("events: Ir", "events: Dr Ir Dw");
        let text = text.replace("totals: 66415050", "totals: 1 2 3");
        assert_eq!(instructions(&text), Ok(2));
    }

    #[test]
    fn what_is_not_a_whole_count_is_refused() {
        let cut = FILE.split("totals:").next().unwrap_or_default();
        let other = FILE.replace("events: Ir", "events: Bc");
        let twice = format!("{FILE}totals: 1\n");
        let negative = FILE.replace("totals: 6", "totals: -6");
        for text in ["", cut, &other, &twice, &negative] {
            assert!(instructions(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_programs_last_line_tells_its_work() {
        let line = r#"{"row":"a_16","figures":[["ns",3.5],["ops",400.0]],"checksum":"fb"}"#;
        let expected = Ok((400.0, Some("fb".to_owned())));
        assert_eq!(work(&format!("words\n{line}\n")), expected);
        // A program that knows nothing of `--slices` has no such figure.
        assert!(work(&line.replace("ops", "other")).is_err());
        assert!(work("words").is_err());
    }

    #[test]
    fn a_failed_program_is_quoted_not_valgrind() {
        let said = b"==1== Callgrind\n==1== \nno row named x\n==1== \n";
        assert_eq!(first_words(said), "no row named x");
        assert_eq!(first_words(b"==1== Callgrind\n"), "==1== Callgrind");
    }
}
