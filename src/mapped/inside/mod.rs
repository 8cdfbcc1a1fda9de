//! What programs put inside a heap over a mapping, see docs/mapped.md, "What can lie there".
//!
//! Each file names only those before it: `text` (strings), `offset` (places that do not depend on the address), `mutex`,
//! `event`, `map`, `shape` (a type as a number), `layouts` (where the parts of collections lie), `persist` (what may lie in a
//! heap), `holders` (what holds values, as that), `count` (how many share a value), `arc`.

mod arc;
mod count;
mod event;
mod holders;
mod layouts;
mod map;
mod mutex;
mod offset;
mod persist;
mod shape;
mod text;

use allocator_api2::{boxed, vec};

use super::Handle;

pub use arc::Arc;
pub use event::Event;
pub use map::Map;
pub use mutex::{Guard, LockError, Mutex};
pub use offset::Off;
pub use persist::{Persist, Visit, shape_of};
pub use shape::Shape;
pub use text::String;

/// A vector in a heap over a mapping: allocator-api2's. Its methods with `try_` make errors where the heap has no room;
/// the others end the program.
pub type Vec<T> = vec::Vec<T, Handle>;

/// A block in a heap over a mapping, with its owner: allocator-api2's.
pub type Box<T> = boxed::Box<T, Handle>;
