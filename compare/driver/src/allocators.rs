//! The table of allocators. A new peer is one package beside this one and one entry here.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Allocator {
    /// The allocator of this repository.
    Flagstone,
    /// mimalloc v3, crate mimalloc 0.1.52.
    Mimalloc,
    /// rusty_alloc 2.4.0.
    RustyAlloc,
    /// What Rust uses by default: the C library's malloc.
    System,
}

impl Allocator {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flagstone => "flagstone",
            Self::Mimalloc => "mimalloc",
            Self::RustyAlloc => "rusty_alloc",
            Self::System => "system",
        }
    }

    /// The package, and the binary in it.
    pub(crate) fn package(self) -> String {
        format!("with-{}", self.name())
    }
}
