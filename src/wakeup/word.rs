//! The word that says whether there is a background thread, and by which who frees memory wakes or starts it.
//!
//! It is made of four bits:
//!
//! | bit | set while |
//! |---|---|
//! | `THREAD` | there is a background thread, or somebody is starting it |
//! | `HEARS` | who frees memory has to do something: wake the thread, or, if there is none, start it |
//! | `STAYS` | the thread was asked for, and does not end |
//! | `MANY` | the program has two threads at least, and the options let the allocator start one by itself |
//!
//! | state | bits | means | left by |
//! |---|---|---|---|
//! | off | none | no thread, and none is to be | `more`: ready; `want`: wanted; `ask`: awake |
//! | ready | `HEARS`, `MANY` | who finds memory worth returning starts it | `begin`, `ask`: awake; `fewer`: off |
//! | wanted | `HEARS`, `STAYS` | who may starts it, whatever there is to return | `begin`, `ask`: awake |
//! | awake | `THREAD`, and `STAYS` or `MANY` | it looks by itself | `lie_down`: asleep; `fewer`: ending |
//! | asleep | as awake, and `HEARS` | who frees memory wakes it | `wake`: awake; `fewer`: ending |
//! | ending | `THREAD` | one thread of the program is left | `end`: off; `more`, `ask`: awake |
//!
//! `MANY` comes and goes in each of them; a thread that `STAYS` is awake or asleep without it. A start that failed leads
//! from awake or ending to ready, wanted or off (`fail`; after `ask` `give_up`, which wants no more), and a child of `fork` from all to off (`forget`).
//!
//! | transition | who |
//! |---|---|
//! | `more`, `fewer` | a thread that begins or ends, under the registry's lock: so `MANY` is as of the last of them |
//! | `want` | who initialises the process |
//! | `ask` | the program, on any thread |
//! | `begin`, `wake` | who frees memory; `begin`, `ask` succeed for one, who then starts the thread, or `fail`s |
//! | `lie_down`, `end` | the background thread; after `end` it touches nothing of the allocator any more |
//!
//! Each is one compare-exchange of the whole word. So a thread that ends (`end`) and one that begins (`more`) agree on
//! who was first: either the thread goes on, or the word is off before it is ready again, and who then starts another
//! finds nobody there.
#![cfg_attr(not(loom), forbid(unsafe_code))]

use crate::sync::{AtomicU32, Ordering};

const THREAD: u32 = 1;
const HEARS: u32 = 2;
const STAYS: u32 = 4;
const MANY: u32 = 8;

/// The word.
#[derive(Debug)]
pub(crate) struct Wakeup(AtomicU32);

impl Wakeup {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    // ORDERING: only this word, here and below: nothing is published through it. What is freed is seen by the locks
    // that the background thread takes after `lie_down`, and `is_set`'s caller took before.

