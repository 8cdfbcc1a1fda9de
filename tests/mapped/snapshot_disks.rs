//! Snapshots on disks without room, and on those that can share blocks.

use std::fs;
use std::os::unix::fs::FileExt;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Mapped, MappedError, Opened};

use crate::common::process::begin;
use crate::disks::{Disk, with_disk};
use crate::files::{Folder, check_and_add, close, in_child, open, options};
use crate::snapshots::{In, bytes_of, fill, names, snapshot};

#[test]
fn a_full_disk_has_no_copy() {
    let _turn = begin();
    let disks = [Disk::Memory(6 << 20), Disk::Blocks(16 << 20)];
    for disk in disks {
        // Beside the heap, which stays as it is, and from another filesystem.
        for is_beside in [true, false] {
            let [folder, other] = ["/var/tmp", "/dev/shm"].map(Folder::new);
            with_disk(&folder, disk, || {
                let path = if is_beside {
                    folder.path("heap")
                } else {
                    other.path("heap")
                };
                let heap = options().create_file(path).expect("a heap");
                fill(heap);
                let mut kept = Vec::new();
                for _ in 0..200 {
                    let mut block = MappedVec::<u8, _>::new_in(heap.handle());
                    if block.try_reserve_exact(100_000).is_err() {
                        break;
                    }
                    block.resize(100_000, 7);
                    kept.push(block);
                }
                let before = names(&folder);
                let copy = folder.path("copy");
                assert_eq!(snapshot(heap, &copy), Err(MappedError::NoSpace));
                assert_eq!(names(&folder), before);
                assert!(kept.iter().flatten().all(|byte| *byte == 7));
                heap.verify().expect("a sound heap");
                // Once there is room again.
                drop(kept);
                heap.purge().expect("nobody refuses");
                snapshot(heap, &copy).expect("a copy");
                check_and_add(heap);
                close(heap);
            });
        }
    }
}

/// What a copy has holes for has room once it is open, its tables too, whatever it was copied from.
#[test]
fn a_copy_on_a_full_disk_is_used() {
    let _turn = begin();
    for kind in In::ALL {
        let folders = Folder::all();
        let [folder, other] = &folders;
        with_disk(folder, Disk::Memory(24 << 20), || {
            let copy = folder.path("copy");
            in_child(|| {
                let heap = kind.make(other);
                // Never touched, or free again.
                let zeros = MappedVec::<u8, _>::with_capacity_in(8 << 20, heap.handle());
                heap.set_root("zeros", zeros.leak().as_ptr(), 0)
                    .expect("room");
                let many: Vec<_> = (0..400)
                    .map(|_| Box::new_in([7_u8; 40_000], heap.handle()))
                    .collect();
                for (number, block) in many.into_iter().enumerate() {
                    if number % 8 == 0 {
                        Box::leak(block);
                    }
                }
                snapshot(heap, &copy).expect("a copy");
            });
            in_child(|| {
                let heap = open(&copy).expect("a heap");
                let rest = fs::File::create(folder.path("rest")).expect("a file");
                let mut place = 0;
                while rest.write_all_at(&[1; 4096], place).is_ok() {
                    place += 4096;
                }
                let (zeros, _) = heap.root("zeros").expect("a name");
                // SAFETY: so many bytes, which nobody else uses.
                unsafe { zeros.cast::<u8>().write_bytes(7, 8 << 20) };
                // What has no room is refused, what has some is had.
                let mut count = 0;
                while let Ok(block) = Box::try_new_in([7_u8; 1_000], heap.handle()) {
                    Box::leak(block);
                    count += 1;
                }
                heap.purge().expect("nobody refuses");
                heap.verify().expect("a sound heap");
                assert!(count < 5_000, "{count}");
                close(heap);
            });
        });
    }
}

/// Bytes that are free on a filesystem.
fn free_on(folder: &Folder) -> u64 {
    let path = std::ffi::CString::new(folder.path("")).expect("a path");
    // SAFETY: all zero is one.
    let mut found: libc::statvfs = unsafe { core::mem::zeroed() };
    // SAFETY: a C string, and writable.
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut found) }, 0);
    found.f_bavail * found.f_frsize
}

/// Where files can share blocks, a copy takes none of its own, and is whole whatever becomes of the other.
#[test]
fn blocks_are_shared_where_they_can_be() {
    let _turn = begin();
    for kind in ["xfs", "btrfs"] {
        let folder = Folder::new("/var/tmp");
        with_disk(&folder, Disk::Shares(kind), || {
            let copy = folder.path("copy");
            in_child(|| {
                let heap = Mapped::options().capacity(256 << 20);
                let heap = heap.create_file(folder.path("heap")).expect("a heap");
                fill(heap);
                let mut block = MappedVec::<u8, _>::new_in(heap.handle());
                block.resize(100 << 20, 7);
                heap.flush().expect("nobody refuses");
                // SAFETY: no preconditions.
                unsafe { libc::sync() };
                let before = free_on(&folder);
                snapshot(heap, &copy).expect("a copy");
                let after = free_on(&folder);
                assert!(
                    after + (16 << 20) > before,
                    "{after} after {before}, {kind}"
                );
                block.fill(9);
                drop(block);
                check_and_add(heap);
                close(heap);
            });
            in_child(|| {
                let heap = open(&copy).expect("a heap");
                assert_eq!(heap.opened(), Opened::Clean);
                assert_eq!(heap.stats().live >> 20, 100);
                let bytes = bytes_of(heap);
                let sevens = bytes.iter().filter(|byte| **byte == 7).count();
                assert!(sevens >= 100 << 20, "{sevens}");
                check_and_add(heap);
                close(heap);
            });
        });
    }
}
