//! Whatever kernel call is refused: an error, and a heap that goes on.

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Mapped, failpoints};

use crate::common::process::{begin, verify};

/// Makes and uses a heap for what it does; errors.
fn program() -> usize {
    let Ok(heap) = Mapped::create(16 << 20) else {
        return 1;
    };
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
    assert_eq!(heap.stats().live, 0);
    errors += usize::from(heap.verify().is_err());
    // SAFETY: nobody else is there.
    errors += usize::from(unsafe { heap.close() }.is_err());
    errors
}

#[test]
fn a_heap_lives_through_each_refusal() {
    let _turn = begin();
    assert_eq!(program(), 0);
    for forever in [false, true] {
        for pass in 0.. {
            assert!(pass < 1_000, "endless");
            failpoints::refuse_after(pass, forever);
            let errors = program();
            let refused = failpoints::refuse_none();
            assert!(errors == 0 || refused > 0, "an error without a reason");
            verify();
            assert_eq!(program(), 0, "pass {pass}");
            if refused == 0 {
                break;
            }
        }
    }
}
