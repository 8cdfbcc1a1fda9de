//! What is stored: keys and values made from numbers, and a shadow of what a store has to hold.

use crate::store::{Failure, Store, Value};

/// Entries of a commit while a store is loaded.
pub(crate) const LOADED: u64 = 10_000;

/// The same where nobody measures it: a store of a gigabyte would take long by the other.
pub(crate) const FILLED: u64 = 1_000_000;

/// Keys that no store has, which a check asks for, too.
const ABSENT: u64 = 1000;

/// Keys that are looked up in one read transaction of a check.
const CHECKED: u64 = 100_000;

/// The odd number nearest to the golden ratio's share of 2^64, as in splitmix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The last step of splitmix64, which maps each number to one of its own.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below another.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The upper half of a product below 2^64 * end.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The key of an entry: anywhere among all numbers, none twice.
pub(crate) fn key(entry: u64) -> u64 {
    mix(entry.wrapping_mul(GOLDEN))
}

/// The value of a key: another for each version. It does not compress.
fn value(key: u64, version: u32) -> Value {
    let mut random = Random::new(key ^ u64::from(version));
    let mut value = [0; size_of::<Value>()];
    for part in value.chunks_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes()[..part.len()]);
    }
    value
}

/// The sum of all words of a value, so that none of its bytes is passed over.
pub(crate) fn sum(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0, u64::wrapping_add)
}

/// Keys and their values, in the order of keys: a tree likes that, and a table does not mind.
pub(crate) type Batch = Vec<(u64, Value)>;

/// What a store has to hold: for each entry the version of its value.
pub(crate) struct Shadow {
    versions: Vec<u32>,
}

impl Shadow {
    pub(crate) fn new(entries: u64) -> Self {
        Self {
            versions: vec![0; entries as usize],
        }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.versions.len() as u64
    }

    /// The batches by which a store is loaded, of so many entries.
    pub(crate) fn load(&self, count: u64) -> impl Iterator<Item = Batch> {
        let entries = self.entries();
        (0..entries).step_by(count as usize).map(move |first| {
            let keys = (first..entries.min(first + count)).map(key);
            let mut batch: Batch = keys.map(|key| (key, value(key, 0))).collect();
            batch.sort_by_key(|(key, _)| *key);
            batch
        })
    }

    /// Gives so many entries, chosen at random, their next values.
    pub(crate) fn update(&mut self, random: &mut Random, count: u64) -> Batch {
        let entries = self.entries();
        let updates = (0..count).map(|_| {
            let entry = random.below(entries);
            let version = &mut self.versions[entry as usize];
            *version += 1;
            (key(entry), value(key(entry), *version))
        });
        let mut batch: Batch = updates.collect();
        // What is there twice stays in its order: the last is the one.
        batch.sort_by_key(|(key, _)| *key);
        batch
    }

    /// Looks at all that a store holds.
    ///
    /// # Errors
    ///
    /// What is not as it has to be: a value, or an entry that was never stored.
    pub(crate) fn check<S: Store>(&self, store: &S) -> Result<(), Failure> {
        let entries = self.entries();
        let all = entries + ABSENT;
        for first in (0..all).step_by(CHECKED as usize) {
            let end = all.min(first + CHECKED);
            let keys: Vec<u64> = (first..end).map(key).collect();
            let (mut next, mut wrong) = (first, None);
            store.get(&keys, |key, found| {
                let expected = self.versions.get(next as usize);
                let expected = expected.map(|version| value(key, *version));
                if found != expected.as_ref().map(|value| value.as_slice()) {
                    wrong.get_or_insert(next);
                }
                next += 1;
            })?;
            if let Some(entry) = wrong {
                return Err(format!("entry {entry} of {entries} is not what was stored").into());
            }
            if next != end {
                return Err(format!("{next} entries looked up, not {end}").into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::stores;

    /// What a store of memory does wrong.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        Nothing,
        ForgetsUpdate,
        KeepsOthers,
        SkipsKeys,
    }

    struct Memory(HashMap<u64, Value>, Fault);

    impl Store for Memory {
        fn create(_: &Path, _: u64) -> Result<Self, Failure> {
            Ok(Self(HashMap::new(), Fault::Nothing))
        }

        fn open(_: &Path) -> Result<Self, Failure> {
            Err("it is gone".into())
        }

        fn put_batch(&mut self, batch: &[(u64, Value)]) -> Result<(), Failure> {
            for (key, value) in batch {
                if self.1 != Fault::ForgetsUpdate || !self.0.contains_key(key) {
                    self.0.insert(*key, *value);
                }
            }
            Ok(())
        }

        fn get(
            &self,
            keys: &[u64],
            mut see: impl FnMut(u64, Option<&[u8]>),
        ) -> Result<(), Failure> {
            let skipped = usize::from(self.1 == Fault::SkipsKeys);
            for key in &keys[..keys.len() - skipped] {
                see(*key, self.0.get(key).map(|value| value.as_slice()));
            }
            Ok(())
        }

        fn close(self) -> Result<(), Failure> {
            Ok(())
        }
    }

    const ENTRIES: u64 = 25_000;

    /// Loads a store and updates it, and looks whether all is there.
    fn fill<S: Store>(mut store: S) -> (S, Shadow) {
        let mut shadow = Shadow::new(ENTRIES);
        for batch in shadow.load(LOADED) {
            store.put_batch(&batch).expect("stored");
        }
        let mut random = Random::new(1);
        for count in [1, 100, 10_000] {
            let batch = shadow.update(&mut random, count);
            store.put_batch(&batch).expect("updated");
        }
        (store, shadow)
    }

    #[test]
    fn a_check_notices_what_is_wrong() {
        for fault in [
            Fault::Nothing,
            Fault::ForgetsUpdate,
            Fault::KeepsOthers,
            Fault::SkipsKeys,
        ] {
            let (mut store, shadow) = fill(Memory(HashMap::new(), fault));
            if fault == Fault::KeepsOthers {
                store.0.insert(key(ENTRIES), value(1, 1));
            }
            assert_eq!(shadow.check(&store).is_ok(), fault == Fault::Nothing);
        }
    }

    fn holds<S: Store>() {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let (store, shadow) = fill(S::create(folder.path(), ENTRIES).expect("a store"));
        shadow.check(&store).expect("all is there");
        store.close().expect("closed");
        assert!(S::size(folder.path()).expect("a size") >= ENTRIES * 108);
        let store = S::open(folder.path()).expect("opened");
        shadow.check(&store).expect("all is there still");
        store.close().expect("closed");
    }

    #[test]
    fn flagstone_holds() {
        holds::<stores::flagstone::Flagstone<Value>>();
    }

    #[test]
    fn flagstone_with_blocks_holds() {
        holds::<stores::flagstone::Flagstone<flagstone::mapped::Box<Value>>>();
    }

    #[test]
    fn redb_holds() {
        holds::<stores::redb::Redb>();
    }

    #[test]
    fn lmdb_holds() {
        holds::<stores::lmdb::Lmdb>();
    }

    #[test]
    fn sqlite_holds() {
        holds::<stores::sqlite::Sqlite>();
    }
}
