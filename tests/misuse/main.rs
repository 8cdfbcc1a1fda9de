//! Without this, a double free or a wrong pointer could pass silently and damage the program much later.

mod at_once;
#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;
mod dying;
mod program;

use std::io::{self, Write};
use std::process;

use common::child::{Exit, run_child, scenario};
use common::process::verify;
use common::raw_thread::on_raw_thread;
use flagstone::{Background, Config, Flagstone};
use program::{Mistake, Program, block};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

/// One size of each kind: small classes, large classes, spans, and a mapping of its own.
const SIZES: [usize; 8] = [16, 64, 1_000, 4_096, 40_000, 200_000, SPAN, 4 << 20];
/// Too long for a class and too short for a mapping.
const SPAN: usize = 500_000;
/// Written by a child process that nothing stopped.
const SURVIVED: &str = "the program ran to its end";

/// Runs each program in a child process and passes how it ended to `check`. The child process runs
/// the same test, `name`, and comes here again.
#[track_caller]
fn run_all(name: &str, programs: &[Program], check: fn(&Program, &Exit)) {
    if let Some(number) = scenario() {
        let mut program = programs[number.parse::<usize>().expect("the number of a program")];
        on_raw_thread(&mut program, Program::run);
        Flagstone::purge();
        verify();
        writeln!(io::stdout(), "{SURVIVED}").expect("a message");
        process::exit(0);
    }
    for (number, program) in programs.iter().enumerate() {
        check(program, &run_child(name, &number.to_string()));
    }
}

/// Every program has to die by `abort` and to say why in one line.
#[track_caller]
fn expect_abort(name: &str, programs: &[Program]) {
    run_all(name, programs, |program, exit| {
        assert!(
            !exit.stdout.contains(SURVIVED),
            "not noticed: {program:?}: {exit:?}"
        );
        assert_eq!(exit.signal, Some(libc::SIGABRT), "{program:?}: {exit:?}");
        let mut lines = exit
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("flagstone: "));
        let why = lines.next().unwrap_or_default();
        let words = program.mistake.words();
        assert!(
            words.iter().any(|words| why.contains(words)),
            "{program:?}: {exit:?}"
        );
        assert_eq!(
            lines.next(),
            None,
            "more than one line: {program:?}: {exit:?}"
        );
    });
}

fn each_size(mistake: Mistake) -> [Program; SIZES.len()] {
    SIZES.map(|size| Program { size, mistake })
}

#[test]
fn right_programs_run_to_their_end() {
    run_all(
        "right_programs_run_to_their_end",
        &each_size(Mistake::Nothing),
        |program, exit| {
            assert!(exit.stdout.contains(SURVIVED), "{program:?}: {exit:?}");
            assert_eq!(exit.code, Some(0), "{program:?}: {exit:?}");
            assert!(
                !exit.stderr.contains("flagstone: "),
                "{program:?}: {exit:?}"
            );
        },
    );
}

#[test]
fn double_free() {
    expect_abort("double_free", &each_size(Mistake::FreeTwice));
}

#[test]
fn double_free_with_others_between() {
    let programs = each_size(Mistake::FreeTwiceWithOthersBetween);
    expect_abort("double_free_with_others_between", &programs);
}

/// Neighbours are not freed one after the other.
#[test]
fn double_free_among_scattered() {
    let programs = each_size(Mistake::FreeTwiceAmongScattered);
    expect_abort("double_free_among_scattered", &programs);
}

#[test]
fn double_free_here_then_elsewhere() {
    let programs = each_size(Mistake::FreeHereThenElsewhere);
    expect_abort("double_free_here_then_elsewhere", &programs);
}

#[test]
fn double_free_elsewhere_then_here() {
    let programs = each_size(Mistake::FreeElsewhereThenHere);
    expect_abort("double_free_elsewhere_then_here", &programs);
}

#[test]
fn double_free_elsewhere() {
    expect_abort(
        "double_free_elsewhere",
        &each_size(Mistake::FreeTwiceElsewhere),
    );
}

