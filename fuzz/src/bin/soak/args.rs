//! The command line. Whatever makes no sense is refused by clap with exit code 2.

use clap::Parser;

/// Random operations against a shadow of flagstone's heap.
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct Args {
    /// Operations of all threads together: 20000000, or 1e9
    #[arg(long, value_name = "N", default_value = "1e8", value_parser = parse_count)]
    pub(crate) operations: u64,
    /// Seed of all choices [default: random, and printed]
    #[arg(long, value_name = "X", default_value_t = rand::random(), hide_default_value = true)]
    pub(crate) seed: u64,
    /// Threads, which hand blocks to each other
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) threads: u64,
    /// Blocks that a thread holds at most
    #[arg(long, value_name = "N", default_value_t = 2048)]
    #[arg(value_parser = parse_slots)]
    pub(crate) slots: usize,
    /// Operations of a thread between two purges, 0 for none
    #[arg(long, value_name = "N", default_value = "1e6", value_parser = parse_count)]
    pub(crate) purge_every: u64,
    /// Operations of a thread between two checks of the allocator's tables, 0 for none
    #[arg(long, value_name = "N", default_value = "2e6", value_parser = parse_count)]
    pub(crate) verify_every: u64,
    /// Operations after which a thread ends and another goes on
    #[arg(long, value_name = "N", default_value = "3e6", value_parser = parse_lifetime)]
    pub(crate) lifetime: u64,
    /// MiB that all threads hold at a time, about
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    hold: u32,
}

impl Args {
    /// Operations of one thread.
    pub(crate) fn share(&self, thread: u64) -> u64 {
        let extra = u64::from(thread < self.operations % self.threads);
        self.operations / self.threads + extra
    }

    /// Bytes that one thread may hold.
    pub(crate) fn most_per_thread(&self) -> usize {
        let bytes = u64::from(self.hold) << 20;
        usize::try_from(bytes / self.threads).expect("64-bit addresses")
    }
}

/// Parses the command line or ends the process.
pub(crate) fn parse() -> Args {
    Args::parse()
}

/// `20000000` or `2e7`.
fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || "a whole number, as 20000000 or 2e7, is needed".to_owned();
    let (digits, zeros) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let digits: u64 = digits.parse().map_err(|_| wrong())?;
    let zeros: u32 = zeros.parse().map_err(|_| wrong())?;
    10_u64
        .checked_pow(zeros)
        .and_then(|factor| digits.checked_mul(factor))
        .ok_or_else(|| "it is too large".to_owned())
}

fn parse_lifetime(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("it must be at least 1".to_owned()),
        count => Ok(count),
    }
}

fn parse_slots(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(slots @ 1..=65536) => Ok(slots),
        _ => Err("1 to 65536 slots".to_owned()),
    }
}
