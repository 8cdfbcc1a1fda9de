//! What programs put inside a heap: strings, and places that do not depend on the address.

use core::fmt::Write;
use std::collections::HashSet;

use flagstone::mapped::{Box, Off, String, Vec};
use flagstone::{Mapped, MappedError};

use crate::common::process::begin;

#[test]
fn strings_are_texts() {
    let _turn = begin();
    let heap = Mapped::create(8 << 20).expect("a heap");
    let mut text = String::try_from_str_in("größer", heap.handle()).expect("room");
    assert!(heap.contains(text.as_ptr()));
    text.push(' ').expect("room");
    write!(text, "{}", 17).expect("room");
    assert_eq!(text, "größer 17");
    assert_eq!(format!("{text} {text:?}"), "größer 17 \"größer 17\"");
    let same = String::try_from_str_in(&text, heap.handle()).expect("room");
    assert!(same == text && same >= text);
    // Asked for by `&str`: the hash is that of the text.
    assert!(HashSet::from([same]).contains("größer 17"));
    // More than there is: an error, and the text as it was.
    let long = "x".repeat(9 << 20);
    assert_eq!(text.push_str(&long), Err(MappedError::NoSpace));
    assert!(write!(text, "{long}").is_err());
    assert_eq!(text, "größer 17");
    text.clear();
    assert!(text.is_empty() && text.capacity() >= 9);
    assert!(text.into_bytes().is_empty());
}

#[test]
fn places_are_the_heaps() {
    let _turn = begin();
    let heap = Mapped::create(8 << 20).expect("a heap");
    let other = Mapped::create(1 << 20).expect("a heap");
    let numbers: Vec<u64> = {
        let mut numbers = Vec::new_in(heap.handle());
        numbers.extend(0..10_000);
        numbers
    };
    let last = Off::new(&heap, &raw const numbers[9_999]).expect("the heap's");
    let found = last.resolve(&heap).expect("the heap's");
    assert_eq!(found.as_ptr().cast_const(), &raw const numbers[9_999]);
    // Another heap, which is shorter, or has it behind its end.
    let far = Box::new_in([0_u8; 4 << 20], heap.handle());
    let end = Off::new(&heap, &raw const far[(4 << 20) - 1]).expect("the heap's");
    assert_eq!(end.resolve(&other), Err(MappedError::Foreign));
    assert_eq!(
        Off::new(&other, &raw const numbers[0]),
        Err(MappedError::Foreign)
    );
    assert_eq!(Off::new(&heap, &raw const last), Err(MappedError::Foreign));
    assert_eq!(
        Off::new(&heap, core::ptr::null::<u8>()),
        Err(MappedError::Foreign)
    );
    // Not aligned, and partly behind the end.
    let first = numbers.as_ptr();
    assert_eq!(
        Off::new(&heap, first.wrapping_byte_add(4)),
        Err(MappedError::Foreign)
    );
    let base = first.wrapping_byte_sub(
        usize::try_from(Off::new(&heap, first).expect("the heap's").distance()).expect("short"),
    );
    let at_end = base.wrapping_byte_add((8 << 20) - 8);
    assert!(Off::new(&heap, at_end).is_ok());
    assert_eq!(
        Off::new(&heap, at_end.cast::<[u64; 2]>()),
        Err(MappedError::Foreign)
    );
    // The heap's own tables are nobody's.
    assert_eq!(Off::new(&heap, base), Err(MappedError::Foreign));
    assert_eq!(
        Off::new(&heap, base.wrapping_byte_add(4096)),
        Err(MappedError::Foreign)
    );
}
