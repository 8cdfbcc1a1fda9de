//! i_: collections of many small values, filled, thinned, dropped.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::meter::{Meter, Reading};
use super::random::Random;

/// SipHash with fixed keys: std's random ones would give each process another order.
type Fixed = BuildHasherDefault<DefaultHasher>;

const HASH_OPS: usize = 40_000;
const HASH_KEYS: usize = 15_000;

const BTREE_INSERTS: usize = 30_000;

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
