//! First-class heaps beside mimalloc's, an arena, and the global path, in one run.

mod contestant;
mod memory;
mod rows;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use flagstone::{Flagstone, Heap};
use serde_json::json;

use contestant::{Arena, Contestant, Global, MiHeap, Shared};

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

/// Runs the rows for each contestant in turn, and prints medians.
#[derive(Parser)]
struct Args {
    /// Repetitions of each cell
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Run only rows whose name contains this
    #[arg(long, default_value = "")]
    filter: String,
    /// Write what was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

/// What a row does for one contestant; `None` if that cannot.
type Run = fn() -> f64;

struct Row {
    name: &'static str,
    what: &'static str,
    runs: [Option<Run>; CONTESTANTS],
}

const CONTESTANTS: usize = 5;
const NAMES: [&str; CONTESTANTS] = [
    Heap::NAME,
    Global::NAME,
    MiHeap::NAME,
    Arena::NAME,
    Shared::NAME,
];

/// A row for all contestants for which `$condition` holds.
macro_rules! row {
    ($name:literal, $what:literal, $run:ident, $condition:ident) => {
        Row {
            name: $name,
            what: $what,
            runs: [
                (Heap::$condition).then_some($run::<Heap> as Run),
                (Global::$condition).then_some($run::<Global> as Run),
                (MiHeap::$condition).then_some($run::<MiHeap> as Run),
                (Arena::$condition).then_some($run::<Arena> as Run),
                (Shared::$condition).then_some($run::<Shared> as Run),
            ],
        }
    };
}

fn all() -> [Row; 11] {
    use memory::small_heap;
    use rows::*;
    [
        row!("pair", "ns: 64 B allocated and freed", pair, FREES),
        row!(
            "replace1k",
            "ns: one of 1 000 mixed blocks replaced",
            replaced,
            FREES
        ),
        row!("replace100k", "ns: one of 100 000", replaced_of_many, FREES),
        row!("empty", "ns: a heap made and dropped", empty, TAKES_ALL),
        row!(
            "request20",
            "ns: with 20 mixed blocks in it",
            small_request,
            ANY
        ),
        row!("request", "ns: with 1 000", request, ANY),
        row!(
            "freed",
            "ns: the same, each block freed",
            request_freed,
            REMAKES
        ),
        row!(
            "threads2",
            "ns a turn: two threads replace in one heap",
            two_threads,
            SHARES
        ),
        row!("threads8", "ns a turn: eight", eight_threads, SHARES),
        row!(
            "handoff",
            "ns: one thread allocates, another frees",
            handed_over,
            SHARES
        ),
        row!(
            "memory",
            "bytes in memory: each of 10 000 heaps of 20 blocks",
            small_heap,
            ANY
        ),
    ]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The medians of a row, with repetitions of the contestants taking turns.
fn measure(row: &Row, reps: usize) -> [Option<f64>; CONTESTANTS] {
    let mut values = [const { Vec::new() }; CONTESTANTS];
    for _ in 0..reps.max(1) {
        for (values, run) in values.iter_mut().zip(row.runs) {
            values.extend(run.map(|run| run()));
        }
    }
    values.map(|values| (!values.is_empty()).then(|| median(values)))
}

fn main() -> ExitCode {
    if let Some(bytes) = memory::filled() {
        println!("{bytes}");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    print!("{:12}", "row");
    NAMES.iter().for_each(|name| print!("{name:>10}"));
    println!("   of global  of mimalloc");
    let mut measured = Vec::new();
    for row in all().iter().filter(|row| row.name.contains(&args.filter)) {
        let found = measure(row, args.reps);
        print!("{:12}", row.name);
        for value in found {
            match value {
                Some(value) if value < 1_000.0 => print!("{value:10.2}"),
                Some(value) => print!("{value:10.0}"),
                None => print!("{:>10}", "-"),
            }
        }
        for other in [found[1], found[2]] {
            let ratio = found[0].zip(other).map(|(own, other)| own / other);
            print!(
                "{:>12}",
                ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
            );
        }
        println!("   {}", row.what);
        measured.push(json!({ "row": row.name, "what": row.what, "medians": found }));
    }
    if let Some(out) = args.json {
        let text = json!({ "contestants": NAMES, "reps": args.reps, "rows": measured });
        if let Err(error) = fs::write(&out, text.to_string()) {
            eprintln!("heaps: {}: {error}", out.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
