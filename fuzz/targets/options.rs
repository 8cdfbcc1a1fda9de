//! libFuzzer target: values of the environment against a second reading of what they may be.
//!
//! The environment is read once in a process, which is no way to try millions of values. So the module
//! that reads it is compiled into this target, with the one that cuts complaints to a line.
#![no_main]

#[path = "../../src/available.rs"]
mod available;
#[expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "a module of the library"
)]
#[path = "../../src/config/mod.rs"]
mod config;
#[expect(dead_code, unreachable_pub, reason = "a module of the library")]
#[path = "../../src/error.rs"]
mod error;
#[expect(dead_code, unreachable_pub, reason = "a module of the library")]
#[path = "../../src/hardening.rs"]
mod hardening;
#[expect(dead_code, unused_imports, reason = "a module of the library")]
#[path = "../../src/sync.rs"]
mod sync;

use config::{Config, HugePages};
use error::Line;
use hardening::Hardening;
use libfuzzer_sys::fuzz_target;

/// How a program sets an option.
type Set = fn(Config, usize) -> Config;

const BYTES: [(&str, Set); 3] = [
    ("FLAGSTONE_DIRTY_BUDGET", Config::dirty_budget),
    ("FLAGSTONE_LARGE_CACHE", Config::large_cache),
    ("FLAGSTONE_THREAD_CACHE", Config::thread_cache),
];
const DELAY: &str = "FLAGSTONE_PURGE_DELAY_MS";
const SAMPLE: &str = "FLAGSTONE_SAMPLE";
const HUGE_PAGES: &str = "FLAGSTONE_HUGE_PAGES";
const HARDENED: &str = "FLAGSTONE_HARDENED";
const SAFEGUARDS: [(&[u8], Hardening); 7] = [
    (b"isolation", Hardening::ISOLATION),
    (b"guards", Hardening::GUARDS),
    (b"random", Hardening::RANDOM),
    (b"quarantine", Hardening::QUARANTINE),
    (b"zero", Hardening::ZERO),
    (b"canaries", Hardening::CANARIES),
    (b"checks", Hardening::CHECKS),
];

fuzz_target!(|data: &[u8]| {
    let Some((first, value)) = data.split_first() else {
        return;
    };
    let (name, expected) = match usize::from(first % 7) {
        3 => (DELAY, delay(value)),
        4 => (HUGE_PAGES, huge_pages(value)),
        5 => (SAMPLE, sample(value)),
        6 => (HARDENED, hardened(value)),
        other => {
            let (name, set) = BYTES[other];
            (name, bytes(value).map(|bytes| set(Config::new(), bytes)))
        }
    };
    let mut complaints = 0;
    let lookup = |asked: &str| (asked == name).then_some(value);
    let config = Config::new().overridden(lookup, |about, text, wanted| {
        assert_eq!(
            (about, text),
            (name, value),
            "a complaint about something else"
        );
        let text = core::str::from_utf8(text).unwrap_or("?");
        expect_one_line(&Line::new(format_args!("{about}={text}: not {wanted}")));
        complaints += 1;
    });
    assert_eq!(config, expected.unwrap_or_default(), "{name}={value:?}");
    assert_eq!(
        complaints,
        usize::from(expected.is_none()),
        "{name}={value:?}"
    );
});

fn expect_one_line(line: &Line) {
    let (last, text) = line.as_bytes().split_last().expect("a line");
    assert_eq!(*last, b'\n', "a line ends in a line feed");
    assert!(!text.iter().any(u8::is_ascii_control), "one line, not more");
}

fn delay(value: &[u8]) -> Option<Config> {
    let milliseconds = u32::try_from(number(value)?).ok()?;
    Some(Config::new().purge_delay_ms(milliseconds))
}

fn sample(value: &[u8]) -> Option<Config> {
    let allocations = u32::try_from(number(value)?).ok()?;
    Some(Config::new().sample_one_in(allocations))
}

fn hardened(value: &[u8]) -> Option<Config> {
    let safeguards = match value {
        b"all" | b"1" => Hardening::ALL,
        b"off" | b"0" => Hardening::NONE,
        words => {
            let mut sum = Hardening::NONE;
            for word in words.split(|byte| *byte == b',') {
                let known = SAFEGUARDS.iter().find(|(name, _)| *name == word);
                sum = sum.union(known?.1);
            }
            sum
        }
    };
    Some(Config::new().hardening(safeguards))
}

fn huge_pages(value: &[u8]) -> Option<Config> {
    match value {
        b"off" => Some(Config::new().huge_pages(HugePages::Off)),
        b"advise" => Some(Config::new().huge_pages(HugePages::Advise)),
        _ => None,
    }
}

fn bytes(value: &[u8]) -> Option<usize> {
    let shift = match value.last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => return number(value),
    };
    number(&value[..value.len() - 1])?.checked_mul(1 << shift)
}

/// Decimal digits, perhaps after a plus sign, which Rust's own parser allows.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
