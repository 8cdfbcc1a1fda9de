//! Programs with one mistake each.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use flagstone::Flagstone;

use super::ALLOC;
use super::common::block::Block;
use super::common::raw_thread::on_raw_thread;

/// What a program does wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mistake {
    Nothing,
    FreeTwice,
    FreeTwiceWithOthersBetween,
    FreeTwiceAmongScattered,
    FreeHereThenElsewhere,
    FreeElsewhereThenHere,
    FreeTwiceElsewhere,
    FreeInside { offset: usize },
    FreeAsAnotherSize { allocated: usize },
    FreeStack,
    FreeStatic,
    FreeForeignMapping,
    FreeUnmapped,
    FreeNumber,
    ReallocFreed { to: usize },
    ReallocUnmapped { to: usize },
    ReallocInside,
    ReallocAsAnotherSize { allocated: usize },
}

impl Mistake {
    /// What the line on stderr has to say: one of these. Memory that went back to the kernel or to the
    /// arena has no owner any more, so a second free of it may look like a foreign pointer.
    pub(crate) fn words(self) -> &'static [&'static str] {
        const DOUBLE: &str = "double free";
        const FOREIGN: &str = "free of a pointer that was not allocated here";
        const INSIDE: &str = "free of a pointer into the middle of a block";
        const CLASS: &str = "free with a layout of another size class";
        match self {
            Self::Nothing => &[],
            Self::FreeTwice
            | Self::FreeTwiceWithOthersBetween
            | Self::FreeTwiceAmongScattered
            | Self::FreeHereThenElsewhere
            | Self::FreeElsewhereThenHere
            | Self::FreeTwiceElsewhere => &[DOUBLE, FOREIGN],
            Self::ReallocFreed { .. } => &["realloc of a freed block"],
            Self::ReallocUnmapped { .. } => &["realloc of a pointer that was not allocated here"],
            Self::FreeInside { .. } => &[INSIDE],
            Self::ReallocInside => &["realloc of a pointer into the middle of a block"],
            Self::FreeAsAnotherSize { .. } => &[CLASS, INSIDE, FOREIGN],
            Self::ReallocAsAnotherSize { .. } => &["realloc with a layout of another size class"],
            Self::FreeStack
            | Self::FreeStatic
            | Self::FreeForeignMapping
            | Self::FreeUnmapped
            | Self::FreeNumber => &[FOREIGN],
        }
    }
}

/// A program with one mistake, made by a free of `size` bytes.
///
/// A mistake may be noticed as late as when the block leaves the thread's cache. So the program frees
/// many blocks of the same size afterwards, allocates none in between, and ends its thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) size: usize,
    pub(crate) mistake: Mistake,
}

impl Program {
    pub(crate) fn run(&mut self) {
        // Enough to fill any cache, within 64 MiB.
        let count = ((64 << 20) / self.size).clamp(16, 20_000);
        let mut others: Vec<Block> = (0..count).map(|_| block(self.size)).collect();
        let first = others.split_off(count / 2);
        self.err(first);
        others.into_iter().for_each(|other| other.free(&ALLOC));
    }

