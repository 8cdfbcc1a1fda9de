//! Waiting for the program, as if it ran alone.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

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

/// Runs a command until it ends. Signals meanwhile are for it: the terminal sends its own to both, others are
/// passed on.
pub(crate) fn run(command: &mut Command) -> io::Result<(Ending, Usage)> {
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])?;
    let start = Instant::now();
    let child = command.spawn()?;
    let process = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let handle = signals.handle();
    let passing = thread::spawn(move || {
        for signal in signals.forever() {
            if !matches!(signal, SIGINT | SIGQUIT) {
                // SAFETY: 1. no precondition; the child is waited for only once this may be too late anyway.
                let _ = unsafe { libc::kill(process, signal) };
            }
        }
    });
    let mut status = 0;
    // SAFETY: 1. all zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: 1. both are writable.
        if unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) } == process {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let wall = start.elapsed();
    handle.close();
    let _ = passing.join();
    let status = ExitStatus::from_raw(status);
    let ending = match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => Ending::Signal(signal.unwrap_or(libc::SIGKILL)),
    };
    let time = |value: libc::timeval| {
        let seconds = u64::try_from(value.tv_sec).unwrap_or(0);
        Duration::from_secs(seconds)
            + Duration::from_micros(u64::try_from(value.tv_usec).unwrap_or(0))
    };
    let usage = Usage {
        wall,
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        peak: usage.ru_maxrss,
        faults: usage.ru_minflt + usage.ru_majflt,
    };
    Ok((ending, usage))
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
