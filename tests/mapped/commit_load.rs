//! What programs put into a heap that commits, and the same in this process's own memory: contents of any commit can be
//! made again from its number.

use std::collections::BTreeMap;
use std::sync::Arc;

use flagstone::mapped::{Map, Mutex, Vec as MappedVec};
use flagstone::{Committed, MappedError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Words that all values have together, at most: more than the log's buffer has, and so few that they are compared at
/// once.
const MOST: usize = (2 << 20) / 8;
const KEYS: u64 = 40;

type Numbers = Mutex<Map<u64, MappedVec<u64>>>;

/// What a heap has after some commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) commits: u64,
    values: BTreeMap<u64, Arc<Vec<u64>>>,
}

/// Numbers, and runs of zeros: what a hole has, too.
fn words(count: usize, seed: u64) -> Vec<u64> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut all = vec![0; count];
    for part in all.chunks_mut(700) {
        if random.random_range(0..3) != 0 {
            part.fill_with(|| random.random());
        }
    }
    all
}

impl State {
    /// That of the next commit: some values are others, in place or anew, or gone.
    pub(crate) fn next(&self, seed: u64) -> Self {
        let mut next = self.clone();
        next.commits += 1;
        let mut random = SmallRng::seed_from_u64(seed ^ (next.commits << 20));
        for _ in 0..random.random_range(1..8) {
            let key = random.random_range(0..KEYS);
            match random.random_range(0..8) {
                0 | 1 => drop(next.values.remove(&key)),
                2..5 => {
                    // Long ones are seldom.
                    let most = [100, 1_000, 10_000, 200_000][random.random_range(0..4_usize)];
                    let most =
                        most.min([1_000, 200_000][usize::from(random.random_range(0..3) == 0)]);
                    let value = words(random.random_range(1..=most), random.random());
                    next.values.insert(key, Arc::new(value));
                }
                _ => {
                    if let Some(value) = next.values.get_mut(&key) {
                        let value = Arc::make_mut(value);
                        for _ in 0..random.random_range(1..20) {
                            let place = random.random_range(0..value.len());
                            value[place] = random.random();
                        }
                    }
                }
            }
        }
        while next.values.values().map(|value| value.len()).sum::<usize>() > MOST {
            let longest = next.values.iter().max_by_key(|(_, value)| value.len());
            let key = *longest.expect("one at least").0;
            next.values.remove(&key);
        }
        next
    }

    /// One with another number, and the same values.
    pub(crate) fn numbered(&self, commits: u64) -> Self {
        Self {
            commits,
            ..self.clone()
        }
    }

    /// Has the heap, which has `before`, have this.
    pub(crate) fn store(&self, heap: Committed, before: &Self) -> Result<(), MappedError> {
        let numbers = numbers(heap)?;
        let mut numbers = numbers.lock().expect("nobody was killed with it");
        for key in before.values.keys() {
            if !self.values.contains_key(key) {
                numbers.remove(key)?;
            }
        }
        for (key, value) in &self.values {
            match before.values.get(key) {
                Some(old) if old == value => continue,
                Some(old) if old.len() == value.len() => {
                    let place = numbers.get_mut(key)?.expect("a value");
                    let differing = (0..value.len()).filter(|word| old[*word] != value[*word]);
                    differing.for_each(|word| place[word] = value[word]);
                }
                _ => {
                    let mut fresh = MappedVec::new_in(heap.handle());
                    let room = fresh.try_reserve_exact(value.len());
                    room.map_err(|_| MappedError::NoSpace)?;
                    fresh.extend_from_slice(value);
                    numbers.insert(*key, fresh)?;
                }
            }
        }
        let mut first = MappedVec::new_in(heap.handle());
        first
            .try_reserve_exact(1)
            .map_err(|_| MappedError::NoSpace)?;
        first.push(self.commits);
        numbers.insert(KEYS, first)?;
        Ok(())
    }

    /// Whether the heap has this.
    pub(crate) fn is_in(&self, heap: Committed) -> bool {
        let found = heap.get::<Numbers>("numbers").expect("that type");
        let Some(numbers) = found else {
            return self.commits == 0;
        };
        let numbers = numbers.lock().expect("nobody was killed with it");
        let is_there = |(key, value): (&u64, &Arc<Vec<u64>>)| {
            let found = numbers.get(key).expect("whole");
            found.is_some_and(|found| found[..] == value[..])
        };
        let commits = numbers.get(&KEYS).expect("whole");
        commits.map_or(0, |commits| commits[0]) == self.commits
            && numbers.len() == Ok(self.values.len() + usize::from(commits.is_some()))
            && self.values.iter().all(is_there)
    }
}

fn numbers(heap: Committed) -> Result<&'static Numbers, MappedError> {
    match heap.get::<Numbers>("numbers")? {
        Some(numbers) => Ok(numbers),
        None => heap.insert("numbers", Mutex::new(Map::new_in(heap.handle()))),
    }
}

/// How many commits the heap has that was found, by what it says itself.
pub(crate) fn commits_in(heap: Committed) -> u64 {
    let found = heap.get::<Numbers>("numbers").expect("that type");
    found.map_or(0, |numbers| {
        let numbers = numbers.lock().expect("nobody was killed with it");
        let commits = numbers.get(&KEYS).expect("whole");
        commits.map_or(0, |commits| commits[0])
    })
}
