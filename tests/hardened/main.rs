//! Without this, a safeguard could be on in name only, or notice a mistake too late to say whose it was.

mod bounds;
mod canary;
#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;
mod order;
mod twice;
mod wrong;

use core::alloc::{GlobalAlloc, Layout};
use std::io::{self, Write};
use std::process;

use common::block::Block;
use common::child::{Exit, run_child_with, scenario};
use common::process::{resident, verify};
use flagstone::{Background, Config, Flagstone, Hardening};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const HARDENED: &str = "FLAGSTONE_HARDENED";
/// Written by a child in which nothing was noticed.
const UNNOTICED: &str = "nothing was noticed";

/// A pointer for any thread, live or not.
#[derive(Clone, Copy)]
struct Address(*mut u8, Layout);

// SAFETY: the tests say who may do what with it; the mistakes are on purpose.
unsafe impl Send for Address {}

impl Address {
    fn of(block: &Block) -> Self {
        Self(block.as_ptr(), block.layout())
    }

    fn free(self) {
        // SAFETY: right or wrong on purpose, in a child process.
        unsafe { ALLOC.dealloc(self.0, self.1) }
    }

    /// Writes one byte `offset` bytes from the first.
    fn write(self, offset: isize, byte: u8) {
        // SAFETY: as above.
        unsafe { self.0.wrapping_offset(offset).write_volatile(byte) }
    }

    fn read(self, offset: isize) -> u8 {
        // SAFETY: as above.
        unsafe { self.0.wrapping_offset(offset).read_volatile() }
    }
}

fn block(size: usize) -> Block {
    Block::filled(&ALLOC, size, 8, size)
}

/// How a mistake has to end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// By `abort`, after one line with one of these.
    Says(&'static [&'static str]),
    /// By a fault.
    Faults,
}

/// Runs each of `mistakes` in a child process with these safeguards; nothing may follow the mistake.
///
/// The child runs the same test, `name`, and comes here again.
#[track_caller]
fn expect_noticed<T>(name: &str, safeguards: &str, mistakes: &[(String, T, End)], make: fn(&T)) {
    if let Some(number) = scenario() {
        let number: usize = number.parse().expect("the number of a mistake");
        make(&mistakes[number].1);
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        process::exit(0);
    }
    for (number, (what, _, end)) in mistakes.iter().enumerate() {
        let exit = run_child_with(name, &number.to_string(), &[(HARDENED, safeguards)]);
        assert!(!exit.stdout.contains(UNNOTICED), "{what}: {exit:?}");
        end.check(what, &exit);
    }
}

impl End {
    #[track_caller]
    fn check(self, what: &str, exit: &Exit) {
        let lines: Vec<_> = exit
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("flagstone: "))
            .collect();
        match self {
            Self::Faults => {
                let fault = [libc::SIGSEGV, libc::SIGBUS];
                let faults = exit.signal.is_some_and(|signal| fault.contains(&signal));
                // Rust's own handler of stack overflows may pass the signal on.
                assert!(faults, "{what}: {exit:?}");
            }
            Self::Says(words) => {
                assert_eq!(exit.signal, Some(libc::SIGABRT), "{what}: {exit:?}");
                assert_eq!(lines.len(), 1, "{what}: {exit:?}");
                let said = words.iter().any(|words| lines[0].contains(words));
                assert!(said, "{what}: {exit:?}");
                assert!(lines[0].contains("thread "), "{what}: {exit:?}");
            }
        }
    }
}

/// What is on is told, whatever the program that asks has wanted.
#[test]
fn what_is_on_is_told() {
    static WANTING: Flagstone = Flagstone::with_config(Config::new().hardening(Hardening::ALL));
    let two = Hardening::CHECKS.union(Hardening::ZERO);
    if let Some(scenario) = scenario() {
        let on = if scenario == "two" {
            two
        } else {
            Hardening::NONE
        };
        assert_eq!(WANTING.require(on), Ok(()));
        let error = WANTING.require(Hardening::ALL).expect_err("some are off");
        assert_eq!(error.missing, Hardening::ALL.difference(on));
        process::exit(0);
    }
    for (scenario, safeguards) in [("two", "checks,zero"), ("none", "0")] {
        let exit = run_child_with("what_is_on_is_told", scenario, &[(HARDENED, safeguards)]);
        assert_eq!(exit.code, Some(0), "{exit:?}");
    }
}

/// What tells live blocks from freed ones goes back with the chunks that it is about.
#[test]
fn tags_go_back() {
    const NAME: &str = "tags_go_back";
    if scenario().is_some() {
        let before = resident();
        let blocks: Vec<_> = (0..(64 << 20) / 100).map(|_| block(100)).collect();
        let full = resident();
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
        Flagstone::purge();
        verify();
        // The tags alone are 4 MiB.
        let after = resident();
        assert!(
            after < before + (2 << 20),
            "{before}, {full}, {after} bytes"
        );
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    for safeguards in ["checks", "1"] {
        let exit = run_child_with(NAME, "", &[(HARDENED, safeguards)]);
        assert!(exit.stdout.contains(UNNOTICED), "{safeguards}: {exit:?}");
    }
}

/// What one class leaves in the pages of a slab is no write after a free of another's blocks.
#[test]
fn classes_may_take_each_others_place() {
    const NAME: &str = "classes_may_take_each_others_place";
    if scenario().is_some() {
        for _ in 0..6 {
            for size in [1_000, 48, 300, 16, 700] {
                let blocks: Vec<_> = (0..(4 << 20) / size).map(|_| block(size)).collect();
                for block in blocks {
                    block.check(block.size());
                    block.free(&ALLOC);
                }
            }
            verify();
        }
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    for safeguards in ["zero", "1"] {
        let exit = run_child_with(NAME, "", &[(HARDENED, safeguards)]);
        assert!(exit.stdout.contains(UNNOTICED), "{safeguards}: {exit:?}");
    }
}

/// A right program, with each safeguard and with all.
#[test]
fn right_programs_run_to_their_end() {
    const NAME: &str = "right_programs_run_to_their_end";
    if scenario().is_some() {
        for round in 0..300 {
            let sizes = [
                1,
                8,
                24,
                100,
                1_000,
                5_000,
                40_000,
                262_144,
                300_000,
                2 << 20,
            ];
            let mut blocks: Vec<Block> = Vec::new();
            for size in sizes {
                let layout = Layout::from_size_align(size, 8).expect("a layout");
                let zeros = Block::alloc_zeroed(&ALLOC, layout).expect("memory");
                assert!(zeros.is_zero(), "{size} bytes");
                let grown = zeros.realloc(&ALLOC, size + round).expect("memory");
                grown.fill(round);
                blocks.push(grown);
            }
            for block in blocks {
                block.check(round);
                block.free(&ALLOC);
            }
        }
        verify();
        Flagstone::purge();
        verify();
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    for safeguards in [
        "1",
        "checks",
        "canaries",
        "zero",
        "quarantine",
        "random",
        "guards",
        "isolation",
        "canaries,zero",
        "guards,quarantine",
    ] {
        let exit = run_child_with(NAME, "", &[(HARDENED, safeguards)]);
        assert!(exit.stdout.contains(UNNOTICED), "{safeguards}: {exit:?}");
        assert!(
            !exit.stderr.contains("flagstone: "),
            "{safeguards}: {exit:?}"
        );
    }
}
