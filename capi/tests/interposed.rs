//! Without this, libraries that put functions of their own before the C library's, sanitizers among them, could hang or
//! crash with the allocator.

use capi_tests::{Link, Program, expect_ok, shared};

/// In each of these processes other code serves the calls, or the kernel is called more often.
const MODES: [&[(&str, &str)]; 5] = [
    &[],
    &[("FLAGSTONE_HARDENED", "1")],
    &[("FLAGSTONE_SAMPLE", "2")],
    &[
        ("FLAGSTONE_BACKGROUND", "1"),
        ("FLAGSTONE_PURGE_DELAY_MS", "10"),
    ],
    &[
        ("FLAGSTONE_PURGE_DELAY_MS", "0"),
        ("FLAGSTONE_SUMMARY", "1"),
    ],
];

/// The wrappers allocate before they pass a call on: under a lock of the allocator's that would never end.
#[test]
fn functions_that_allocate_come_before_those_of_the_c_library() {
    let (Some(program), Some(wrappers)) = (
        Program::compile("busy.c", Link::Preload),
        Program::compile("wrappers.c", Link::Plugin),
    ) else {
        return;
    };
    let (ours, wrappers) = (shared(), wrappers.command().get_program().to_owned());
    for [first, second] in [[ours.as_os_str(), &wrappers], [&wrappers, ours.as_os_str()]] {
        let mut both = first.to_owned();
        both.push(":");
        both.push(second);
        for mode in MODES {
            let mut command = program.command();
            expect_ok(command.env("LD_PRELOAD", &both).envs(mode.iter().copied()));
        }
    }
}

/// Functions of theirs are there before they are ready: the first allocations come from the loader.
#[test]
fn programs_with_sanitizers_run() {
    for sanitizer in ["address", "thread"] {
        let Some(program) = Program::sanitized("busy.c", sanitizer) else {
            continue;
        };
        for mode in MODES {
            let mut command = program.command();
            // They know nothing of what a preloaded allocator allocates: no leaks, and races where a block changes threads.
            let link_order = "verify_asan_link_order=0:detect_leaks=0";
            command.env("ASAN_OPTIONS", link_order);
            command.env("TSAN_OPTIONS", "report_bugs=0");
            expect_ok(command.envs(mode.iter().copied()));
        }
    }
}
