//! Files that are damaged or made up: every one is an error or a trace that keeps its promises.

use std::alloc::Layout;
use std::collections::HashMap;

use crate::encode::Encoder;
use crate::format::{self, HEADER};
use crate::op::Kind;
use crate::raw::{self, Event, Step};
use crate::{PackError, Trace, TraceError, pack};

/// The first steps of a multiplicative generator: enough to vary programs.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn event(step: Step, thread: u32, block: (u64, u64, u8)) -> Event {
    let (address, size, align_log2) = block;
    Event {
        step,
        align_log2,
        thread,
        size,
        address,
    }
}

/// A random program over up to 40 addresses, which are given to the next comer as soon as they are
/// free; with reallocations that move, stay and fail while other threads go on.
fn program(seed: u64, steps: usize) -> Vec<Event> {
    let mut random = Random(seed);
    let mut addresses: Vec<u64> = (1..=40).map(|number| number * 16).collect();
    let mut live: Vec<(u64, u64, u8)> = Vec::new();
    let mut moving = Vec::new();
    let mut events = Vec::new();
    for _ in 0..steps {
        let thread = 1 + random.below(3) as u32;
        let bits = 1 + random.below(40);
        let size = 1 + random.below(1 << bits);
        let is_busy = moving.iter().any(|&(busy, _)| busy == thread);
        match random.below(6) {
            0 | 1 if addresses.len() > 4 => {
                let at = random.below(addresses.len() as u64) as usize;
                let block = (addresses.swap_remove(at), size, random.below(7) as u8);
                let step = [Step::Alloc, Step::AllocZeroed][random.below(2) as usize];
                live.push(block);
                events.push(event(step, thread, block));
            }
            2 if !live.is_empty() && !is_busy => {
                let at = random.below(live.len() as u64) as usize;
                let block = live.swap_remove(at);
                moving.push((thread, block));
                events.push(event(Step::ReallocFrom, thread, block));
            }
            3 if !moving.is_empty() => {
                let (thread, old) = moving.swap_remove(0);
                let mut block = (old.0, size, old.2);
                match random.below(3) {
                    0 => live.push(block),
                    1 => {
                        addresses.push(old.0);
                        block.0 = addresses.swap_remove(0);
                        live.push(block);
                    }
                    _ => {
                        block.0 = 0;
                        live.push(old);
                    }
                }
                events.push(event(Step::ReallocTo, thread, block));
            }
            4 | 5 if !live.is_empty() => {
                let at = random.below(live.len() as u64) as usize;
                let block = live.swap_remove(at);
                addresses.push(block.0);
                events.push(event(Step::Free, thread, block));
            }
            _ => {}
        }
    }
    events
}

fn recording(events: &[Event]) -> Vec<u8> {
    let mut file = raw::HEADER.to_vec();
    let end = event(Step::End, 0, (0, events.len() as u64, 0));
    for event in events.iter().chain([&end]) {
        file.extend(event.to_bytes());
    }
    file
}

/// The promises of `Trace`, and the header's numbers.
fn check(trace: &Trace) {
    let mut slots: Vec<Option<Layout>> = vec![None; trace.slots()];
    let (mut live, mut peak) = (0_u64, 0);
    for op in trace.ops() {
        assert!(op.thread() < trace.threads() && op.size() > 0);
        let slot = &mut slots[op.slot()];
        let now = Some(op.layout());
        match op.kind() {
            Kind::Alloc | Kind::AllocZeroed => assert!(slot.is_none()),
            Kind::Realloc => assert_eq!(slot.map(|old| old.align()), Some(op.align())),
            Kind::Free => assert_eq!(*slot, now),
        }
        live -= slot.map_or(0, |old| old.size() as u64);
        *slot = now.filter(|_| op.kind() != Kind::Free);
        live += slot.map_or(0, |new| new.size() as u64);
        peak = peak.max(live);
    }
    assert_eq!(
        (peak, live),
        (trace.peak_live_bytes(), trace.end_live_bytes())
    );
}

#[test]
fn random_programs_come_back() {
    for seed in 0..200 {
        let events = program(seed, 400);
        let packed = pack(recording(&events).as_slice(), None).unwrap();
        let trace = Trace::from_bytes(&packed).unwrap();
        check(&trace);
        // Kinds, sizes, alignments and threads in order, and which blocks are which.
        let mut moves = [(0, 0); 4];
        let mut threads = Vec::new();
        let mut slots = HashMap::new();
        let mut ops = trace.ops().iter();
        for event in &events {
            let from = &mut moves[event.thread as usize];
            let kind = match event.step {
                Step::Alloc => Kind::Alloc,
                Step::AllocZeroed => Kind::AllocZeroed,
                Step::Free => Kind::Free,
                Step::ReallocFrom => {
                    *from = slots.remove_entry(&event.address).unwrap();
                    continue;
                }
                Step::ReallocTo if event.address == 0 => {
                    slots.insert(from.0, from.1);
                    continue;
                }
                Step::ReallocTo => Kind::Realloc,
                Step::End => unreachable!(),
            };
            let op = ops.next().unwrap();
            assert_eq!((op.kind(), op.size() as u64), (kind, event.size));
            assert_eq!(op.align(), 1 << event.align_log2);
            if !threads.contains(&event.thread) {
                threads.push(event.thread);
            }
            assert_eq!(threads[op.thread()], event.thread);
            match kind {
                Kind::Free => assert_eq!(slots.remove(&event.address), Some(op.slot())),
                _ => assert_eq!(slots.insert(event.address, op.slot()), None),
            }
            if kind == Kind::Realloc {
                assert_eq!(from.1, op.slot());
            }
        }
        assert!(ops.next().is_none());
    }
}

