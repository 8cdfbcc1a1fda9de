//! Operation programs: what a program could ask of an allocator, as data. A program runs the same way
//! every time, and any part of it is a program too, which is what makes a failure small enough to read.

use core::alloc::Layout;
use core::fmt;
use core::ops::RangeInclusive;

use flagstone::Flagstone;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::block::{Block, Heap};
use super::process::live;
use super::shadow::Shadow;

/// Programs hold at most this much at a time; past it they ask for small blocks only.
const MAX_HELD: usize = 64 << 20;
/// Operations between two visits of the whole allocator.
const VERIFY_EVERY: usize = 500;
/// A program that seems to leak runs this often: a leak repeats, what std or the harness keeps does not.
const LEAK_RUNS: usize = 4;
/// Runs that shrinking may take.
const SHRINK_RUNS: usize = 400;

/// One operation. Slots stand for a program's variables: filling a full slot frees what was there, and
/// the other operations do nothing on an empty one, so an operation can be left out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Alloc {
        slot: usize,
        size: usize,
        align: usize,
    },
    AllocZeroed {
        slot: usize,
        size: usize,
        align: usize,
    },
    Realloc {
        slot: usize,
        size: usize,
    },
    Free {
        slot: usize,
    },
}

/// What went wrong, and at which operation.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) step: usize,
    pub(crate) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}: {}", self.step, self.what)
    }
}

/// A kind of program.
struct Shape {
    ops: usize,
    slots: usize,
    /// Sizes lie between these powers of two.
    size_bits: RangeInclusive<u32>,
    /// Of 16 operations, how many reallocate.
    reallocs: u32,
}

const SHAPES: [Shape; 3] = [
    Shape {
        ops: 4_000,
        slots: 256,
        size_bits: 0..=22,
        reallocs: 4,
    },
    Shape {
        ops: 20_000,
        slots: 4_000,
        size_bits: 0..=10,
        reallocs: 2,
    },
    Shape {
        ops: 600,
        slots: 24,
        size_bits: 15..=22,
        reallocs: 8,
    },
];

/// The program of `seed`; three neighbouring seeds give one of each kind.
pub(crate) fn generate(seed: u64) -> Vec<Op> {
    let shape = &SHAPES[usize::try_from(seed % 3).expect("less than three")];
    let mut rng = SmallRng::seed_from_u64(seed);
    (0..shape.ops).map(|_| random_op(&mut rng, shape)).collect()
}

fn random_op(rng: &mut SmallRng, shape: &Shape) -> Op {
    let slot = rng.random_range(0..shape.slots);
    let size = random_size(rng, shape.size_bits.clone());
    let max_align = if rng.random_ratio(1, 8) { 16 } else { 4 };
    let align = 1 << rng.random_range(0..=max_align);
    let choice = rng.random_range(0..16);
    if choice < shape.reallocs {
        Op::Realloc { slot, size }
    } else if choice < shape.reallocs + 2 {
        Op::Free { slot }
    } else if choice.is_multiple_of(4) {
        Op::AllocZeroed { slot, size, align }
    } else {
        Op::Alloc { slot, size, align }
    }
}

/// Equally many sizes from each power of two; a third of them at or beside a multiple of 16 or 4096.
fn random_size(rng: &mut SmallRng, bits: RangeInclusive<u32>) -> usize {
    let max = 1 << bits.end();
    let low = 1_usize << rng.random_range(bits);
    let size = rng.random_range(low..low * 2);
    let size = match rng.random_range(0..6) {
        0 => size.next_multiple_of(16) + rng.random_range(0..3) - 1,
        1 => size.next_multiple_of(4096) + rng.random_range(0..3) - 1,
        _ => size,
    };
    size.min(max)
}

/// Runs `program` and checks every answer of the allocator. The memory of a faulty run is left behind.
pub(crate) fn run(heap: &Heap, program: &[Op]) -> Result<(), Fault> {
    let mut fault = Ok(());
    for _ in 0..LEAK_RUNS {
        let before = live();
        Run::new(heap).all(program)?;
        let after = live();
        if before == after {
            return Ok(());
        }
        let what = format!("live bytes were {before} before the program and {after} after it");
        fault = Err(Fault {
            step: program.len(),
            what,
        });
    }
    fault
}

/// Leaves out parts of a program, halves first, as long as it still `fails`.
pub(crate) fn shrink(mut program: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut runs = 0;
    let mut part = program.len() / 2;
    while part > 0 {
        let mut start = 0;
        while start < program.len() && runs < SHRINK_RUNS {
            let end = (start + part).min(program.len());
            let shorter = [&program[..start], &program[end..]].concat();
            runs += 1;
            if fails(&shorter) {
                program = shorter;
            } else {
                start = end;
            }
        }
        part /= 2;
    }
    program
}

