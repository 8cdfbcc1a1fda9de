//! Commits on disks without room, and beyond a limit: an error, the last commit, and a heap that goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use flagstone::MappedError;
use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;

use crate::commit_load::State;
use crate::commit_refused::create;
use crate::commits::{close, commit, open};
use crate::common::child::one_in;
use crate::common::process::begin;
use crate::disks::{Disk, with_disk};
use crate::files::{Folder, in_child};

/// Fills a disk but for so many pages.
fn fill(folder: &Folder, pages: usize) {
    let path = folder.path("rest");
    let _ = fs::remove_file(&path);
    let rest = File::create(&path).expect("a file");
    let mut place = 0;
    for length in [1 << 16, 4096] {
        while rest.write_all_at(&vec![1; length], place).is_ok() {
            place += length as u64;
        }
    }
    let _ = rest.sync_all();
    let _ = rest.set_len(place.saturating_sub(pages as u64 * 4096));
    let _ = rest.sync_all();
}

#[test]
fn a_full_disk_refuses_a_commit() {
    let _turn = begin();
    let rounds = if one_in(5, 23) == 1 { 400 } else { 40 };
    for disk in [Disk::Memory(15 << 20), Disk::Blocks(36 << 20)] {
        let folder = Folder::new("/var/tmp");
        with_disk(&folder, disk, || {
            let path = folder.path("heap");
            let heap = create(&path).expect("a heap");
            let (mut state, mut refused, mut done) = (State::default(), 0, 0);
            for round in 0..rounds {
                fill(&folder, round % 10 * (1 + round / 4));
                let next = state.next(9);
                let stored = next.store(heap, &state);
                // SAFETY: nobody else uses it; here and below.
                let committed = stored.and_then(|()| unsafe { heap.commit() });
                match committed {
                    Ok(()) => {
                        (state, done) = (next, done + 1);
                        continue;
                    }
                    Err(error) => assert_eq!(error, MappedError::NoSpace),
                }
                refused += 1;
                if round % 2 == 0 {
                    // SAFETY: nobody else uses it, and nothing of it.
                    unsafe { heap.rollback() }.expect("the last commit");
                    assert!(state.is_in(heap));
                } else {
                    fs::remove_file(folder.path("rest")).expect("there");
                    // What was stored in part is none of its states.
                    if next.store(heap, &state).is_ok() && next.is_in(heap) {
                        commit(heap);
                        state = next;
                    } else {
                        // SAFETY: as above.
                        unsafe { heap.rollback() }.expect("the last commit");
                    }
                }
            }
            println!("{disk:?}: {refused} refused, {done} done");
            assert!(refused > 1 && done > 5, "{refused} {done}");
            fill(&folder, 0);
            // Nobody needs room to close it, or to find it.
            close(heap);
            let heap = open(&path).expect("the heap");
            assert!(state.is_in(heap));
            heap.verify().expect("a sound heap");
        });
    }
}

/// Disks of all sizes, too small and large enough.
#[test]
fn disks_without_room_for_a_heap() {
    let _turn = begin();
    let folder = Folder::new("/var/tmp");
    for pages in (0..2_600).step_by(one_in(53, 211)) {
        let size = (pages + 1) * 4096;
        with_disk(&folder, Disk::Memory(size), || {
            let path = folder.path("heap");
            let heap = match create(&path) {
                Ok(heap) => heap,
                Err(error) => {
                    assert_eq!(error, MappedError::NoSpace, "{pages} pages");
                    assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
                    return;
                }
            };
            let mut state = State::default();
            for _ in 0..20 {
                let next = state.next(4);
                let stored = next.store(heap, &state);
                // SAFETY: nobody else uses it.
                match stored.and_then(|()| unsafe { heap.commit() }) {
                    Ok(()) => state = next,
                    Err(error) => {
                        assert_eq!(error, MappedError::NoSpace, "{pages} pages");
                        // SAFETY: nobody else uses it, and nothing of it.
                        unsafe { heap.rollback() }.expect("the last commit");
                    }
                }
                assert!(state.is_in(heap), "{pages} pages");
            }
            close(heap);
            assert!(state.is_in(open(&path).expect("the heap")));
        });
    }
}

/// No file of this process may be longer from now on.
fn limit(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is a valid, initialised value.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    assert_eq!(set, 0, "setrlimit refused");
}

/// Without room for a longer log, records whose changes are home make some.
#[test]
fn a_log_that_cannot_grow_begins_anew() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    in_child(|| {
        let heap = create(&path).expect("a heap");
        let count = Box::leak(Box::new_in(0_u64, heap.handle()));
        heap.set_root("count", &raw const *count, 0).expect("room");
        let long = || fs::metadata(&path).expect("there").len();
        let before = long();
        limit(before);
        // Each takes a block of 4 KiB, and all more than twice what the log has.
        for number in 1..=600 {
            *count = number;
            commit(heap);
        }
        assert_eq!(long(), before);
    });
    let heap = open(&path).expect("the heap");
    let (count, _) = heap.root("count").expect("a name");
    // SAFETY: a number, as another process left it.
    assert_eq!(unsafe { count.cast::<u64>().read() }, 600);
    close(heap);
}

#[test]
fn a_limit_of_files_refuses_a_commit() {
    let _turn = begin();
    for folder in Folder::all() {
        in_child(|| {
            let path = folder.path("heap");
            let heap = create(&path).expect("a heap");
            let long = fs::metadata(&path).expect("there").len();
            let mut bytes = MappedVec::<u8, _>::new_in(heap.handle());
            bytes.resize(3 << 20, 7);
            // All that the file has, a part of it, a part of the heap, nothing.
            for least in [long, long - (1 << 19), 1 << 20, 4096, 0] {
                limit(least);
                // SAFETY: nobody else uses it.
                let refused = unsafe { heap.commit() };
                assert_eq!(refused, Err(MappedError::NoSpace), "{least}");
                if least < long {
                    let other = create(&folder.path("other"));
                    assert_eq!(other.err(), Some(MappedError::NoSpace));
                }
            }
            limit(libc::RLIM_INFINITY);
            commit(heap);
            limit(0);
            // SAFETY: nobody else uses it, and nothing of it.
            unsafe { heap.rollback() }.expect("the last commit");
            assert!(bytes.iter().all(|byte| *byte == 7));
        });
    }
}
