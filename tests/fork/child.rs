//! Forked children: what one does, and how it ended.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic;
use std::sync::Once;

use flagstone::failpoints;

/// A child that lives longer hangs; it needs a few milliseconds of a processor.
const SECONDS: u32 = 60;

/// Whether this process was forked off by [`fork`].
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// How a child ended: what `waitpid` answered.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Ended(libc::c_int);

impl Ended {
    pub(crate) fn is_fine(self) -> bool {
        libc::WIFEXITED(self.0) && libc::WEXITSTATUS(self.0) == 0
    }

    #[track_caller]
    pub(crate) fn expect_fine(self) {
        let Self(status) = self;
        assert!(
            !(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM),
            "a forked child hangs"
        );
        assert!(
            !libc::WIFSIGNALED(status),
            "a forked child died of signal {}",
            libc::WTERMSIG(status)
        );
        assert!(self.is_fine(), "a forked child failed; see what it wrote");
    }
}

/// Forks. The child does `work`, then ends at once; neither side allocates on the way there.
///
/// A panic of the child, on whatever thread, ends it with a message; a child that hangs is killed.
pub(crate) fn fork(work: impl FnOnce()) -> Ended {
    fork_for(SECONDS, work)
}

/// Does `work` in a process with one thread, which may fork in turn.
#[track_caller]
pub(crate) fn alone(work: impl FnOnce()) {
    fork_for(4 * SECONDS, work).expect_fine();
}

fn fork_for(seconds: u32, work: impl FnOnce()) -> Ended {
    expect_panics();
    // SAFETY: the child uses this thread only, and those that it starts itself.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork refused");
    if pid > 0 {
        return wait(pid);
    }
    IS_CHILD.store(true, Ordering::Relaxed);
    failpoints::at_points(None);
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is a valid, initialised value.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    // SAFETY: `alarm` has no preconditions.
    unsafe { libc::alarm(seconds) };
    work();
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(0) }
}

/// Does `work` in a child that shares the memory, as one of `vfork` does, while this thread waits.
pub(crate) fn share(work: fn()) -> Ended {
    extern "C" fn run(work: *mut c_void) -> c_int {
        // SAFETY: `share` passes a `fn()`.
        let work = unsafe { core::mem::transmute::<*mut c_void, fn()>(work) };
        work();
        0
    }
    let mut stack = vec![0_u128; 1 << 16];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is the child's alone until it ends, which this call waits for.
    let pid = unsafe { libc::clone(run, top, flags, work as *mut c_void) };
    assert!(pid >= 0, "clone refused");
    wait(pid)
}

fn wait(pid: libc::pid_t) -> Ended {
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable.
        let answer = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if answer == pid {
            return Ended(status);
        }
        // Else a signal came between.
    }
}

/// Prepares [`fork`], which otherwise allocates the first time.
pub(crate) fn expect_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CHILD.load(Ordering::Relaxed) {
                return before(info);
            }
            let mut line = Line::new();
            // What does not fit is cut off.
            let _ = writeln!(line, "in a forked child: {info}");
            line.write_and_exit();
        }));
    });
}

/// A message on the stack: a child whose allocator is broken can still say so.
struct Line {
    bytes: [u8; 1000],
    length: usize,
}

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; 1000],
            length: 0,
        }
    }

    fn write_and_exit(&self) -> ! {
        // SAFETY: the buffer is readable that far.
        unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.length) };
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(1) }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = text.len().min(self.bytes.len() - self.length);
        let end = self.length + taken;
        self.bytes[self.length..end].copy_from_slice(&text.as_bytes()[..taken]);
        self.length = end;
        Ok(())
    }
}
