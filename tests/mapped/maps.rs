//! Maps: whole, or torn and said to be.

use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::HashMap;

use flagstone::mapped::{Box, Map, Mutex, String};
use flagstone::{Mapped, MappedError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::locks::{die, killed};

#[test]
fn a_map_is_what_stds_is() {
    let _turn = begin();
    let heap = Mapped::create(64 << 20).expect("a heap");
    let mut map = Map::new_in(heap.handle());
    assert_eq!(heap.stats().live, 0);
    let mut other = HashMap::new();
    let mut random = SmallRng::seed_from_u64(3);
    for step in 0..20_000_u32 {
        let key = random.random_range(0..3_000_u64);
        let text = format!("number {key}");
        let own = || String::try_from_str_in(&text, heap.handle()).expect("room");
        match random.random_range(0..4) {
            0 | 1 => assert_eq!(
                map.insert(own(), step),
                Ok(other.insert(text.clone(), step))
            ),
            2 => assert_eq!(map.remove(&*text), Ok(other.remove(&*text))),
            _ => {
                let (found, expected) = (map.get_mut(&*text), other.get_mut(&*text));
                assert_eq!(found, Ok(expected));
                if let (Ok(Some(found)), Some(expected)) =
                    (map.get_mut(&*text), other.get_mut(&*text))
                {
                    *found += 1;
                    *expected += 1;
                }
            }
        }
        assert_eq!(map.len(), Ok(other.len()));
    }
    assert!(other.keys().all(|key| map.contains_key(&**key) == Ok(true)));
    let entries = map.iter().expect("whole");
    assert!(
        entries
            .map(|(key, value)| (key.to_string(), *value))
            .all(|(key, value)| other[&key] == value)
    );
    assert_eq!(map.iter().expect("whole").count(), other.len());
    map.clear().expect("whole");
    assert_eq!(map.is_empty(), Ok(true));
    assert_eq!(map.iter().expect("whole").count(), 0);
    drop(map);
    assert_eq!(heap.stats().live, 0);
}

#[test]
fn a_full_heap_leaves_the_map_as_it_was() {
    let _turn = begin();
    let heap = Mapped::create(1 << 20).expect("a heap");
    let mut map = Map::new_in(heap.handle());
    assert_eq!(map.reserve(1 << 20), Err(MappedError::NoSpace));
    let mut count = 0_u64;
    while map.insert(count, [count; 4]).is_ok() {
        count += 1;
        assert!(count < 1 << 20, "endless");
    }
    assert!(count > 1_000, "{count}");
    assert_eq!(map.insert(count, [0; 4]), Err(MappedError::NoSpace));
    assert_eq!(map.len().map(|length| length as u64), Ok(count));
    assert!((0..count).all(|key| map.get(&key) == Ok(Some(&[key; 4]))));
    // What needs no room goes on.
    assert_eq!(map.insert(0, [9; 4]), Ok(Some([0; 4])));
    (1..count).for_each(|key| assert_eq!(map.remove(&key), Ok(Some([key; 4]))));
    assert_eq!(map.insert(1, [1; 4]), Ok(None));
}

/// The map of another process: seed and table lie in the heap.
#[test]
fn a_child_fills_what_its_parent_reads() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let map: Map<u64, u64> = Map::new_in(heap.handle());
    let map = Box::leak(Box::new_in(Mutex::new(map), heap.handle()));
    let child = start(|| {
        let mut map = map.lock().expect("nobody was killed");
        (0..10_000).for_each(|key| assert_eq!(map.insert(key, key * key), Ok(None)));
    });
    assert_eq!(end_of(child), 0);
    let map = map.get_mut();
    assert_eq!(map.len(), Ok(10_000));
    assert!((0..10_000).all(|key| map.get(&key) == Ok(Some(&(key * key)))));
}

/// Looks of this process at keys until it is killed; 0 is never.
static LOOKS: AtomicU32 = AtomicU32::new(0);

fn look() {
    if LOOKS.load(Ordering::Relaxed) != 0 && LOOKS.fetch_sub(1, Ordering::Relaxed) == 1 {
        die();
    }
}

/// A key that kills whoever looks at it too often.
struct Key(u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        look();
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        look();
        self.0 == other.0
    }
}

impl Eq for Key {}

#[test]
fn a_kill_in_the_midst_of_a_change_tears() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let map: &mut Map<Key, u64> = Box::leak(Box::new_in(Map::new_in(heap.handle()), heap.handle()));
    // As many as there is room for: the next one has the table grow.
    map.reserve(14).expect("room");
    (0..14).for_each(|key| assert_eq!(map.insert(Key(key), key), Ok(None)));
    // Before the change: while the key is looked for, its own hash, and those of keys that are equal.
    killed(|| {
        LOOKS.store(1, Ordering::Relaxed);
        let _ = map.insert(Key(99), 99);
    });
    killed(|| {
        LOOKS.store(2, Ordering::Relaxed);
        let _ = map.remove(&Key(7));
    });
    assert!(!map.is_torn());
    assert!((0..14).all(|key| map.get(&Key(key)) == Ok(Some(&key))));
    let live = heap.stats().live;
    // While the entries move to a longer table.
    killed(|| {
        LOOKS.store(5, Ordering::Relaxed);
        let _ = map.insert(Key(99), 99);
    });
    assert!(map.is_torn());
    let torn = Err(MappedError::Torn);
    assert_eq!(map.get(&Key(1)), torn);
    assert_eq!(map.get_mut(&Key(1)).err(), torn.err());
    assert_eq!(map.insert(Key(1), 1), Err(MappedError::Torn));
    assert_eq!(map.remove(&Key(1)), Err(MappedError::Torn));
    assert_eq!(map.reserve(1), Err(MappedError::Torn));
    assert_eq!(map.clear(), Err(MappedError::Torn));
    assert_eq!(map.len(), Err(MappedError::Torn));
    assert!(map.iter().is_err());
    // Begun anew; what the old table took stays taken.
    map.reset();
    assert_eq!(map.len(), Ok(0));
    (0..100).for_each(|key| assert_eq!(map.insert(Key(key), key), Ok(None)));
    assert!((0..100).all(|key| map.get(&Key(key)) == Ok(Some(&key))));
    assert!(heap.stats().live > live);
    // Of a whole map a reset drops the entries, and keeps the table.
    let live = heap.stats().live;
    map.reset();
    assert_eq!((map.len(), heap.stats().live), (Ok(0), live));
}
