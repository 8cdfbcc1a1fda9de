//! Under a filter that kills: the system calls that `SECURITY.md` lists are enough, and none of them too many.

use core::alloc::Layout;
use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::thread;

use flagstone::{Flagstone, failpoints};

use crate::common::block::{Block, SIZES};
use crate::common::child::{child, scenario};
use crate::common::process::{resident, stats, verify, without_huge_pages};
use crate::filter::{install, kill_others};
use crate::{ALLOC, MIB};

const DOCUMENT: &str = include_str!("../../SECURITY.md");

/// Named numbers.
macro_rules! numbers {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name as i64)),*] };
}

/// What the document may name, without `SYS_`.
const CALLS: &[(&str, i64)] = numbers!(
    SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_sched_getaffinity SYS_gettid
    SYS_nanosleep SYS_getpid SYS_tgkill SYS_membarrier SYS_mincore SYS_write
    SYS_rt_sigprocmask SYS_rt_sigpending SYS_rt_sigtimedwait SYS_getrandom SYS_rt_sigaction
    SYS_futex SYS_prctl SYS_clock_gettime SYS_rt_sigreturn
);

const ADVICES: &[(&str, c_int)] = &[
    ("MADV_DONTNEED", libc::MADV_DONTNEED),
    ("MADV_HUGEPAGE", libc::MADV_HUGEPAGE),
    ("MADV_NOHUGEPAGE", libc::MADV_NOHUGEPAGE),
    ("MADV_WIPEONFORK", libc::MADV_WIPEONFORK),
    ("MADV_GUARD_INSTALL", 102),
    ("MADV_GUARD_REMOVE", 103),
];

/// What the loader, the C library, std and the harness need besides.
const OTHERS: &[(&str, i64)] = numbers!(
    SYS_execve SYS_brk SYS_openat SYS_read SYS_pread64 SYS_fstat SYS_newfstatat SYS_statx SYS_close
    SYS_lseek SYS_set_tid_address SYS_set_robust_list SYS_rseq SYS_prlimit64 SYS_ppoll
    SYS_sigaltstack SYS_exit SYS_exit_group SYS_clone SYS_clone3 SYS_wait4
    SYS_readlinkat SYS_fcntl SYS_setitimer SYS_tkill
);
#[cfg(target_arch = "x86_64")]
const OLD: &[(&str, i64)] = numbers!(
    SYS_access SYS_arch_prctl SYS_alarm SYS_poll SYS_readlink SYS_open SYS_stat
    SYS_fork
);
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(&str, i64)] = numbers!(SYS_faccessat);

/// A row of one of the document's tables: a call or an advice, and what needs it.
struct Row {
    name: &'static str,
    needed_by: Vec<&'static str>,
}

