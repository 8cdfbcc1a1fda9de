//! Without this, allocating before `main`, while a thread or the process ends, could crash or leak.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::cell::RefCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::process;
use std::thread;

use common::block::Block;
use common::child::{run_child, scenario};
use common::process::{begin, expect_flat, resident, stats, until_others_sleep, verify};
use common::raw_thread::on_raw_thread;
use flagstone::{Flagstone, Stats};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// glibc keeps the values of the first 32 keys in the thread's own block and allocates for later ones.
const EARLY_KEYS: usize = 40;
/// A destructor that sets its key again is called this often; POSIX promises four rounds.
const VISITS: usize = 4;
const SIZES: [usize; 5] = [24, 700, 9_000, 100_000, 1 << 20];
/// For tests with very many threads.
const SMALL_SIZES: [usize; 2] = [24, 700];

/// The keys made before the first allocation of the process. The last ones have a destructor.
static EARLY: [AtomicU32; EARLY_KEYS] = [const { AtomicU32::new(0) }; EARLY_KEYS];
/// A block allocated before `main`, still live.
static BEFORE_MAIN_BLOCK: AtomicPtr<Visit> = AtomicPtr::new(ptr::null_mut());

/// The loader calls this before `main`, and so before std or the test harness can allocate.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    for (i, key) in EARLY.iter().enumerate() {
        let destructor = (i >= EARLY_KEYS - 2).then_some(visit as Destructor);
        key.store(new_key(destructor), Ordering::Relaxed);
    }
    use_sizes(&SIZES, 1);
    BEFORE_MAIN_BLOCK.store(Visit::start(0, &SIZES), Ordering::Relaxed);
}

type Destructor = unsafe extern "C" fn(*mut c_void);

fn new_key(destructor: Option<Destructor>) -> libc::pthread_key_t {
    let mut key = 0;
    // SAFETY: 1. `key` is writable. 2. the destructor takes the values that this file sets.
    let result = unsafe { libc::pthread_key_create(&raw mut key, destructor) };
    assert_eq!(result, 0, "pthread_key_create refused");
    key
}

fn set(key: libc::pthread_key_t, value: *mut Visit) {
    // SAFETY: the key was made by `new_key`.
    let result = unsafe { libc::pthread_setspecific(key, value.cast()) };
    assert_eq!(result, 0, "pthread_setspecific refused");
}

/// Allocates, fills, grows, checks and frees a block of each size.
fn use_sizes(sizes: &[usize], tag: usize) {
    for &size in sizes {
        let block = Block::filled(&ALLOC, size, 8, tag);
        let block = block.realloc(&ALLOC, size * 2).expect("memory");
        assert!(block.holds(tag, size), "the contents did not come along");
        block.free(&ALLOC);
    }
}

/// The value of a key: it lives in a block itself and keeps one more from each call to the next.
struct Visit {
    key: libc::pthread_key_t,
    left: usize,
    sizes: &'static [usize],
    block: Block,
}

static VISITED: AtomicUsize = AtomicUsize::new(0);

impl Visit {
    fn start(key: libc::pthread_key_t, sizes: &'static [usize]) -> *mut Self {
        Self::new(key, VISITS - 1, sizes)
    }

    fn new(key: libc::pthread_key_t, left: usize, sizes: &'static [usize]) -> *mut Self {
        let block = Block::filled(&ALLOC, 300, 8, left);
        Box::into_raw(Box::new(Self {
            key,
            left,
            sizes,
            block,
        }))
    }
}

/// The destructor of a key: uses the allocator and arms its key again, until the last round.
unsafe extern "C" fn visit(value: *mut c_void) {
    // SAFETY: only values from `Visit::new` are set, and each is taken once.
    let visit = unsafe { Box::from_raw(value.cast::<Visit>()) };
    VISITED.fetch_add(1, Ordering::Relaxed);
    let Visit {
        key,
        left,
        sizes,
        block,
    } = *visit;
    block.check(left);
    block.free(&ALLOC);
    use_sizes(sizes, left);
    if left > 0 {
        set(key, Visit::new(key, left - 1, sizes));
    }
}

