//! Threads by the thousand: what each of them leaves behind adds up.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::process;

use flagstone::Flagstone;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::block::Block;
use crate::common::child::{alone, run_child, scenario};
use crate::common::process::{live, mapped, resident, verify};
use crate::common::raw_thread::on_raw_thread;
use crate::{ALLOC, MIB};

/// A thread that leaked so little as this would show; std and libc may keep some once.
const SLACK: usize = 2 * MIB;
/// Addresses that may come with a new chunk or a mapping of tables.
const SLACK_MAPPED: usize = 40 * MIB;

/// What a process holds, which threads that come and go must not change.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident: usize,
    mapped: usize,
    live: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            resident: resident(),
            mapped: mapped(),
            live: live(),
        }
    }

    #[track_caller]
    fn expect_flat(self, threads: usize) {
        let now = Self::now();
        println!("{self:?}, {threads} threads later {now:?}");
        assert!(now.resident < self.resident + SLACK, "{self:?} {now:?}");
        assert!(now.mapped < self.mapped + SLACK_MAPPED, "{self:?} {now:?}");
        assert!(now.live < self.live + SLACK, "{self:?} {now:?}");
        verify();
    }
}

/// Ends a process that leaks before it takes the machine's memory.
fn bound_memory() {
    let bytes = u64::try_from(mapped() + (4 << 30)).expect("a number of bytes");
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the limit is a valid, initialised value.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0, "setrlimit refused");
}

type Destructor = unsafe extern "C" fn(*mut c_void);

fn new_key(destructor: Destructor) -> libc::pthread_key_t {
    let mut key = 0;
    // SAFETY: 1. `key` is writable. 2. the destructor takes the values that this file sets.
    let result = unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) };
    assert_eq!(result, 0, "pthread_key_create refused");
    key
}

fn set(key: libc::pthread_key_t, value: *mut c_void) {
    // SAFETY: the key was made by `new_key`.
    let result = unsafe { libc::pthread_setspecific(key, value) };
    assert_eq!(result, 0, "pthread_setspecific refused");
}

/// More keys than have room in a thread's own block: glibc allocates for the 33rd and later ones.
const KEYS: usize = 40;
static EARLY: [AtomicU32; KEYS] = [const { AtomicU32::new(0) }; KEYS];
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// The loader calls this before anything allocates: the allocator's key comes after these.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    for key in &EARLY {
        key.store(new_key(end_early), Ordering::Relaxed);
    }
}

/// The destructor of an early key, which comes before the allocator's in every round.
unsafe extern "C" fn end_early(value: *mut c_void) {
    ENDED.fetch_add(1, Ordering::Relaxed);
    let size = value.addr();
    Block::filled(&ALLOC, size, 8, size).free(&ALLOC);
}

/// Threads whose first call comes when their keys are set, and threads that set keys afterwards.
#[test]
fn forty_keys_come_first() {
    const NAME: &str = "threads::forty_keys_come_first";
    const THREADS: usize = 2_000;
    fn set_keys() {
        for (index, key) in EARLY.iter().enumerate() {
            let size = ptr::without_provenance_mut(100 + index * 50);
            set(key.load(Ordering::Relaxed), size);
        }
    }
    fn allocate() {
        Block::filled(&ALLOC, 500, 8, 1).free(&ALLOC);
    }
    alone(NAME, &[], || {
        let rounds = |threads| {
            for _ in 0..threads {
                on_raw_thread(&mut (), |()| {
                    set_keys();
                    allocate();
                });
                on_raw_thread(&mut (), |()| {
                    allocate();
                    set_keys();
                });
            }
        };
        rounds(THREADS / 10);
        let held = Held::now();
        rounds(THREADS);
        held.expect_flat(2 * THREADS);
        let ended = ENDED.load(Ordering::Relaxed);
        assert_eq!(ended, (THREADS + THREADS / 10) * 2 * KEYS);
    });
}

/// Made after the allocator's key, so that its destructor comes after the thread's cache is gone.
static LATE: AtomicU32 = AtomicU32::new(0);
static VISITS: AtomicUsize = AtomicUsize::new(0);
/// POSIX promises as many rounds of destructors.
const ROUNDS: usize = 4;
const VISIT_SIZES: [usize; 4] = [40, 900, 5_000, 70_000];

/// The value of the late key: a block whose first word says how often it comes back.
fn arm(rounds: usize) {
    let block = Box::into_raw(Box::new(rounds));
    set(LATE.load(Ordering::Relaxed), block.cast());
}

unsafe extern "C" fn come_back(value: *mut c_void) {
    // SAFETY: `arm` made it, and each is taken once.
    let left = *unsafe { Box::from_raw(value.cast::<usize>()) } - 1;
    VISITS.fetch_add(1, Ordering::Relaxed);
    let blocks = VISIT_SIZES.map(|size| Block::filled(&ALLOC, size, 8, size));
    for block in blocks {
        block.check(block.size());
        block.free(&ALLOC);
    }
    if left > 0 {
        arm(left);
    }
}

/// An allocator that builds something for each such thread ends this with the machine's memory.
#[test]
fn destructors_come_back_twenty_thousand_times() {
    const NAME: &str = "threads::destructors_come_back_twenty_thousand_times";
    const THREADS: usize = 20_000;
    alone(NAME, &[], || {
        bound_memory();
        LATE.store(new_key(come_back), Ordering::Relaxed);
        let run = |threads| {
            for number in 0..threads {
                // Every other thread uses the allocator itself.
                let mut uses = number % 2 == 0;
                on_raw_thread(&mut uses, |uses| {
                    if *uses {
                        Block::filled(&ALLOC, 200, 8, 1).free(&ALLOC);
                    }
                    arm(ROUNDS);
                });
            }
        };
        run(THREADS / 10);
        let held = Held::now();
        run(THREADS);
        held.expect_flat(THREADS);
        let visits = VISITS.load(Ordering::Relaxed);
        assert_eq!(visits, (THREADS + THREADS / 10) * ROUNDS);
    });
}