#[test]
fn every_prefix_can_be_packed() {
    let events = program(1, 300);
    let file = recording(&events);
    let all = Trace::from_bytes(&pack(file.as_slice(), None).unwrap()).unwrap();
    for first in 0..=all.ops().len() {
        let packed = pack(file.as_slice(), Some(first as u64)).unwrap();
        let trace = Trace::from_bytes(&packed).unwrap();
        assert_eq!(trace.ops(), &all.ops()[..first]);
        check(&trace);
    }
}

#[test]
fn a_trace_that_is_cut_or_changed_is_an_error() {
    let packed = pack(recording(&program(2, 120)).as_slice(), None).unwrap();
    for length in 0..packed.len() {
        let error = Trace::from_bytes(&packed[..length]).unwrap_err();
        assert!(matches!(error, TraceError::CutOff), "{length}: {error}");
    }
    for at in 0..packed.len() {
        for flip in 1..=u8::MAX {
            let mut file = packed.clone();
            file[at] ^= flip;
            assert!(Trace::from_bytes(&file).is_err(), "byte {at} ^ {flip}");
        }
    }
    let longer = [packed.as_slice(), &[0]].concat();
    assert!(matches!(
        Trace::from_bytes(&longer),
        Err(TraceError::Header(_))
    ));
}

/// As an attacker would: the checksum is right.
#[test]
fn a_trace_that_is_made_up_is_an_error_or_keeps_the_promises() {
    let packed = pack(recording(&program(3, 120)).as_slice(), None).unwrap();
    let mut accepted = 0;
    for at in 0..packed.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
            let mut file = packed.clone();
            file[at] ^= flip;
            format::seal(&mut file);
            if let Ok(trace) = Trace::from_bytes(&file) {
                accepted += 1;
                check(&trace);
            }
        }
    }
    // Only the checksum's own bytes make no difference, and a few changes that make another program.
    assert!(accepted >= 4 * 9, "{accepted}");
}

/// Changes the columns themselves, which compression hides from the test above.
#[test]
fn columns_that_are_made_up_are_an_error_or_keep_the_promises() {
    let packed = pack(recording(&program(4, 150)).as_slice(), None).unwrap();
    let (header, body) = format::Header::of(&packed).unwrap();
    let columns = miniz_oxide::inflate::decompress_to_vec(body).unwrap();
    for at in 0..columns.len() {
        // A bit at a time: packing costs more than reading.
        for bit in 0..8 {
            let mut changed = columns.clone();
            changed[at] ^= 1 << bit;
            let body = miniz_oxide::deflate::compress_to_vec(&changed, 0);
            let packed_length = body.len() as u64;
            let file = format::Header {
                packed_length,
                ..header
            }
            .file(&body);
            if let Ok(trace) = Trace::from_bytes(&file) {
                check(&trace);
            }
        }
    }
}

#[test]
fn a_header_cannot_ask_for_much_memory() {
    let packed = pack(recording(&program(5, 50)).as_slice(), None).unwrap();
    for at in (24..HEADER).step_by(8) {
        for value in [u64::MAX, 1 << 63, 1 << 40, 1 << 29] {
            let mut file = packed.clone();
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
            format::seal(&mut file);
            assert!(Trace::from_bytes(&file).is_err(), "{value} at {at}");
        }
    }
}

#[test]
fn a_recording_that_is_cut_is_an_error() {
    let file = recording(&program(6, 60));
    for length in 0..file.len() {
        let error = pack(&file[..length], None).unwrap_err();
        assert!(matches!(error, PackError::CutOff(_)), "{length}: {error}");
    }
    let longer = [file.as_slice(), &[0]].concat();
    assert!(matches!(
        pack(longer.as_slice(), None),
        Err(PackError::Bad { .. })
    ));
}

#[test]
fn a_recording_that_is_changed_is_an_error_or_another_program() {
    let file = recording(&program(7, 60));
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            match pack(changed.as_slice(), None) {
                Ok(packed) => check(&Trace::from_bytes(&packed).unwrap()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn a_program_that_cannot_be_is_refused() {
    let block = (16, 8, 3);
    let cases = [
        vec![event(Step::Free, 1, block)],
        vec![event(Step::Alloc, 1, block), event(Step::Alloc, 2, block)],
        vec![
            event(Step::Alloc, 1, block),
            event(Step::Free, 1, (16, 9, 3)),
        ],
        vec![
            event(Step::Alloc, 1, block),
            event(Step::Free, 1, (16, 8, 2)),
        ],
        vec![event(Step::Alloc, 1, (16, 0, 3))],
        vec![event(Step::Alloc, 1, (16, 1 << 63, 3))],
        vec![event(Step::Alloc, 1, (16, 8, 64))],
        vec![event(Step::Alloc, 1, (0, 8, 3))],
        vec![event(Step::ReallocTo, 1, block)],
        vec![event(Step::ReallocFrom, 1, block)],
        vec![event(Step::End, 0, (0, 0, 0))],
    ];
    for case in cases {
        let error = pack(recording(&case).as_slice(), None).unwrap_err();
        assert!(matches!(error, PackError::Bad { .. }), "{case:?}: {error}");
    }
    let threads: Vec<_> = (1..=65_537)
        .map(|thread| event(Step::Alloc, thread, (thread.into(), 8, 0)))
        .collect();
    assert!(pack(recording(&threads).as_slice(), Some(65_536)).is_ok());
    assert!(pack(recording(&threads).as_slice(), None).is_err());
}

#[test]
fn nothing_is_a_program_too() {
    let packed = Encoder::default().finish();
    let trace = Trace::from_bytes(&packed).unwrap();
    assert!(trace.ops().is_empty() && trace.slots() == 0 && trace.mapped_bytes() == 0);
    check(&trace);
}
