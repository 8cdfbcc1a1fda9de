//! Heaps that commit: what who opens the file finds, after any end.

use std::fs;

use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::mapped::{Box, Map, Mutex};
use flagstone::{Committed, CommittedOptions, Mapped, MappedError, Opened};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::process::begin;
use crate::files::{Folder, in_child};

pub(crate) const CAPACITY: usize = 64 << 20;

pub(crate) fn options<'a>() -> CommittedOptions<'a> {
    Committed::options().capacity(CAPACITY)
}

pub(crate) fn open(path: &str) -> Result<Committed, MappedError> {
    // SAFETY: the file is this test's.
    unsafe { Committed::options().open(path) }
}

pub(crate) fn commit(heap: Committed) {
    // SAFETY: nobody else uses it.
    unsafe { heap.commit() }.expect("room");
}

pub(crate) fn close(heap: Committed) {
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
}

type Numbers = Mutex<Map<u64, Box<[u64; 32]>>>;

fn put(heap: Committed, key: u64, number: u64) {
    let numbers = match heap.get::<Numbers>("numbers").expect("that type") {
        Some(numbers) => numbers,
        None => {
            let map = Map::new_in(heap.handle());
            heap.insert("numbers", Mutex::new(map)).expect("room")
        }
    };
    let mut numbers = numbers.lock().expect("nobody was killed with it");
    let value = Box::new_in([number; 32], heap.handle());
    numbers.insert(key, value).expect("room");
}

fn number(heap: &Mapped, key: u64) -> Option<u64> {
    let numbers = heap.get::<Numbers>("numbers").expect("that type")?;
    let numbers = numbers.lock().expect("nobody was killed with it");
    let value = numbers.get(&key).expect("whole")?;
    assert!(value.iter().all(|number| *number == value[0]));
    Some(value[0])
}

#[test]
fn the_last_commit_is_found_however_the_process_ends() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        in_child(|| {
            let heap = options().create(&path).expect("a heap");
            assert_eq!(heap.opened(), Opened::Created);
            put(heap, 1, 10);
            commit(heap);
            put(heap, 1, 11);
            put(heap, 2, 20);
        });
        for round in 0..20 {
            in_child(|| {
                let heap = open(&path).expect("the heap");
                assert_eq!(heap.opened(), Opened::Recovered);
                heap.verify().expect("a sound heap");
                let expected = if round == 0 { 10 } else { 100 + round };
                assert_eq!(number(&heap, 1), Some(expected));
                assert_eq!(number(&heap, 2), None);
                put(heap, 1, 101 + round);
                commit(heap);
                put(heap, 2, 20);
                put(heap, 1, 7);
            });
        }
        in_child(|| {
            let heap = open(&path).expect("the heap");
            commit(heap);
            put(heap, 1, 7);
            close(heap);
        });
        in_child(|| {
            let heap = open(&path).expect("the heap");
            assert_eq!(heap.opened(), Opened::Clean);
            assert_eq!(number(&heap, 1), Some(120));
        });
    }
}

#[test]
fn a_rollback_leads_to_the_last_commit() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        in_child(|| {
            let heap = options().create(&path).expect("a heap");
            for round in 0..100 {
                put(heap, round, round);
                let mut many = MappedVec::new_in(heap.handle());
                many.extend(0..100_000_u64);
                drop(many);
                commit(heap);
                let live = heap.stats().live;
                for key in 0..50 {
                    put(heap, 1_000 + key, key);
                    put(heap, round, 7_000 + key);
                }
                // SAFETY: nobody else uses it.
                unsafe { heap.rollback() }.expect("the last commit");
                heap.verify().expect("a sound heap");
                assert_eq!(heap.stats().live, live);
                assert_eq!(number(&heap, round), Some(round));
                assert_eq!(number(&heap, 1_000), None);
            }
            close(heap);
        });
    }
}

#[test]
fn one_process_has_it() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let heap = options().create(&path).expect("a heap");
    put(heap, 1, 10);
    heap.insert("place", 7_u64).expect("room");
    commit(heap);
    // A child has a copy, and can change nothing of it for others.
    in_child(|| {
        assert_eq!(heap.get::<u64>("place"), Ok(Some(&7)));
        // SAFETY: nobody else uses it.
        assert_eq!(unsafe { heap.commit() }, Err(MappedError::Forked));
        // SAFETY: as above.
        assert_eq!(unsafe { heap.rollback() }, Err(MappedError::Forked));
        assert_eq!(heap.checkpoint(), Err(MappedError::Forked));
        let mut numbers = MappedVec::<u64, _>::new_in(heap.handle());
        assert!(numbers.try_reserve(1).is_err());
        assert_eq!(heap.flush(), Err(MappedError::Kind));
        close(heap);
        assert_eq!(heap.get::<u64>("place"), Err(MappedError::Closed));
        assert_eq!(open(&path).err(), Some(MappedError::InUse));
    });
    assert_eq!(heap.verify(), Ok(()));
    // SAFETY: the file is this test's.
    let shared = unsafe { Mapped::options().open(&path) };
    assert_eq!(shared.err(), Some(MappedError::Kind));
    put(heap, 1, 11);
    commit(heap);
    close(heap);
    let mapped = folder.path("mapped");
    let other = Mapped::options().capacity(CAPACITY).create_file(&mapped);
    assert!(other.is_ok());
    assert_eq!(open(&mapped).err(), Some(MappedError::Kind));
    // Opened again, in the process that closed it.
    let heap = open(&path).expect("the heap");
    assert_eq!(number(&heap, 1), Some(11));
    put(heap, 1, 12);
    commit(heap);
    close(heap);
    in_child(|| {
        let heap = open(&path).expect("the heap");
        assert_eq!(number(&heap, 1), Some(12));
        close(heap);
    });
}

