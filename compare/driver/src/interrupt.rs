//! Ctrl-C: the first one asks to stop, the second one stops.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

/// 128 + SIGINT, as shells have it.
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn install() {
    let installed = ctrlc::set_handler(|| {
        // ORDERING: a lone flag, it publishes nothing.
        if REQUESTED.swap(true, Ordering::Relaxed) {
            process::exit(EXIT_CODE.into());
        }
    });
    if let Err(error) = installed {
        eprintln!("warning: Ctrl-C will not print a table: {error}");
    }
}

pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
