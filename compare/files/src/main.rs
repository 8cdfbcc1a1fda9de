//! Is `mmap` faster? A file is copied and searched, by calls and through mappings, in several sizes: while its pages are
//! in memory, and after they were dropped.

mod ways;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rustix::fs::{Advice, fadvise};
use serde_json::json;

use ways::{COPIES, NEEDLE, SEARCHES};

/// Runs each way in turn, and prints medians: milliseconds for a file.
#[derive(Parser)]
struct Args {
    /// Repetitions of each cell
    #[arg(long, default_value_t = 7)]
    reps: usize,
    /// Sizes of the file, in KiB
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1 << 10, 16 << 10, 256 << 10])]
    kib: Vec<u32>,
    /// The folder that the files lie in: which disk is asked
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    folder: PathBuf,
    /// Write what was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

/// A file of so many bytes without the needle, but for its end.
fn make(path: &Path, bytes: usize) -> io::Result<()> {
    // Bytes below 128, of a small generator (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state & 0x7f7f_7f7f_7f7f_7f7f).to_le_bytes()
    };
    let mut text: Vec<u8> = (0..bytes / 8).flat_map(|_| word()).collect();
    text.truncate(bytes.saturating_sub(NEEDLE.len()));
    text.extend_from_slice(NEEDLE);
    let mut file = File::create(path)?;
    file.write_all(&text)?;
    file.sync_all()
}

/// Has the pages of a file, which are on the disk, leave memory.
fn drop_pages(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The medians of all ways, which take turns: milliseconds.
fn measure<const N: usize>(
    reps: usize,
    path: &Path,
    is_cold: bool,
    run: impl Fn(usize) -> io::Result<()>,
) -> io::Result<[f64; N]> {
    let mut all = [const { Vec::new() }; N];
    for _ in 0..reps.max(1) {
        for (way, times) in all.iter_mut().enumerate() {
            if is_cold {
                drop_pages(path)?;
            }
            let begin = Instant::now();
            run(way)?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(all.map(median))
}

fn run(args: &Args) -> io::Result<serde_json::Value> {
    let folder = tempfile::tempdir_in(&args.folder)?;
    let (path, copy) = (folder.path().join("file"), folder.path().join("copy"));
    let mut rows = Vec::new();
    let names = COPIES.map(|(name, _)| name);
    let others = SEARCHES.map(|(name, _)| name);
    for (what, names) in [("copied", names), ("searched", others)] {
        print!("{what:22}");
        names.iter().for_each(|name| print!("{name:>18}"));
        println!("   ms");
        for kib in &args.kib {
            make(&path, *kib as usize * 1024)?;
            for is_cold in [false, true] {
                let times: [f64; 4] = measure(args.reps, &path, is_cold, |way| {
                    if what == "copied" {
                        // Each makes it anew: an old one's pages would be there already.
                        let _ = fs::remove_file(&copy);
                        return COPIES[way].1(&path, &copy);
                    }
                    match SEARCHES[way].1(&path)? {
                        Some(place) if place + NEEDLE.len() == *kib as usize * 1024 => Ok(()),
                        found => Err(io::Error::other(format!("found at {found:?}"))),
                    }
                })?;
                let state = if is_cold { "cold" } else { "warm" };
                print!("{:22}", format!("{kib} KiB, {state}"));
                times.iter().for_each(|time| print!("{time:18.3}"));
                println!();
                rows.push(json!({ "what": what, "kib": kib, "cold": is_cold, "ways": names, "ms": times }));
            }
        }
    }
    Ok(json!({ "reps": args.reps, "rows": rows }))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = run(&args).and_then(|measured| match &args.json {
        Some(out) => fs::write(out, measured.to_string()),
        None => Ok(()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("files: {error}");
            ExitCode::FAILURE
        }
    }
}
