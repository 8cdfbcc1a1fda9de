//! Calls that processes are killed in, and what they do before.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use flagstone::{Flagstone, Handle, Mapped};

use crate::children::{end_of, start};

pub(crate) const CAPACITY: usize = 128 << 20;
pub(crate) const UNIT: usize = 1 << 16;

pub(crate) fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

pub(crate) fn alloc(handle: Handle, size: usize) -> NonNull<u8> {
    handle.allocate(layout(size)).expect("memory").cast()
}

pub(crate) fn free(handle: Handle, block: NonNull<u8>, size: usize) {
    // SAFETY: live, of this heap and so long, and not used any more.
    unsafe { handle.deallocate(block, layout(size)) };
}

/// More than there is: those who are gone are looked for, and all slabs looked at.
fn refuse(handle: Handle) {
    assert!(handle.allocate(layout(CAPACITY)).is_err());
}

/// Another thread of this process does something, and ends.
fn on_thread(work: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(work).join().expect("no panic"));
}

/// A process of its own does something, and ends.
fn in_child(work: impl FnOnce()) {
    assert_eq!(end_of(start(work)), 0);
}

/// A block that goes to another thread.
#[derive(Clone, Copy)]
struct Gift(NonNull<u8>);

// SAFETY: nobody else uses it.
unsafe impl Send for Gift {}

impl Gift {
    fn free(self, handle: Handle, size: usize) {
        free(handle, self.0, size);
    }
}

/// A block that the call needs, and how many are live that were allocated for it.
pub(crate) type Prepared = (Option<NonNull<u8>>, usize);

/// What a process is killed in: something that it does after it has prepared for it.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    /// Of the blocks that it is about.
    pub(crate) size: usize,
    /// By how many of them more or less are live at its end.
    pub(crate) gain: isize,
    pub(crate) prepare: fn(&Mapped) -> Prepared,
    pub(crate) call: fn(&Mapped, Option<NonNull<u8>>),
}

pub(crate) const SIZE: usize = 48;
/// Of a class that two blocks fill.
const HALF: usize = 30_000;
const LONG: usize = 200_000;
/// One whose memory goes back without the lock.
const LONGEST: usize = 1_200_000;

/// One block.
fn one(heap: &Mapped, size: usize) -> Prepared {
    (Some(alloc(heap.handle(), size)), 1)
}

/// Blocks of half a unit, until the last two fill the current slab: these two, and how many.
fn fill(heap: &Mapped) -> ([NonNull<u8>; 2], usize) {
    let (mut last, mut count) = (alloc(heap.handle(), HALF), 1);
    loop {
        let next = alloc(heap.handle(), HALF);
        count += 1;
        if last.addr().get() / UNIT == next.addr().get() / UNIT {
            return ([last, next], count);
        }
        last = next;
    }
}

