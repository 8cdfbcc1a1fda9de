//! Heaps in files on disks without room, and what takes room there.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Mapped, MappedError, Opened};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::files::{Folder, check_and_add, close, in_child, make, open, options};

/// A filesystem that a child has for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disk {
    /// Of memory, with so many bytes.
    Memory(usize),
    /// In a file, with so many bytes, of blocks that the kernel has in long pieces.
    Blocks(usize),
    /// In a file, of a kind whose files can share blocks.
    Shares(&'static str),
}

impl Disk {
    /// Whether it could be mounted there, in a namespace of this process's own.
    fn mount(self, path: &str) -> bool {
        // SAFETY: system calls, here and below; the strings are C strings.
        let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0
            // SAFETY: as above.
            || unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } == 0;
        let (none, private) = (core::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        // SAFETY: as above.
        if !own || unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) } != 0 {
            return false;
        }
        let can = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status();
            status.is_ok_and(|status| status.success())
        };
        match self {
            Self::Memory(bytes) => {
                let size = CString::new(format!("size={bytes}")).expect("no zeros");
                let (path, kind) = (CString::new(path).expect("a path"), c"tmpfs".as_ptr());
                // SAFETY: as above.
                let mounted =
                    unsafe { libc::mount(kind, path.as_ptr(), kind, 0, size.as_ptr().cast()) };
                mounted == 0
            }
            Self::Blocks(bytes) => {
                let image = image(path, bytes);
                can("mkfs.ext4", &["-q", "-F", &image])
                    && can("mount", &["-o", "loop", &image, path])
            }
            Self::Shares(kind) => {
                // XFS makes none that is shorter than 300 MB.
                let image = image(path, 512 << 20);
                can(&format!("mkfs.{kind}"), &["-q", "-f", &image])
                    && can("mount", &["-o", "loop", &image, path])
            }
        }
    }
}

/// A file for a filesystem.
fn image(folder: &str, bytes: usize) -> String {
    let image = format!("{folder}/image");
    let file = fs::File::create(&image).expect("a file");
    file.set_len(bytes as u64).expect("a length");
    image
}

/// Does something in a child that has this disk in this folder.
pub(crate) fn with_disk(folder: &Folder, disk: Disk, work: impl FnOnce()) {
    let child = start(|| {
        if !disk.mount(&folder.path("")) {
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(77) };
        }
        work();
    });
    match end_of(child) {
        0 => {}
        status if libc::WEXITSTATUS(status) == 77 => {
            println!("skipped: no {disk:?} can be mounted")
        }
        status => panic!("{status:#x}"),
    }
}

/// Fills a heap on a disk that is too small for it, in several sizes, and holes.
fn fill_disk(heap: Mapped, [least, most]: [usize; 2]) {
    let mut random = SmallRng::seed_from_u64(7);
    for size in [40, 1_000, 30_000, 200_000, 1_000_000] {
        let mut kept = Vec::new();
        for round in 0..4 {
            loop {
                let mut block = MappedVec::<u8, _>::new_in(heap.handle());
                if block.try_reserve_exact(size).is_err() {
                    break;
                }
                block.resize(size, 7);
                kept.push(block);
            }
            let held: usize = kept.iter().map(|block| block.capacity()).sum();
            assert!(
                (least..most).contains(&held),
                "{held} bytes of blocks of {size}, round {round}"
            );
            // A third of all goes back, here and there.
            kept.retain(|_| random.random_range(0..3) != 0);
            heap.purge().expect("nobody refuses");
        }
        heap.verify().expect("a sound heap");
        drop(kept);
        heap.purge().expect("nobody refuses");
    }
}

#[test]
fn a_full_disk_is_an_allocation_that_fails() {
    let _turn = begin();
    let disks = [
        (Disk::Memory(6 << 20), [2 << 20, 6 << 20]),
        (Disk::Blocks(64 << 20), [20 << 20, 64 << 20]),
    ];
    for (disk, bounds) in disks {
        for spill in [false, true] {
            let folder = Folder::new("/var/tmp");
            with_disk(&folder, disk, || {
                let big = Mapped::options().capacity(1 << 30);
                let heap = if spill {
                    big.spill(folder.path(""))
                } else {
                    big.create_file(folder.path("heap"))
                };
                let heap = heap.expect("a heap");
                fill_disk(heap, bounds);
                // Somebody else fills the disk: what the heap has is still its own.
                let mut block = MappedVec::<u8, _>::with_capacity_in(100_000, heap.handle());
                let rest = fs::File::create(folder.path("rest")).expect("a file");
                let mut place = 0;
                while rest.write_all_at(&[1; 4096], place).is_ok() {
                    place += 4096;
                }
                let _ = rest.sync_all();
                block.resize(100_000, 7);
                // SAFETY: nobody else uses it.
                unsafe { heap.close() }.expect("nobody refuses");
            });
        }
    }
    // Not even for the tables.
    let folder = Folder::new("/var/tmp");
    with_disk(&folder, Disk::Memory(4 << 10), || {
        let refused = options().create_file(folder.path("heap"));
        assert_eq!(refused.err(), Some(MappedError::NoSpace));
        assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
    });
}

/// Copies as some programs do, with a hole for each page of zeros.
fn copy_with_holes(from: &str, to: &str) {
    let (from, to) = (
        fs::read(from).expect("a file"),
        fs::File::create(to).expect("a file"),
    );
    to.set_len(from.len() as u64).expect("a length");
    for (place, page) in from.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            to.write_all_at(page, place as u64 * 4096).expect("room");
        }
    }
}

#[test]
fn a_copy_with_holes_has_space_again() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        in_child(|| {
            let heap = make(&path);
            // Zeros, in a block that is in use.
            let zeros = MappedVec::<u8, _>::with_capacity_in(8 << 20, heap.handle());
            heap.set_root("zeros", zeros.leak().as_ptr(), 0)
                .expect("room");
            close(heap);
        });
        let space = |path: &str| fs::metadata(path).expect("a file").blocks() * 512;
        let (before, copy) = (space(&path), folder.path("copy"));
        copy_with_holes(&path, &copy);
        assert!(space(&copy) + (8 << 20) <= before);
        in_child(|| {
            let heap = open(&copy).expect("a heap");
            assert_eq!(heap.opened(), Opened::Clean);
            let after = space(&copy);
            // But for what the filesystem keeps to find it.
            assert!(after + (64 << 10) >= before, "{after} of {before}");
            check_and_add(heap);
        });
    }
}

/// Room that was reserved ahead goes back, too.
#[test]
fn what_is_purged_takes_no_room() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        let heap = Mapped::options().capacity(1 << 30);
        let heap = heap.create_file(&path).expect("a heap");
        let space = || fs::metadata(&path).expect("a file").blocks() * 512;
        let before = space();
        let blocks: Vec<_> = (0..5_000)
            .map(|_| MappedVec::<u8, _>::with_capacity_in(60_000, heap.handle()))
            .collect();
        assert!(space() > before + (300 << 20));
        drop(blocks);
        heap.purge().expect("nobody refuses");
        // Tables stay, and a step with a slab in it that is current.
        let after = space();
        assert!(after < before + (8 << 20), "{after} after {before}");
        close(heap);
    }
}
