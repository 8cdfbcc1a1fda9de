//! The command line, and the plan that it amounts to.

use clap::{Parser, ValueEnum};

use crate::allocators::Allocator;

/// Compare allocators: the same rows over each, one process per cell, interleaved.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Args {
    /// Run only rows whose name contains this.
    #[arg(long, value_name = "SUBSTR", default_value = "")]
    filter: String,

    /// Allocators to run, separated by commas. The first is the one that the ratios are about
    /// unless flagstone is among them.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_enum)]
    allocators: Vec<Allocator>,

    /// Repetitions of every cell [default: 5, with --quick or --memory 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: Option<u32>,

    /// Build with link-time optimisation (fat, or thin if so told) instead of Cargo's default
    /// release profile.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, value_enum)]
    #[arg(default_missing_value = "fat")]
    lto: Option<Lto>,

    /// Compile the rows into the binary crate, where the default profile may inline the allocator,
    /// instead of into a library.
    #[arg(long)]
    in_binary: bool,

    /// A tenth of the work per cell: good for a look, not for a claim.
    #[arg(long)]
    quick: bool,

    /// Use the binaries of an earlier run as they are.
    #[arg(long)]
    no_build: bool,

    /// Run the memory rows instead: resident sizes rather than times.
    #[arg(long)]
    memory: bool,

    /// After the times, show each row's peak resident size too.
    #[arg(long, conflicts_with = "memory")]
    peak: bool,

    /// List the rows and stop.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Time,
    Memory,
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

pub(crate) struct Plan {
    pub(crate) filter: String,
    /// No duplicates; the first is the base of the ratios.
    pub(crate) allocators: Vec<Allocator>,
    pub(crate) reps: u32,
    pub(crate) profile: Profile,
    pub(crate) scale: f64,
    pub(crate) build: bool,
    pub(crate) kind: Kind,
    pub(crate) show_peak: bool,
    pub(crate) list_only: bool,
}

impl Args {
    pub(crate) fn plan(self) -> Result<Plan, String> {
        let mut allocators = self.allocators;
        if allocators.is_empty() {
            allocators = Allocator::value_variants().to_vec();
        }
        for (index, allocator) in allocators.iter().enumerate() {
            if allocators[..index].contains(allocator) {
                return Err(format!("--allocators names {} twice", allocator.name()));
            }
        }
        // stable: flagstone first, the others as given
        allocators.sort_by_key(|&allocator| allocator != Allocator::Flagstone);
        if self.list {
            allocators.truncate(1);
        }
        let default_reps = if self.quick || self.memory { 3 } else { 5 };
        Ok(Plan {
            filter: self.filter,
            allocators,
            reps: self.reps.unwrap_or(default_reps),
            profile: Profile {
                lto: self.lto,
                in_binary: self.in_binary,
            },
            scale: if self.quick { 0.1 } else { 1.0 },
            build: !self.no_build,
            kind: if self.memory {
                Kind::Memory
            } else {
                Kind::Time
            },
            show_peak: self.peak,
            list_only: self.list,
        })
    }
}
