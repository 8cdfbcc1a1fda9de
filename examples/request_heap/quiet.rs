//! What a heap that is full says by a panic: known here, and printed by nobody.

use core::any::Any;
use std::panic;

/// The message of a heap that refused, if that is why there was a panic.
pub(crate) fn refusal(payload: &(dyn Any + Send)) -> Option<&str> {
    let words = payload.downcast_ref::<String>()?;
    words.starts_with("heap \"").then_some(words)
}

/// Each refusal is answered with 503, so a message and a backtrace of it would only look like a
/// fault of the server. All other panics are printed as ever.
pub(crate) fn install() {
    let as_ever = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if refusal(panic.payload()).is_none() {
            as_ever(panic);
        }
    }));
}
