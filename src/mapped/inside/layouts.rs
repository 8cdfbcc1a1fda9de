//! Where the parts of collections lie: found by samples, as neither the language nor a library says so.

use core::mem::ManuallyDrop;
use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator, Layout};
use hashbrown::HashTable;

use super::map::{Table, hash_of};
use super::shape::Shape;
use super::{Box, Vec};
use crate::mapped::Handle;

/// Words that a value may have, to be looked at.
const MOST: usize = 8;
/// Addresses at which nothing lies, aligned to whatever is asked for.
const SOMEWHERE: NonZeroUsize = NonZeroUsize::new(1 << 30).expect("not 0");
const ELSEWHERE: NonZeroUsize = NonZeroUsize::new(1 << 31).expect("not 0");

/// The words of a value that is made of `count` words; `None` if it has another size, and so may have gaps.
///
/// # Safety
/// 1. A value of that size has neither gaps nor bytes that are not written.
unsafe fn words_of<T>(value: &T, count: usize) -> Option<[usize; MOST]> {
    let is_made_so = size_of::<T>() == count * size_of::<usize>();
    if !is_made_so || align_of::<T>() != align_of::<usize>() || count > MOST {
        return None;
    }
    let first = ptr::from_ref(value).cast::<usize>();
    let mut words = [0; MOST];
    for (place, word) in words.iter_mut().enumerate().take(count) {
        // SAFETY: 1. one of the value's words.
        let from = unsafe { first.add(place) };
        // SAFETY: 1. written, as the caller says; of a pointer its address.
        *word = unsafe { from.read() };
    }
    Some(words)
}

/// Where the words are that have these values, as one number.
fn places_of(words: Option<[usize; MOST]>, values: &[usize]) -> u64 {
    let shape = values
        .iter()
        .fold(Shape::of::<usize>("words"), |shape, value| {
            let place = words.and_then(|words| words.iter().position(|word| word == value));
            shape.with(place.map_or(u64::MAX, |place| place as u64))
        });
    shape.number()
}

fn handle() -> Handle {
    Handle::new(NonNull::without_provenance(ELSEWHERE))
}

/// Where a vector has its block, its length, its capacity and its handle.
pub(super) fn of_vec<T>() -> u64 {
    let block = ptr::without_provenance_mut::<T>(SOMEWHERE.get());
    // SAFETY: 1. never used, nor dropped.
    let sample = ManuallyDrop::new(unsafe { Vec::from_raw_parts_in(block, 3, 5, handle()) });
    // SAFETY: 1. four words, which are those that it is made of.
    let words = unsafe { words_of(&sample, 4) };
    places_of(words, &[SOMEWHERE.get(), 3, 5, ELSEWHERE.get()])
}

/// Where a box has its block and its handle.
pub(super) fn of_box<T>() -> u64 {
    let block = ptr::without_provenance_mut::<T>(SOMEWHERE.get());
    // SAFETY: 1. never used, nor dropped.
    let sample = ManuallyDrop::new(unsafe { Box::from_raw_in(block, handle()) });
    // SAFETY: 1. two words, which are those that it is made of.
    let words = unsafe { words_of(&sample, 2) };
    places_of(words, &[SOMEWHERE.get(), ELSEWHERE.get()])
}

/// Bytes for a table of eight entries.
const BYTES: usize = 128;

#[repr(align(64))]
struct Bytes([u8; BYTES]);

/// An allocator with one block; as long as a handle, so that a table with it has the same layout.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Sample(NonNull<u8>);

// SAFETY: 1. one block at a time is asked for, and lies in the bytes, which outlive the table. 2. a copy is the same.
unsafe impl Allocator for Sample {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let fits = layout.size() <= BYTES && layout.align() <= align_of::<Bytes>();
        let block = NonNull::slice_from_raw_parts(self.0, layout.size());
        fits.then_some(block).ok_or(AllocError)
    }

    unsafe fn deallocate(&self, _: NonNull<u8>, _: Layout) {}
}