#[test]
fn a_snapshot_is_the_last_commit() {
    let _turn = begin();
    for folder in Folder::all() {
        let (path, copy) = (folder.path("heap"), folder.path("copy"));
        in_child(|| {
            let heap = options().create(&path).expect("a heap");
            put(heap, 1, 10);
            commit(heap);
            put(heap, 1, 11);
            put(heap, 2, 20);
            heap.snapshot(&copy).expect("room");
            assert_eq!(heap.snapshot(&copy), Err(MappedError::Exists));
            assert!(matches!(open(&copy), Err(MappedError::BaseBusy { .. })));
            commit(heap);
            in_child(|| assert_eq!(heap.snapshot(folder.path("x")), Err(MappedError::Forked)));
            close(heap);
            assert_eq!(heap.snapshot(folder.path("x")), Err(MappedError::Closed));
        });
        for (path, first, second) in [(&copy, 10, None), (&path, 11, Some(20))] {
            in_child(|| {
                let heap = open(path).expect("a heap");
                assert_eq!(heap.opened(), Opened::Clean);
                heap.verify().expect("a sound heap");
                assert_eq!((number(&heap, 1), number(&heap, 2)), (Some(first), second));
                put(heap, 3, 30);
                commit(heap);
            });
            in_child(|| {
                let heap = open(path).expect("a heap");
                assert_eq!(number(&heap, 3), Some(30));
                close(heap);
            });
        }
    }
}

/// A log has a length of its own: what is no whole page has bytes in memory that the file has not.
#[test]
fn a_length_that_is_no_heaps_is_refused() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    in_child(|| close(options().create(&path).expect("a heap")));
    let file = fs::File::options().write(true).open(&path);
    let file = file.expect("the file");
    let length = file.metadata().expect("a length").len();
    for other in [
        length + 100,
        length - 100,
        CAPACITY as u64,
        CAPACITY as u64 - 100,
    ] {
        file.set_len(other).expect("room");
        in_child(|| assert_eq!(open(&path).err(), Some(MappedError::Length), "{other}"));
    }
}

/// Descriptors by which the kernel notes stores for this process.
fn noting() -> Vec<i32> {
    let all = fs::read_dir("/proc/self/fd").expect("/proc");
    all.flatten()
        .filter(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            target.to_string_lossy().contains("userfaultfd")
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// In a heap that is long enough that the kernel is asked where something was stored: it is, until the program closes that.
#[test]
fn what_is_stored_is_found_in_long_heaps() {
    let _turn = begin();
    const COUNT: usize = 24 << 17; // 24 MiB
    for (folder, closes) in Folder::all().iter().zip([true, false]) {
        let path = folder.path("heap");
        in_child(|| {
            let heap = options().create(&path).expect("a heap");
            let mut words = MappedVec::with_capacity_in(COUNT, heap.handle());
            words.resize(COUNT, 0_u64);
            let words = words.leak();
            heap.set_root("words", words.as_ptr(), 0).expect("room");
            commit(heap);
            let mut shadow = vec![0_u64; COUNT];
            let mut random = SmallRng::seed_from_u64(7);
            for round in 1..60_u64 {
                // Many pages, few, one, and some that are read alone.
                let count = [1, 20, 300, 3_000][random.random_range(0..4)];
                for _ in 0..count {
                    let place = random.random_range(0..COUNT);
                    (words[place], shadow[place]) = (round, round);
                    assert!(words[random.random_range(0..COUNT)] <= round);
                }
                if round % 7 == 0 {
                    // A fork makes pages be copied once more.
                    in_child(|| words[0] = 1_000);
                }
                if round % 5 == 0 {
                    words[random.random_range(0..COUNT)] = 9_999;
                    // SAFETY: the words stay where they are.
                    unsafe { heap.rollback() }.expect("the last commit");
                    shadow.copy_from_slice(words);
                    continue;
                }
                commit(heap);
                if round == 30 && closes {
                    for descriptor in noting() {
                        // SAFETY: as a program may that closes what it does not know.
                        assert_eq!(unsafe { libc::close(descriptor) }, 0);
                    }
                }
            }
            let last = heap.root("words").expect("a name").0;
            assert_eq!(last.as_ptr().addr(), words.as_ptr().addr());
            assert!(*words == *shadow);
            commit(heap);
            words[3] = 9_999;
            let bytes: Vec<u8> = shadow.iter().flat_map(|word| word.to_le_bytes()).collect();
            fs::write(folder.path("shadow"), bytes).expect("room");
        });
        in_child(|| {
            let heap = open(&path).expect("the heap");
            let (place, _) = heap.root("words").expect("a name");
            // SAFETY: so many bytes, as another process left them.
            let words = unsafe { core::slice::from_raw_parts(place.as_ptr(), COUNT * 8) };
            assert!(words == fs::read(folder.path("shadow")).expect("just written"));
            close(heap);
        });
    }
}
