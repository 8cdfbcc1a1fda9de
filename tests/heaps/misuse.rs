//! What a heap sees of wrong frees ends the process, with one line that says why.

use core::alloc::Layout;
use core::ptr::NonNull;
use std::io::{self, Write};
use std::process;

use flagstone::Heap;
use flagstone::allocator_api2::alloc::Allocator;

use crate::common::child::{run_child_with, scenario};
use crate::common::process::begin;

const NAME: &str = "misuse::wrong_frees_are_noticed";
const SURVIVED: &str = "the program ran to its end";

/// A heap, another, and blocks of the first.
struct Stage {
    heap: Heap,
    other: Heap,
    layout: Layout,
    blocks: Vec<NonNull<u8>>,
}

impl Stage {
    fn new(size: usize) -> Self {
        let heap = Heap::new().expect("memory");
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let alloc = |_| (&heap).allocate(layout).expect("memory").cast();
        let blocks = (0..100).map(alloc).collect();
        Self {
            other: Heap::new().expect("memory"),
            blocks,
            layout,
            heap,
        }
    }

    fn free(&self, place: usize) {
        self.free_as(self.blocks[place], self.layout);
    }

    fn free_as(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: right or wrong on purpose, in a child process.
        unsafe { (&self.heap).deallocate(block, layout) };
    }
}

impl Stage {
    /// Frees block 7 on another thread, as often as said.
    fn free_elsewhere(&self, times: usize) {
        let (heap, layout) = (&self.heap, self.layout);
        let address = self.blocks[7].expose_provenance();
        std::thread::scope(|scope| {
            let free = move || {
                for _ in 0..times {
                    let block = NonNull::with_exposed_provenance(address);
                    // SAFETY: right or wrong on purpose, in a child process.
                    unsafe { heap.deallocate(block, layout) };
                }
                // It leaves that thread's magazine behind others.
                let others = [(); 20].map(|()| heap.allocate(layout).expect("memory"));
                for other in others {
                    // SAFETY: live, not used any more.
                    unsafe { heap.deallocate(other.cast(), layout) };
                }
            };
            let _ = scope.spawn(free).join();
        });
    }
}

type Mistake = (&'static str, fn(&Stage), &'static [&'static str]);

const DOUBLE: &[&str] = &["double free", "was not allocated here"];
const FOREIGN: &[&str] = &["was not allocated here"];

const MISTAKES: [Mistake; 13] = [
    ("nothing", |_| {}, &[]),
    (
        "twice",
        |stage| {
            stage.free(7);
            stage.free(7);
        },
        DOUBLE,
    ),
    (
        "twice, the last",
        |stage| {
            stage.free(99);
            stage.free(99);
        },
        DOUBLE,
    ),
    (
        "twice, others between",
        |stage| {
            [99, 98, 97, 3, 98]
                .into_iter()
                .for_each(|place| stage.free(place))
        },
        DOUBLE,
    ),
    (
        "all, and one again",
        |stage| {
            (0..10).for_each(|place| stage.free(place));
            stage.free(5);
        },
        DOUBLE,
    ),
    (
        "one that is at hand",
        |stage| {
            // So many that the last are in a bitmap, and an allocation takes a word of that.
            (90..100).for_each(|place| stage.free(place));
            let mut others = Vec::new();
            let is_back = |block: &NonNull<u8>| stage.blocks[90..99].contains(block);
            while !others.last().is_some_and(is_back) && others.len() < 300 {
                let block = (&stage.heap).allocate(stage.layout).expect("memory");
                others.push(block.cast::<u8>());
            }
            let again = (90..100).rev().map(|place| stage.blocks[place]);
            let free = again.filter(|block| !others.contains(block));
            free.for_each(|block| stage.free_as(block, stage.layout));
        },
        DOUBLE,
    ),
    (
        "here and elsewhere",
        |stage| {
            stage.free(7);
            stage.free_elsewhere(1);
        },
        DOUBLE,
    ),
    ("elsewhere twice", |stage| stage.free_elsewhere(2), DOUBLE),
    (
        "inside",
        |stage| {
            // SAFETY: inside the block.
            let inside = unsafe { stage.blocks[7].add(8) };
            stage.free_as(inside, stage.layout);
        },
        &["middle of a block", "was not allocated here"],
    ),
    (
        "another size",
        |stage| {
            let layout = Layout::from_size_align(stage.layout.size() * 3, 8).expect("a layout");
            // As many as a magazine of that size lets wait.
            let others = [(); 70].map(|()| (&stage.heap).allocate(layout).expect("memory"));
            stage.free_as(stage.blocks[7], layout);
            for other in others {
                stage.free_as(other.cast(), layout);
            }
        },
        &["another size"],
    ),
    (
        "the other heap",
        |stage| {
            // SAFETY: wrong on purpose, in a child process.
            unsafe { (&stage.other).deallocate(stage.blocks[7], stage.layout) };
        },
        &["block of another heap", "was not allocated here"],
    ),
    (
        "the stack",
        |stage| {
            let mut here = 0_u64;
            let place = NonNull::from(&mut here).cast();
            stage.free_as(place, stage.layout);
        },
        FOREIGN,
    ),
    (
        "the global allocator's",
        |stage| {
            let block = Box::leak(vec![0_u8; stage.layout.size()].into_boxed_slice());
            stage.free_as(NonNull::from(&mut block[0]), stage.layout);
        },
        FOREIGN,
    ),
];

/// Of blocks of sub-slabs, and of blocks of the engine.
const SIZES: [usize; 4] = [24, 1_000, 9_000, 200_000];

#[test]
fn wrong_frees_are_noticed() {
    if let Some(number) = scenario() {
        let number: usize = number.parse().expect("a number");
        let stage = Stage::new(SIZES[number % SIZES.len()]);
        MISTAKES[number / SIZES.len()].1(&stage);
        // A mistake may be noticed as late as when the block leaves the magazine.
        (10..90).for_each(|place| stage.free(place));
        writeln!(io::stdout(), "{SURVIVED}").expect("a message");
        process::exit(0);
    }
    let _turn = begin();
    for hardened in ["off", "all"] {
        let options = [("FLAGSTONE_HARDENED", hardened)];
        for (number, (mistake, _, words)) in MISTAKES.iter().enumerate() {
            for (place, size) in SIZES.iter().enumerate() {
                let number = (number * SIZES.len() + place).to_string();
                let exit = run_child_with(NAME, &number, &options);
                let told = format!("{mistake}, {size} bytes, hardened {hardened}: {exit:?}");
                assert_eq!(words.is_empty(), exit.stdout.contains(SURVIVED), "{told}");
                if words.is_empty() {
                    assert_eq!(exit.code, Some(0), "{told}");
                    continue;
                }
                assert_eq!(exit.signal, Some(libc::SIGABRT), "{told}");
                let mut lines = exit
                    .stderr
                    .lines()
                    .filter_map(|line| line.strip_prefix("flagstone: "));
                let why = lines.next().unwrap_or_default();
                assert!(words.iter().any(|words| why.contains(words)), "{told}");
                assert_eq!(lines.next(), None, "{told}");
            }
        }
    }
}
