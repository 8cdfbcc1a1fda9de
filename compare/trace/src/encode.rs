//! From checked operations to the bytes of a packed file.

use miniz_oxide::deflate::compress_to_vec;

use crate::column::{self, Tag};
use crate::format::Header;
use crate::op::Kind;

/// The highest of miniz_oxide's levels: a trace is packed once and kept.
const LEVEL: u8 = 10;

/// Collects operations. The caller sees to it that they make sense.
#[derive(Default)]
pub(crate) struct Encoder {
    tags: Vec<u8>,
    threads: Vec<u8>,
    blocks: Vec<u8>,
    sizes: Vec<u8>,
    thread: u16,
    threads_seen: u32,
    births: u64,
    named: u64,
    live: u32,
    slots: u32,
    live_bytes: u64,
    peak_live_bytes: u64,
}

/// A live block as the encoder knows it: the number of allocations before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u64);

impl Encoder {
    pub(crate) fn ops(&self) -> u64 {
        self.tags.len() as u64
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    fn begin(&mut self, kind: Kind, thread: u16, align_log2: u8) {
        let is_switch = thread != self.thread;
        if is_switch {
            column::push(&mut self.threads, thread.into());
            self.thread = thread;
        }
        self.threads_seen = self.threads_seen.max(u32::from(thread) + 1);
        self.tags
            .push(Tag::new(kind as u8, is_switch, align_log2).0);
    }

    fn name(&mut self, block: Birth) {
        let difference = block.0.wrapping_sub(self.named).cast_signed();
        column::push_signed(&mut self.blocks, difference);
        self.named = block.0;
    }

    fn add_bytes(&mut self, bytes: u64) {
        self.live_bytes += bytes;
        self.peak_live_bytes = self.peak_live_bytes.max(self.live_bytes);
    }

    /// A new block, zeroed or not.
    pub(crate) fn alloc(&mut self, kind: Kind, thread: u16, size: u64, align_log2: u8) -> Birth {
        self.begin(kind, thread, align_log2);
        column::push(&mut self.sizes, size);
        self.add_bytes(size);
        self.live += 1;
        self.slots = self.slots.max(self.live);
        self.births += 1;
        Birth(self.births - 1)
    }

    pub(crate) fn realloc(&mut self, thread: u16, block: Birth, old_size: u64, size: u64) {
        self.begin(Kind::Realloc, thread, 0);
        self.name(block);
        column::push(&mut self.sizes, size);
        self.live_bytes -= old_size;
        self.add_bytes(size);
    }

    pub(crate) fn free(&mut self, thread: u16, block: Birth, size: u64) {
        self.begin(Kind::Free, thread, 0);
        self.name(block);
        self.live_bytes -= size;
        self.live -= 1;
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let columns = [&self.tags, &self.threads, &self.blocks, &self.sizes].map(Vec::as_slice);
        let packed = compress_to_vec(&columns.concat(), LEVEL);
        Header {
            slots: self.slots,
            threads: self.threads_seen,
            ops: self.ops(),
            peak_live_bytes: self.peak_live_bytes,
            end_live_bytes: self.live_bytes,
            threads_length: self.threads.len() as u64,
            blocks_length: self.blocks.len() as u64,
            sizes_length: self.sizes.len() as u64,
            packed_length: packed.len() as u64,
        }
        .file(&packed)
    }
}
