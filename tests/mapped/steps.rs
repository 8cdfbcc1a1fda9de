//! A process that is killed at an instruction of a call, which is chosen at random: the others go on, and lose one block
//! at most.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use std::{env, thread};

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use flagstone::{Flagstone, Handle, Mapped};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::allocator_model::Model;
use crate::common::process::begin;

/// Steps of one instruction that a call may take, in all processes that are killed in it: a step costs some tens of
/// microseconds. Five times as many where all tests run in their long form.
fn budget() -> usize {
    let long = env::var_os("TEST_LONG").is_some();
    if long { 200_000 } else { 40_000 }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

fn alloc(handle: Handle, size: usize) -> NonNull<u8> {
    handle.allocate(layout(size)).expect("memory").cast()
}

fn free(handle: Handle, block: NonNull<u8>, size: usize) {
    // SAFETY: live, of this heap and so long, and not used any more.
    unsafe { handle.deallocate(block, layout(size)) };
}

/// What a process is killed in: something that it does after it has prepared for it.
struct Call {
    name: &'static str,
    /// Whether what is lost by a kill could be units.
    is_of_units: bool,
    prepare: fn(&Mapped) -> Option<NonNull<u8>>,
    call: fn(&Mapped, Option<NonNull<u8>>),
}

const SIZE: usize = 48;
/// Of a class that two blocks fill.
const HALF: usize = 30_000;
const LONG: usize = 200_000;

const CALLS: [Call; 9] = [
    Call {
        name: "a process's first allocation",
        is_of_units: false,
        prepare: |_| {
            // What a child of this process repairs outside of the heap.
            Flagstone::purge();
            drop(thread::spawn(|| {}).join());
            None
        },
        call: |heap, _| {
            alloc(heap.handle(), SIZE);
        },
    },
    Call {
        name: "an allocation",
        is_of_units: false,
        prepare: |heap| Some(alloc(heap.handle(), SIZE)),
        call: |heap, _| {
            alloc(heap.handle(), SIZE);
        },
    },
    Call {
        name: "a free",
        is_of_units: false,
        prepare: |heap| Some(alloc(heap.handle(), SIZE)),
        call: |heap, block| free(heap.handle(), block.expect("prepared"), SIZE),
    },
    Call {
        name: "a fresh slab, or one of the dead's",
        is_of_units: false,
        prepare: |heap| {
            alloc(heap.handle(), HALF);
            Some(alloc(heap.handle(), HALF))
        },
        call: |heap, _| {
            alloc(heap.handle(), HALF);
        },
    },
    Call {
        name: "the last free of a slab",
        is_of_units: false,
        prepare: |heap| {
            let blocks = [(); 4].map(|()| alloc(heap.handle(), HALF));
            free(heap.handle(), blocks[0], HALF);
            Some(blocks[1])
        },
        call: |heap, block| free(heap.handle(), block.expect("prepared"), HALF),
    },
    Call {
        name: "a free of another's block",
        is_of_units: false,
        prepare: |heap| heap.root("block").map(|(place, _)| place),
        call: |heap, block| {
            if let Some(block) = block {
                free(heap.handle(), block, SIZE);
            }
        },
    },
    Call {
        name: "a long block",
        is_of_units: true,
        prepare: |heap| Some(alloc(heap.handle(), SIZE)),
        call: |heap, _| {
            alloc(heap.handle(), LONG);
        },
    },
    Call {
        name: "a free of a long block",
        is_of_units: true,
        prepare: |heap| Some(alloc(heap.handle(), LONG)),
        call: |heap, block| free(heap.handle(), block.expect("prepared"), LONG),
    },
    Call {
        name: "a name",
        is_of_units: false,
        prepare: |heap| Some(alloc(heap.handle(), SIZE)),
        call: |heap, block| {
            let block = block.expect("prepared");
            heap.set_root("name", block.as_ptr(), 1).expect("room");
        },
    },
];

/// Waits for a change of a child; whether it ended.
fn has_ended(child: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: the status is writable.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(
        !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) == 0,
        "status {status:#x}"
    );
    !libc::WIFSTOPPED(status)
}

