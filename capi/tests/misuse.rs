//! Without this, a mistake in a C program could pass, or be called by a wrong name.

use std::process::Command;

use capi_tests::{Exit, Link, Program, built, run, without_options};

const DOUBLE: &str = "double free";
const FOREIGN: &str = "free of a pointer that was not allocated here";
const INSIDE: &str = "free of a pointer into the middle of a block";
const REALLOC_FREED: &str = "realloc of a freed block";
const REALLOC_FOREIGN: &str = "realloc of a pointer that was not allocated here";
const USABLE_FOREIGN: &str = "usable size of a pointer that was not allocated here";

/// A mistake, what is said of it by default, and hardened; nothing where it passes.
const MISTAKES: [(&str, &[&str], &[&str]); 10] = [
    ("none", &[], &[]),
    ("double-free", &[DOUBLE, FOREIGN], &[DOUBLE]),
    ("remote-double-free", &[DOUBLE, FOREIGN], &[DOUBLE]),
    ("stack", &[FOREIGN], &[FOREIGN]),
    ("interior", &[INSIDE, FOREIGN], &[INSIDE, FOREIGN]),
    // A short one is copied, and noticed once it is freed.
    (
        "realloc-freed",
        &[REALLOC_FREED, DOUBLE, FOREIGN],
        &[REALLOC_FREED],
    ),
    ("realloc-stack", &[REALLOC_FOREIGN], &[REALLOC_FOREIGN]),
    ("usable-stack", &[USABLE_FOREIGN], &[USABLE_FOREIGN]),
    ("overflow", &[], &["past the end of a block"]),
    ("use-after-free", &[], &["write to a freed block"]),
];

const SIZES: [usize; 5] = [24, 5000, 40_000, 300_000, 2_000_000];

#[test]
fn mistakes_are_named() {
    let Some(program) = Program::compile("misuse.c", Link::Preload) else {
        return;
    };
    for (mistake, default, hardened) in MISTAKES {
        for size in SIZES {
            for (mode, words) in [("0", default), ("1", hardened)] {
                let mut command = program.command();
                command
                    .args([mistake, &size.to_string()])
                    .env("FLAGSTONE_HARDENED", mode);
                let exit = run(&mut command);
                if words.is_empty() {
                    assert_eq!(exit.stdout, "survived\n", "{command:?}: {exit:?}");
                    continue;
                }
                // A freed mapping cannot be accessed in a hardened process.
                if mistake == "use-after-free" && size > 256 << 10 {
                    assert_eq!(exit.signal, Some(libc::SIGSEGV), "{command:?}: {exit:?}");
                    continue;
                }
                expect_named(words, &format!("{command:?}"), &exit);
            }
        }
    }
}

/// Panics unless the program died by `abort` and said why in one line, in one of these ways.
#[track_caller]
fn expect_named(words: &[&str], command: &str, exit: &Exit) {
    let is_named = words.iter().any(|word| exit.stderr.contains(word));
    assert!(
        is_named && exit.signal == Some(libc::SIGABRT),
        "{command}: {exit:?}"
    );
    assert_eq!(exit.stderr.lines().count(), 1, "{command}: {exit:?}");
}

const OTHER: &str = "of a block of another heap";
const DROPPED: &str = "use of a heap that was dropped";

