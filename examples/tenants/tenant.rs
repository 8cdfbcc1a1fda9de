//! One tenant: a heap, and a map that lies in it.
//!
//! The map borrows the heap, so a struct of both would refer to itself, which safe Rust cannot say.
//! One `Vec` of heaps that outlives all maps is no way out: its heaps would end together, and a
//! tenant is to end alone. But an `async` function may keep a borrow of its own variables while it
//! waits, and the compiler checks it. So a tenant is such a function, which waits for commands. It
//! never waits for anything else: no executor is needed, one call of `poll` is one command. To drop
//! the function while it waits drops its variables, and with them the heap.

use core::cell::Cell;
use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::hash::RandomState;
use std::rc::Rc;

use flagstone::allocator_api2::boxed::Box as HeapBox;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::{Heap, HeapError, HeapStats};
use hashbrown::HashMap;

type Key<'h> = HeapBox<[u8], &'h Heap>;
type Value<'h> = HeapVec<u8, &'h Heap>;
type Map<'h> = HashMap<Key<'h>, Value<'h>, RandomState, &'h Heap>;

enum Command {
    Put { key: String, value: String },
    Look,
}

/// What a tenant has, and what it was made with.
pub(crate) struct Row {
    /// Short, as heaps keep it: the first 47 bytes.
    pub(crate) name: String,
    pub(crate) entries: usize,
    pub(crate) stats: HeapStats,
    pub(crate) limit: Option<usize>,
}

enum Answer {
    Put,
    Row(Row),
}

/// Where commands and answers are handed over.
#[derive(Default)]
struct Desk {
    command: Cell<Option<Command>>,
    answer: Cell<Option<Answer>>,
}

impl Desk {
    /// Waits for a command.
    fn next(&self) -> impl Future<Output = Command> {
        // Nobody is to be woken: who leaves a command polls.
        poll_fn(|_| self.command.take().map_or(Poll::Pending, Poll::Ready))
    }
}

pub(crate) struct Tenant {
    desk: Rc<Desk>,
    life: Pin<Box<dyn Future<Output = Infallible>>>,
}

impl Tenant {
    pub(crate) fn new(name: &str, limit: usize) -> Result<Self, HeapError> {
        // A `try_` that was forgotten below would be a panic, and without `panics` the end of the
        // process.
        let heap = Heap::options()
            .name(name)
            .limit(limit)
            .panics(true)
            .create()?;
        let desk = Rc::new(Desk::default());
        let life = Box::pin(live(heap, Rc::clone(&desk)));
        Ok(Self { desk, life })
    }

    /// Keeps a value, or counts that there was no room for it.
    pub(crate) fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (key.into(), value.into());
        self.ask(Command::Put { key, value });
    }

    pub(crate) fn row(&mut self) -> Row {
        match self.ask(Command::Look) {
            Answer::Row(row) => row,
            Answer::Put => unreachable!("a look is answered with a row"),
        }
    }

    fn ask(&mut self, command: Command) -> Answer {
        self.desk.command.set(Some(command));
        let Poll::Pending = self
            .life
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let answer = self.desk.answer.take();
        answer.expect("a tenant answers before it waits again")
    }
}

/// A tenant's life. It ends where it waits, when it is dropped.
async fn live(heap: Heap, desk: Rc<Desk>) -> Infallible {
    // Nobody drops what is in the map: it would be visited entry by entry, and all of it goes with
    // the heap anyway.
    let map: Map<'_> = HashMap::with_hasher_in(RandomState::new(), &heap);
    let mut map = ManuallyDrop::new(map);
    loop {
        let answer = match desk.next().await {
            Command::Put { key, value } => {
                // What was refused is counted by the heap: one request for each such call.
                let _ = Heap::fallibly(|| put(&mut map, key.as_bytes(), value.as_bytes()));
                Answer::Put
            }
            Command::Look => Answer::Row(Row {
                name: heap.name().into(),
                entries: map.len(),
                stats: heap.stats(),
                limit: heap.limit(),
            }),
        };
        desk.answer.set(Some(answer));
    }
}

/// Reserves all that is needed before it changes anything, so `None` leaves the map as it was.
fn put(map: &mut Map<'_>, key: &[u8], value: &[u8]) -> Option<()> {
    let heap = *map.allocator();
    if let Some(old) = map.get_mut(key) {
        old.try_reserve(value.len().saturating_sub(old.len()))
            .ok()?;
        old.clear();
        old.extend_from_slice(value);
        return Some(());
    }
    let key = copy(key, heap)?.into_boxed_slice();
    let value = copy(value, heap)?;
    // A map that grows has two tables for a moment: most tenants are first refused here.
    map.try_reserve(1).ok()?;
    map.insert(key, value);
    Some(())
}

/// As long as it must be, so that a boxed slice of it needs no other block.
fn copy<'h>(bytes: &[u8], heap: &'h Heap) -> Option<Value<'h>> {
    let mut copy = HeapVec::new_in(heap);
    copy.try_reserve_exact(bytes.len()).ok()?;
    copy.extend_from_slice(bytes);
    Some(copy)
}
