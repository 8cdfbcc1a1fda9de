//! Counting every row in every program. Counts do not depend on what else runs, so each processor
//! has one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::build::{Folders, Program};
use crate::callgrind::{self, Run};
use crate::error::Error;
use crate::rows;

/// Nothing is old enough to go back, so the clock decides nothing: the longest delay that can be
/// said. What a thread does every so many slow paths counts slow paths, not time, and stays in the
/// count.
const NO_TICKS: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4294967295");

/// How the allocator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Without safeguards.
    Default,
    /// With all.
    Hardened,
}

impl Mode {
    /// The default mode and, if wanted, the other.
    pub(crate) fn all(hardened: bool) -> impl Iterator<Item = Self> {
        let hardened = hardened.then_some(Self::Hardened);
        [Self::Default].into_iter().chain(hardened)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
        }
    }

    /// The environment of the programs.
    const fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Default => &[NO_TICKS],
            Self::Hardened => &[NO_TICKS, ("FLAGSTONE_HARDENED", "1")],
        }
    }
}

/// What a row takes: instructions for each operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Count {
    pub(crate) row: String,
    pub(crate) this: f64,
    pub(crate) that: Option<f64>,
}

impl Count {
    /// In per cent of the other tree's.
    pub(crate) fn difference(&self) -> Option<f64> {
        self.that.map(|that| (self.this / that - 1.0) * 100.0)
    }
}

/// Counts these rows in one program or in two.
pub(crate) fn all(
    programs: &[Program],
    rows: &[String],
    mode: Mode,
    folders: &Folders,
) -> Result<Vec<Count>, Error> {
    let outputs = folders.outputs()?;
    let jobs: Vec<_> = rows
        .iter()
        .flat_map(|row| programs.iter().map(move |program| (row, program)))
        .flat_map(|(row, program)| {
            rows::lengths(row)
                .slices
                .map(|slices| (row, program, slices))
        })
        .collect();
    let bar = ProgressBar::new(jobs.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(mode.name());
    let run = |number: usize| {
        let (row, program, slices) = jobs[number];
        let scale = rows::lengths(row).scale.to_string();
        let slices = slices.to_string();
        let args = [row, "--scale", &scale, "--slices", &slices].map(str::to_owned);
        let file = outputs.join(format!("{number}.out"));
        let failed = |reason| Error::Run {
            row: row.clone(),
            tree: program.tree,
            reason,
        };
        let run = callgrind::count(&program.binary, &args, mode.options(), &file);
        bar.inc(1);
        run.map_err(failed)
    };
    let runs = on_all_processors(jobs.len(), run);
    bar.finish_and_clear();
    let runs: Vec<Run> = runs.into_iter().collect::<Result<_, _>>()?;
    // As `jobs`: for each row each program's short run and its long one.
    let mut rows = rows.iter();
    runs.chunks(2 * programs.len())
        .zip(&mut rows)
        .map(|(runs, row)| row_of(row, runs))
        .collect()
}

/// What was counted in a row, by the runs of this tree and then the other's, each short and long.
fn row_of(row: &str, runs: &[Run]) -> Result<Count, Error> {
    let (this, that) = runs.split_at(2);
    if !that.is_empty() && this.iter().zip(that).any(|(a, b)| a.checksum != b.checksum) {
        return Err(Error::Checksums {
            row: row.to_owned(),
        });
    }
    let per_op = |runs: &[Run], tree| {
        per_operation(runs).ok_or_else(|| Error::Run {
            row: row.to_owned(),
            tree,
            reason: "the long run does no more than the short one".to_owned(),
        })
    };
    Ok(Count {
        row: row.to_owned(),
        this: per_op(this, "this")?,
        that: (!that.is_empty())
            .then(|| per_op(that, "that"))
            .transpose()?,
    })
}

/// The instructions of an operation, by a short run and a long one.
fn per_operation(runs: &[Run]) -> Option<f64> {
    let [short, long] = runs else { return None };
    let instructions = long.instructions.checked_sub(short.instructions)?;
    let ops = long.ops - short.ops;
    (instructions > 0 && ops > 0.0).then(|| instructions as f64 / ops)
}

/// Does jobs `0..count`, as many at a time as there are processors; the results are in order. After
/// a failure no other begins.
fn on_all_processors<T: Send>(
    count: usize,
    job: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Vec<Result<T, Error>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            // ORDERING: a counter; each thread gets a number of its own.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let result = job(number);
            if result.is_err() {
                // ORDERING: as above.
                next.store(count, Ordering::Relaxed);
            }
            done.lock().expect("no job panics").push((number, result));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("no job panics");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(instructions: u64, ops: f64) -> Run {
        Run {
            instructions,
            ops,
            checksum: Some(ops.to_string()),
        }
    }

    #[test]
    fn what_both_runs_have_in_common_does_not_count() {
        let runs = [run(1_000_100, 100.0), run(1_000_100 + 300 * 22, 400.0)];
        assert_eq!(per_operation(&runs), Some(22.0));
    }

    #[test]
    fn runs_that_do_not_differ_count_nothing() {
        assert_eq!(per_operation(&[run(5, 1.0), run(9, 1.0)]), None);
        assert_eq!(per_operation(&[run(9, 1.0), run(5, 2.0)]), None);
        assert_eq!(per_operation(&[run(9, 1.0), run(9, 2.0)]), None);
    }

    #[test]
    fn the_difference_is_that_of_this_tree() {
        let this = [run(0, 0.0), run(2200, 100.0)];
        let that = [run(50, 0.0), run(2050, 100.0)];
        let count = row_of("a_64", &[this, that].concat()).expect("a count");
        assert_eq!((count.this, count.that), (22.0, Some(20.0)));
        let difference = count.difference().expect("two trees");
        assert!((difference - 10.0).abs() < 1e-9, "{difference}");

        let alone = row_of("a_64", &[run(0, 0.0), run(2200, 100.0)]).expect("a count");
        assert_eq!((alone.this, alone.difference()), (22.0, None));
    }

    #[test]
    fn trees_that_do_other_work_are_not_compared() {
        let mut runs = vec![run(0, 0.0), run(2200, 100.0), run(0, 0.0), run(2000, 100.0)];
        runs[3].checksum = Some("other".to_owned());
        assert!(matches!(
            row_of("a_64", &runs),
            Err(Error::Checksums { .. })
        ));
    }

    #[test]
    fn results_are_in_order_and_a_failure_is_among_them() {
        let all = on_all_processors(50, |number| Ok(2 * number));
        let all: Vec<_> = all
            .into_iter()
            .map(|result| result.expect("no failure"))
            .collect();
        assert_eq!(all, (0..50).map(|number| 2 * number).collect::<Vec<_>>());

        let failure = || Error::NoCommit("x".to_owned());
        let fails = |number| {
            if number == 7 {
                Err(failure())
            } else {
                Ok(number)
            }
        };
        let some = on_all_processors(1000, fails);
        assert!(some.iter().any(Result::is_err));
    }
}
