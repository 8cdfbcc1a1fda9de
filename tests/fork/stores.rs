//! The process forks after every store that a thread makes inside the allocator: whatever a child finds
//! half done, one of these children found. The thread runs by single steps; x86-64 only.

use core::ffi::{c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::arch::asm;
use std::sync::{Once, OnceLock};

use flagstone::Flagstone;

use super::actor::{Props, Scene, inside, is_inside, perform, set_inside, stand};
use super::child::{expect_panics, fork};
use super::estate::{Estate, MAGAZINES, SLAB, leave_one_of_each, take_two_of_each};
use crate::common::process::begin;

/// An instruction is stopped behind when it runs for the first time in a scene, and of those each
/// [`STRIDE`]th; with `FORK_VISITS=n` in the environment all, for their first n times (minutes).
const VISITS: u32 = 1;
const STRIDE: usize = 5;

/// Instructions met in a scene, by a hash of their address, and how often.
static MET: [AtomicUsize; 1 << 14] = [const { AtomicUsize::new(0) }; 1 << 14];
static COUNTS: [AtomicU32; 1 << 14] = [const { AtomicU32::new(0) }; 1 << 14];
/// The instruction that the next trap comes after.
static CURRENT: AtomicUsize = AtomicUsize::new(0);

static MOST: AtomicU32 = AtomicU32::new(VISITS);
static EVERY: AtomicUsize = AtomicUsize::new(STRIDE);
static CANDIDATES: AtomicUsize = AtomicUsize::new(0);

/// Counts a visit to the instruction.
fn visits(address: usize) -> u32 {
    let mut place = address.wrapping_mul(0x9e37_79b9) >> 8;
    loop {
        place %= MET.len();
        match MET[place].load(Ordering::Relaxed) {
            0 => MET[place].store(address, Ordering::Relaxed),
            met if met == address => return COUNTS[place].fetch_add(1, Ordering::Relaxed) + 1,
            _ => place += 1,
        }
    }
}

/// Whether the instruction writes memory other than the stack. May say yes too often, and says no for
/// what compilers do not use.
fn writes(code: [u8; 15]) -> bool {
    let mut rest = &code[..];
    let mut next = || {
        let (first, tail) = rest.split_first().expect("at most 15 bytes");
        rest = tail;
        *first
    };
    let mut byte = next();
    while matches!(
        byte,
        0x66 | 0xf0 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65
    ) {
        byte = next();
    }
    let mut base_is_high = false;
    if byte & 0xf0 == 0x40 {
        base_is_high = byte & 1 != 0;
        byte = next();
    }
    if matches!(byte, 0xa4 | 0xa5 | 0xaa | 0xab) {
        return true;
    }
    let escaped = byte == 0x0f;
    if escaped {
        byte = next();
    }
    let modrm = next();
    let (mode, extension, base) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let stores = match (escaped, byte) {
        (false, 0x00..0x40) => byte & 6 == 0,
        (false, 0x80 | 0x81 | 0x83) => extension != 7,
        (false, 0x86..=0x89 | 0xc6 | 0xc7 | 0xc0 | 0xc1 | 0xd0..=0xd3) => true,
        (false, 0xf6 | 0xf7) => matches!(extension, 2 | 3),
        (false, 0xfe | 0xff) => extension < 2,
        (true, 0x11 | 0x13 | 0x17 | 0x29 | 0x2b | 0x7e | 0x7f | 0xd6 | 0xe7) => true,
        (true, 0xb0 | 0xb1 | 0xc0 | 0xc1 | 0xab | 0xb3 | 0xbb) => true,
        (true, 0xba) => extension > 4,
        _ => false,
    };
    if !stores || mode == 3 {
        return false;
    }
    let base = if base == 4 { next() & 7 } else { base };
    let is_stack = base == 4 || (base == 5 && mode != 0 && cfg!(debug_assertions));
    base_is_high || !is_stack
}

extern "C" fn trapped(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a context.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let register = context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned();
    let next = usize::try_from(register).expect("as wide as a pointer");
    let done = CURRENT.swap(next, Ordering::Relaxed);
    if done == 0 || !is_inside() {
        return;
    }
    // SAFETY: the instruction just ran, and code does not end within 15 bytes of it.
    let code = unsafe { ptr::with_exposed_provenance::<[u8; 15]>(done).read() };
    if writes(code) && visits(done) <= MOST.load(Ordering::Relaxed) {
        let candidate = CANDIDATES.fetch_add(1, Ordering::Relaxed);
        if candidate.is_multiple_of(EVERY.load(Ordering::Relaxed)) {
            stand();
        }
    }
}

/// Has the kernel call [`trapped`] after each instruction of this thread, or no longer so.
#[inline(always)]
fn step(on: bool) {
    CURRENT.store(0, Ordering::Relaxed);
    if on {
        // SAFETY: sets the trap flag and nothing else.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    } else {
        // SAFETY: clears the trap flag and nothing else.
        unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
    }
}

/// A key whose destructor runs after the allocator's, as it is made later.
fn late_key() -> libc::pthread_key_t {
    extern "C" fn stop_stepping(_: *mut c_void) {
        step(false);
    }
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is writable.
        let result = unsafe { libc::pthread_key_create(&raw mut key, Some(stop_stepping)) };
        assert_eq!(result, 0, "pthread_key_create refused");
        key
    })
}

