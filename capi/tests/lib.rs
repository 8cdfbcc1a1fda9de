//! What the tests share: the library as a user builds it, C programs compiled against it, and how they end.

use std::env;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// `capi/`.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("tests/ is in capi/").to_owned()
}

/// The folder of the release build, made once: `libflagstone.so`, `libflagstone.a`, `flagstone`.
pub fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--release",
                "--quiet",
                "-p",
                "flagstone-capi",
                "-p",
                "flagstone-run",
            ])
            .current_dir(root())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the release build: {status}");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        target.join("release")
    })
}

/// The shared library.
pub fn shared() -> PathBuf {
    built().join("libflagstone.so")
}

/// How a program meets the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not at all, until it is preloaded.
    Preload,
    /// Not at all, and it is a library itself.
    Plugin,
    /// As a shared library.
    Shared,
    /// As an archive.
    Archive,
    /// As an archive in a program without any shared library.
    Static,
}

/// A compiled program in a folder of its own.
pub struct Program {
    folder: tempfile::TempDir,
    link: Link,
}

impl Program {
    /// Compiles `tests/c/NAME`. `None`, with a line that says so, without a compiler for it.
    #[must_use]
    pub fn compile(name: &str, link: Link) -> Option<Self> {
        match Self::compile_with(name, link, &[]) {
            Ok(program) => program,
            Err(messages) => panic!("{messages}"),
        }
    }

    /// As [`Program::compile`] for a program that is preloaded, with a sanitizer in it; nor without the sanitizer.
    #[must_use]
    pub fn sanitized(name: &str, sanitizer: &str) -> Option<Self> {
        let option = format!("-fsanitize={sanitizer}");
        let program = Self::compile_with(name, Link::Preload, &[&option]).unwrap_or_else(|_| {
            println!("skipped: the compiler has no {option}");
            None
        })?;
        // The runtime may not take this kernel's address space.
        let exit = run(program.command().env_remove("LD_PRELOAD"));
        if exit.code != Some(0) {
            println!("skipped: with {option} it does not run without the library: {exit:?}");
            return None;
        }
        Some(program)
    }

    /// An error is what the compiler says.
    fn compile_with(name: &str, link: Link, options: &[&str]) -> Result<Option<Self>, String> {
        let (compiler, standard) = if name.ends_with(".cpp") {
            (env::var("CXX").unwrap_or("c++".into()), "-std=c++17")
        } else {
            (env::var("CC").unwrap_or("cc".into()), "-std=gnu11")
        };
        if Command::new(&compiler).arg("--version").output().is_err() {
            println!("skipped: no {compiler}");
            return Ok(None);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(&compiler);
        // The mistakes in these programs are on purpose.
        command
            .args([standard, "-O1", "-w", "-pthread"])
            .args(options)
            .arg("-I")
            .arg(root().join("include"));
        command.arg("-o").arg(folder.path().join("program"));
        if link == Link::Static {
            command.args(["-static", "-DSTATIC"]);
        }
        command.arg(root().join("tests/c").join(name));
        match link {
            Link::Preload => {}
            Link::Plugin => {
                command.args(["-shared", "-fPIC"]);
            }
            Link::Shared => {
                command.arg("-L").arg(built()).arg("-lflagstone");
                // The library's own name, by which the loader looks for it.
                let soname = folder.path().join("libflagstone.so.0");
                std::os::unix::fs::symlink(shared(), soname).expect("a link");
                command
                    .arg("-Wl,-rpath,$ORIGIN")
                    .arg("-Wl,-rpath-link")
                    .arg(folder.path());
            }
            Link::Archive | Link::Static => {
                command.arg(built().join("libflagstone.a"));
            }
        }
        command.arg("-ldl");
        let output = command.output().expect("the compiler runs");
        if output.status.success() {
            return Ok(Some(Self { folder, link }));
        }
        let messages = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}\n{messages}"))
    }

    /// The program, ready to run, without any option of the allocator in its environment.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.folder.path().join("program"));
        without_options(&mut command);
        if self.link == Link::Preload {
            command.env("LD_PRELOAD", shared());
        }
        command
    }
}

/// Takes the allocator's options out of a command's environment.
pub fn without_options(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"FLAGSTONE_") {
            command.env_remove(name);
        }
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Exit {
    /// Unless a signal ended it.
    pub code: Option<i32>,
    /// That ended it.
    pub signal: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// And to the other.
    pub stderr: String,
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

/// After which a program hangs; the longest of them takes seconds.
const TOO_LONG: Duration = Duration::from_secs(300);

/// Runs a command to its end, which comes by force if it hangs.
pub fn run(command: &mut Command) -> Exit {
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let group = i32::try_from(child.id()).expect("a process");
    let (ended, has_ended) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if has_ended.recv_timeout(TOO_LONG) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: 1. no precondition; a child of its own that hangs keeps the pipes open, so all of them.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output();
    drop(ended);
    watch.join().expect("no panic in it");
    output
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
        .into()
}

/// Runs a program of `tests/c` that says `ok`.
#[track_caller]
pub fn expect_ok(command: &mut Command) {
    let exit = run(command);
    assert!(
        exit.code == Some(0) && exit.stdout.ends_with("ok\n"),
        "{command:?}: {exit:?}"
    );
}
