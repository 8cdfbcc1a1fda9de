//! The library's options as arguments. The engine itself says which values are good.

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command};
use engine::Config;

/// A value of the option that the environment knows by this name.
#[derive(Clone)]
struct Value(&'static str);

impl TypedValueParser for Value {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        let text = value.to_str().unwrap_or_default();
        if Config::new().with_option(self.0, text.as_bytes()).is_ok() {
            return Ok(text.to_owned());
        }
        let name = argument.map(ToString::to_string).unwrap_or_default();
        let message = format!("{:?} is no value for {name}\n", value.display().to_string());
        Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
    }
}

/// What is set in the program's environment.
#[derive(Args)]
pub(crate) struct Tuning {
    /// Safeguards: 1, or a list of checks, canaries, zero, quarantine, random, guards, isolation.
    #[arg(long, value_name = "WORDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = Value("FLAGSTONE_HARDENED"))]
    hardened: Option<String>,
    /// Put one in so many allocations on a page of its own, and report wrong accesses to it.
    #[arg(long, value_name = "ALLOCATIONS", value_parser = Value("FLAGSTONE_SAMPLE"))]
    sample: Option<String>,
    /// Give memory back when the program has gone idle, by a thread of the library's own.
    #[arg(long)]
    background: bool,
    /// Milliseconds that free pages stay in memory.
    #[arg(long, value_name = "MILLISECONDS", value_parser = Value("FLAGSTONE_PURGE_DELAY_MS"))]
    purge_delay_ms: Option<String>,
    /// Most bytes of free pages that stay in memory (K, M, G).
    #[arg(long, value_name = "BYTES", value_parser = Value("FLAGSTONE_DIRTY_BUDGET"))]
    dirty_budget: Option<String>,
    /// Most bytes of freed large blocks kept for reuse (K, M, G).
    #[arg(long, value_name = "BYTES", value_parser = Value("FLAGSTONE_LARGE_CACHE"))]
    large_cache: Option<String>,
    /// Most bytes of free blocks that a thread keeps (K, M, G).
    #[arg(long, value_name = "BYTES", value_parser = Value("FLAGSTONE_THREAD_CACHE"))]
    thread_cache: Option<String>,
    /// Whether to ask for huge pages: off, advise or auto.
    #[arg(long, value_name = "ADVICE", value_parser = Value("FLAGSTONE_HUGE_PAGES"))]
    huge_pages: Option<String>,
}

impl Tuning {
    /// Names and values for the program's environment.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("FLAGSTONE_HARDENED", &self.hardened),
            ("FLAGSTONE_SAMPLE", &self.sample),
            ("FLAGSTONE_PURGE_DELAY_MS", &self.purge_delay_ms),
            ("FLAGSTONE_DIRTY_BUDGET", &self.dirty_budget),
            ("FLAGSTONE_LARGE_CACHE", &self.large_cache),
            ("FLAGSTONE_THREAD_CACHE", &self.thread_cache),
            ("FLAGSTONE_HUGE_PAGES", &self.huge_pages),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .chain(self.background.then_some(("FLAGSTONE_BACKGROUND", "on")))
    }

    /// Whether allocations will be sampled.
    pub(crate) fn samples(&self) -> bool {
        let inherited = || std::env::var("FLAGSTONE_SAMPLE").ok();
        let wanted = self.sample.clone().or_else(inherited);
        wanted.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count > 0))
    }
}
