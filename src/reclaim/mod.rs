//! Memory on its way back to the kernel, whoever asks: slow paths now and then (`maintenance`), the program
//! (`purge`), a thread of the allocator's own (`background`). What all of them need of other threads, and what counts and
//! checks all of them, is here, too.

mod background;
mod list;
mod maintenance;
mod pace;
mod purge;
mod quiesce;
mod resting;
mod stats;
mod verify;

pub(crate) use background::{notice, start as start_background, start_if_wanted};
pub(crate) use maintenance::{maintain, or_reclaim};
pub(crate) use purge::purge;
pub(crate) use stats::stats;
pub(crate) use verify::verify;
