//! A map in a heap in a file. What a commit is stands in `begin`, `find` and `commit` alone.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use flagstone::mapped::{Box, Guard, Map, Mutex, Persist};
use flagstone::{Committed, Handle, MappedError};

use crate::store::{Failure, Store, Value};

/// A heap in a file, that commits.
type Heap = Committed;

/// A new heap.
fn begin(path: &[u8], capacity: usize) -> Result<Heap, MappedError> {
    Committed::options().capacity(capacity).create(path)
}

/// The heap of a file.
fn find(path: &[u8]) -> Result<Heap, MappedError> {
    // SAFETY: 1. this program alone has the file.
    unsafe { Committed::options().open(path) }
}

/// Waits until all that was stored is on the disk. Nobody stores meanwhile.
fn commit(heap: &Heap) -> Result<(), MappedError> {
    // SAFETY: 1. this process has one thread.
    unsafe { heap.commit() }
}

/// The name of the root.
const NAME: &str = "entries";

/// How a value lies in the map.
pub(crate) trait Place: Persist + Send + Sync + Sized + 'static {
    /// Gives a key its value.
    fn put(map: &mut Map<u64, Self>, key: u64, value: &Value, handle: Handle) -> Put;

    /// The value.
    fn value(&self) -> &Value;
}

type Put = Result<(), MappedError>;

/// In the table itself: a look-up ends there.
impl Place for Value {
    fn put(map: &mut Map<u64, Self>, key: u64, value: &Value, _: Handle) -> Put {
        map.insert(key, *value).map(|_| ())
    }

    fn value(&self) -> &Value {
        self
    }
}

/// In a block of its own: new ones lie side by side, and a table that grows moves 24 bytes for each.
impl Place for Box<Value> {
    fn put(map: &mut Map<u64, Self>, key: u64, value: &Value, handle: Handle) -> Put {
        if let Some(place) = map.get_mut(&key)? {
            **place = *value;
            return Ok(());
        }
        let block = Box::try_new_in(*value, handle).map_err(|_| MappedError::NoSpace)?;
        map.insert(key, block).map(|_| ())
    }

    fn value(&self) -> &Value {
        self
    }
}

type Root<V> = Mutex<Map<u64, V>>;

pub(crate) struct Flagstone<V: Place> {
    heap: Heap,
    root: &'static Root<V>,
}

impl<V: Place> Flagstone<V> {
    fn lock(&self) -> Result<Guard<'static, Map<u64, V>>, Failure> {
        // Nobody is killed while he has it: an abandoned lock is a failure, too.
        self.root.lock().map_err(|error| error.to_string().into())
    }
}

/// Room for a table that grows, which is there twice then, at its emptiest: some 450 bytes an entry. And for the heap's own.
fn capacity(entries: u64) -> usize {
    (entries as usize * 512).next_multiple_of(1 << 20) + (64 << 20)
}

impl<V: Place> Store for Flagstone<V> {
    fn create(folder: &Path, entries: u64) -> Result<Self, Failure> {
        let path = folder.join("heap");
        let heap = begin(path.as_os_str().as_bytes(), capacity(entries))?;
        let root = heap.insert(NAME, Root::new(Map::new_in(heap.handle())))?;
        commit(&heap)?;
        Ok(Self { heap, root })
    }

    fn open(folder: &Path) -> Result<Self, Failure> {
        let heap = find(folder.join("heap").as_os_str().as_bytes())?;
        let root = heap.get(NAME)?.ok_or("a heap without entries")?;
        Ok(Self { heap, root })
    }

    fn put_batch(&mut self, batch: &[(u64, Value)]) -> Result<(), Failure> {
        let mut map = self.lock()?;
        for (key, value) in batch {
            V::put(&mut map, *key, value, self.heap.handle())?;
        }
        // The lock is let go first: a commit that held it would be found abandoned.
        drop(map);
        Ok(commit(&self.heap)?)
    }

    fn get(&self, keys: &[u64], mut see: impl FnMut(u64, Option<&[u8]>)) -> Result<(), Failure> {
        let map = self.lock()?;
        for key in keys {
            see(*key, map.get(key)?.map(|place| place.value().as_slice()));
        }
        Ok(())
    }

    fn close(self) -> Result<(), Failure> {
        // SAFETY: 1. this process has one thread. 2. the root goes with `self`.
        Ok(unsafe { self.heap.close() }?)
    }
}
