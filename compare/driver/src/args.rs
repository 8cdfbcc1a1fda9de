//! The command line, and the plan that it amounts to.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::allocators::{self, Allocator, OURS, Role};
use crate::huge_pages::Choice;
use crate::size::Size;

/// Compare allocators: the same rows over each, one process per cell, interleaved.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Args {
    /// Run only rows whose name contains this.
    #[arg(long, value_name = "ROW", default_value = "")]
    filter: String,

    /// Run only rows of these kinds.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_enum)]
    only: Vec<Kind>,

    /// Allocators to run, separated by commas [default: all]. flagstone comes first, named or not.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = allocator_parser())]
    allocators: Vec<&'static Allocator>,

    /// Another column: flagstone with these variables in its environment, separated by spaces, as
    /// in "FLAGSTONE_DIRTY_BUDGET=1G". May be given several times.
    #[arg(long, value_name = "VARIABLES", value_parser = allocators::variant_of)]
    variant: Vec<&'static Allocator>,

    /// Sizes of the heaps of scale rows.
    #[arg(
        long,
        value_name = "N,M",
        value_delimiter = ',',
        default_value = "64M,1G,4G"
    )]
    sizes: Vec<Size>,

    /// Whether the kernel gives huge pages [default: as it is]. `always` and `madvise` change it for
    /// the machine, as root, until the end; `never` for the programs alone.
    #[arg(long, value_name = "CHOICE", value_enum)]
    thp: Option<Choice>,

    /// Repetitions of every cell [default: 4, memory rows 2, scale rows 3, 2 from 1G on, 1 from 2G on;
    /// with --quick 2, memory and scale rows 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: Option<u32>,

    /// A tenth of the work per cell: good for a look, not for a claim.
    #[arg(long)]
    quick: bool,

    /// Minutes of drift, of shifting sizes and of bursts, instead of seconds: a few rows alone.
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    soak: bool,

    /// Name the rows that moved since this earlier --json file, beyond the spread.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Write everything measured to this file.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,

    /// Write a page of tables and pictures to this file.
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,

    /// Do not measure: show this earlier --json file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter", "only", "allocators", "variant", "sizes", "thp", "reps", "quick", "soak", "json", "list"])]
    show: Option<PathBuf>,

    /// Build with link-time optimisation (fat, or thin if so told) instead of Cargo's default
    /// release profile.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, value_enum)]
    #[arg(default_missing_value = "fat")]
    lto: Option<Lto>,

    /// Compile the rows into the binary crate, where the default profile may inline the allocator,
    /// instead of into a library.
    #[arg(long)]
    in_binary: bool,

    /// Use the binaries of an earlier run as they are.
    #[arg(long)]
    no_build: bool,

    /// List the rows and stop.
    #[arg(long)]
    list: bool,
}

fn allocator_parser() -> impl TypedValueParser<Value = &'static Allocator> {
    let all = allocators::ALL.iter().chain(allocators::VARIANTS);
    let names = all.map(|allocator| allocator.name);
    PossibleValuesParser::new(names)
        .map(|name| allocators::named(&name).expect("a possible value is a name"))
}

/// What a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Nanoseconds for each operation.
    Time,
    /// How long single operations take at most.
    Latency,
    /// Resident sizes, some of them over time.
    Memory,
    /// Nanoseconds for each operation, from few live blocks or threads to many.
    Curve,
    /// Time, the kernel's share, memory and the longest call of heaps of several sizes.
    Scale,
    /// Bytes of machine code that each allocator adds to public programs. Runs alone.
    Size,
}

impl Kind {
    /// Those that are measured unless others are named: curves take 4 GB each, scale rows hours.
    pub(crate) const USUAL: [Self; 3] = [Self::Time, Self::Latency, Self::Memory];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lto {
    Fat,
    Thin,
}

impl Lto {
    /// As Cargo's profiles spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fat => "fat",
            Self::Thin => "thin",
        }
    }
}

/// How the programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// `None` is Cargo's default release profile.
    pub(crate) lto: Option<Lto>,
    /// The rows are part of the binary crate rather than a library.
    pub(crate) in_binary: bool,
}

