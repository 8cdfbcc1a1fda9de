//! Names of things in a heap: a table that is written with the heap's lock, and read without it.
//!
//! A line is written while its `place` is zero, `place` last. Before a `place` is made zero the table's version goes up. A
//! reader that finds the version unmoved behind its look has seen no line change its name, and no name between its old
//! place and its new one. No version says that a change is under way: a writer that is killed holds no reader up.

use crate::sync::{AtomicU64, Ordering};

/// Bytes of a root's name, at most.
pub(super) const NAME: usize = if cfg!(all(test, loom)) { 8 } else { 48 };

/// A name as it stands in a root: with zeros behind it.
pub(super) type Name = [u64; NAME / 8];

/// The bit of a place that says that the kind is the shape of a type, by who knew the type: no number of a program's.
pub(super) const TYPED: u64 = 1 << 63;

/// A thing with a name. Written with the heap's lock.
#[repr(C, align(64))]
pub(super) struct Root {
    /// Bytes from the base, and perhaps [`TYPED`]; 0 is none.
    place: AtomicU64,
    /// What the program says it is.
    kind: AtomicU64,
    name: [AtomicU64; NAME / 8],
}

/// A root as it was at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) place: u64,
    pub(super) kind: u64,
    pub(super) name: Name,
}

impl Named {
    /// Bytes from the base.
    pub(super) fn distance(self) -> u64 {
        self.place & !TYPED
    }

    pub(super) fn is_typed(self) -> bool {
        self.place & TYPED != 0
    }
}

/// The table, and its version.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) roots: &'a [Root],
    pub(super) version: &'a AtomicU64,
}

impl Root {
    fn is_free(&self) -> bool {
        // ORDERING: with the lock.
        self.place.load(Ordering::Relaxed) == 0
    }

    /// What stands there, if something does.
    pub(super) fn read(&self) -> Option<Named> {
        // ORDERING: acquire: pairs with the stores in `set` and `forget`. Of what they see, the version before is seen, too.
        let place = self.place.load(Ordering::Acquire);
        let named = || Named {
            place,
            kind: self.kind.load(Ordering::Acquire),
            name: self
                .name
                .each_ref()
                .map(|word| word.load(Ordering::Acquire)),
        };
        (place != 0).then(named)
    }
}

fn first_of(roots: &[Root], name: &Name) -> Option<Named> {
    let mut found = roots.iter().filter_map(Root::read);
    found.find(|root| root.name == *name)
}

impl<'a> Names<'a> {
    /// Looks at the table as it is at some moment. The look may be taken several times, and has to make the same of the
    /// same.
    pub(super) fn look<R>(self, mut look: impl FnMut(&'a [Root]) -> R) -> R {
        loop {
            // ORDERING: acquire: pairs with `step`. What was stored before is seen.
            let before = self.version.load(Ordering::Acquire);
            let found = look(self.roots);
            // ORDERING: the loads in `read` are acquire, and come before.
            if self.version.load(Ordering::Relaxed) == before {
                return found;
            }
            core::hint::spin_loop();
        }
    }

    /// The first of a name. A process that was killed while it gave it to another place may have left two.
    pub(super) fn find(self, name: &Name) -> Option<Named> {
        self.look(|roots| first_of(roots, name))
    }

    /// The same with the heap's lock.
    pub(super) fn find_held(self, name: &Name) -> Option<Named> {
        first_of(self.roots, name)
    }

    /// Before a `place` is made zero.
    fn step(self) {
        // ORDERING: release: pairs with `look`: what was stored before this version is seen by who sees it.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Gives a name, or another place that name, with the heap's lock; `false` if the table has `most` names already. There
    /// is one line more than names.
    pub(super) fn set(self, most: usize, new: Named) -> bool {
        // Somebody was killed with two of one name: others find the first, which shall be the last to go.
        self.forget_doubles();
        let taken = self.roots.iter().filter(|root| !root.is_free()).count();
        if taken >= most && self.find_held(&new.name).is_none() {
            return false;
        }
        let Some(root) = self.roots.iter().find(|root| root.is_free()) else {
            return false;
        };
        // ORDERING: release: who still looks at what stood there before sees that it was made zero.
        for (to, word) in root.name.iter().zip(new.name) {
            to.store(word, Ordering::Release);
        }
        root.kind.store(new.kind, Ordering::Release);
        root.place.store(new.place, Ordering::Release);
        self.forget_others(&new.name, Some(root));
        true
    }

    /// Takes a name away, with the heap's lock; whether there was one.
    pub(super) fn forget(self, name: &Name) -> bool {
        let found = self.find_held(name).is_some();
        self.forget_doubles();
        self.forget_others(name, None);
        found
    }

    /// Takes names from all lines but the first that has each.
    fn forget_doubles(self) {
        for (at, root) in self.roots.iter().enumerate() {
            let is_double = |named: &Named| first_of(&self.roots[..at], &named.name).is_some();
            if root.read().as_ref().is_some_and(is_double) {
                self.step();
                // ORDERING: release: pairs with `read`.
                root.place.store(0, Ordering::Release);
            }
        }
    }

    fn forget_others(self, name: &Name, kept: Option<&'a Root>) {
        let is_other = |root: &&Root| kept.is_none_or(|kept| !core::ptr::eq(kept, *root));
        let is_named = |root: &&Root| root.read().is_some_and(|root| root.name == *name);
        for root in self.roots.iter().filter(is_other).filter(is_named) {
            self.step();
            // ORDERING: release: pairs with `read`.
            root.place.store(0, Ordering::Release);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    struct Model {
        roots: Vec<Root>,
        version: AtomicU64,
    }

    impl Model {
        fn names(&self) -> Names<'_> {
            Names {
                roots: &self.roots,
                version: &self.version,
            }
        }
    }

    fn model(lines: usize) -> &'static Model {
        let root = |_| Root {
            place: AtomicU64::new(0),
            kind: AtomicU64::new(0),
            name: [AtomicU64::new(0)],
        };
        Box::leak(Box::new(Model {
            roots: (0..lines).map(root).collect(),
            version: AtomicU64::new(0),
        }))
    }

    fn named(name: u64, place: u64) -> Named {
        let (kind, name) = (place + 100, [name]);
        Named { place, kind, name }
    }

    /// Proves: a name that has a place all the time is found all the time, and with the kind of that place, while it gets
    /// another place, and the line of the old one another name. Fails when `step` is left out, or `look` believes the
    /// first look; with a relaxed store of zero, or a relaxed `fetch_add`.
    #[test]
    fn loom_a_name_that_stands_is_found() {
        loom::model(|| {
            let model = model(2);
            // The second line first, so that a look meets the new line before the old one.
            assert!(model.names().set(2, named(9, 90)));
            assert!(model.names().set(2, named(1, 10)));
            assert!(model.names().forget(&[9]));
            let reader = loom::thread::spawn(move || {
                let found = model.names().find(&[1]).expect("it stands");
                assert!(vec![named(1, 10), named(1, 11)].contains(&found));
            });
            assert!(model.names().set(1, named(1, 11)));
            // The old line is another's.
            assert!(model.names().set(2, named(2, 20)));
            reader.join().unwrap();
        });
    }
}