fn trace(request: libc::c_uint, child: libc::pid_t) -> bool {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: requests that touch no memory.
    unsafe { libc::ptrace(request, child, nothing, nothing) == 0 }
}

/// A child that is killed after so many instructions of a call, or at its end; after how many that was. `None` where
/// nobody may trace.
fn kill_after(heap: &Mapped, call: &Call, steps: usize) -> Option<usize> {
    // SAFETY: the child uses this thread alone.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork refused");
    if child == 0 {
        let prepared = (call.prepare)(heap);
        let may = trace(libc::PTRACE_TRACEME, 0);
        // SAFETY: no preconditions, here and below.
        unsafe { libc::raise(if may { libc::SIGSTOP } else { libc::SIGKILL }) };
        (call.call)(heap, prepared);
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    if has_ended(child) {
        return None;
    }
    for step in 0..steps {
        assert!(trace(libc::PTRACE_SINGLESTEP, child));
        if has_ended(child) {
            return Some(step);
        }
    }
    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    while !has_ended(child) {}
    Some(steps)
}

/// What is nobody's can be had, all of it.
fn expect_the_rest(heap: &Mapped, name: &str) {
    let (stats, unit) = (heap.stats(), 1 << 16);
    let count = (stats.capacity - stats.tables - stats.held) / unit;
    let handle = heap.handle();
    let had: Vec<_> = (0..count)
        .map_while(|_| handle.allocate(layout(unit)).ok())
        .collect();
    assert_eq!(had.len(), count, "{name}");
    let blocks = had.into_iter().map(NonNull::cast);
    blocks.for_each(|block| free(handle, block, unit));
}

#[test]
fn a_kill_at_any_instruction_loses_one_block() {
    let _turn = begin();
    for call in &CALLS {
        let heap = Mapped::create(256 << 20).expect("a heap");
        let handle = heap.handle();
        let own: Vec<_> = (0..2_000_u64)
            .map(|number| Box::new_in(number, handle))
            .collect();
        let mut model = Model::new(handle, 5);
        let mut kills = 0;
        // Blocks that children had when they were killed, and one more in each call.
        let mut lost = 0;
        let mut kill = |steps: usize| {
            // What the child is to free was this process's, if that is its call.
            let block = alloc(handle, SIZE);
            heap.set_root("block", block.as_ptr(), 0).expect("room");
            lost += 4 * HALF.max(LONG) + SIZE;
            let steps = kill_after(&heap, call, steps)?;
            for _ in 0..20 {
                assert!(
                    model.try_step().is_ok(),
                    "{}: no room after {steps} steps",
                    call.name
                );
            }
            Some(steps)
        };
        let Some(length) = kill(usize::MAX) else {
            return println!("skipped: nobody may trace here");
        };
        let (mut random, mut left) = (SmallRng::seed_from_u64(length as u64), budget());
        while left > 0 {
            let wanted = random.random_range(0..length);
            let steps = kill(wanted).expect("it was traced before");
            left = left.saturating_sub(steps + 100);
            kills += 1;
            if call.is_of_units {
                expect_the_rest(&heap, call.name);
            }
            if kills % 16 == 0 {
                heap.verify()
                    .unwrap_or_else(|error| panic!("{} {steps}: {error}", call.name));
                assert!(own.iter().zip(0..).all(|(number, place)| **number == place));
            }
        }
        assert!(kills > 3, "{}: {kills} kills of {length}", call.name);
        model.free_all();
        drop(own);
        heap.verify().expect("a sound heap");
        let stats = heap.stats();
        assert!(stats.live <= lost + (1 << 20), "{}: {stats:?}", call.name);
        assert_eq!(stats.refused, 0, "{}", call.name);
        println!(
            "{}: {length} instructions, {kills} kills, {} bytes live",
            call.name, stats.live
        );
        expect_the_rest(&heap, call.name);
        // SAFETY: all others are gone.
        unsafe { heap.close() }.expect("not closed yet");
    }
}
