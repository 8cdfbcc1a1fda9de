//! What a reader has to know about the machine and the run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::Plan;
use crate::huge_pages::{self, Choice};
use crate::model::Facts;

const UNKNOWN: &str = "unknown";

/// Read before the first measurement.
pub(crate) fn gather(plan: &Plan) -> Facts {
    Facts {
        date: date(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit(),
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| UNKNOWN.to_owned()),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        memory_mib: kb(&read("/proc/meminfo"), "MemTotal").unwrap_or(0) / 1024,
        kernel: one_line(&read("/proc/sys/kernel/osrelease")),
        huge_pages: match plan.thp {
            Some(Choice::Never) => "off for each program".to_owned(),
            _ => huge_pages::chosen().unwrap_or_else(|| UNKNOWN.to_owned()),
        },
        rustc: said_by("rustc", &["--version"]).unwrap_or_else(|| UNKNOWN.to_owned()),
        profile: plan.profile.describe(),
        scale: plan.scale(),
        load: read("/proc/loadavg")
            .split_whitespace()
            .next()
            .unwrap_or(UNKNOWN)
            .to_owned(),
        seconds: 0,
        interrupted: false,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    match text.lines().next() {
        Some(line) if !line.is_empty() => line.to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// The value of the first line `NAME : VALUE`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Memory that a program could have now, in KiB.
pub(crate) fn available_kb() -> Option<u64> {
    kb(&read("/proc/meminfo"), "MemAvailable")
}

fn kb(meminfo: &str, name: &str) -> Option<u64> {
    field(meminfo, name)?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn said_by(program: &str, args: &[&str]) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The commit, marked if files were changed since.
fn commit() -> Option<String> {
    said_by("git", &["describe", "--always", "--dirty"])
}

/// Universal time, to the minute.
fn date() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).map_or_else(
        |_| UNKNOWN.to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        assert_eq!(
            field("model name\t: A CPU\n", "model name").as_deref(),
            Some("A CPU")
        );
        assert_eq!(field("MemTotal:  1 kB", "MemFree"), None);
        assert_eq!(kb("MemTotal:  17 kB", "MemTotal"), Some(17));
        assert_eq!(one_line(""), UNKNOWN);
    }
}
