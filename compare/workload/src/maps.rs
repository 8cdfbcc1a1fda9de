//! i_: collections of many small values, filled, thinned, dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::meter::{Meter, Reading};
use super::random::{Random, scale};

/// SipHash with fixed keys: std's random ones would give each process another order.
type Fixed = BuildHasherDefault<DefaultHasher>;

const HASH_OPS: usize = 40_000;
const HASH_KEYS: usize = 15_000;

const BTREE_INSERTS: usize = 30_000;

const LRU_ENTRIES: usize = 10_000;
const LRU_KEYS: usize = 40_000;
const LRU_VALUE_MIN: usize = 32;
const LRU_VALUE_MAX: usize = 1024;

/// `HashMap<String, Vec<u32>>`: push to the vector of a random key, making it if new; then drop.
/// An operation is one push.
pub(crate) fn hash(meter: &Meter) -> Reading {
    meter.run(10, HASH_OPS, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let mut random = Random::new(7 + round);
            let mut map: HashMap<String, Vec<u32>, Fixed> = HashMap::default();
            for op in 0..HASH_OPS {
                let key = random.below(HASH_KEYS);
                map.entry(format!("customer/{key}/orders"))
                    .or_default()
                    .push(op as u32);
            }
            sum = map.values().fold(sum, |sum, orders| {
                sum.wrapping_add(orders.len() as u64 * u64::from(orders[0]))
            });
        }
        sum
    })
}

/// `BTreeMap<u64, String>`: insert random keys, remove half of them, drop. An operation is one
/// insertion with its share of the rest.
pub(crate) fn btree(meter: &Meter) -> Reading {
    meter.run(4, BTREE_INSERTS, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let mut random = Random::new(8 + round);
            let mut map = BTreeMap::new();
            for _ in 0..BTREE_INSERTS {
                let key = random.next();
                map.insert(key, format!("value {key:x}"));
            }
            let mut random = Random::new(8 + round);
            for index in 0..BTREE_INSERTS {
                let key = random.next();
                if index % 2 == 0 {
                    map.remove(&key);
                }
            }
            for (key, value) in &map {
                sum = sum.wrapping_add(key ^ value.len() as u64);
            }
        }
        sum
    })
}

struct Cached {
    value: Vec<u8>,
    /// When it was last used.
    time: u64,
}

/// A cache that drops what has not been used for the longest time.
#[derive(Default)]
struct Lru {
    entries: HashMap<String, Cached, Fixed>,
    /// Every use, the oldest first; those that are not an entry's last use are skipped.
    uses: VecDeque<(String, u64)>,
    time: u64,
}

impl Lru {
    /// The value under the key, made if it is not there.
    fn get(&mut self, key: String, make: impl FnOnce() -> Vec<u8>) -> &[u8] {
        self.time += 1;
        self.uses.push_back((key.clone(), self.time));
        if self.entries.len() == LRU_ENTRIES && !self.entries.contains_key(&key) {
            self.drop_oldest();
        }
        let time = self.time;
        let entry = self.entries.entry(key);
        let cached = entry.or_insert_with(|| Cached {
            value: make(),
            time,
        });
        cached.time = time;
        &cached.value
    }

    fn drop_oldest(&mut self) {
        while let Some((key, time)) = self.uses.pop_front() {
            if self
                .entries
                .get(&key)
                .is_some_and(|cached| cached.time == time)
            {
                self.entries.remove(&key);
                return;
            }
        }
    }
}

/// A cache of 10 000 values under 40 000 keys, some asked for far more often than others. An
/// operation is one use.
pub(crate) fn lru(meter: &Meter) -> Reading {
    let mut random = Random::new(14);
    let mut lru = Lru::default();
    let mut get = move || {
        let word = random.next();
        // the smaller of two random numbers: low keys are asked for more often
        let key = random.below(LRU_KEYS).min(random.below(LRU_KEYS));
        let length = LRU_VALUE_MIN + scale(word, LRU_VALUE_MAX - LRU_VALUE_MIN + 1);
        let value = lru.get(format!("/products/{key}/thumbnail"), || {
            vec![word as u8; length]
        });
        value.len() as u64 ^ u64::from(value[value.len() / 2])
    };
    for _ in 0..2 * LRU_KEYS {
        get();
    }
    meter.run(60_000, 1, |rounds| {
        (0..rounds).fold(0_u64, |sum, _| sum.wrapping_mul(31).wrapping_add(get()))
    })
}
