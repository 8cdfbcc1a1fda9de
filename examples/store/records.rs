//! What lies in the heap, and the few stores by which it changes.

use core::borrow::Borrow;
use core::hash::{Hash, Hasher};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};
use core::{slice, str};

use flagstone::allocator_api2::alloc::{Allocator, Layout};
use flagstone::mapped::{Box as MappedBox, Map, Off, Persist, Shape, Visit};
use flagstone::{Mapped, MappedError};

flagstone::persist! {
    /// What the mutex guards. `first` and each record's `next` are the truth; all else is made from them.
    pub(crate) struct State {
        first: Option<Off<Record>>,
        index: Option<Off<Index>>,
    }
}

flagstone::persist! {
    /// The beginning of a block, behind which the key and the value stand. They never change.
    pub(crate) struct Record {
        next: Option<Off<Record>>,
        /// The record whose `next` leads here: made anew with the index.
        previous: Option<Off<Record>>,
        /// Of the lengths and the bytes, for heaps that a machine left when it went down.
        sum: u64,
        key_length: u32,
        value_length: u32,
    }
}

/// Finds a record by its key.
type Index = Map<Key, Off<Record>>;

/// A record, as the index knows it: by the key in it, of which the index has no copy.
#[repr(transparent)]
struct Key(NonNull<Record>);

// SAFETY: 1. the address of a block of the heap, which is the same in each process. 2. the name, and what the block looks
// like. 3. the index owns no record.
unsafe impl Persist for Key {
    fn shape(_: u32) -> u64 {
        let shape = Shape::of::<Self>("store::Key");
        shape.with(Record::shape(0)).number()
    }

    unsafe fn visit(&self, _: &mut Visit<'_>) {}
}

// SAFETY: 1. records are read and changed with the lock alone.
unsafe impl Send for Key {}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        // SAFETY: 1. a record leaves the index before it is freed.
        unsafe { texts(self.0) }.0
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<str>::borrow(self) == Borrow::<str>::borrow(other)
    }
}

impl Eq for Key {}

/// The key and the value of a record.
///
/// # Safety
/// 1. A whole record, which nobody frees while they are used.
unsafe fn texts<'a>(record: NonNull<Record>) -> (&'a str, &'a str) {
    // SAFETY: 1. the caller's.
    let [key, value] = unsafe { bytes(record) };
    // SAFETY: 1. made of texts.
    let key = unsafe { str::from_utf8_unchecked(key) };
    // SAFETY: 1. as above.
    (key, unsafe { str::from_utf8_unchecked(value) })
}

/// The same, as bytes.
///
/// # Safety
/// 1. As many bytes lie behind the record as it says, and nobody changes them while they are used.
unsafe fn bytes<'a>(record: NonNull<Record>) -> [&'a [u8]; 2] {
    // SAFETY: 1. the caller's.
    let head = unsafe { record.as_ref() };
    let (key, value) = (head.key_length as usize, head.value_length as usize);
    // SAFETY: 1. within the block, or at its end.
    let begin = unsafe { record.add(1) }.cast::<u8>();
    // SAFETY: 1. the caller's.
    let all = unsafe { slice::from_raw_parts(begin.as_ptr(), key + value) };
    let (key, value) = all.split_at(key);
    [key, value]
}

/// FNV-1a.
fn sum(key: &[u8], value: &[u8]) -> u64 {
    let lengths = [key.len() as u64, value.len() as u64].map(u64::to_le_bytes);
    let all = lengths.as_flattened().iter().chain(key).chain(value);
    all.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn layout(key: usize, value: usize) -> Result<Layout, MappedError> {
    let bytes = size_of::<Record>()
        .checked_add(key)
        .and_then(|bytes| bytes.checked_add(value));
    let layout = bytes.map(|bytes| Layout::from_size_align(bytes, align_of::<Record>()));
    layout.and_then(Result::ok).ok_or(MappedError::NoSpace)
}

/// Changes the truth, by one store of eight bytes: a process that is killed before leaves what was, and behind it what
/// is to be.
///
/// # Safety
/// 1. The place can be written, and nobody else uses it meanwhile.
unsafe fn publish<T>(place: NonNull<Option<Off<T>>>, now: Option<Off<T>>) {
    // ORDERING: a process that is killed has made its stores in the order of its program. The fences keep the compiler to
    // it; other processes are kept away by the lock.
    fence(Ordering::AcqRel);
    // SAFETY: 1. the caller's.
    unsafe { place.write_volatile(now) };
    fence(Ordering::AcqRel);
}

/// What was found when the index was made anew.
pub(crate) struct Rebuilt {
    pub(crate) records: usize,
    /// Whether the records ended at one that is not whole. It and those behind it are gone.
    pub(crate) is_cut: bool,
}

impl State {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            index: None,
        }
    }
}

/// The records of a heap, while its lock is held.
pub(crate) struct Records<'a> {
    pub(crate) heap: &'a Mapped,
    pub(crate) state: &'a mut State,
}

