//! Maps of heaps, and copies of them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

use capi_tests::Exit;
use engine::Mapped;
use engine::allocator_api2::vec::Vec as MappedVec;

use crate::{Other, UNIT, closed, ended, options, text, value};

/// The lines of the map, without their places.
fn map_of(found: &Exit) -> Vec<&str> {
    let lines = found.stdout.lines();
    let lines = lines.skip_while(|line| !line.starts_with("map, ")).skip(1);
    let lines = lines.filter_map(|line| Some(line.trim().split_once("  ")?.1));
    lines.collect()
}

/// Slabs by how full they are, and sixteen lines however long the heap is.
#[test]
fn a_map_shows_how_full_slabs_are() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let path = folder.path().join("heap");
    let heap = options().create_file(text(&path)).expect("a heap");
    // Of 64 blocks a slab: one that is full, and one with 30 in use.
    let blocks: Vec<_> = (0..94)
        .map(|_| MappedVec::<u8, _>::with_capacity_in(1_024, heap.handle()))
        .collect();
    let found = ended(&["inspect", "--map", text(&path)], 0);
    assert_eq!(map_of(&found)[0], "TTTT#4", "{found:?}");
    let legend = "0-9# slab, by tenths of its blocks in use";
    assert!(found.stdout.contains(legend), "{found:?}");
    drop(blocks);
    let path = folder.path().join("long");
    let heap = Mapped::options().capacity(1 << 30);
    let heap = heap.create_file(text(&path)).expect("a heap");
    // More units than sixteen lines have characters, in halves.
    let [long, empty] = [true, false].map(|is_long| {
        let bytes = (500 << 20) * usize::from(is_long) + 64 * UNIT;
        MappedVec::<u8, _>::with_capacity_in(bytes, heap.handle())
    });
    let found = ended(&["inspect", "--map", text(&path)], 0);
    assert!(
        found.stdout.contains("a character for 9 units"),
        "{found:?}"
    );
    let lines = map_of(&found);
    assert!((14..=17).contains(&lines.len()), "{found:?}");
    assert!(lines[1..14].iter().all(|line| *line == "R".repeat(64)));
    drop((long, empty));
}

#[test]
fn a_copy_is_a_heap_by_itself() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let path = closed(folder.path());
    let copy = folder.path().join("copy");
    let made = ended(&["snapshot", text(&path), text(&copy)], 0);
    assert_eq!(made.stdout, "");
    let [before, after] = [&path, &copy].map(|path| ended(&["inspect", text(path)], 0));
    for word in ["kind", "capacity", "base", "state", "check", "held", "live"] {
        assert_eq!(value(&before, word), value(&after, word));
    }
    assert_eq!(value(&after, "state"), "clean: closed by all who used it");
    let names = |found: &Exit| {
        found
            .stdout
            .split_once("names\n")
            .map(|(_, names)| names.to_owned())
    };
    assert!(names(&after).is_some() && names(&after) == names(&before));
    ended(&["verify", text(&copy)], 0);
    let mode = fs::metadata(&copy).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Once more: the first is nobody's to overwrite.
    let bytes = fs::read(&copy).expect("a file");
    let found = ended(&["snapshot", text(&path), text(&copy)], 2);
    let said = format!("flagstone: {}: something has the name\n", copy.display());
    assert_eq!(found.stderr, said);
    assert!(bytes == fs::read(&copy).expect("a file"));
}

#[test]
fn what_cannot_be_copied_is_said() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let path = folder.path().join("heap");
    let copy = folder.path().join("copy");
    let expect = |code: i32, words: &str| {
        let found = ended(&["snapshot", text(&path), text(&copy)], code);
        let said = found.stderr.contains(words) && found.stderr.lines().count() == 1;
        assert!(said, "{found:?}");
        assert!(!copy.exists(), "{words}");
    };
    expect(2, "no such file");
    let mut other = Other::start(text(&path));
    expect(2, "heap: other processes have the heap");
    let found = ended(&["snapshot", &other.place(), text(&copy)], 2);
    assert!(found.stderr.contains("other processes"), "{found:?}");
    other.kill();
    // What was left is mended, and closed.
    ended(&["snapshot", text(&path), text(&copy)], 0);
    for path in [&path, &copy] {
        let found = ended(&["inspect", text(path)], 0);
        assert!(value(&found, "state").starts_with("clean"), "{found:?}");
    }
    fs::remove_file(&copy).expect("our own");
    let nowhere = folder.path().join("none/copy");
    let found = ended(&["snapshot", text(&path), text(&nowhere)], 2);
    assert!(
        found.stderr.contains("none/copy: its folder is not there"),
        "{found:?}"
    );
    let file = File::options().write(true).open(&path).expect("our own");
    // As the machine would have left it.
    file.write_all_at(&[7], 64).expect("room");
    expect(2, "the machine went down");
    file.write_all_at(&[0; 8], 64).expect("room");
    // The word of a unit of the long block's: its head stays.
    let found = ended(&["inspect", "--map", text(&path)], 0);
    let run = map_of(&found)[0].find('R').expect("a long block");
    let word = UNIT + (run + 1) * 8;
    file.write_all_at(&[0; 8], word as u64).expect("room");
    expect(1, "heap: the heap is damaged");
    fs::write(
        &path,
        "no heap at all, but longer than the constants of one are",
    )
    .expect("room");
    expect(2, "no heap");
    // SAFETY: 1. no precondition.
    if unsafe { libc::getuid() } == 0 && fs::create_dir("/proc/none").is_err() {
        fs::remove_file(&path).expect("our own");
        let path = closed(folder.path());
        let found = ended(&["snapshot", text(&path), "/proc/copy"], 2);
        assert!(
            found.stderr.starts_with("flagstone: /proc/copy: "),
            "{found:?}"
        );
    }
}