pub(crate) const CALLS: [Call; 17] = [
    Call {
        name: "a process's first allocation",
        size: SIZE,
        gain: 1,
        prepare: |_| {
            // What a child of this process repairs outside of the heap.
            Flagstone::purge();
            drop(thread::spawn(|| {}).join());
            (None, 0)
        },
        call: |heap, _| {
            one(heap, SIZE);
        },
    },
    Call {
        name: "an allocation",
        size: SIZE,
        gain: 1,
        prepare: |heap| one(heap, SIZE),
        call: |heap, _| {
            one(heap, SIZE);
        },
    },
    Call {
        name: "a free",
        size: SIZE,
        gain: -1,
        prepare: |heap| one(heap, SIZE),
        call: |heap, block| free(heap.handle(), block.expect("prepared"), SIZE),
    },
    Call {
        name: "a refill",
        size: SIZE,
        gain: 1,
        prepare: |heap| {
            // To the last of a word, if the slab is a fresh one.
            let blocks = [(); 64].map(|()| alloc(heap.handle(), SIZE));
            let is_last = |block: &NonNull<u8>| block.addr().get() % UNIT == 63 * SIZE;
            let count = blocks.iter().position(is_last).map_or(64, |last| last + 1);
            let behind = &blocks[count..];
            behind
                .iter()
                .for_each(|block| free(heap.handle(), *block, SIZE));
            (None, count)
        },
        call: |heap, _| {
            one(heap, SIZE);
        },
    },
    Call {
        name: "a collection",
        size: HALF,
        gain: 1,
        prepare: |heap| {
            let ([_, last], count) = fill(heap);
            let last = Gift(last);
            on_thread(move || last.free(heap.handle(), HALF));
            (None, count - 1)
        },
        call: |heap, _| {
            one(heap, HALF);
        },
    },
    Call {
        name: "an adoption",
        size: HALF,
        gain: 1,
        prepare: |heap| {
            // The dead one's last slab has a free block.
            let theirs = Box::new_in(AtomicUsize::new(0), heap.handle());
            in_child(|| theirs.store(fill(heap).1 + one(heap, HALF).1, Ordering::Relaxed));
            let (_, count) = fill(heap);
            refuse(heap.handle());
            (None, count + theirs.load(Ordering::Relaxed))
        },
        call: |heap, _| {
            one(heap, HALF);
        },
    },
    Call {
        name: "a slab that is claimed",
        size: HALF,
        gain: 1,
        prepare: |heap| (None, fill(heap).1),
        call: |heap, _| {
            one(heap, HALF);
        },
    },
    Call {
        name: "the last free of a slab",
        size: HALF,
        gain: -1,
        prepare: |heap| {
            let ([first, last], count) = fill(heap);
            alloc(heap.handle(), HALF);
            free(heap.handle(), first, HALF);
            (Some(last), count)
        },
        call: |heap, block| free(heap.handle(), block.expect("prepared"), HALF),
    },
    Call {
        name: "a free of another's block",
        size: SIZE,
        gain: -1,
        prepare: |heap| (heap.root("block").map(|(place, _)| place), 1),
        call: |heap, block| free(heap.handle(), block.expect("the parent's"), SIZE),
    },
    Call {
        name: "a run that is claimed",
        size: LONG,
        gain: 1,
        prepare: |heap| {
            free(heap.handle(), alloc(heap.handle(), SIZE), SIZE);
            (None, 0)
        },
        call: |heap, _| {
            one(heap, LONG);
        },
    },
    Call {
        name: "a run that is freed",
        size: LONG,
        gain: -1,
        prepare: |heap| one(heap, LONG),
        call: |heap, block| free(heap.handle(), block.expect("prepared"), LONG),
    },
    Call {
        name: "a long run that is freed",
        size: LONGEST,
        gain: -1,
        prepare: |heap| one(heap, LONGEST),
        call: |heap, block| free(heap.handle(), block.expect("prepared"), LONGEST),
    },
    Call {
        name: "what the dead and a thread left is looked at",
        size: HALF,
        gain: 0,
        prepare: |heap| {
            let work = || {
                alloc(heap.handle(), HALF);
                free(heap.handle(), alloc(heap.handle(), LONG), LONG);
                free(heap.handle(), alloc(heap.handle(), HALF), HALF);
            };
            on_thread(work);
            in_child(work);
            (None, 2)
        },
        call: |heap, _| refuse(heap.handle()),
    },
    Call {
        name: "a name",
        size: SIZE,
        gain: 0,
        prepare: |heap| one(heap, SIZE),
        call: |heap, block| name(heap, block.expect("prepared")),
    },
    Call {
        name: "a name that is taken",
        size: SIZE,
        gain: 0,
        prepare: |heap| {
            let block = alloc(heap.handle(), SIZE);
            name(heap, block);
            (None, 1)
        },
        call: |heap, _| {
            heap.remove_root("name").expect("a heap");
        },
    },
    Call {
        name: "memory that goes back",
        size: LONG,
        gain: 0,
        prepare: |heap| {
            free(heap.handle(), alloc(heap.handle(), LONG), LONG);
            (None, 0)
        },
        call: |heap, _| heap.purge().expect("a heap"),
    },
    Call {
        name: "a process that closes the heap",
        size: SIZE,
        gain: 0,
        prepare: |heap| one(heap, SIZE),
        // SAFETY: the child's only thread.
        call: |heap, _| unsafe { heap.close() }.expect("not closed yet"),
    },
];

/// Gives a block the name, and says in its kind which one it is.
pub(crate) fn name(heap: &Mapped, block: NonNull<u8>) {
    heap.set_root("name", block.as_ptr(), block.addr().get() as u64)
        .expect("room");
}