    fn load(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes the word what `next` says of it, if anything. What it was then, or `None`.
    fn change(&self, next: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let mut word = self.load();
        loop {
            let after = next(word)?;
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.0.compare_exchange_weak(word, after, success, failure) {
                Ok(_) => return Some(word),
                Err(now) => word = now,
            }
        }
    }

    /// The program has two threads at least.
    pub(crate) fn more(&self) {
        self.change(|word| {
            let hears = if word & THREAD == 0 { HEARS } else { 0 };
            Some(word | MANY | hears)
        });
    }

    /// It has fewer. Whether the caller is to wake the background thread, which is to end.
    pub(crate) fn fewer(&self) -> bool {
        let before = self.change(|word| {
            let kept = if word & STAYS == 0 { !HEARS } else { !0 };
            Some(word & !MANY & kept)
        });
        before.is_some_and(|word| word & THREAD != 0 && word & STAYS == 0)
    }

    /// Who next may is to start a thread that stays.
    pub(crate) fn want(&self) {
        self.change(|word| (word & THREAD == 0).then_some(word | STAYS | HEARS));
    }

    /// Whether that is what is wanted.
    #[inline(always)]
    pub(crate) fn is_wanted(&self) -> bool {
        self.load() & (THREAD | STAYS) == STAYS
    }

    /// A background thread that stays is wanted now; whether the caller is the one to start it.
    pub(crate) fn ask(&self) -> bool {
        let before = self.change(|word| {
            Some(if word & THREAD == 0 {
                word & MANY | THREAD | STAYS
            } else {
                word | STAYS
            })
        });
        before.is_some_and(|word| word & THREAD == 0)
    }

    /// Whether the caller is the one to start the background thread.
    pub(crate) fn begin(&self) -> bool {
        let may_begin = |word| word & (THREAD | HEARS) == HEARS;
        self.change(|word| may_begin(word).then_some(word & !HEARS | THREAD))
            .is_some()
    }

    /// The thread that `begin` promised could not be started: it is wanted as before.
    pub(crate) fn fail(&self) {
        self.leave(MANY | STAYS);
    }

    /// That which `ask` promised could not be started, which is the caller's error.
    pub(crate) fn give_up(&self) {
        self.leave(MANY);
    }

    /// There is no thread, but perhaps those of the bits that are `kept` ask for one.
    fn leave(&self, kept: u32) {
        self.change(|word| {
            let kept = word & kept;
            Some(if kept == 0 { 0 } else { kept | HEARS })
        });
    }

    /// From here on who frees memory wakes the background thread, unless it is to end. Everything freed before is found
    /// by whoever then takes the locks under which it was freed: who frees under such a lock later sees this.
    pub(crate) fn lie_down(&self) -> bool {
        self.change(|word| (word & (STAYS | MANY) != 0).then_some(word | HEARS))
            .is_some()
    }

    /// Whether there is no background thread any more; it was to end.
    pub(crate) fn end(&self) -> bool {
        self.change(|word| is_ending(word).then_some(0)).is_some()
    }

    /// In a child of `fork`: there is none.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether there is a background thread that is to end.
    pub(crate) fn is_ending(&self) -> bool {
        is_ending(self.load())
    }

    /// Whether the background thread never ends.
    pub(crate) fn stays(&self) -> bool {
        self.load() & STAYS != 0
    }

    /// Whether there is a background thread that looks by itself.
    pub(crate) fn is_awake(&self) -> bool {
        self.load() & (THREAD | HEARS) == THREAD
    }

    /// Whether who frees memory is to wake the background thread, or to start it.
    #[inline(always)]
    pub(crate) fn is_set(&self) -> bool {
        self.load() & HEARS != 0
    }

    /// Whether the caller is the one to wake the background thread. No lock under which it freed is held.
    pub(crate) fn wake(&self) -> bool {
        self.change(|word| is_asleep(word).then_some(word & !HEARS))
            .is_some()
    }

    /// Waits with `wait`, which returns now and then or once the word is another, until somebody wakes it.
    pub(crate) fn sleep(&self, wait: impl Fn(&AtomicU32, u32)) {
        loop {
            let word = self.load();
            if !is_asleep(word) {
                return;
            }
            wait(&self.0, word);
        }
    }

    /// Waits with `wait` as long as that does, unless the thread is to end.
    pub(crate) fn nap(&self, wait: impl FnOnce(&AtomicU32, u32)) {
        let word = self.load();
        if !is_ending(word) {
            wait(&self.0, word);
        }
    }

    /// The word, for who wakes.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

fn is_ending(word: u32) -> bool {
    word & (THREAD | STAYS | MANY) == THREAD
}

fn is_asleep(word: u32) -> bool {
    word & (THREAD | HEARS) == THREAD | HEARS
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_failed_is_wanted_as_before() {
        let wakeup = Wakeup::new();
        wakeup.want();
        for _ in 0..2 {
            assert!(wakeup.is_wanted() && wakeup.begin());
            wakeup.fail();
        }
        assert!(wakeup.ask());
        wakeup.give_up();
        assert!(!wakeup.is_wanted() && !wakeup.begin());
        wakeup.more();
        assert!(wakeup.begin() && !wakeup.begin());
        wakeup.fail();
        assert!(wakeup.begin());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Mutex};

    /// Proves: what is freed beside a background thread that lies down is given back, or somebody wakes it. Fails if the
    /// background thread sets the word after its last look.
    #[test]
    fn loom_nothing_is_freed_unheard() {
        loom::model(|| {
            let wakeup = Arc::new(Wakeup(AtomicU32::new(THREAD | STAYS)));
            let dirty = Arc::new(Mutex::new(false));
            let threads: std::vec::Vec<_> = (0..2)
                .map(|_| {
                    let (wakeup, dirty) = (wakeup.clone(), dirty.clone());
                    loom::thread::spawn(move || {
                        *dirty.lock().unwrap() = true;
                        wakeup.is_set() && wakeup.wake()
                    })
                })
                .collect();
            assert!(wakeup.lie_down());
            *dirty.lock().unwrap() = false;
            let rung = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .filter(|rang| *rang)
                .count();
            assert!(rung <= 1, "one wakes");
            let is_left = *dirty.lock().unwrap();
            assert!(!is_left || rung == 1, "left, and nobody wakes it");
            assert_eq!(wakeup.is_set(), rung == 0);
        });
    }

    /// A program: how many threads it has, whether memory waits to go back, how many background threads there are, and
    /// whether one is at work. What one does that is woken in the kernel is done by who wakes it.
    struct Program {
        wakeup: Wakeup,
        threads: Mutex<usize>,
        dirty: Mutex<bool>,
        background: Mutex<usize>,
        is_at_work: Mutex<bool>,
    }

    impl Program {
        fn changes_threads(&self, by: isize) {
            let is_to_end = {
                let mut threads = self.threads.lock().unwrap();
                *threads = threads.checked_add_signed(by).unwrap();
                if *threads == 2 {
                    self.wakeup.more();
                }
                *threads == 1 && self.wakeup.fewer()
            };
            if is_to_end {
                self.rings();
            }
        }

        /// Frees, and wakes or starts the background thread.
        fn frees(&self) {
            *self.dirty.lock().unwrap() = true;
            if !self.wakeup.is_set() {
                return;
            }
            if self.wakeup.wake() {
                self.rings();
            } else if self.wakeup.begin() {
                self.comes();
                self.works();
            }
        }

        /// Wakes who waits in the kernel.
        fn rings(&self) {
            let is_at_work = core::mem::replace(&mut *self.is_at_work.lock().unwrap(), true);
            if !is_at_work {
                self.works();
            }
        }

        fn comes(&self) {
            let mut background = self.background.lock().unwrap();
            *background += 1;
            assert_eq!(*background, 1, "two of them");
            *self.is_at_work.lock().unwrap() = true;
        }

        /// The background thread, until it ends or waits in the kernel.
        fn works(&self) {
            loop {
                if self.wakeup.lie_down() {
                    *self.dirty.lock().unwrap() = false;
                    let mut is_at_work = self.is_at_work.lock().unwrap();
                    if is_asleep(self.wakeup.load()) {
                        *is_at_work = false;
                        return;
                    }
                }
                // Before `end`, after which it touches nothing.
                *self.background.lock().unwrap() -= 1;
                if self.wakeup.end() {
                    return;
                }
                // Somebody began meanwhile.
                self.comes();
            }
        }
    }

    /// Proves: while one thread ends, another begins and one frees, there is at most one background thread at work, the
    /// word is what the number of threads says, and what is freed while there are two is given back or is heard. Fails
    /// if `end` does not look whether somebody began, or `more` leaves out that there is no thread.
    #[test]
    fn loom_an_end_and_a_start_agree() {
        loom::model(|| {
            let program = Arc::new(Program {
                // Awake, beside two threads.
                wakeup: Wakeup(AtomicU32::new(THREAD | MANY)),
                threads: Mutex::new(2),
                dirty: Mutex::new(false),
                background: Mutex::new(1),
                is_at_work: Mutex::new(true),
            });
            let act = |act: fn(&Program)| {
                let program = program.clone();
                loom::thread::spawn(move || act(&program))
            };
            let changes = act(|program| {
                program.changes_threads(-1);
                program.changes_threads(1);
                program.frees();
            });
            let works = act(Program::works);
            changes.join().unwrap();
            works.join().unwrap();
            let word = program.wakeup.load();
            assert_ne!(word & MANY, 0);
            // Asleep, or none, and who frees next starts it.
            assert_ne!(word & HEARS, 0, "awake, and nobody at work");
            assert!(!*program.dirty.lock().unwrap(), "left, and nobody heard");
        });
    }
}
