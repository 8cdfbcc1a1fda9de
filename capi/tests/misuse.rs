//! Without this, a mistake in a C program could pass, or be called by a wrong name.

use capi_tests::{Link, Program, run};

const DOUBLE: &str = "double free";
const FOREIGN: &str = "not allocated here";
const INSIDE: &str = "into the middle of a block";

/// A mistake, what is said of it by default, and hardened; nothing where it passes.
const MISTAKES: [(&str, &[&str], &[&str]); 9] = [
    ("none", &[], &[]),
    ("double-free", &[DOUBLE, FOREIGN], &[DOUBLE]),
    ("remote-double-free", &[DOUBLE, FOREIGN], &[DOUBLE]),
    ("stack", &[FOREIGN], &[FOREIGN]),
    ("interior", &[INSIDE, FOREIGN], &[INSIDE, FOREIGN]),
    ("realloc-freed", &[DOUBLE, FOREIGN], &[DOUBLE]),
    ("realloc-stack", &[FOREIGN], &[FOREIGN]),
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
                let is_named = words.iter().any(|word| exit.stderr.contains(word));
                assert!(
                    is_named && exit.signal == Some(libc::SIGABRT),
                    "{command:?}: {exit:?}"
                );
                assert_eq!(exit.stderr.lines().count(), 1, "{command:?}: {exit:?}");
            }
        }
    }
}
