//! Without this, `flagstone run` could change what a program does, or say nothing when it cannot help.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use capi_tests::{Exit, Link, Program, built, run, shared, without_options};

fn flagstone(arguments: &[&str]) -> Command {
    // Its library is the one beside it.
    let _ = shared();
    let mut command = Command::new(built().join("flagstone"));
    without_options(&mut command);
    command.args(arguments);
    command
}

fn exit(arguments: &[&str]) -> Exit {
    run(&mut flagstone(arguments))
}

#[test]
fn the_program_has_the_library_and_the_options() {
    let script = "echo $LD_PRELOAD $FLAGSTONE_HARDENED $FLAGSTONE_LARGE_CACHE; grep -c libflagstone.so /proc/self/maps";
    let found = exit(&[
        "run",
        "--hardened",
        "--large-cache",
        "1M",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(found.code, Some(0), "{found:?}");
    let mut lines = found.stdout.lines();
    let first = lines.next().expect("two lines");
    assert_eq!(
        first,
        format!(
            "{} 1 1M",
            shared().canonicalize().expect("a path").display()
        )
    );
    assert_ne!(lines.next(), Some("0"));
    assert_eq!(found.stderr, "");
}

#[test]
fn the_background_thread_is_there_if_asked_for() {
    // A thread gives itself its name, so not at once.
    let script = "for look in 1 2 3 4 5 6 7 8 9; do cat /proc/$$/task/*/comm; sleep 0.1; done; :";
    let names = ["sh", "-c", script];
    for (options, expected) in [(&[][..], false), (&["--background"], true)] {
        let found = exit(&[&["run"], options, &names].concat());
        assert_eq!(found.code, Some(0), "{found:?}");
        let is_there = found.stdout.lines().any(|name| name == "flagstone");
        assert_eq!(is_there, expected, "{found:?}");
    }
}

#[test]
fn what_was_preloaded_before_stays() {
    let found =
        run(flagstone(&["run", "sh", "-c", "echo $LD_PRELOAD"]).env("LD_PRELOAD", "libm.so.6"));
    assert!(
        found.stdout.ends_with("libflagstone.so:libm.so.6\n"),
        "{found:?}"
    );
}

#[test]
fn it_ends_as_the_program_does() {
    for summary in [&[][..], &["--summary"]] {
        let with = |words: &[&str]| exit(&[&["run"], summary, &["--"], words].concat());
        assert_eq!(with(&["true"]).code, Some(0));
        assert_eq!(with(&["sh", "-c", "exit 7"]).code, Some(7));
        assert_eq!(
            with(&["sh", "-c", "kill -9 $$"]).signal,
            Some(libc::SIGKILL)
        );
        assert_eq!(
            with(&["sh", "-c", "kill -15 $$"]).signal,
            Some(libc::SIGTERM)
        );
        let missing = with(&["no-such-program"]);
        assert_eq!(missing.code, Some(127), "{missing:?}");
        assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
        let folder = with(&["/tmp"]);
        assert_eq!(folder.code, Some(126), "{folder:?}");
    }
}

#[test]
fn bad_options_are_refused() {
    for words in [
        &["--large-cache", "much"][..],
        &["--hardened=everything"],
        &["--sample=-1"],
        &["--purge-delay-ms", "1s"],
        &["--huge-pages", "yes"],
        &["--colour", "red"],
    ] {
        let found = exit(&[&["run"], words, &["--", "echo", "ran"]].concat());
        assert_eq!(found.code, Some(2), "{words:?}: {found:?}");
        assert_eq!(found.stdout, "", "{words:?}");
        assert!(
            found
                .stderr
                .contains(words[0].split('=').next().expect("a word")),
            "{words:?}: {found:?}"
        );
    }
    assert_eq!(exit(&["run"]).code, Some(2));
    assert_eq!(exit(&[]).code, Some(2));
    let missing = exit(&["run", "--library", "/no/such/library.so", "true"]);
    assert_eq!(missing.code, Some(125), "{missing:?}");
    assert!(
        missing.stderr.contains("/no/such/library.so"),
        "{missing:?}"
    );
}

#[test]
fn a_library_that_the_loader_cannot_name_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("lib flagstone.so");
    fs::copy(shared(), &place).expect("a copy");
    let found = exit(&["run", "--library", place.to_str().expect("UTF-8"), "true"]);
    assert_eq!(found.code, Some(125), "{found:?}");
    assert!(found.stderr.contains("space"), "{found:?}");
}

#[test]
fn the_summary_says_what_was_used() {
    let found = exit(&["run", "--summary", "--", "ls", "/"]);
    let lines: Vec<&str> = found.stderr.lines().collect();
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(
        lines[0].contains("at exit") && lines[0].contains("KiB live"),
        "{found:?}"
    );
    let last = lines.last().expect("a line");
    assert!(
        last.starts_with("flagstone: ls: ") && last.contains("peak resident"),
        "{found:?}"
    );
}

#[test]
fn what_cannot_be_preloaded_is_said() {
    let Some(program) = Program::compile("early.c", Link::Static) else {
        return;
    };
    let path = program.command().get_program().to_owned();
    let found = run(flagstone(&["run", "--"]).arg(&path));
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stderr.contains("statically"), "{found:?}");
}

/// Signals reach the program, and what it answers comes through.
#[test]
fn signals_are_passed_on() {
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = flagstone(&["run", "--summary", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command");
    let mut output = child.stdout.take().expect("a pipe");
    let mut ready = [0; 6];
    output.read_exact(&mut ready).expect("a word");
    let process = libc::pid_t::try_from(child.id()).expect("a number");
    // SAFETY: the process is this one's child, not yet waited for.
    assert_eq!(unsafe { libc::kill(process, libc::SIGTERM) }, 0);
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "got it\n");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
        sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(3));
}

/// What the caller ignores, the program ignores, too.
#[test]
fn ignored_signals_stay_ignored() {
    let own = built().join("flagstone");
    let script = format!(
        "trap '' HUP; exec {} run --summary -- sh -c 'kill -HUP $$; echo alive'",
        own.display()
    );
    let mut command = Command::new("sh");
    without_options(&mut command);
    let found = run(command.args(["-c", &script]));
    assert_eq!(found.stdout, "alive\n", "{found:?}");
    assert_eq!(found.code, Some(0), "{found:?}");
}

/// A full disk under standard error does not change how the program ends.
#[test]
fn nowhere_to_write_the_summary() {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let status = flagstone(&["run", "--summary", "--", "sh", "-c", "exit 4"])
        .stderr(full)
        .status();
    assert_eq!(status.expect("a status").code(), Some(4));
}

/// A message that nobody reads any more does not end the program.
#[test]
fn nobody_reads_the_messages() {
    for (options, hardened) in [(&["--summary"][..], "0"), (&[], "no such safeguard")] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = flagstone(&["run"]);
        command.args(options).args(["--", "ls", "/"]);
        command.env("FLAGSTONE_HARDENED", hardened);
        command.stdout(Stdio::null()).stderr(writer);
        let status = command.status().expect("a program");
        assert!(status.success(), "{command:?}: {status}");
    }
}
