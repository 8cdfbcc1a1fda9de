//! Without this, a function could break a promise of the C or C++ standard, of POSIX or of glibc's manual.

use capi_tests::{Link, Program, expect_ok, shared};

/// In each of these processes other code serves the calls.
const MODES: [&[(&str, &str)]; 4] = [
    &[],
    &[("FLAGSTONE_HARDENED", "1")],
    &[("FLAGSTONE_HARDENED", "canaries")],
    &[("FLAGSTONE_SAMPLE", "2")],
];

#[track_caller]
fn check(name: &str, links: &[Link]) {
    for link in links {
        let Some(program) = Program::compile(name, *link) else {
            return;
        };
        for mode in MODES {
            expect_ok(program.command().envs(mode.iter().copied()));
        }
    }
}

const ALL: [Link; 4] = [Link::Preload, Link::Shared, Link::Archive, Link::Static];

#[test]
fn c_functions_keep_their_promises() {
    check("semantics.c", &ALL);
}

#[test]
fn cxx_operators_keep_theirs() {
    check("operators.cpp", &ALL);
}

/// Linked before the library, the program's own functions come first.
#[test]
fn functions_of_the_programs_own() {
    let links = [Link::Preload, Link::Shared];
    check("own.c", &links);
    check("replaced.cpp", &links);
}

#[test]
fn the_header_says_what_is_there() {
    check("header.c", &[Link::Shared, Link::Archive, Link::Static]);
}

#[test]
fn heaps_keep_their_promises() {
    check("heaps.c", &[Link::Shared, Link::Archive, Link::Static]);
}

#[test]
fn constructors_keys_exits_and_forks() {
    check("early.c", &ALL);
}

#[test]
fn threads_are_cancelled_where_they_say() {
    check("cancelled.c", &ALL);
}

/// The C++ library is not among those that the program itself is linked with.
#[test]
fn exceptions_in_a_library_loaded_for_itself() {
    let (Some(host), Some(plugin)) = (
        Program::compile("host.c", Link::Preload),
        Program::compile("plugin.cpp", Link::Plugin),
    ) else {
        return;
    };
    let plugin = plugin.command().get_program().to_owned();
    expect_ok(host.command().arg(plugin));
}

/// Loaded at run time, and unloaded before the threads end that used it.
#[test]
fn the_library_can_be_loaded_late() {
    let Some(program) = Program::compile("library.c", Link::Preload) else {
        return;
    };
    expect_ok(program.command().env_remove("LD_PRELOAD").arg(shared()));
}

/// A program that is not linked with the library finds heaps there all the same, whoever serves its
/// `malloc`.
#[test]
fn heaps_where_the_library_was_not_linked() {
    let Some(program) = Program::compile("heaps_late.c", Link::Preload) else {
        return;
    };
    for mode in MODES {
        expect_ok(program.command().envs(mode.iter().copied()));
        let mut loaded = program.command();
        loaded.env_remove("LD_PRELOAD").arg(shared());
        expect_ok(loaded.envs(mode.iter().copied()));
    }
}

/// The allocator's key may be one of those whose values the C library keeps in a table that it allocates.
#[test]
fn threads_whose_first_allocation_is_a_table_of_keys() {
    let Some(program) = Program::compile("keys.c", Link::Shared) else {
        return;
    };
    for created in ["before", "after"] {
        for life in ["table", "goes-on"] {
            for mode in MODES {
                let mut command = program.command();
                expect_ok(command.args([created, life]).envs(mode.iter().copied()));
            }
        }
    }
}

/// A cache is one thread's, whatever a stack remembers, and whichever process shares the memory.
#[test]
fn a_cache_has_one_owner() {
    let Some(program) = Program::compile("owners.c", Link::Shared) else {
        return;
    };
    for way in ["stack", "vfork"] {
        for mode in MODES {
            expect_ok(program.command().arg(way).envs(mode.iter().copied()));
        }
    }
}

#[test]
fn a_program_without_keys_forks() {
    check("no_key.c", &[Link::Shared, Link::Preload]);
}