    /// Makes the mistake; `between` are blocks to free before or in the middle of it.
    fn err(self, between: Vec<Block>) {
        let block = block(self.size);
        let right = Wrong {
            address: block.as_ptr(),
            layout: block.layout(),
        };
        match self.mistake {
            Mistake::Nothing => free(right),
            Mistake::FreeTwice => {
                free(right);
                free(right);
            }
            Mistake::FreeTwiceWithOthersBetween => {
                free(right);
                between.into_iter().for_each(|other| other.free(&ALLOC));
                free(right);
            }
            Mistake::FreeTwiceAmongScattered => {
                free(right);
                let mut left: Vec<_> = between.into_iter().map(Some).collect();
                for number in 0..left.len() {
                    // A prime: each once, and far from the one before.
                    let place = number * 977 % left.len();
                    let other = left[place].take();
                    other.expect("each once").free(&ALLOC);
                    if number == left.len() / 2 {
                        free(right);
                    }
                }
            }
            Mistake::FreeHereThenElsewhere => {
                free(right);
                free_elsewhere(right);
            }
            Mistake::FreeElsewhereThenHere => {
                free_elsewhere(right);
                free(right);
            }
            Mistake::FreeTwiceElsewhere => {
                free_elsewhere(right);
                free_elsewhere(right);
            }
            Mistake::FreeInside { offset } => {
                free(Wrong {
                    address: right.address.wrapping_add(offset),
                    ..right
                });
            }
            Mistake::FreeAsAnotherSize { allocated } => {
                let other = self::block(allocated);
                free(Wrong {
                    address: other.as_ptr(),
                    ..right
                });
            }
            Mistake::FreeStack => {
                let mut local = [0_u64; 8];
                free(Wrong {
                    address: (&raw mut local).cast(),
                    ..right
                });
            }
            Mistake::FreeStatic => {
                static WORDS: [u64; 8] = [1; 8];
                free(Wrong {
                    address: (&raw const WORDS).cast_mut().cast(),
                    ..right
                });
            }
            Mistake::FreeForeignMapping => free(Wrong {
                address: foreign_mapping(),
                ..right
            }),
            Mistake::FreeUnmapped => {
                free(Wrong {
                    address: right.address.wrapping_add(1 << 40),
                    ..right
                });
            }
            Mistake::FreeNumber => {
                free(Wrong {
                    address: ptr::without_provenance_mut(64),
                    ..right
                });
            }
            Mistake::ReallocFreed { to } => {
                free(right);
                resize(right, to);
            }
            Mistake::ReallocUnmapped { to } => {
                free(right);
                Flagstone::purge();
                resize(right, to);
            }
            Mistake::ReallocInside => resize(
                Wrong {
                    address: right.address.wrapping_add(4096),
                    ..right
                },
                2 * self.size,
            ),
            Mistake::ReallocAsAnotherSize { allocated } => {
                let other = self::block(allocated);
                resize(
                    Wrong {
                        address: other.as_ptr(),
                        ..right
                    },
                    2 * self.size,
                );
            }
        }
    }
}

/// What is passed to `dealloc`.
#[derive(Clone, Copy)]
struct Wrong {
    address: *mut u8,
    layout: Layout,
}

// SAFETY: only the address is used, by an allocator that serves all threads.
unsafe impl Send for Wrong {}

pub(crate) fn block(size: usize) -> Block {
    Block::filled(&ALLOC, size, 8, size)
}

/// Frees a block of `size` bytes twice.
pub(crate) fn free_twice(size: usize) {
    let block = block(size);
    for _ in 0..2 {
        free_as(block.as_ptr(), block.layout());
    }
}

/// Frees what may be no block.
pub(crate) fn free_as(address: *mut u8, layout: Layout) {
    free(Wrong { address, layout });
}

fn free(Wrong { address, layout }: Wrong) {
    // SAFETY: this breaks the contract, on purpose and in a child process. Nothing touches the block.
    unsafe { ALLOC.dealloc(address, layout) }
}

fn resize(Wrong { address, layout }: Wrong, to: usize) {
    // SAFETY: this breaks the contract, on purpose and in a child process. Nothing touches the block.
    let moved = unsafe { ALLOC.realloc(address, layout, to) };
    assert!(!moved.is_null(), "no memory");
}

/// Frees on a thread that does nothing else and has ended when this returns.
fn free_elsewhere(wrong: Wrong) {
    on_raw_thread(&mut { wrong }, |wrong| free(*wrong));
}

/// Memory that looks like the allocator's and is not.
#[expect(
    clippy::disallowed_methods,
    reason = "memory that the allocator does not own"
)]
fn foreign_mapping() -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
    let mapping = unsafe { libc::mmap(ptr::null_mut(), 8 << 20, access, kind, -1, 0) };
    assert_ne!(mapping, libc::MAP_FAILED, "mmap refused");
    mapping.cast()
}