impl Profile {
    /// Names the profile's build folder.
    pub(crate) fn slug(self) -> String {
        let lto = self.lto.map_or("default", Lto::name);
        format!(
            "rows-{lto}{}",
            if self.in_binary { "-in-binary" } else { "" }
        )
    }

    pub(crate) fn describe(self) -> String {
        let lto = self.lto.map_or("no", Lto::name);
        let place = if self.in_binary {
            "the binary crate"
        } else {
            "a library"
        };
        format!("release, {lto} LTO, rows in {place}")
    }
}

/// What to measure.
pub(crate) struct Plan {
    pub(crate) filter: String,
    pub(crate) kinds: Vec<Kind>,
    /// No duplicates, ours first.
    pub(crate) allocators: Vec<&'static Allocator>,
    /// Of scale rows.
    pub(crate) sizes: Vec<Size>,
    pub(crate) thp: Option<Choice>,
    /// As told, for every kind.
    reps: Option<u32>,
    pub(crate) quick: bool,
    pub(crate) soak: bool,
    pub(crate) profile: Profile,
    pub(crate) build: bool,
}

impl Plan {
    /// Repetitions of a row of this kind and size.
    pub(crate) fn reps(&self, kind: Kind, size: Option<Size>) -> u32 {
        self.reps.unwrap_or(match (kind, self.quick || self.soak) {
            (Kind::Memory | Kind::Scale, true) => 1,
            (Kind::Memory, false) | (_, true) => 2,
            (Kind::Scale, false) => size.map_or(3, Size::reps),
            (_, false) => 4,
        })
    }

    pub(crate) fn scale(&self) -> f64 {
        if self.quick { 0.1 } else { 1.0 }
    }
}

/// What to do.
pub(crate) enum Task {
    Measure(Plan),
    Show(PathBuf),
    List(Plan),
    /// Of public programs.
    Sizes(Plan),
}

/// Where results go beside the terminal.
pub(crate) struct Outputs {
    pub(crate) baseline: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) html: Option<PathBuf>,
}

impl Args {
    pub(crate) fn plan(self) -> Result<(Task, Outputs), String> {
        let outputs = Outputs {
            baseline: self.baseline,
            json: self.json,
            html: self.html,
        };
        if let Some(file) = self.show {
            return Ok((Task::Show(file), outputs));
        }
        let mut allocators = self.allocators;
        if allocators.is_empty() {
            // Of rows that take hours, with those that the front page compares.
            allocators = if self.only == [Kind::Scale] {
                allocators::FRONT
                    .into_iter()
                    .filter_map(allocators::named)
                    .collect()
            } else {
                allocators::ALL.iter().collect()
            };
        }
        allocators.extend(self.variant);
        for (index, allocator) in allocators.iter().enumerate() {
            if allocators[..index]
                .iter()
                .any(|before| before.name == allocator.name)
            {
                return Err(format!("{} is named twice", allocator.name));
            }
        }
        // ours first, named or not, the others as given
        allocators.retain(|allocator| allocator.role != Role::Ours);
        allocators.insert(0, &OURS);
        let plan = Plan {
            filter: self.filter,
            kinds: if self.soak {
                vec![Kind::Memory]
            } else if self.only.is_empty() {
                Kind::USUAL.to_vec()
            } else {
                self.only
            },
            allocators,
            sizes: self.sizes,
            thp: self.thp,
            reps: self.reps,
            quick: self.quick,
            soak: self.soak,
            profile: Profile {
                lto: self.lto,
                in_binary: self.in_binary,
            },
            build: !self.no_build,
        };
        if plan.kinds.contains(&Kind::Size) && plan.kinds != [Kind::Size] {
            return Err("--only size runs alone".to_owned());
        }
        let task = if plan.kinds == [Kind::Size] {
            if self.list || outputs.json.is_some() || outputs.html.is_some() {
                return Err("--only size prints one table and writes no file".to_owned());
            }
            Task::Sizes(plan)
        } else if self.list {
            Task::List(plan)
        } else {
            Task::Measure(plan)
        };
        Ok((task, outputs))
    }
}