/// A block in a slot: what it holds is the pattern of `tag`.
struct Held {
    block: Block,
    tag: usize,
}

/// The state of one run. `tag` numbers the contents, so that no two blocks hold the same.
struct Run<'a> {
    heap: &'a Heap,
    slots: Vec<Option<Held>>,
    shadow: Shadow,
    held: usize,
    tag: usize,
}

impl<'a> Run<'a> {
    fn new(heap: &'a Heap) -> Self {
        let slots = SHAPES
            .iter()
            .map(|shape| shape.slots)
            .max()
            .expect("shapes");
        Self {
            heap,
            slots: (0..slots).map(|_| None).collect(),
            shadow: Shadow::default(),
            held: 0,
            tag: 0,
        }
    }

    fn all(mut self, program: &[Op]) -> Result<(), Fault> {
        for (step, &op) in program.iter().enumerate() {
            self.step(op).map_err(|what| Fault {
                step,
                what: format!("{op:?}: {what}"),
            })?;
            if step % VERIFY_EVERY == VERIFY_EVERY - 1 {
                verify().map_err(|what| Fault { step, what })?;
            }
        }
        let step = program.len();
        (0..self.slots.len())
            .try_for_each(|slot| self.free(slot))
            .map_err(|what| Fault { step, what })?;
        verify().map_err(|what| Fault { step, what })
    }

    fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Alloc { slot, size, align } => self.alloc(slot, size, align, false),
            Op::AllocZeroed { slot, size, align } => self.alloc(slot, size, align, true),
            Op::Realloc { slot, size } => self.realloc(slot, size),
            Op::Free { slot } => self.free(slot),
        }
    }

    fn alloc(
        &mut self,
        slot: usize,
        size: usize,
        align: usize,
        zeroed: bool,
    ) -> Result<(), String> {
        self.free(slot)?;
        let layout = Layout::from_size_align(self.affordable(size), align).expect("a valid layout");
        let block = if zeroed {
            Block::alloc_zeroed(self.heap, layout)
        } else {
            Block::alloc(self.heap, layout)
        };
        let block = block.ok_or("null")?;
        self.admit(&block)?;
        if zeroed && !block.is_zero() {
            return Err("the memory is not zero".into());
        }
        self.hold(slot, block);
        Ok(())
    }

    fn realloc(&mut self, slot: usize, size: usize) -> Result<(), String> {
        let Some(Held { block, tag }) = self.slots[slot].take() else {
            return Ok(());
        };
        let old_size = block.size();
        self.forget(&block, tag)?;
        let block = block
            .realloc(self.heap, self.affordable(size))
            .map_err(|_| "null")?;
        self.admit(&block)?;
        if !block.holds(tag, old_size.min(block.size())) {
            return Err("the contents did not come along".into());
        }
        self.hold(slot, block);
        Ok(())
    }

    fn free(&mut self, slot: usize) -> Result<(), String> {
        let Some(Held { block, tag }) = self.slots[slot].take() else {
            return Ok(());
        };
        self.forget(&block, tag)?;
        block.free(self.heap);
        Ok(())
    }

    /// Checks what the block holds, before the allocator gets it back.
    fn forget(&mut self, block: &Block, tag: usize) -> Result<(), String> {
        if !block.holds(tag, block.size()) {
            return Err(format!(
                "block {:#x}, {:?}, was overwritten",
                block.addr(),
                block.layout()
            ));
        }
        self.shadow.remove(block.addr());
        self.held -= block.size();
        Ok(())
    }

    fn affordable(&self, size: usize) -> usize {
        if self.held + size > MAX_HELD {
            size % 4096 + 1
        } else {
            size
        }
    }

    /// Checks the address before anything is written there.
    fn admit(&mut self, block: &Block) -> Result<(), String> {
        if !block.is_aligned() {
            return Err(format!("{:#x} is not aligned", block.addr()));
        }
        self.shadow
            .insert(block.addr(), block.size())
            .map_err(|(start, end)| {
                format!(
                    "{:#x} lies in a live block, {start:#x}..{end:#x}",
                    block.addr()
                )
            })
    }

    fn hold(&mut self, slot: usize, block: Block) {
        self.tag += 1;
        self.held += block.size();
        block.fill(self.tag);
        self.slots[slot] = Some(Held {
            block,
            tag: self.tag,
        });
    }
}

fn verify() -> Result<(), String> {
    Flagstone::verify().map_err(|violation| format!("{violation:?}"))
}
