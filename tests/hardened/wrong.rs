//! A free of anything but a live block of the layout's class is noticed at once.

use core::alloc::Layout;
use core::ptr;

use super::{ALLOC, Address, End, block, expect_noticed};

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Inside { size: usize, offset: usize },
    Size { real: usize, said: usize },
    Align { size: usize, said: usize },
    Stack,
    Static,
    Unmapped,
    Number(usize),
    Realloc { size: usize, offset: usize },
}

fn make(&wrong: &Wrong) {
    let moved = |size: usize, offset: usize| {
        let Address(base, layout) = Address::of(&block(size));
        Address(base.wrapping_add(offset), layout)
    };
    let small = Layout::from_size_align(64, 8).expect("a layout");
    match wrong {
        Wrong::Inside { size, offset } => moved(size, offset).free(),
        Wrong::Size { real, said } => {
            let Address(base, _) = Address::of(&block(real));
            Address(base, Layout::from_size_align(said, 8).expect("a layout")).free();
        }
        Wrong::Align { size, said } => {
            let Address(base, _) = Address::of(&block(size));
            Address(base, Layout::from_size_align(size, said).expect("a layout")).free();
        }
        Wrong::Stack => {
            let mut local = [0_u64; 16];
            Address((&raw mut local).cast(), small).free();
        }
        Wrong::Static => {
            static WORDS: [u64; 8] = [1; 8];
            Address((&raw const WORDS).cast_mut().cast(), small).free();
        }
        Wrong::Unmapped => moved(100, 1 << 40).free(),
        Wrong::Number(number) => Address(ptr::without_provenance_mut(number), small).free(),
        Wrong::Realloc { size, offset } => {
            let Address(base, layout) = moved(size, offset);
            // SAFETY: wrong on purpose, in a child process.
            let _ = unsafe { core::alloc::GlobalAlloc::realloc(&ALLOC, base, layout, size * 2) };
        }
    }
}

#[test]
fn every_wrong_free_is_noticed_at_once() {
    const INSIDE: &[&str] = &["free of a pointer into the middle"];
    const REALLOC: &[&str] = &["realloc of a pointer into the middle"];
    const FOREIGN: &[&str] = &["free of a pointer that was not allocated here"];
    const CLASS: &[&str] = &["another size", "not allocated here", "into the middle"];
    let mut wrongs = Vec::new();
    for size in [24, 100, 4_096, 40_000, 262_144, 400_000, 3 << 20] {
        for offset in [1, 4, 8, 16, size / 16 * 8] {
            wrongs.push((Wrong::Inside { size, offset }, INSIDE));
        }
        wrongs.push((Wrong::Realloc { size, offset: 8 }, REALLOC));
    }
    let sizes = [
        (24, 25),
        (25, 24),
        (100, 101),
        (100, 64),
        (64, 100),
        (4_096, 4_000),
    ];
    let far = [
        (64, 40_000),
        (40_000, 64),
        (40_000, 400_000),
        (400_000, 40_000),
        (400_000, 3 << 20),
    ];
    for (real, said) in sizes.into_iter().chain(far) {
        wrongs.push((Wrong::Size { real, said }, CLASS));
    }
    wrongs.push((
        Wrong::Align {
            size: 40,
            said: 4_096,
        },
        CLASS,
    ));
    wrongs.push((
        Wrong::Align {
            size: 40,
            said: 1 << 20,
        },
        CLASS,
    ));
    wrongs.extend([Wrong::Stack, Wrong::Static, Wrong::Unmapped].map(|wrong| (wrong, FOREIGN)));
    wrongs.extend([1, 64, usize::MAX - 7].map(|number| (Wrong::Number(number), FOREIGN)));
    let mistakes: Vec<_> = wrongs
        .into_iter()
        .map(|(wrong, words)| (format!("{wrong:?}"), wrong, End::Says(words)))
        .collect();
    let name = "wrong::every_wrong_free_is_noticed_at_once";
    expect_noticed(name, "1", &mistakes, make);
}
