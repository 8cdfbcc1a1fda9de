//! Writes outside of a block, and to one that was freed.

use std::fs;

use super::common::child::{run_child_with, scenario};
use super::common::process::{is_readable, page_size};
use super::{ALLOC, Address, End, HARDENED, block, expect_noticed};

const SIZES: [usize; 9] = [1, 8, 24, 100, 4_096, 40_000, 262_144, 300_001, 2 << 20];

/// The zero at the end of a C string, one too far.
#[derive(Clone, Copy, Debug)]
struct Overflow {
    size: usize,
    /// Whether a realloc comes before the free.
    grows: bool,
}

fn overflow(overflow: &Overflow) {
    let block = block(overflow.size);
    Address::of(&block).write(isize::try_from(overflow.size).expect("small"), 0);
    if overflow.grows {
        let _ = block.realloc(&ALLOC, overflow.size + 1);
    } else {
        block.free(&ALLOC);
    }
}

#[test]
fn one_byte_too_far_is_noticed_at_free_and_realloc() {
    let mut mistakes = Vec::new();
    for size in SIZES {
        for grows in [false, true] {
            let mistake = Overflow { size, grows };
            let says = End::Says(&["past the end"]);
            mistakes.push((format!("{mistake:?}"), mistake, says));
        }
    }
    let name = "bounds::one_byte_too_far_is_noticed_at_free_and_realloc";
    expect_noticed(name, "canaries", &mistakes, overflow);
}

/// Writes to a freed block, then allocates until it comes back.
fn write_after_free(&(size, offset): &(usize, usize)) {
    let address = Address::of(&block(size));
    address.free();
    address.write(isize::try_from(offset).expect("small"), 7);
    // More than wait in quarantine, each freed so that those that wait come out.
    for _ in 0..20_000 {
        block(size).free(&ALLOC);
    }
}

#[test]
fn a_write_after_free_is_noticed_before_reuse() {
    let says = End::Says(&["freed block"]);
    let mut mistakes = Vec::new();
    for size in [16, 64, 256, 1_000, 4_096, 40_000, 200_000] {
        for offset in [0, 8, 15, size.min(256) - 1] {
            mistakes.push((format!("{size} at {offset}"), (size, offset), says));
        }
    }
    let name = "bounds::a_write_after_free_is_noticed_before_reuse";
    expect_noticed(name, "1", &mistakes, write_after_free);
}

/// What is done to a mapping.
#[derive(Clone, Copy, Debug)]
enum Access {
    Behind { size: usize, grown: bool },
    Before { size: usize, grown: bool },
    Freed { size: usize, offset: usize },
    BehindReused,
}

fn access(&access: &Access) {
    let page = page_size();
    let end = |size: usize| isize::try_from((size + 8).next_multiple_of(page)).expect("small");
    let make = |size: usize, grown: bool| {
        let block = block(if grown { size / 2 } else { size });
        let block = if grown {
            block.realloc(&ALLOC, size).expect("memory")
        } else {
            block
        };
        Address::of(&block)
    };
    match access {
        Access::Behind { size, grown } => make(size, grown).write(end(size), 1),
        Access::Before { size, grown } => make(size, grown).write(-1, 1),
        Access::Freed { size, offset } => {
            let address = make(size, false);
            address.free();
            address.read(isize::try_from(offset).expect("small"));
        }
        Access::BehindReused => {
            // Mappings of one length, freed and taken again for less.
            (0..12).for_each(|_| block(3 << 20).free(&ALLOC));
            let size = 2 << 20;
            make(size, false).write(end(size), 1);
        }
    }
}

#[test]
fn what_lies_beside_a_mapping_is_inaccessible() {
    let mut accesses = vec![Access::BehindReused];
    for size in [262_144, 300_000, 1 << 20, 3 << 20] {
        for grown in [false, true] {
            accesses.push(Access::Behind { size, grown });
            accesses.push(Access::Before { size, grown });
        }
        accesses.push(Access::Freed { size, offset: 0 });
        accesses.push(Access::Freed {
            size,
            offset: size - 1,
        });
    }
    let mistakes: Vec<_> = accesses
        .into_iter()
        .map(|access| (format!("{access:?}"), access, End::Faults))
        .collect();
    let name = "bounds::what_lies_beside_a_mapping_is_inaccessible";
    expect_noticed(name, "guards,quarantine,canaries", &mistakes, access);
}

/// Pages of this process's own mappings, readable according to the kernel's list, that cannot be read.
fn inaccessible_pages() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("a list of mappings");
    let mut pages = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(access)) = (words.next(), words.next()) else {
            continue;
        };
        // Without a name: an anonymous mapping.
        if access != "rw-p" || words.nth(3).is_some() {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let number = |text| usize::from_str_radix(text, 16).expect("an address");
        for page in (number(start)..number(end)).step_by(page_size()) {
            pages += usize::from(!is_readable(page));
        }
    }
    pages
}

#[test]
fn tables_lie_between_inaccessible_pages() {
    const NAME: &str = "bounds::tables_lie_between_inaccessible_pages";
    if scenario().is_some() {
        println!("pages: {}", inaccessible_pages());
        return;
    }
    let pages = |safeguards: &str| -> usize {
        let exit = run_child_with(NAME, "", &[(HARDENED, safeguards)]);
        let found = exit.stdout.lines().find_map(|line| {
            let (_, number) = line.split_once("pages: ")?;
            number.parse().ok()
        });
        found.unwrap_or_else(|| panic!("{exit:?}"))
    };
    assert_eq!(pages("0"), 0);
    if pages("isolation") == 0 {
        // Before Linux 6.13 guards are mappings of their own, and those are not readable in the list.
        assert!(!kernel_has_guards(), "no guards around the tables");
    } else {
        assert!(pages("isolation") >= 2);
    }
}

fn kernel_has_guards() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    (next(), next()) >= (Some(6), Some(13))
}