/// Blocks that outlive the thread that made them, until another frees them.
static SURVIVORS: [AtomicPtr<usize>; 1_024] = [const { AtomicPtr::new(ptr::null_mut()) }; 1_024];
static SEEDS: AtomicUsize = AtomicUsize::new(0);

/// Puts a block of `size` bytes, which it says itself, in a place, and frees the one that was there.
fn exchange(place: usize, size: Option<usize>) {
    let layout = |size| crate::program::layout(size, align_of::<usize>());
    let new = size.map_or(ptr::null_mut(), |size| {
        let block = Block::alloc(&ALLOC, layout(size)).expect("memory");
        let word = block.as_ptr().cast::<usize>();
        // SAFETY: the block begins with room for a word, and is aligned for it.
        unsafe { word.write(size) };
        word
    });
    if let Some(old) = NonNull::new(SURVIVORS[place].swap(new, Ordering::AcqRel)) {
        // SAFETY: written before it was put there, and nobody else has it now.
        let size = unsafe { old.read() };
        // SAFETY: live, and this is its layout.
        unsafe { core::alloc::GlobalAlloc::dealloc(&ALLOC, old.as_ptr().cast(), layout(size)) };
    }
}

/// The life of a thread of which half of the blocks remain.
extern "C" fn short(_: *mut c_void) -> *mut c_void {
    const BLOCKS: usize = 6;
    let seed = SEEDS.fetch_add(1, Ordering::Relaxed);
    let mut rng = SmallRng::seed_from_u64(seed as u64);
    let mut size = || rng.random_range(16..3_000_usize);
    for number in 0..BLOCKS {
        let place = (seed * BLOCKS + number) * 7 % SURVIVORS.len();
        exchange(place, Some(size()));
        let own = size();
        Block::filled(&ALLOC, own, 8, own).free(&ALLOC);
    }
    ptr::null_mut()
}

/// Runs threads, four at a time, so that the memory of one serves another.
fn run_short(threads: usize) {
    const AT_A_TIME: usize = 4;
    for _ in 0..threads / AT_A_TIME {
        let started = [(); AT_A_TIME].map(|()| {
            let mut thread = MaybeUninit::uninit();
            // SAFETY: 1. `thread` is writable. 2. the thread ignores its argument.
            let result = unsafe {
                libc::pthread_create(thread.as_mut_ptr(), ptr::null(), short, ptr::null_mut())
            };
            assert_eq!(result, 0, "pthread_create refused");
            // SAFETY: `pthread_create` succeeded and wrote it.
            unsafe { thread.assume_init() }
        });
        for thread in started {
            // SAFETY: the thread is joinable and joined once.
            let result = unsafe { libc::pthread_join(thread, ptr::null_mut()) };
            assert_eq!(result, 0, "pthread_join refused");
        }
    }
}

/// The numbers and the thread-local storage of threads are used again, most blocks are freed by another.
#[test]
fn a_hundred_thousand_threads_with_survivors() {
    const NAME: &str = "threads::a_hundred_thousand_threads_with_survivors";
    /// libc reserves addresses for its own allocator, in more pieces the more threads meet.
    const ONE_PIECE: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
    alone(NAME, &[ONE_PIECE], || {
        bound_memory();
        let before = live();
        run_short(20_000);
        let held = Held::now();
        run_short(80_000);
        held.expect_flat(80_000);
        (0..SURVIVORS.len()).for_each(|place| exchange(place, None));
        assert_eq!(live(), before);
        Flagstone::purge();
        verify();
    });
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// libc allocates for so many handlers, and each uses the allocator, beside threads that go on.
#[test]
fn thousands_of_exit_handlers() {
    const NAME: &str = "threads::thousands_of_exit_handlers";
    const HANDLERS: usize = 8_192;
    const CODE: i32 = 5;
    extern "C" fn handler() {
        Block::filled(&ALLOC, 5_000, 8, 1).free(&ALLOC);
        if HANDLED.fetch_add(1, Ordering::Relaxed) + 1 == HANDLERS {
            let line: &[u8] = b"all handlers done\n";
            // SAFETY: the buffer is readable for its whole length.
            unsafe { libc::write(libc::STDOUT_FILENO, line.as_ptr().cast(), line.len()) };
        }
    }
    if scenario().is_some() {
        for tag in 0..2 {
            // Detached: nobody waits for it.
            std::thread::spawn(move || {
                loop {
                    let blocks = VISIT_SIZES.map(|size| Block::filled(&ALLOC, size, 8, tag));
                    blocks.into_iter().for_each(|block| block.free(&ALLOC));
                }
            });
        }
        for _ in 0..HANDLERS {
            // SAFETY: the handler lives in the program itself.
            assert_eq!(unsafe { libc::atexit(handler) }, 0, "atexit refused");
        }
        process::exit(CODE);
    }
    let exit = run_child(NAME, "exit");
    assert_eq!(exit.code, Some(CODE), "{exit:?}");
    assert!(exit.stdout.contains("all handlers done"), "{exit:?}");
}