impl Records<'_> {
    /// Whether the index can be used.
    pub(crate) fn is_indexed(&self) -> bool {
        self.index().is_ok_and(|index| !index.is_torn())
    }

    fn index(&self) -> Result<&Index, MappedError> {
        let index = self
            .state
            .index
            .ok_or(MappedError::Torn)?
            .resolve(self.heap)?;
        // SAFETY: 1. published when it was whole, and used with the lock, which the caller has.
        Ok(unsafe { index.as_ref() })
    }

    fn index_mut(&mut self) -> Result<&mut Index, MappedError> {
        let mut index = self
            .state
            .index
            .ok_or(MappedError::Torn)?
            .resolve(self.heap)?;
        // SAFETY: 1. as in `index`.
        Ok(unsafe { index.as_mut() })
    }

    pub(crate) fn count(&self) -> Result<usize, MappedError> {
        self.index()?.len()
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<&str>, MappedError> {
        let Some(found) = self.index()?.get(key)? else {
            return Ok(None);
        };
        // SAFETY: 1. in the index, and the caller has the lock.
        Ok(Some(unsafe { texts(found.resolve(self.heap)?) }.1))
    }

    /// Calls with each key and value, the newest first.
    pub(crate) fn each(&self, mut act: impl FnMut(&str, &str)) -> Result<(), MappedError> {
        let mut next = self.state.first;
        while let Some(place) = next {
            let record = place.resolve(self.heap)?;
            // SAFETY: 1. of the chain, and the caller has the lock.
            let (key, value) = unsafe { texts(record) };
            act(key, value);
            // SAFETY: 1. as above.
            next = unsafe { record.as_ref() }.next;
        }
        Ok(())
    }

    /// Gives a key a value. A kill leaves the old value or the new one.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), MappedError> {
        // So that nothing can fail once the record is published.
        self.index_mut()?.reserve(1)?;
        let old = self.index()?.get(key)?.copied();
        let new = self.make(key, value)?;
        self.put_in_place(old, Some(new))?;
        let key = Key(new.resolve(self.heap)?);
        self.index_mut()?.insert(key, new)?;
        old.map_or(Ok(()), |old| self.free(old))
    }

    /// Whether there was such a key.
    pub(crate) fn delete(&mut self, key: &str) -> Result<bool, MappedError> {
        let Some(old) = self.index()?.get(key)?.copied() else {
            return Ok(false);
        };
        self.put_in_place(Some(old), None)?;
        self.free(old)?;
        Ok(true)
    }

    /// A record that nobody knows yet. A kill loses its block.
    fn make(&self, key: &str, value: &str) -> Result<Off<Record>, MappedError> {
        let length = |text: &str| u32::try_from(text.len()).map_err(|_| MappedError::NoSpace);
        let head = Record {
            next: None,
            previous: None,
            sum: sum(key.as_bytes(), value.as_bytes()),
            key_length: length(key)?,
            value_length: length(value)?,
        };
        let block = self.heap.handle().allocate(layout(key.len(), value.len())?);
        let block = block.map_err(|_| MappedError::NoSpace)?.cast::<Record>();
        // SAFETY: 1. fresh, and long enough.
        unsafe { block.write(head) };
        // SAFETY: 1. the key's place in the block.
        let place = unsafe { block.add(1) }.cast::<u8>();
        // SAFETY: 1. room for the key, in a fresh block.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len()) };
        // SAFETY: 1. the value's place.
        let place = unsafe { place.add(key.len()) };
        // SAFETY: 1. as above, for the value.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len()) };
        Off::new(self.heap, block.as_ptr())
    }

    /// Puts `new` in the place of `old`; before all if there is none. Then takes the old one from the index.
    fn put_in_place(
        &mut self,
        old: Option<Off<Record>>,
        new: Option<Off<Record>>,
    ) -> Result<(), MappedError> {
        let (previous, next) = match old {
            Some(old) => {
                // SAFETY: 1. of the chain, and the caller has the lock.
                let old = unsafe { old.resolve(self.heap)?.as_ref() };
                (old.previous, old.next)
            }
            None => (None, self.state.first),
        };
        let link = self.link(previous)?;
        if let Some(new) = new {
            // SAFETY: 1. nobody else knows it.
            let new = unsafe { new.resolve(self.heap)?.as_mut() };
            (new.previous, new.next) = (previous, next);
        }
        // SAFETY: 1. with the lock.
        unsafe { publish(link, new.or(next)) };
        // From here on it is so. The rest is made anew if this process is killed.
        if let Some(next) = next {
            // SAFETY: 1. of the chain, with the lock.
            unsafe { next.resolve(self.heap)?.as_mut() }.previous = new.or(previous);
        }
        if let Some(old) = old {
            // SAFETY: 1. not freed yet.
            let key = unsafe { texts(old.resolve(self.heap)?) }.0;
            self.index_mut()?.remove(key)?;
        }
        Ok(())
    }

    /// Where the way to a record stands: in the one before it, or in front of all.
    fn link(
        &mut self,
        previous: Option<Off<Record>>,
    ) -> Result<NonNull<Option<Off<Record>>>, MappedError> {
        let Some(previous) = previous else {
            return Ok(NonNull::from(&mut self.state.first));
        };
        let record = previous.resolve(self.heap)?;
        // SAFETY: 1. within the record.
        Ok(unsafe { record.byte_add(offset_of!(Record, next)) }.cast())
    }

    /// Frees a record that is no longer in the chain.
    fn free(&self, old: Off<Record>) -> Result<(), MappedError> {
        let record = old.resolve(self.heap)?;
        // SAFETY: 1. not freed yet.
        let head = unsafe { record.as_ref() };
        let layout = layout(head.key_length as usize, head.value_length as usize)?;
        // SAFETY: 1. a block that `make` allocated with this layout, and that nothing leads to.
        unsafe { self.heap.handle().deallocate(record.cast(), layout) };
        Ok(())
    }

    /// Makes the index and each `previous` anew from the chain. It trusts no record: the chain is cut at the first that is
    /// not whole. The old index is freed, unless it is torn or not `trusted`: then its memory is given up.
    ///
    /// A kill leaves the chain, and at most an index that nobody has.
    pub(crate) fn rebuild(&mut self, is_trusted: bool) -> Result<Rebuilt, MappedError> {
        let old = self.state.index;
        // SAFETY: 1. with the lock.
        unsafe { publish(NonNull::from(&mut self.state.index), None) };
        if let Some(old) = old.filter(|_| is_trusted) {
            let old = old.resolve(self.heap)?;
            // SAFETY: 1. made below, and nothing leads to it. What is torn frees its first block alone.
            drop(unsafe { MappedBox::from_raw_in(old.as_ptr(), self.heap.handle()) });
        }
        let mut index = Index::new_in(self.heap.handle());
        let mut is_cut = false;
        let (mut previous, mut next) = (None, self.state.first);
        while let Some(place) = next {
            let record = self.whole(place).filter(|(_, key)| {
                // What leads back to a record that was met before is not whole either.
                index.contains_key(*key) == Ok(false)
            });
            let Some((mut record, _)) = record else {
                let link = self.link(previous)?;
                // SAFETY: 1. with the lock.
                unsafe { publish(link, None) };
                is_cut = true;
                break;
            };
            index.insert(Key(record), place)?;
            // SAFETY: 1. whole, of the chain, with the lock.
            let head = unsafe { record.as_mut() };
            head.previous = previous;
            (previous, next) = (Some(place), head.next);
        }
        let records = index.len()?;
        let index = MappedBox::try_new_in(index, self.heap.handle());
        let index = MappedBox::leak(index.map_err(|_| MappedError::NoSpace)?);
        let index = Off::new(self.heap, index)?;
        // SAFETY: 1. with the lock.
        unsafe { publish(NonNull::from(&mut self.state.index), Some(index)) };
        Ok(Rebuilt { records, is_cut })
    }

    /// A record and its key, if it is one: asked of places that a machine left which went down.
    fn whole(&self, place: Off<Record>) -> Option<(NonNull<Record>, &str)> {
        let record = place.resolve(self.heap).ok()?;
        // SAFETY: 1. in the heap, behind its tables; any bytes are a record's.
        let head = unsafe { record.as_ref() };
        let length = layout(head.key_length as usize, head.value_length as usize)
            .ok()?
            .size();
        // OVERFLOW: two lengths of 32 bits, behind an address of 47.
        let last = record.as_ptr().cast::<u8>().wrapping_add(length - 1);
        if !self.heap.contains(last) {
            return None;
        }
        // SAFETY: 1. in the heap, from the first to the last; with the lock.
        let [key, value] = unsafe { bytes(record) };
        let is_whole = head.sum == sum(key, value) && str::from_utf8(value).is_ok();
        let key = str::from_utf8(key).ok()?;
        is_whole.then_some((record, key))
    }

    /// Looks at all records and at the index; how many there are, or what is wrong.
    pub(crate) fn check(&self) -> Result<usize, String> {
        let index = self.index().map_err(|error| error.to_string())?;
        let (mut count, mut previous, mut next) = (0, None, self.state.first);
        while let Some(place) = next {
            count += 1;
            let (record, key) = self
                .whole(place)
                .ok_or_else(|| format!("record {count} is not whole"))?;
            if index.get(key) != Ok(Some(&place)) {
                return Err(format!("the index does not know {key:?}"));
            }
            // SAFETY: 1. whole, with the lock.
            let head = unsafe { record.as_ref() };
            if head.previous != previous {
                return Err(format!("the way back from {key:?} is wrong"));
            }
            (previous, next) = (Some(place), head.next);
        }
        match index.len() {
            Ok(indexed) if indexed == count => Ok(count),
            _ => Err(format!("{count} records, but not in the index")),
        }
    }
}
