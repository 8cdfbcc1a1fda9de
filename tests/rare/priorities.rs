//! Threads of different priorities on one processor, where who waits may keep the one it waits for from running.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread;

use super::common::child::alone;
use super::{get, put, stay_on_one_processor};

/// Makes the calling thread one of the first processor alone, and of this real-time priority; whether it may.
fn pin(priority: i32) -> bool {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the parameters live as long as the call.
    let is_real_time =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    is_real_time == 0 && stay_on_one_processor()
}

/// A waiter that only yields would wait for good: the holder of the lock is never given the processor.
#[test]
fn a_holder_of_low_priority_goes_on() {
    alone("priorities::a_holder_of_low_priority_goes_on", &[], || {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        let pair = || put(get(100_000), 100_000);
        let low = thread::spawn(move || {
            let may = pin(1);
            while may && !IS_OVER.load(Ordering::SeqCst) {
                pair();
            }
        });
        let high = thread::spawn(move || {
            let may = pin(2);
            for _ in 0..if may { 3000 } else { 0 } {
                thread::sleep(Duration::from_micros(50));
                pair();
            }
            IS_OVER.store(true, Ordering::SeqCst);
            may
        });
        let may = high.join().expect("no panic");
        low.join().expect("no panic");
        if !may {
            println!("skipped: real-time priorities are not allowed here");
        }
    });
}
