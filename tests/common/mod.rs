//! What the tests share. Each test takes the parts that it needs, so each leaves some of them unused:
//! its `mod common;` line expects `dead_code` for that reason.

pub(crate) mod allocator_model;
pub(crate) mod block;
pub(crate) mod child;
pub(crate) mod group;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod raw_thread;
pub(crate) mod shadow;
