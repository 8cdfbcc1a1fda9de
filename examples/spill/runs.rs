//! Sorted runs in the heap, and their merge. The kernel writes what does not fit in memory to the disk, and reads it
//! when it is touched: so all but the run that is being sorted is written and read once, from its beginning to its end.

use core::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, TryReserveError, VecDeque};

use flagstone::mapped::Vec as MappedVec;
use flagstone::{Mapped, MappedError};

/// Sorted lines stand in blocks of so many bytes, or of a run if that is less.
const BLOCK: usize = 1 << 20;

/// Where a line stands in the text of a run.
#[derive(Clone, Copy)]
struct Line {
    begin: u32,
    length: u32,
}

/// Takes lines, and makes sorted runs of them.
pub(crate) struct Sorter<'a> {
    heap: &'a Mapped,
    /// The run that is being filled: its lines as they came, and where each is.
    text: MappedVec<u8>,
    lines: MappedVec<Line>,
    runs: Vec<Run>,
    block: usize,
}

/// Sorted lines, each with its end of line; none lies in two blocks.
struct Run {
    blocks: VecDeque<MappedVec<u8>>,
    /// The block that is being merged. It was copied as a whole, and went back to the heap: the kernel may read megabytes
    /// around what is touched, and if there are many runs, these would be gone before the next line is.
    text: Vec<u8>,
    /// Bytes of it that are merged.
    read: usize,
}

fn no_room<E>(_: E) -> MappedError {
    MappedError::NoSpace
}

impl<'a> Sorter<'a> {
    /// One whose runs have so many bytes of text, and as many for the places of lines.
    pub(crate) fn new(heap: &'a Mapped, run: usize) -> Result<Self, MappedError> {
        let mut text = MappedVec::new_in(heap.handle());
        text.try_reserve_exact(run).map_err(no_room)?;
        let mut lines = MappedVec::new_in(heap.handle());
        lines
            .try_reserve_exact(run / size_of::<Line>())
            .map_err(no_room)?;
        Ok(Self {
            heap,
            text,
            lines,
            runs: Vec::new(),
            block: BLOCK.min(run),
        })
    }

    /// Takes a line, without its end.
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<(), MappedError> {
        let fits = self.text.capacity() - self.text.len() >= line.len();
        if !self.lines.is_empty() && (!fits || self.lines.len() == self.lines.capacity()) {
            self.end_run()?;
        }
        // One that is longer than a run makes the text longer.
        self.text.try_reserve_exact(line.len()).map_err(no_room)?;
        let place = |count: usize| u32::try_from(count).map_err(no_room);
        let (begin, length) = (place(self.text.len())?, place(line.len())?);
        self.text.extend_from_slice(line);
        self.lines.push(Line { begin, length });
        Ok(())
    }

    /// Sorts what there is, and writes it to blocks, one after the other.
    fn end_run(&mut self) -> Result<(), MappedError> {
        let text = &self.text;
        let line = |line: &Line| &text[line.begin as usize..][..line.length as usize];
        self.lines
            .sort_unstable_by(|one, other| line(one).cmp(line(other)));
        let mut blocks = VecDeque::new();
        let mut block = MappedVec::new_in(self.heap.handle());
        for text in self.lines.iter().map(line) {
            if block.capacity() - block.len() <= text.len() {
                if !block.is_empty() {
                    blocks.push_back(block);
                }
                block = MappedVec::new_in(self.heap.handle());
                block
                    .try_reserve_exact(self.block.max(text.len() + 1))
                    .map_err(no_room)?;
            }
            block.extend_from_slice(text);
            block.push(b'\n');
        }
        blocks.push_back(block);
        self.runs.push(Run {
            blocks,
            text: Vec::new(),
            read: 0,
        });
        self.text.clear();
        self.lines.clear();
        Ok(())
    }

    /// All lines in order.
    pub(crate) fn merge(mut self) -> Result<Merge, MappedError> {
        if !self.lines.is_empty() {
            self.end_run()?;
        }
        let mut heads = BinaryHeap::new();
        for (number, run) in self.runs.iter_mut().enumerate() {
            let mut line = Vec::new();
            if run.next(&mut line).map_err(no_room)? {
                heads.push(Reverse((line, number)));
            }
        }
        Ok(Merge {
            runs: self.runs,
            heads,
        })
    }
}

impl Run {
    /// Copies the next line, with its end; whether there was one. An `Err` if there is no memory for a block.
    fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, TryReserveError> {
        line.clear();
        if self.read == self.text.len() {
            self.read = 0;
            self.text.clear();
            let Some(block) = self.blocks.pop_front() else {
                self.text = Vec::new();
                return Ok(false);
            };
            self.text.try_reserve_exact(block.len())?;
            self.text.extend_from_slice(&block);
        }
        let rest = &self.text[self.read..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&rest[..end.map_or(rest.len(), |end| end + 1)]);
        self.read += line.len();
        Ok(true)
    }
}

/// The lines of all runs: the next of each is at hand.
pub(crate) struct Merge {
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
}

impl Merge {
    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Calls with the least line that is left, with its end; whether there was one.
    pub(crate) fn next<E: From<MappedError>>(
        &mut self,
        act: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(mut head) = self.heads.peek_mut() else {
            return Ok(false);
        };
        let Reverse((line, number)) = &mut *head;
        act(line)?;
        if !self.runs[*number].next(line).map_err(no_room)? {
            PeekMut::pop(head);
        }
        Ok(true)
    }
}