/// Mistakes with heaps, and what is said of them, hardened or not.
const HEAP_MISTAKES: [(&str, &[&str]); 17] = [
    ("none", &[]),
    ("double-free", &[DOUBLE, FOREIGN]),
    ("double-free-later", &[DOUBLE, FOREIGN]),
    ("here-and-elsewhere", &[DOUBLE, FOREIGN]),
    ("elsewhere-and-here", &[DOUBLE, FOREIGN]),
    // A long block is the engine's, which does not know of heaps.
    ("other-heap", &[OTHER, FOREIGN]),
    ("realloc-other-heap", &[OTHER, REALLOC_FOREIGN]),
    ("usable-other-heap", &[OTHER, USABLE_FOREIGN]),
    ("malloc-to-heap", &[FOREIGN]),
    ("stack", &[FOREIGN]),
    ("interior", &[INSIDE, FOREIGN]),
    ("realloc-freed", &[REALLOC_FREED, REALLOC_FOREIGN]),
    ("usable-freed", &["usable size of a freed", USABLE_FOREIGN]),
    ("after-reset", &[FOREIGN]),
    ("drop-twice", &[DROPPED]),
    ("malloc-dropped", &[DROPPED]),
    ("free-dropped", &[DROPPED]),
];

#[test]
fn mistakes_with_heaps_are_named() {
    let Some(program) = Program::compile("heap_misuse.c", Link::Shared) else {
        return;
    };
    for (mistake, words) in HEAP_MISTAKES {
        for size in SIZES {
            for mode in ["0", "1"] {
                let mut command = program.command();
                command
                    .args([mistake, &size.to_string()])
                    .env("FLAGSTONE_HARDENED", mode);
                let exit = run(&mut command);
                if words.is_empty() {
                    assert_eq!(exit.stdout, "survived\n", "{command:?}: {exit:?}");
                    continue;
                }
                expect_named(words, &format!("{command:?}"), &exit);
            }
        }
    }
}

/// `malloc_usable_size` frees nothing, so nothing is freed twice.
#[test]
fn a_question_is_no_free() {
    let Some(program) = Program::compile("misuse.c", Link::Preload) else {
        return;
    };
    for (mistake, words) in [
        ("usable-freed", "usable size of a freed block"),
        (
            "usable-interior",
            "usable size of a pointer into the middle",
        ),
    ] {
        for size in SIZES {
            for mode in ["0", "1"] {
                let mut command = program.command();
                command
                    .args([mistake, &size.to_string()])
                    .env("FLAGSTONE_HARDENED", mode);
                let exit = run(&mut command);
                // By default the blocks of slabs are not looked at.
                if mode == "0" && size <= 64 << 10 {
                    assert_eq!(exit.stdout, "survived\n", "{command:?}: {exit:?}");
                    continue;
                }
                let is_said = exit.stderr.starts_with(&format!("flagstone: {words}"));
                assert!(
                    is_said && exit.signal == Some(libc::SIGABRT),
                    "{command:?}: {exit:?}"
                );
            }
        }
    }
}

/// Options count from the very first call on.
#[test]
fn options_before_the_c_library_begins() {
    for link in [Link::Preload, Link::Archive] {
        let Some(program) = Program::compile("first.c", link) else {
            return;
        };
        for (mode, is_noticed) in [("0", false), ("1", true)] {
            let mut command = program.command();
            let exit = run(command.env("FLAGSTONE_HARDENED", mode));
            assert_eq!(exit.stderr.contains(DOUBLE), is_noticed, "{exit:?}");
        }
    }
}

/// A sampled process names the mistake, and who allocated and freed.
#[test]
fn sampled_mistakes_are_traced() {
    let Some(program) = Program::compile("sampled.c", Link::Preload) else {
        return;
    };
    let path = program.command().get_program().to_owned();
    for (mistake, words) in [
        (
            "use-after-free",
            ["use after free", "allocated by", "freed by"],
        ),
        ("overflow", ["overflow", "allocated by", "bytes"]),
    ] {
        let mut command = Command::new(built().join("flagstone"));
        without_options(&mut command);
        command
            .args(["run", "--sample", "100", "--"])
            .arg(&path)
            .arg(mistake);
        let exit = run(&mut command);
        assert!(exit.signal.is_some(), "{command:?}: {exit:?}");
        for word in words {
            assert!(exit.stderr.contains(word), "{word}: {exit:?}");
        }
        // The program itself is on the way to the allocation.
        assert!(exit.stderr.contains("/program"), "{exit:?}");
    }
}