fn catch_traps() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        late_key();
        // SAFETY: all zero is an action.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = trapped as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler has the form that the flag says, and calls no function that it must not.
        let result = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };
        assert_eq!(result, 0, "sigaction refused");
    });
}

/// Sizes that the scenes use.
const SMALL: usize = 48;
const MEDIUM: usize = 20_000;

/// Reached by brief work, or by the gate.
const GATED: usize = 40_000;

/// The thread's first block.
fn first(props: &Props) {
    step(true);
    props.alloc(SMALL);
    step(false);
}

fn refill(props: &Props) {
    props.alloc(SMALL);
    step(true);
    (0..40).for_each(|_| props.alloc(SMALL));
    step(false);
}

fn flush(props: &Props) {
    (0..700).for_each(|_| props.alloc(SMALL));
    step(true);
    (0..300).for_each(|_| props.free(0));
    step(false);
}

/// A slab made.
fn slab(props: &Props) {
    props.alloc(MEDIUM);
    step(true);
    (0..30).for_each(|_| props.alloc(MEDIUM));
    step(false);
}

/// Slabs given back.
fn unslab(props: &Props) {
    (0..60).for_each(|_| props.alloc(MEDIUM));
    step(true);
    (0..60).for_each(|_| props.free(0));
    step(false);
}

fn span(props: &Props) {
    step(true);
    (0..12).for_each(|_| props.alloc(400_000));
    (0..12).for_each(|_| props.free(0));
    step(false);
}

fn large(props: &Props) {
    step(true);
    (0..3).for_each(|_| props.alloc(2 << 20));
    props.realloc(0, 3 << 20);
    (0..3).for_each(|_| props.free(0));
    props.alloc(1 << 21);
    step(false);
}

fn purge(props: &Props) {
    (0..300).for_each(|_| props.alloc(1_000));
    (0..100).for_each(|_| props.free(0));
    (0..30).for_each(|_| props.alloc(400_000));
    (0..30).for_each(|_| props.free(200));
    props.alloc(2 << 20);
    props.free(200);
    step(true);
    inside(Flagstone::purge);
    step(false);
}

/// What a thread left goes back.
fn left(_: &Props) {
    leave_one_of_each();
    step(true);
    inside(Flagstone::purge);
    step(false);
}

/// Slow paths enough for a look at what is unused.
fn until_a_tick(props: &Props) {
    for _ in 0..130 {
        props.alloc(GATED);
        props.free_all();
    }
}

/// A look at what is unused, among others at magazines with blocks.
fn tick(props: &Props) {
    (0..100).for_each(|_| props.alloc(4096));
    props.free_all();
    (0..4).for_each(|_| until_a_tick(props));
    (0..700).for_each(|_| props.alloc(SMALL));
    props.free_all();
    until_a_tick(props);
    step(true);
    until_a_tick(props);
    step(false);
}

/// The thread's end.
fn leave(props: &Props) {
    for size in [16, 100, 1_000, 4_000, 6_000, 8_000, 12_000, 14_000, 20_000] {
        (0..100).for_each(|_| props.alloc(size));
        props.free_all();
    }
    // SAFETY: the key was made by `late_key`.
    unsafe { libc::pthread_setspecific(late_key(), ptr::dangling()) };
    set_inside(true);
    step(true);
}

/// Forks all along the scene; a child first does `first`.
fn expect_recovery(scene: Scene, first: fn()) {
    let _turn = begin();
    expect_panics();
    catch_traps();
    MET.iter().for_each(|met| met.store(0, Ordering::Relaxed));
    COUNTS
        .iter()
        .for_each(|count| count.store(0, Ordering::Relaxed));
    if let Ok(most) = std::env::var("FORK_VISITS") {
        let most = most.parse().expect("FORK_VISITS is a number");
        MOST.store(most, Ordering::Relaxed);
        EVERY.store(1, Ordering::Relaxed);
    }
    let mut estate = Estate::few();
    let props = Props::new();
    let stops = perform(scene, &props, None, || {
        fork(|| {
            first();
            let (blocks, in_hand) = props.inherit();
            estate.examine_few(blocks, MAGAZINES + SLAB + in_hand);
        })
    });
    props.free_all();
    assert!(stops > 10 / STRIDE, "only {stops} stores");
    estate.settle();
}

macro_rules! tests {
    ($($name:ident: $scene:ident, $first:expr;)*) => {$(
        #[test]
        #[ignore = ".ci/test runs it, optimised: cargo test --release --test fork -- --ignored"]
        fn $name() {
            expect_recovery($scene, $first);
        }
    )*};
}

tests! {
    every_store_of_a_thread_that_begins: first, || ();
    every_store_of_a_refill: refill, || ();
    every_store_of_a_flush: flush, || ();
    every_store_of_a_new_slab: slab, || ();
    every_store_of_a_slab_given_back: unslab, || ();
    every_store_of_spans: span, || ();
    every_store_of_mappings: large, || ();
    every_store_of_a_purge: purge, || ();
    every_store_of_a_purge_of_what_was_left: left, take_two_of_each;
    every_store_of_a_tick: tick, || ();
    every_store_of_a_thread_that_ends: leave, || ();
}
