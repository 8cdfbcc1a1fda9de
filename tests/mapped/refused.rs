//! Whatever kernel call is refused: an error, and a heap that goes on.

use core::cell::Cell;
use std::fs;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::mapped::{Map, Mutex};
use flagstone::{Mapped, MappedError, failpoints};

use crate::common::child::one_in;
use crate::common::process::{begin, verify};
use crate::files::Folder;

const CAPACITY: usize = 16 << 20;

/// Uses a heap for what it does, once this made it; errors.
fn program(make: &dyn Fn() -> Result<Mapped, MappedError>) -> usize {
    let Ok(heap) = make() else {
        return 1;
    };
    // One that is found again has what was put there.
    let _ = heap.remove_root("map");
    let before = heap.stats().live;
    let handle = heap.handle();
    let mut errors = 0;
    // SAFETY: nobody else has it.
    let attached = unsafe { Mapped::attach(heap.as_raw_fd()) };
    errors += usize::from(attached.is_err());
    let mut kept: [Option<Box<[u64; 10], _>>; 50] = [const { None }; 50];
    for place in &mut kept {
        *place = Box::try_new_in([7; 10], handle).ok();
        errors += usize::from(place.is_none());
    }
    let mut bytes = MappedVec::<u8, _>::new_in(handle);
    errors += usize::from(bytes.try_reserve(3 << 20).is_err());
    errors += usize::from(bytes.try_reserve(5 << 20).is_err());
    errors += usize::from(heap.set_root("bytes", bytes.as_ptr(), 0).is_err());
    assert!(kept.iter().flatten().all(|numbers| **numbers == [7; 10]));
    drop((kept, bytes));
    assert_eq!(heap.stats().live, before);
    let mut map = Map::new_in(handle);
    errors += (0..100)
        .filter(|key| map.insert(*key, [0; 4]).is_err())
        .count();
    assert_eq!(
        map.len(),
        Ok((0..100)
            .filter(|key| map.contains_key(key) == Ok(true))
            .count())
    );
    let mutex = heap.insert("map", Mutex::new(map));
    errors += usize::from(mutex.is_err());
    if let Ok(mutex) = mutex {
        errors += usize::from(mutex.lock().is_err());
        let found = heap.get("map").expect("a mutex");
        assert!(found.is_some_and(|found| core::ptr::eq(found, mutex)));
    }
    errors += usize::from(heap.verify().is_err());
    errors += usize::from(heap.flush().is_err());
    // SAFETY: nobody else is there.
    errors += usize::from(unsafe { heap.close() }.is_err());
    errors
}

/// Has each kernel call refused that this makes, and all from each on.
fn refuse_each(make: &dyn Fn() -> Result<Mapped, MappedError>) {
    let _turn = begin();
    assert_eq!(program(make), 0);
    for forever in [false, true] {
        for pass in (0..).step_by(one_in(5, 23)) {
            assert!(pass < 2_000, "endless");
            failpoints::refuse_after(pass, forever);
            let errors = program(make);
            let refused = failpoints::refuse_none();
            assert!(errors == 0 || refused > 0, "an error without a reason");
            verify();
            assert_eq!(program(make), 0, "pass {pass}");
            if refused == 0 {
                break;
            }
        }
    }
}

#[test]
fn an_object_lives_through_each_refusal() {
    refuse_each(&|| Mapped::create(CAPACITY));
}

#[test]
fn a_spill_heap_lives_through_each_refusal() {
    let folder = Folder::new("/dev/shm");
    let options = Mapped::options().capacity(CAPACITY);
    refuse_each(&|| options.spill(folder.path("")));
    let left = fs::read_dir(folder.path("")).expect("a folder").count();
    assert!(left <= 2, "{left} files that nobody could remove");
}

/// One that is made, closed and found again.
#[test]
fn a_file_lives_through_each_refusal() {
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let options = Mapped::options().capacity(CAPACITY);
    refuse_each(&|| {
        // It lies at other addresses each time: some may be refused to unmap.
        let _ = fs::remove_file(&path);
        let heap = options.create_file(&path)?;
        // SAFETY: nobody else uses it.
        unsafe { heap.close() }?;
        // SAFETY: as above.
        unsafe { options.open_or_create(&path) }
    });
}

#[test]
fn a_file_is_found_through_each_refusal() {
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let options = Mapped::options().capacity(CAPACITY);
    let count = Cell::new(0);
    refuse_each(&|| {
        // A slot that cannot be unlocked is taken until the process ends.
        count.set(count.get() + 1);
        if count.get() % 100 == 0 {
            let _ = fs::remove_file(&path);
        }
        // SAFETY: nobody else uses it.
        unsafe { options.open_or_create(&path) }
    });
}
