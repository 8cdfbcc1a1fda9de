//! Child processes: a test runs itself again and looks at how that process ended.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use super::process::{begin, until_others_sleep};

const SCENARIO: &str = "FLAGSTONE_TEST_SCENARIO";

/// Set in processes that [`again`] started: their children keep their options.
const AGAIN: &str = "FLAGSTONE_TEST_AGAIN";

/// Whether [`again`] started this process, or the one that started it.
pub(crate) fn is_again() -> bool {
    env::var_os(AGAIN).is_some()
}

/// Of how many like cases a test takes one: of `first`, or of `second` where [`again`] has the tests
/// run a second time; with `TEST_LONG` in the environment, as `.ci/test` has it, it takes all.
pub(crate) fn one_in(first: usize, second: usize) -> usize {
    if env::var_os("TEST_LONG").is_some() {
        1
    } else if is_again() {
        second
    } else {
        first
    }
}

/// How a child process ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Exit {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What this process shall do if a test started it, `None` in the process that the user started.
///
/// Turns off core files and sets an alarm, so that a child that hangs ends too.
pub(crate) fn scenario() -> Option<String> {
    let scenario = env::var(SCENARIO).ok()?;
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is a valid, initialised value.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    assert_eq!(result, 0, "setrlimit refused");
    // SAFETY: `alarm` has no preconditions.
    unsafe { libc::alarm(120) };
    Some(scenario)
}

/// Runs the test `name` of this binary in a process of its own, where [`scenario`] answers `scenario`.
pub(crate) fn run_child(name: &str, scenario: &str) -> Exit {
    run_child_with::<&str>(name, scenario, &[])
}

/// As [`run_child`], with these variables and no other options of the allocator in its environment.
pub(crate) fn run_child_with<V: AsRef<OsStr>>(
    name: &str,
    scenario: &str,
    variables: &[(&str, V)],
) -> Exit {
    let mut command = child(name, scenario, variables);
    command.output().expect("a child process").into()
}

/// The command of [`run_child_with`].
pub(crate) fn child<V: AsRef<OsStr>>(
    name: &str,
    scenario: &str,
    variables: &[(&str, V)],
) -> Command {
    let binary = env::current_exe().expect("the path of this test");
    let mut command = Command::new(binary);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    let is_option = |name: &OsStr| name.as_encoded_bytes().starts_with(b"FLAGSTONE_");
    if !is_again() {
        for (option, _) in env::vars_os().filter(|(name, _)| is_option(name)) {
            command.env_remove(option);
        }
    }
    for (variable, value) in variables {
        command.env(variable, value);
    }
    command.env(SCENARIO, scenario);
    command
}

/// Runs `body` in a process of its own, which is how the test `name` runs itself again; fails if that
/// process fails, and shows what it wrote.
#[track_caller]
pub(crate) fn alone(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    const DONE: &str = "the body ran to its end";
    if scenario().is_some() {
        until_others_sleep();
        body();
        writeln!(io::stdout(), "{DONE}").expect("a message");
        return;
    }
    let exit = run_child_with(name, "alone", variables);
    let done = exit.code == Some(0) && exit.stdout.contains(DONE);
    let (code, signal) = (exit.code, exit.signal);
    assert!(
        done,
        "exit code {code:?}, signal {signal:?}\n{}{}",
        exit.stdout, exit.stderr
    );
    // What the child could not do is seen from outside.
    let skipped = |line: &&str| line.starts_with("skipped: ");
    exit.stdout
        .lines()
        .filter(skipped)
        .for_each(|line| println!("{line}"));
}

/// Runs all tests of this binary but `name` once more, hardened. The safeguards are other code on each
/// path, and make kernel calls of their own.
#[track_caller]
pub(crate) fn again_hardened(name: &str) {
    again(name, ("FLAGSTONE_HARDENED", "1"));
}

/// Runs all tests of this binary but those that begin with `name` once more, with this option.
#[track_caller]
pub(crate) fn again(name: &str, option: (&str, &str)) {
    if is_again() {
        return;
    }
    // Beside the child, the other tests of this process run, and count its blocks: this one
    // allocates in its turn only.
    let turn = begin();
    let mut output = memory_file();
    let binary = env::current_exe().expect("the path of this test");
    let mut command = Command::new(binary);
    command.args(["--test-threads=1", "--skip", name]);
    command.env(AGAIN, "1").env(option.0, option.1);
    let stream = || output.try_clone().expect("a descriptor");
    command.stdout(stream()).stderr(stream());
    let mut child = command.spawn().expect("a child process");
    drop(turn);
    let status = child.wait();
    let _turn = begin();
    let status = status.expect("how the child ended");
    let mut text = Vec::new();
    output.rewind().expect("a file");
    output.read_to_end(&mut text).expect("a file");
    let text = String::from_utf8_lossy(&text);
    assert!(
        status.success() && text.contains("test result: ok. "),
        "{option:?}: {status}\n{text}"
    );
}

/// A file without a name. Unlike a pipe, it needs nobody who reads while it is written.
#[expect(
    clippy::disallowed_methods,
    reason = "an object that the allocator does not own"
)]
fn memory_file() -> File {
    // SAFETY: the name is a C string.
    let file = unsafe { libc::memfd_create(c"output".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0, "memfd_create refused");
    // SAFETY: 1. open, and nobody else's.
    unsafe { File::from_raw_fd(file) }
}
