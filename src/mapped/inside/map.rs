//! A hash map that another program can open: hashbrown's table, with a seed of its own, and a mark while it changes.
//!
//! | state | means | to | by |
//! |---|---|---|---|
//! | `NONE` | no table: an empty one of hashbrown's leads into the program | `CHANGING` | the first entry, once its memory is there |
//! | `WHOLE` | a table | `CHANGING` | before each change of the table |
//! | `CHANGING` | a table on its way, or torn: whoever changed it was killed, or panicked | `WHOLE` | behind the change |
//! | | | `NONE` | `reset`, which gives the table up |

use core::borrow::Borrow;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::mem::{self, MaybeUninit};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::mapped::{Handle, MappedError};
use crate::os;
use crate::sync::{AtomicU32, Ordering, fence};

pub(super) type Table<K, V> = HashTable<(K, V), Handle>;

const NONE: u32 = 0;
const WHOLE: u32 = 1;
const CHANGING: u32 = 2;

/// A hash map in a heap over a mapping. It hashes by SipHash-1-3 with a random seed, which it keeps.
///
/// A process that is killed while it changes the map leaves it torn. Each method then returns
/// [`MappedError::Torn`], until [`reset`](Self::reset) gives up what the map held. A panic of a key's or a value's methods
/// in the midst of a change does the same. Whoever keeps a map in a [`Mutex`](super::Mutex) learns of both there.
///
/// ```
/// use flagstone::mapped::{Map, String};
/// use flagstone::Mapped;
///
/// let heap = Mapped::create(16 << 20)?;
/// let mut ages = Map::new_in(heap.handle());
/// ages.insert(String::try_from_str_in("Ada", heap.handle())?, 36)?;
/// assert_eq!(ages.get("Ada")?, Some(&36));
/// assert_eq!(ages.remove("Ada")?, Some(36));
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[repr(C)]
pub struct Map<K, V> {
    state: AtomicU32,
    seed: [u64; 2],
    handle: Handle,
    /// There unless the state is `NONE`.
    table: MaybeUninit<Table<K, V>>,
}

/// What SipHash-1-3 makes of a key.
pub(super) fn hash_of<Q: Hash + ?Sized>([first, second]: [u64; 2], key: &Q) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(first, second);
    key.hash(&mut hasher);
    hasher.finish()
}

fn hasher<K: Hash, V>(seed: [u64; 2]) -> impl Fn(&(K, V)) -> u64 {
    move |(key, _)| hash_of(seed, key)
}

impl<K, V> Map<K, V> {
    /// An empty map, which allocates nothing.
    #[must_use]
    pub fn new_in(handle: Handle) -> Self {
        let [first, second, _] = os::random();
        Self {
            state: AtomicU32::new(NONE),
            seed: [first, second],
            handle,
            table: MaybeUninit::uninit(),
        }
    }

    /// The table, if there is one.
    pub(super) fn table(&self) -> Result<Option<&Table<K, V>>, MappedError> {
        // ORDERING: whoever may look at the map has an order with who changed it.
        match self.state.load(Ordering::Relaxed) {
            NONE => Ok(None),
            // SAFETY: 1. the state says so.
            WHOLE => Ok(Some(unsafe { self.table.assume_init_ref() })),
            _ => Err(MappedError::Torn),
        }
    }

    fn table_mut(&mut self) -> Result<Option<&mut Table<K, V>>, MappedError> {
        Ok(if self.table()?.is_some() {
            // SAFETY: 1. as `table` has just found.
            Some(unsafe { self.table.assume_init_mut() })
        } else {
            None
        })
    }

    /// Changes the table, which is torn if that does not come to its end.
    fn change<R>(&mut self, change: impl FnOnce(&mut MaybeUninit<Table<K, V>>) -> R) -> R {
        // ORDERING: a process that is killed has made its stores in the order of its program. The fences keep the compiler to
        // it; no other thread looks.
        self.state.store(CHANGING, Ordering::Relaxed);
        fence(Ordering::AcqRel);
        let done = change(&mut self.table);
        fence(Ordering::AcqRel);
        self.state.store(WHOLE, Ordering::Relaxed);
        done
    }

    /// The same for a table that is there.
    fn change_table<R>(&mut self, change: impl FnOnce(&mut Table<K, V>) -> R) -> R {
        // SAFETY: 1. the callers have found one.
        self.change(|table| change(unsafe { table.assume_init_mut() }))
    }

