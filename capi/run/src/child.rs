//! Waiting for the program, as if it ran alone.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// How a program ended.
pub(crate) enum Ending {
    Exit(u8),
    Signal(i32),
}

/// What a program took, with all that it waited for.
pub(crate) struct Usage {
    wall: Duration,
    user: Duration,
    system: Duration,
    /// KiB of the largest process.
    peak: i64,
    faults: i64,
}

impl fmt::Display for Usage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:.2} s, {:.2} s user, {:.2} s system, peak resident {:.1} MiB, {} page faults",
            self.wall.as_secs_f64(),
            self.user.as_secs_f64(),
            self.system.as_secs_f64(),
            self.peak as f64 / 1024.0,
            self.faults
        )
    }
}

/// A program that was started.
pub(crate) struct Child {
    process: libc::pid_t,
    start: Instant,
    signals: Signals,
}

/// Starts a program. Signals are for it from here on.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Else the kernel would not keep how the program ends.
    // SAFETY: 1. no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let all = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];
    // What this process was told to ignore, the program inherits so.
    let signals = Signals::new(all.into_iter().filter(|signal| !is_ignored(*signal)))?;
    let start = Instant::now();
    let child = command.spawn()?;
    let process = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Child {
        process,
        start,
        signals,
    })
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: 1. all zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: 1. null asks only. 2. `action` is writable.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Whether a key that interrupts would reach the program without this one's help: both are the terminal's.
fn is_in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else {
        return false;
    };
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&terminal);
    // SAFETY: 1. an open descriptor.
    let group = unsafe { libc::tcgetpgrp(descriptor) };
    // SAFETY: 1. no precondition.
    group == unsafe { libc::getpgrp() }
}

impl Child {
    /// Waits for the program's end. Signals meanwhile are passed on, but for those that the terminal sends to
    /// both.
    pub(crate) fn wait(mut self) -> Result<(Ending, Usage)> {
        let (process, handle) = (self.process, self.signals.handle());
        let passing = thread::spawn(move || {
            for signal in self.signals.forever() {
                if !(matches!(signal, SIGINT | SIGQUIT) && is_in_foreground()) {
                    // SAFETY: 1. the child is not waited for before this thread ends, so the number is its.
                    let _ = unsafe { libc::kill(process, signal) };
                }
            }
        });
        let ended = until_it_ends(process);
        handle.close();
        let _ = passing.join();
        ended?;
        let mut status = 0;
        // SAFETY: 1. all zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: 1. both are writable.
        if unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) } != process {
            return Err(io::Error::last_os_error().into());
        }
        let status = ExitStatus::from_raw(status);
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exit(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Ending::Signal(signal.unwrap_or(libc::SIGKILL)),
        };
        let usage = Usage {
            wall: self.start.elapsed(),
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            peak: usage.ru_maxrss,
            faults: usage.ru_minflt + usage.ru_majflt,
        };
        Ok((ending, usage))
    }
}

/// Returns when the program has ended, and leaves its number to it.
fn until_it_ends(process: libc::pid_t) -> io::Result<()> {
    let number = libc::id_t::try_from(process).map_err(io::Error::other)?;
    loop {
        // SAFETY: 1. all zero is a value.
        let mut about: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: 1. `about` is writable.
        if unsafe { libc::waitid(libc::P_PID, number, &raw mut about, options) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Ends this process by the signal that ended the program, without a second core.
pub(crate) fn die_by(signal: i32) -> ! {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: 1. `none` is readable.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    std::process::exit(128 + signal)
}
