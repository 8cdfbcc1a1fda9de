//! What many heaps hold, in a process of its own.

use std::env;
use std::fs;
use std::hint::black_box;
use std::process::Command;

use flagstone::Heap;

use crate::contestant::{Arena, Contestant, Global, MiHeap};
use crate::rows::sizes;

/// Says that this process is to fill heaps, and whose.
const WHOSE: &str = "FLAGSTONE_COMPARE_HEAPS";
const HEAPS: usize = 10_000;
const BLOCKS: usize = 20;

fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number of pages") * 4096
}

fn fill<C: Contestant>() -> usize {
    let layouts = sizes(HEAPS * BLOCKS);
    let mut heaps = Vec::with_capacity(HEAPS);
    let before = resident();
    for layouts in layouts.chunks(BLOCKS) {
        let heap = C::new();
        for layout in layouts {
            let block = heap.alloc(*layout);
            // SAFETY: 1. as long as the layout.
            unsafe { black_box(block).write_bytes(1, layout.size()) };
        }
        heaps.push(heap);
    }
    resident().saturating_sub(before)
}

/// Does what another process of this program was started for, if this is one.
pub(crate) fn filled() -> Option<usize> {
    match env::var(WHOSE).ok()?.as_str() {
        Heap::NAME => Some(fill::<Heap>()),
        Global::NAME => Some(fill::<Global>()),
        MiHeap::NAME => Some(fill::<MiHeap>()),
        Arena::NAME => Some(fill::<Arena>()),
        _ => None,
    }
}

/// Bytes in memory for each of 10 000 heaps of 20 blocks.
pub(crate) fn small_heap<C: Contestant>() -> f64 {
    let program = env::current_exe().expect("this program");
    // Without huge pages: with them mimalloc's heaps take four times as much.
    let mut command = Command::new(program);
    command.env(WHOSE, C::NAME).env("MIMALLOC_ALLOW_THP", "0");
    let output = command.output();
    let output = output.expect("a process");
    let bytes = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse::<f64>();
    bytes.expect("bytes") / HEAPS as f64
}