    /// Entries.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn len(&self) -> Result<usize, MappedError> {
        Ok(self.table()?.map_or(0, HashTable::len))
    }

    /// Whether there are no entries.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn is_empty(&self) -> Result<bool, MappedError> {
        Ok(self.len()? == 0)
    }

    /// Whether a process was killed in the midst of a change.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.table().is_err()
    }

    /// All entries, in no order.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn iter(&self) -> Result<impl Iterator<Item = (&K, &V)>, MappedError> {
        let entries = self.table()?.into_iter().flat_map(HashTable::iter);
        Ok(entries.map(|(key, value)| (key, value)))
    }

    /// Drops all entries. The table's memory stays.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn clear(&mut self) -> Result<(), MappedError> {
        if self.table()?.is_some() {
            self.change_table(HashTable::clear);
        }
        Ok(())
    }

    /// Begins anew, empty. Of a torn map the table and its entries are given up: their memory stays allocated, and nothing
    /// is dropped.
    pub fn reset(&mut self) {
        if self.clear().is_err() {
            // ORDERING: as in `change`.
            self.state.store(NONE, Ordering::Relaxed);
        }
    }
}

impl<K: Hash + Eq, V> Map<K, V> {
    /// Makes room for so many entries more.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`], and the map is as before; [`Torn`](MappedError::Torn).
    pub fn reserve(&mut self, additional: usize) -> Result<(), MappedError> {
        let hasher = hasher(self.seed);
        let handle = self.handle;
        let reserved = match self.table()? {
            Some(table) if table.capacity() - table.len() >= additional => Ok(()),
            Some(_) => self.change_table(|table| table.try_reserve(additional, hasher)),
            None => {
                let mut fresh = HashTable::new_in(handle);
                let reserved = fresh.try_reserve(additional.max(1), hasher);
                reserved.map(|()| self.change(|table| *table = MaybeUninit::new(fresh)))
            }
        };
        reserved.map_err(|_| MappedError::NoSpace)
    }

    /// Gives a key a value; the value that it had.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`], and the map is as before; [`Torn`](MappedError::Torn). The key and the value are dropped.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, MappedError> {
        let hash = hash_of(self.seed, &key);
        if let Some(bucket) = self.find(hash, &key)? {
            return Ok(self.change_table(|table| {
                let (_, place) = table.get_bucket_mut(bucket)?;
                Some(mem::replace(place, value))
            }));
        }
        self.reserve(1)?;
        let hasher = hasher(self.seed);
        self.change_table(|table| {
            table.insert_unique(hash, (key, value), hasher);
        });
        Ok(None)
    }

    /// The bucket of a key.
    fn find<Q: Eq + ?Sized>(&self, hash: u64, key: &Q) -> Result<Option<usize>, MappedError>
    where
        K: Borrow<Q>,
    {
        let is_it = |(other, _): &(K, V)| other.borrow() == key;
        let table = self.table()?;
        Ok(table.and_then(|table| table.find_bucket_index(hash, is_it)))
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Result<Option<&V>, MappedError>
    where
        K: Borrow<Q>,
    {
        let hash = hash_of(self.seed, key);
        let found = self.table()?.and_then(|table| {
            let is_it = |(other, _): &(K, V)| other.borrow() == key;
            table.find(hash, is_it)
        });
        Ok(found.map(|(_, value)| value))
    }

    /// The value of a key, to be changed. The map takes no note of that: a process that is killed meanwhile leaves a map that
    /// is whole, with a value that may not be.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Result<Option<&mut V>, MappedError>
    where
        K: Borrow<Q>,
    {
        let hash = hash_of(self.seed, key);
        let found = self.table_mut()?.and_then(|table| {
            let is_it = |(other, _): &(K, V)| other.borrow() == key;
            table.find_mut(hash, is_it)
        });
        Ok(found.map(|(_, value)| value))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Result<bool, MappedError>
    where
        K: Borrow<Q>,
    {
        Ok(self.get(key)?.is_some())
    }

    /// Removes a key; the value that it had.
    ///
    /// # Errors
    ///
    /// [`MappedError::Torn`].
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Result<Option<V>, MappedError>
    where
        K: Borrow<Q>,
    {
        let hash = hash_of(self.seed, key);
        let found = self.find(hash, key)?;
        let Some(bucket) = found else {
            return Ok(None);
        };
        let removed = self.change_table(|table| {
            let entry = table.get_bucket_entry(bucket).ok()?;
            Some(entry.remove().0)
        });
        Ok(removed.map(|(_, value)| value))
    }
}

impl<K, V> Drop for Map<K, V> {
    /// The table of a torn map is given up.
    fn drop(&mut self) {
        if self.table().is_ok_and(|table| table.is_some()) {
            // SAFETY: 1. there, and not used any more.
            unsafe { self.table.assume_init_drop() };
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iter() {
            Ok(entries) => out.debug_map().entries(entries).finish(),
            Err(error) => fmt::Display::fmt(&error, out),
        }
    }
}
