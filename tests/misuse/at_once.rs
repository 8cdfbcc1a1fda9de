//! Two frees of one block at the very same time: one of them is noticed.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use core::time::Duration;
use std::process;
use std::thread;

use flagstone::failpoints::{self, Callback, Point};

use super::SPAN;
use super::common::block::Block;
use super::common::child::{run_child, scenario};
use super::program::{block, free_as};

static BLOCK: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static ABOUT_TO_FREE: AtomicUsize = AtomicUsize::new(0);

/// Keeps the chunks locked until both threads wait for them: they have looked at the block by then, if they look
/// before they have the lock.
fn at(point: Point) {
    if point != Point::Claim {
        return;
    }
    failpoints::at_points(None);
    ABOUT_TO_FREE.store(1, Ordering::SeqCst);
    while ABOUT_TO_FREE.load(Ordering::SeqCst) < 3 {
        thread::yield_now();
    }
    // Long enough in most runs; in the others nothing is shown.
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn spans() {
    static CALLBACK: Callback = at;
    const NAME: &str = "at_once::spans";
    if scenario().is_none() {
        let exit = run_child(NAME, "spans");
        assert_eq!(exit.signal, Some(libc::SIGABRT), "{exit:?}");
        let noticed = ["double free", "not allocated here"];
        let words = |words: &&str| exit.stderr.contains(*words);
        assert!(noticed.iter().any(words), "{exit:?}");
        return;
    }
    let own: Block = block(SPAN);
    let layout = own.layout();
    BLOCK.store(own.as_ptr(), Ordering::SeqCst);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while ABOUT_TO_FREE.load(Ordering::SeqCst) == 0 {
                    thread::yield_now();
                }
                ABOUT_TO_FREE.fetch_add(1, Ordering::SeqCst);
                free_as(BLOCK.load(Ordering::SeqCst), layout);
            });
        }
        failpoints::at_points(Some(&CALLBACK));
        block(2 * SPAN).free(&super::ALLOC);
    });
    process::exit(0);
}
