//! Builds the index: workers take files one by one, each fills an index of its own, one thread
//! merges.

use core::ops::AddAssign;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

use crate::PROGRAM;
use crate::common::{interrupt, say};
use crate::postings::Index;
use crate::read::{Content, read};

/// What became of the files.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) files: usize,
    pub(crate) bytes: usize,
    pub(crate) binary: usize,
    pub(crate) not_utf8: usize,
    pub(crate) unreadable: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.binary += other.binary;
        self.not_utf8 += other.not_utf8;
        self.unreadable += other.unreadable;
    }
}

/// One worker's result, and after merging everyone's.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) index: Index,
    pub(crate) tally: Tally,
}

/// What the workers share.
struct Job<'a> {
    files: &'a [PathBuf],
    next: AtomicUsize,
    bar: ProgressBar,
}

/// Indexes `files` with `threads` workers, the calling thread among them. Stops early on Ctrl-C.
pub(crate) fn build(files: &[PathBuf], threads: usize) -> Part {
    let job = Job {
        files,
        next: AtomicUsize::new(0),
        bar: bar(files.len()),
    };
    let parts = run_workers(&job, threads.clamp(1, files.len().max(1)));
    job.bar.finish_and_clear();
    merge(parts)
}

fn run_workers(job: &Job<'_>, threads: usize) -> Vec<Part> {
    thread::scope(|scope| {
        let mut handles = Vec::new();
        for _ in 1..threads {
            match thread::Builder::new().spawn_scoped(scope, || work(job)) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    warn(
                        job,
                        &format!("going on with {} threads: {error}", handles.len() + 1),
                    );
                    break;
                }
            }
        }
        let mut parts = vec![work(job)];
        parts.extend(
            handles
                .into_iter()
                .map(|handle| handle.join().expect("a worker panicked")),
        );
        parts
    })
}

/// Takes files until there are none.
fn work(job: &Job<'_>) -> Part {
    let mut part = Part::default();
    let mut buffer = Vec::new();
    let mut word = String::new();
    while !interrupt::requested() {
        // ORDERING: Relaxed, the counter hands out numbers and publishes nothing.
        let number = job.next.fetch_add(1, Ordering::Relaxed);
        let Some(path) = job.files.get(number) else {
            break;
        };
        match read(path, &mut buffer) {
            Ok(Content::Text(text)) => {
                let file = u32::try_from(number).expect("the walk bounds the number of files");
                part.index.add_text(file, text, &mut word);
                part.tally.files += 1;
                part.tally.bytes += text.len();
            }
            Ok(Content::Binary) => part.tally.binary += 1,
            Ok(Content::NotUtf8) => part.tally.not_utf8 += 1,
            Err(error) => {
                part.tally.unreadable += 1;
                warn(job, &format!("cannot read {path:?}: {error}"));
            }
        }
        job.bar.inc(1);
    }
    part
}

fn merge(parts: Vec<Part>) -> Part {
    let mut whole = Part::default();
    for part in parts {
        if interrupt::requested() {
            break;
        }
        whole.index.absorb(part.index);
        whole.tally += part.tally;
    }
    whole.index.sort();
    whole
}

/// A message that does not end up in the middle of the progress bar.
fn warn(job: &Job<'_>, message: &str) {
    job.bar
        .suspend(|| say::line(PROGRAM, format_args!("{message}")));
}

/// Visible only to people: a log file gets no bar.
fn bar(files: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(files as u64).with_style(style)
}
