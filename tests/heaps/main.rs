//! Without this, a first-class heap could lose memory, hand a block out twice, or forget its limit.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;

mod attributes;
mod fork;
mod limits;
mod misuse;
mod model;
mod oom;
mod small;
mod threads;

use flagstone::{Background, Config, Flagstone, HeapOptions};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

/// Options of heaps whose memory comes from the engine, and of such whose memory has attributes.
fn kinds() -> [HeapOptions<'static>; 2] {
    [HeapOptions::new(), HeapOptions::new().core_dumps(false)]
}
