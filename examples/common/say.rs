//! One-line messages on stderr that never fail: a closed stderr must not stop a program.

use core::fmt::Arguments;
use std::io::{self, Write};

/// Writes `program: message` and a newline. Allocates nothing, so it is safe to call on a broken
/// heap.
pub(crate) fn line(program: &str, message: Arguments<'_>) {
    // Nobody is left to tell if stderr itself is gone.
    let _ = writeln!(io::stderr().lock(), "{program}: {message}");
}