/// Entries of the sample, by hashes that differ at both ends: one end chooses the bucket, the other the control byte.
const ENTRIES: [u64; 3] = [
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
    0x0f1e_2d3c_4b5a_6978,
];
/// Words of a table.
const WORDS: usize = 5;

/// Words of a sample of a table with entries, and all that its block holds.
fn table() -> Option<([usize; MOST], NonNull<u8>, HashedBytes)> {
    let mut bytes = Bytes([0; BYTES]);
    let block = NonNull::from(&mut bytes).cast::<u8>();
    let mut table = HashTable::new_in(Sample(block));
    table.try_reserve(ENTRIES.len() + 1, |entry| *entry).ok()?;
    for entry in ENTRIES {
        table.insert_unique(entry, entry, |entry| *entry);
    }
    let length = table.allocation_size();
    // SAFETY: 1. five words, which are those that it is made of.
    let words = unsafe { words_of(&table, WORDS) }?;
    drop(table);
    let written = bytes.0.iter().take(length);
    let contents = written.fold(Shape::of::<u64>("table"), |shape, byte| {
        shape.with(u64::from(*byte))
    });
    let contents = contents.with(length as u64).number();
    Some((words, block, HashedBytes(contents)))
}

/// What the block of the sample holds, as one number: with its length, by which the width of a group is told.
struct HashedBytes(u64);

/// Which word of a table leads to its control bytes: the one into the block that is not its beginning.
pub(super) fn control_word() -> Option<usize> {
    let (words, block, _) = table()?;
    let within = (block.addr().get() + 1)..(block.addr().get() + BYTES);
    words.iter().position(|word| within.contains(word))
}

/// What a map is made of: where a table has its parts, what its block holds, and what keys are hashed to.
pub(super) fn of_map<K, V>() -> u64 {
    let mut shape = Shape::of::<Table<K, V>>("map");
    if let (Some((words, block, contents)), Some(control)) = (table(), control_word()) {
        let control = words[control];
        let start = block.addr().get();
        // Of 8 buckets 7 can be filled.
        let values = [7, 7 - ENTRIES.len(), ENTRIES.len(), control, start];
        shape = shape
            .with(places_of(Some(words), &values))
            .with((control - start) as u64)
            .with(contents.0);
    }
    // The same with the handle: one without entries, which allocates nothing.
    let sample: Table<K, V> = HashTable::new_in(handle());
    // SAFETY: 1. five words, which are those that it is made of.
    let words = unsafe { words_of(&sample, WORDS) };
    let seed = [1, 2];
    shape
        .with(places_of(words, &[ELSEWHERE.get()]))
        .with(hash_of(seed, "a text"))
        .with(hash_of(seed, &7_u64))
        .with(hash_of(seed, &[7_u16, 8][..]))
        .with(hash_of(seed, &('x', true, -1_i32)))
        .number()
}

/// An address in the block of a table.
pub(super) fn block_of<K, V>(table: &Table<K, V>) -> Option<NonNull<u8>> {
    let control = control_word()?;
    let first = ptr::from_ref(table).cast::<NonNull<u8>>();
    if size_of::<Table<K, V>>() != WORDS * size_of::<usize>() {
        return None;
    }
    // SAFETY: 1. one of its five words.
    let word = unsafe { first.add(control) };
    // SAFETY: 1. a pointer, as in the sample.
    Some(unsafe { word.read() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All parts are found: otherwise a layout that is none of these would have the same number.
    #[test]
    fn samples_show_all_parts() {
        let missing = |values: &[usize]| places_of(None, values);
        assert_ne!(of_vec::<u8>(), missing(&[0; 4]));
        assert_ne!(of_box::<[u64; 9]>(), missing(&[0; 2]));
        let (words, block, _) = table().expect("a table");
        let control = words[control_word().expect("a word")];
        let start = block.addr().get();
        for value in [7, 4, 3, control, start] {
            assert!(words.contains(&value), "{value:#x} in {words:x?}");
        }
        // Eight entries, then the control bytes.
        assert_eq!(control - start, 64);
        assert_eq!(of_map::<u64, u64>(), of_map::<u8, [u64; 2]>());
    }
}