#[test]
fn interior_pointer() {
    let mut programs = each_size(Mistake::FreeInside { offset: 8 }).to_vec();
    programs.extend(each_size(Mistake::FreeInside { offset: 1 }));
    programs.extend([
        Program {
            size: 4_096,
            mistake: Mistake::FreeInside { offset: 2_048 },
        },
        Program {
            size: 200_000,
            mistake: Mistake::FreeInside { offset: 64 << 10 },
        },
        Program {
            size: SPAN,
            mistake: Mistake::FreeInside { offset: 64 << 10 },
        },
        Program {
            size: 4 << 20,
            mistake: Mistake::FreeInside { offset: 2 << 20 },
        },
    ]);
    expect_abort("interior_pointer", &programs);
}

#[test]
fn wrong_size() {
    // Pairs of what was asked for and what the free says; neighbouring classes first.
    let pairs = [
        (48, 64),
        (64, 48),
        (64, 4_096),
        (4_096, 64),
        (64, 200_000),
        (200_000, 64),
        (64, 4 << 20),
        (4 << 20, 64),
        (SPAN, 300_000),
        (300_000, SPAN),
        (SPAN, 4 << 20),
        (200_000, 4 << 20),
        (4 << 20, 200_000),
        (SPAN, 16),
        (16, SPAN),
        (4 << 20, SPAN),
    ];
    let programs = pairs.map(|(allocated, size)| {
        let mistake = Mistake::FreeAsAnotherSize { allocated };
        Program { size, mistake }
    });
    expect_abort("wrong_size", &programs);
}

/// A handler of `SIGABRT` that makes a report may allocate, whatever the thread was at when it found the misuse.
#[test]
fn a_handler_may_allocate() {
    const NAME: &str = "a_handler_may_allocate";
    const REPORTED: i32 = 3;
    extern "C" fn report(_: libc::c_int) {
        let blocks = SIZES.map(block);
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
        // SAFETY: no precondition.
        unsafe { libc::_exit(REPORTED) };
    }
    if let Some(size) = scenario() {
        // SAFETY: the handler is a function of this type.
        unsafe { libc::signal(libc::SIGABRT, report as *const () as libc::sighandler_t) };
        let size = size.parse().expect("a size");
        let mistake = Mistake::FreeTwice;
        on_raw_thread(&mut Program { size, mistake }, Program::run);
        return;
    }
    for size in SIZES {
        let exit = run_child(NAME, &size.to_string());
        assert_eq!(exit.code, Some(REPORTED), "{size}: {exit:?}");
    }
}

/// Blocks of more than 64 KiB, which are looked at before they are copied, moved, or left where they are.
#[test]
fn realloc_of_long_blocks() {
    let mut programs = Vec::new();
    for size in [100_000, SPAN, 4 << 20] {
        let mut add = |mistake| programs.push(Program { size, mistake });
        for to in [16, 80_000, size - 1, size + 1, 2 * size, 10 * size] {
            add(Mistake::ReallocFreed { to });
        }
        add(Mistake::ReallocInside);
        for allocated in [100, 300_000, 2 << 20] {
            add(Mistake::ReallocAsAnotherSize { allocated });
        }
    }
    for to in [16, 4 << 20, 5 << 20, 40 << 20] {
        let mistake = Mistake::ReallocUnmapped { to };
        programs.push(Program {
            size: 4 << 20,
            mistake,
        });
    }
    expect_abort("realloc_of_long_blocks", &programs);
}

#[test]
fn stack_address() {
    expect_abort("stack_address", &each_size(Mistake::FreeStack));
}

#[test]
fn static_address() {
    expect_abort("static_address", &each_size(Mistake::FreeStatic));
}

#[test]
fn foreign_mapping_address() {
    expect_abort(
        "foreign_mapping_address",
        &each_size(Mistake::FreeForeignMapping),
    );
}

#[test]
fn unmapped_address() {
    expect_abort("unmapped_address", &each_size(Mistake::FreeUnmapped));
}

#[test]
fn a_small_number() {
    expect_abort("a_small_number", &each_size(Mistake::FreeNumber));
}