/// The keys of one thread: two made before anything was allocated, one made after.
fn arm(late: libc::pthread_key_t) {
    let early = [EARLY_KEYS - 2, EARLY_KEYS - 1].map(|i| EARLY[i].load(Ordering::Relaxed));
    for key in early.into_iter().chain([late]) {
        set(key, Visit::start(key, &SIZES));
    }
}

#[test]
fn before_main_is_served() {
    let _turn = begin();
    let value = BEFORE_MAIN_BLOCK.swap(ptr::null_mut(), Ordering::Relaxed);
    assert!(!value.is_null(), "nothing ran before main");
    // SAFETY: `before_main` made it by `Visit::start` and it was taken out just now.
    let visit = unsafe { Box::from_raw(value) };
    let Visit { left, block, .. } = *visit;
    block.check(left);
    block.free(&ALLOC);
    verify();
}

#[test]
fn key_destructors_that_come_back() {
    const THREADS: usize = 40;
    let _turn = begin();
    let late = new_key(Some(visit));
    expect_flat(|| {
        let before = VISITED.load(Ordering::Relaxed);
        let mut key = late;
        for _ in 0..THREADS {
            // The thread uses the allocator first, and once more with the destructors still to come.
            on_raw_thread(&mut key, |late| {
                use_sizes(&SIZES, 5);
                arm(*late);
            });
            // The thread does nothing but what its destructors do.
            on_raw_thread(&mut key, |late| arm(*late));
        }
        let visits = VISITED.load(Ordering::Relaxed) - before;
        assert_eq!(visits, THREADS * 2 * 3 * VISITS, "destructors called");
    });
}

/// A thread that comes to the allocator so late that it leaves without its clean-up: a purge takes what
/// it held back.
#[test]
fn a_first_call_in_the_last_round() {
    static KEY: AtomicU32 = AtomicU32::new(0);
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn come_late(value: *mut c_void) {
        if ROUNDS.fetch_add(1, Ordering::Relaxed) + 1 < VISITS {
            return set(KEY.load(Ordering::Relaxed), value.cast());
        }
        let blocks = [2; 50].map(|tag| Block::filled(&ALLOC, 20_000, 8, tag));
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
    }
    let _turn = begin();
    // Made after the allocator's own key, and so served after it in each round.
    KEY.store(new_key(Some(come_late)), Ordering::Relaxed);
    let cached = || {
        until_others_sleep();
        Flagstone::purge();
        stats().cached
    };
    let before = cached();
    on_raw_thread(&mut (), |()| {
        set(KEY.load(Ordering::Relaxed), ptr::dangling_mut());
    });
    assert_eq!(ROUNDS.load(Ordering::Relaxed), VISITS);
    let after = cached();
    assert!(
        after <= before,
        "{after} bytes in magazines, {before} before"
    );
    verify();
}