/// The rows of the table that begins with this title.
fn rows(title: &str) -> Vec<Row> {
    let (_, table) = DOCUMENT
        .split_once(&format!("| {title} |"))
        .expect("a table");
    let lines = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let row = |line: &'static str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next().expect("a name").trim_matches('`');
        let needed_by = cells.next().expect("a need").split(", ").collect();
        Row { name, needed_by }
    };
    lines.map(row).collect()
}

/// A filter made from the tables, but for one name.
fn filter(missing: Option<&str>) -> Vec<libc::sock_filter> {
    let listed = |title| rows(title).into_iter().map(|row| row.name);
    let is_there = |name: &&str| Some(*name) != missing;
    let call = |name: &str| {
        let full = format!("SYS_{name}");
        let found = CALLS.iter().find(|(known, _)| *known == full);
        found.unwrap_or_else(|| panic!("{name}: what is that?")).1
    };
    let advice = |name: &str| {
        let found = ADVICES.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("{name}: what is that?")).1
    };
    let mut calls: Vec<c_long> = listed("system call").filter(is_there).map(call).collect();
    calls.extend(OTHERS.iter().chain(OLD).map(|(_, number)| number));
    let advices: Vec<c_int> = listed("advice").filter(is_there).map(advice).collect();
    kill_others(&calls, &advices)
}

/// What a child does, and how it ends.
struct Scenario {
    name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// The signal, 0 for none.
    ends_by: c_int,
}

/// What is freed goes back at once.
const AT_ONCE: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "0");
/// No value, which is complained about.
const BAD: (&str, &str) = ("FLAGSTONE_DIRTY_BUDGET", "much");

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "default",
        variables: &[AT_ONCE, BAD],
        ends_by: 0,
    },
    Scenario {
        name: "hardened",
        variables: &[AT_ONCE, BAD, ("FLAGSTONE_HARDENED", "1")],
        ends_by: 0,
    },
    Scenario {
        name: "sampling",
        variables: &[AT_ONCE, BAD, ("FLAGSTONE_SAMPLE", "2")],
        ends_by: 0,
    },
    Scenario {
        name: "background",
        variables: &[("FLAGSTONE_PURGE_DELAY_MS", "10")],
        ends_by: 0,
    },
    Scenario {
        name: "misuse",
        variables: &[("FLAGSTONE_HARDENED", "1")],
        ends_by: libc::SIGABRT,
    },
    Scenario {
        name: "fault",
        variables: &[("FLAGSTONE_SAMPLE", "50")],
        ends_by: libc::SIGSEGV,
    },
];

/// Runs a scenario under a filter from its first instruction on; the signal that ended it and what it wrote. `None`, and
/// a line that says so, where the kernel has no filters.
fn run(scenario: &Scenario, missing: Option<&str>) -> Option<(c_int, String)> {
    const NAME: &str = "allowed::the_listed_calls_are_enough";
    let mut filter = filter(missing);
    let mut command = child(NAME, scenario.name, scenario.variables);
    // Nobody reads what it complains about.
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    command.stderr(Stdio::from(writer));
    // SAFETY: makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(move || install(&mut filter)) };
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let failed = output.status.code().is_some_and(|code| code != 0);
            let signal = output
                .status
                .signal()
                .unwrap_or(if failed { -1 } else { 0 });
            Some((signal, text))
        }
        Err(error) => {
            println!("skipped: the kernel takes no filter of system calls: {error}");
            None
        }
    }
}

#[test]
fn the_listed_calls_are_enough() {
    if let Some(name) = scenario() {
        act(&name);
    }
    for scenario in &SCENARIOS {
        let Some(ended) = run(scenario, None) else {
            return;
        };
        assert_eq!(ended.0, scenario.ends_by, "{}: {}", scenario.name, ended.1);
    }
}

/// Without any row of the tables what needs it ends by the filter.
#[test]
fn none_of_the_listed_calls_is_too_many() {
    for row in rows("system call").iter().chain(&rows("advice")) {
        for need in &row.needed_by {
            let name = match *need {
                // Not on this machine.
                "no vDSO" => continue,
                "always" | "threads" | "fork" | "purge" | "stats" | "messages" => "default",
                need => need,
            };
            let known = |scenario: &&Scenario| scenario.name == name;
            let scenario = SCENARIOS.iter().find(known);
            let scenario = scenario.unwrap_or_else(|| panic!("{}: {need}?", row.name));
            let Some(ended) = run(scenario, Some(row.name)) else {
                return;
            };
            assert_eq!(
                ended.0,
                libc::SIGSYS,
                "without {}, {need}: {}",
                row.name,
                ended.1
            );
        }
    }
}

/// What is listed in two places would not be missed in one.
#[test]
fn what_others_need_is_apart() {
    let listed = rows("system call");
    let of_others = |name: &str| {
        OTHERS
            .iter()
            .chain(OLD)
            .any(|(other, _)| other[4..] == *name)
    };
    let twice: Vec<&str> = listed
        .iter()
        .map(|row| row.name)
        .filter(|name| of_others(name))
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(!listed.is_empty());
}

/// In the child: does what the scenario is about, and ends the process.
fn act(name: &str) -> ! {
    match name {
        "background" => use_background(),
        "misuse" => {
            let block = Block::filled(&ALLOC, 100, 8, 1);
            free_twice(block);
        }
        "fault" => {
            // One of so many is sampled.
            for _ in 0..100_000 {
                let block = Block::filled(&ALLOC, 100, 8, 1);
                let place = core::ptr::with_exposed_provenance::<u8>(block.addr());
                block.free(&ALLOC);
                // SAFETY: none: it is not there any more.
                unsafe { place.read_volatile() };
            }
        }
        _ => use_all(),
    }
    // SAFETY: no preconditions.
    unsafe { libc::_exit(0) }
}

fn free_twice(block: Block) {
    use core::alloc::GlobalAlloc;
    let place = core::ptr::with_exposed_provenance_mut(block.addr());
    let layout = block.layout();
    block.free(&ALLOC);
    // SAFETY: none: it is not there any more.
    unsafe { ALLOC.dealloc(place, layout) };
}

/// Blocks of every kind: made, filled, resized and freed.
fn churn(tag: usize) {
    for size in SIZES {
        let count = (24 * MIB / size).clamp(2, 3_000);
        let mut blocks: Vec<Block> = (0..count)
            .map(|_| Block::filled(&ALLOC, size, 8, tag))
            .collect();
        let last = blocks.pop().expect("some");
        let last = last.realloc(&ALLOC, 3 * size).expect("memory");
        last.free(&ALLOC);
        // Every second one stays at first, so that slabs have holes.
        let mut kept = Vec::with_capacity(blocks.len());
        for (number, block) in blocks.drain(..).enumerate() {
            if number % 2 == 0 {
                kept.push(block);
            } else {
                block.free(&ALLOC);
            }
        }
        Flagstone::purge();
        let layout = Layout::from_size_align(size, 64).expect("a layout");
        let zeroed = Block::alloc_zeroed(&ALLOC, layout).expect("memory");
        assert!(zeroed.is_zero());
        zeroed.free(&ALLOC);
        for block in kept {
            block.check(tag);
            block.free(&ALLOC);
        }
    }
    let aligned = Block::filled(&ALLOC, 3 * MIB, 2 * MIB, tag);
    let mut grown = Block::filled(&ALLOC, MIB, 8, tag);
    for size in [5 * MIB, 30 * MIB, 100 * MIB] {
        grown = grown.realloc(&ALLOC, size).expect("memory");
    }
    grown.free(&ALLOC);
    aligned.free(&ALLOC);
}

fn use_all() {
    churn(1);
    let threads = [2, 3].map(|tag| thread::spawn(move || churn(tag)));
    for thread in threads {
        thread.join().expect("no panic");
    }
    wait_for_a_lock();
    let block = Block::filled(&ALLOC, 5_000, 8, 1);
    assert!(stats().live >= 5_000);
    verify();
    // SAFETY: the child allocates and ends.
    let process = unsafe { libc::fork() };
    if process == 0 {
        churn(4);
        verify();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    let ended = unsafe { libc::waitpid(process, &raw mut status, 0) };
    assert_eq!(ended, process);
    if libc::WIFSIGNALED(status) {
        // As it ended, so does this one.
        // SAFETY: no preconditions.
        unsafe { libc::_exit(libc::WTERMSIG(status)) };
    }
    assert_eq!(status, 0);
    block.free(&ALLOC);
    Flagstone::purge();
}

/// The thread that waits for a lock, 0 before; and whether the lock is held.
static WAITER: AtomicU32 = AtomicU32::new(0);
static IS_HELD: AtomicU32 = AtomicU32::new(0);

/// How often a thread of this process has gone to sleep. Allocates nothing.
fn sleeps(thread: u32) -> usize {
    let mut path = [0_u8; 64];
    io::Write::write_fmt(
        &mut &mut path[..],
        format_args!("/proc/self/task/{thread}/status\0"),
    )
    .expect("room");
    let mut text = [0_u8; 4096];
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY) };
    // SAFETY: the buffer is writable for its length.
    let length = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    let text = &text[..usize::try_from(length).expect("a status")];
    let text = core::str::from_utf8(text).expect("UTF-8");
    let (_, count) = text
        .split_once("\nvoluntary_ctxt_switches:")
        .expect("a count");
    let count = count.lines().next().expect("a line");
    count.trim().parse().expect("a number")
}

/// With the lock held, until the other thread has slept for want of it.
fn hold(point: failpoints::Point) {
    // SAFETY: no preconditions.
    let own = unsafe { libc::syscall(libc::SYS_gettid) };
    let waiter = WAITER.load(Ordering::Acquire);
    if point != failpoints::Point::Large
        || own == i64::from(waiter)
        || IS_HELD.swap(1, Ordering::AcqRel) != 0
    {
        return;
    }
    let before = sleeps(waiter);
    while sleeps(waiter) < before + 2 {
        core::hint::spin_loop();
    }
}

/// A thread sleeps that waits for a lock.
fn wait_for_a_lock() {
    static HOLD: failpoints::Callback = hold;
    let waiter = thread::spawn(|| {
        // SAFETY: no preconditions.
        let own = unsafe { libc::syscall(libc::SYS_gettid) };
        WAITER.store(u32::try_from(own).expect("a thread"), Ordering::Release);
        while IS_HELD.load(Ordering::Acquire) == 0 {
            core::hint::spin_loop();
        }
        Block::filled(&ALLOC, 9 * MIB, 8, 1).free(&ALLOC);
    });
    while WAITER.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    failpoints::at_points(Some(&HOLD));
    Block::filled(&ALLOC, 9 * MIB, 8, 2).free(&ALLOC);
    failpoints::at_points(None);
    waiter.join().expect("no panic");
}

/// The background thread gives memory back, sleeps, and is woken.
fn use_background() {
    without_huge_pages();
    ALLOC.start_background().expect("a thread");
    let block = Block::filled(&ALLOC, 40 * MIB, 8, 1);
    let before = resident();
    block.free(&ALLOC);
    while resident() + 30 * MIB > before {
        core::hint::spin_loop();
    }
    // It sleeps, or is about to: who frees wakes it.
    Block::filled(&ALLOC, 40 * MIB, 8, 1).free(&ALLOC);
}
