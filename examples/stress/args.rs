//! The command line. Whatever makes no sense is refused by clap with exit code 2.

use core::hash::BuildHasher;
use std::hash::RandomState;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};

use crate::PROGRAM;

/// Far beyond any machine, yet no layout up to it can overflow.
const LARGEST: usize = isize::MAX.cast_unsigned() / 4;

/// Live bytes allowed unless told otherwise.
const MAX_LIVE: usize = 256 << 20;

/// A number that differs from run to run.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Stress the flagstone allocator with random operations from many threads.
#[derive(Parser)]
#[command(name = PROGRAM)]
pub(crate) struct Args {
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: u16,
    /// How long to run
    #[arg(long, value_name = "S", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Seed of all choices [default: random, and printed]
    #[arg(long, value_name = "X", default_value_t = random(), hide_default_value = true)]
    pub(crate) seed: u64,
    /// Largest block; most stay below 64K. Suffixes K, M, G
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = parse_size)]
    pub(crate) max_size: usize,
    /// Bound on the bytes of all live blocks [default: 256M or twice --max-size]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    max_live: Option<usize>,
    /// Let the allocator check itself every 250 ms [default: in debug builds]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    #[arg(default_value_t = cfg!(debug_assertions), hide_default_value = true)]
    pub(crate) verify: bool,
}

impl Args {
    pub(crate) fn max_live(&self) -> usize {
        self.max_live
            .unwrap_or_else(|| MAX_LIVE.max(self.max_size.saturating_mul(2)))
    }
}

/// Parses the command line or ends the process.
pub(crate) fn parse() -> Args {
    let args = Args::parse();
    if args.max_live() < args.max_size {
        let message = "--max-live must not be smaller than --max-size";
        Args::command()
            .error(ErrorKind::ValueValidation, message)
            .exit();
    }
    args
}

/// `64K`, `1M`, `2G` or plain bytes.
fn parse_size(text: &str) -> Result<usize, String> {
    let shift = match text.bytes().last() {
        Some(b'k' | b'K') => 10,
        Some(b'm' | b'M') => 20,
        Some(b'g' | b'G') => 30,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let count: usize = digits
        .parse()
        .map_err(|_| "a whole number with an optional K, M or G is needed")?;
    match count.checked_mul(1 << shift) {
        Some(0) => Err("it must be at least 1".into()),
        Some(bytes) if bytes <= LARGEST => Ok(bytes),
        _ => Err("it is too large for this machine's address space".into()),
    }
}