/// A value whose `Drop` uses the allocator, and another such value for the first time.
struct Guard {
    blocks: Vec<Block>,
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Guard {
    fn new() -> Self {
        Self {
            blocks: SIZES
                .map(|size| Block::filled(&ALLOC, size, 16, size))
                .into(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        for block in self.blocks.drain(..) {
            block.check(block.size());
            block.free(&ALLOC);
        }
        use_sizes(&SIZES, 6);
        // `try_with`: the second guard comes here too, and must not see itself.
        let second = SECOND.try_with(|guard| guard.try_borrow().map(|guard| guard.blocks.len()));
        assert!(!matches!(second, Ok(Ok(0))), "the second guard is empty");
    }
}

thread_local! {
    static FIRST: RefCell<Guard> = RefCell::new(Guard::new());
    static SECOND: RefCell<Guard> = RefCell::new(Guard::new());
}

#[test]
fn rust_destructors() {
    const THREADS: usize = 40;
    let _turn = begin();
    let late = new_key(Some(visit));
    expect_flat(|| {
        let before = DROPPED.load(Ordering::Relaxed);
        for _ in 0..THREADS {
            let thread = thread::spawn(move || {
                FIRST.with_borrow(|guard| assert_eq!(guard.blocks.len(), SIZES.len()));
                arm(late);
            });
            thread.join().expect("the thread did not panic");
        }
        assert_eq!(
            DROPPED.load(Ordering::Relaxed) - before,
            THREADS * 2,
            "guards dropped"
        );
    });
}

/// Whatever a thread needs after its clean-up has to be given back or shared: a heap built for each
/// such thread costs 100 KiB and more, and the smallest leak here shows as half a KiB per thread.
#[test]
fn memory_stays_flat() {
    const WARM_UP: usize = 1_000;
    const THREADS: usize = 10_000;
    const BOUND: usize = 5 << 20;
    let _turn = begin();
    let late = new_key(Some(visit));
    let mut key = late;
    let mut run = |threads| {
        for _ in 0..threads {
            on_raw_thread(&mut key, |late| {
                Block::filled(&ALLOC, 40, 8, 1).free(&ALLOC);
                set(*late, Visit::start(*late, &SMALL_SIZES));
            });
        }
        let stats = stats();
        (resident(), stats.committed + stats.metadata)
    };
    let before = run(WARM_UP);
    let after = run(THREADS);
    verify();
    let (resident, held) = (
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1),
    );
    assert!(
        resident < BOUND,
        "{THREADS} threads left {resident} bytes in memory"
    );
    assert!(
        held < BOUND,
        "{THREADS} threads left {held} bytes committed"
    );
}

/// Exits in a child process, by way of handlers that use the allocator.
#[test]
fn exit_handlers_are_served() {
    const NAME: &str = "exit_handlers_are_served";
    extern "C" fn handler() {
        use_sizes(&SIZES, 8);
        let fine = Flagstone::verify().is_ok();
        let line: &[u8] = if fine {
            b"handler done\n"
        } else {
            b"handler: verify failed\n"
        };
        // SAFETY: the buffer is readable for its whole length.
        unsafe { libc::write(libc::STDOUT_FILENO, line.as_ptr().cast(), line.len()) };
    }
    if scenario().is_some() {
        // More handlers than libc has room for without an allocation.
        for _ in 0..100 {
            // SAFETY: the handler lives in the program itself.
            assert_eq!(unsafe { libc::atexit(handler) }, 0, "atexit refused");
        }
        let late = new_key(Some(visit));
        arm(late);
        FIRST.with_borrow(|guard| assert_eq!(guard.blocks.len(), SIZES.len()));
        process::exit(3);
    }
    let exit = run_child(NAME, "exit");
    assert_eq!(exit.code, Some(3), "{exit:?}");
    assert_eq!(exit.stdout.matches("handler done").count(), 100, "{exit:?}");
}

/// Exits in a child process while other threads are in the middle of allocating.
#[test]
fn exit_while_threads_allocate() {
    const NAME: &str = "exit_while_threads_allocate";
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    if scenario().is_some() {
        for tag in 0..3 {
            thread::spawn(move || {
                loop {
                    use_sizes(&SIZES, tag);
                    ROUNDS.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while ROUNDS.load(Ordering::Relaxed) < 100 {
            thread::yield_now();
        }
        process::exit(4);
    }
    for _ in 0..5 {
        let exit = run_child(NAME, "exit");
        assert_eq!(exit.code, Some(4), "{exit:?}");
    }
}

/// Threads that end by the bare system call: nobody tells the allocator, and nobody purges.
#[test]
fn threads_that_vanish_leave_little() {
    const FEW: usize = 20;
    const MANY: usize = 1500;
    /// What each of them would lose.
    const LOST: usize = 32 << 10;
    let _turn = begin();
    let run = |threads: usize| {
        for _ in 0..threads {
            on_raw_thread(&mut (), |()| {
                use_sizes(&[24, 700, 9_000], 1);
                // SAFETY: nothing of this thread's is used any more; who joins it hears from the kernel.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            });
        }
    };
    run(FEW);
    let before = stats();
    run(MANY);
    let after = stats();
    verify();
    let held = |stats: &Stats| stats.cached + stats.metadata;
    assert!(
        held(&after) <= held(&before) + LOST / 4 * MANY,
        "{before:?} {after:?}"
    );
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
