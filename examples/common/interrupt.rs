//! Ctrl-C as a flag: the first asks the program to end in order, the second ends it at once.

use core::sync::atomic::{AtomicBool, Ordering};
use std::process;

/// What shells report for a program ended by SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler, which runs on a thread of its own.
pub(crate) fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        // ORDERING: Relaxed, the flag publishes nothing but itself.
        if REQUESTED.swap(true, Ordering::Relaxed) {
            process::exit(EXIT_CODE.into());
        }
    })
}

/// Whether Ctrl-C was pressed.
pub(crate) fn requested() -> bool {
    // ORDERING: Relaxed, pairs with the swap above; being a moment late is harmless.
    REQUESTED.load(Ordering::Relaxed)
}
