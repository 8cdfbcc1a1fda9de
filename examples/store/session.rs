//! The heap of a store, from its opening to its end, and the lock around all that is done with it.

use core::time::Duration;
use std::path::Path;
use std::thread;
use std::time::Instant;

use flagstone::mapped::{Guard, LockError};
use flagstone::{Committed, Mapped, MappedError, Opened};

use crate::common::{human, interrupt, say};
use crate::mapped::{bytes_of, why};
use crate::records::{Rebuilt, Records, State};
use crate::{PATIENCE, PROGRAM, Root};

/// The name of the root.
const NAME: &str = "store";
/// Who waits for a durable store that another process has looks so often.
const LOOK: Duration = Duration::from_millis(20);

/// Why a command was not obeyed.
pub(crate) enum Failure {
    NotThere(String),
    Interrupted,
    /// It asks for what this store or this path cannot be.
    Unfit(String),
    Other(String),
}

/// How a store is to be found.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a Path,
    /// What a store can have that is made if there is none.
    pub(crate) capacity: Option<usize>,
    pub(crate) is_durable: bool,
    pub(crate) may_be_dirty: bool,
    /// How long a durable store is waited for that another process has.
    pub(crate) patience: Duration,
    pub(crate) is_verbose: bool,
}

pub(crate) struct Session {
    heap: Mapped,
    /// The same, of a durable store.
    committed: Option<Committed>,
    root: &'static Root,
}

impl Session {
    /// Opens a store, or makes one.
    pub(crate) fn open(wanted: Wanted<'_>) -> Result<Self, Failure> {
        let (heap, committed) = find_patiently(wanted)?;
        if wanted.is_verbose {
            let (found, stats) = (heap.opened(), heap.stats());
            let (live, all) = (human::bytes(stats.live), human::bytes(stats.capacity));
            let kind = if committed.is_some() { ", durable" } else { "" };
            say::line(
                PROGRAM,
                format_args!("{found:?}: {live} in use of {all}{kind}"),
            );
        }
        let root = root(&heap).map_err(|error| {
            Failure::Unfit(match error {
                MappedError::Type => "a heap of another program, or of another version".into(),
                error => why(error),
            })
        })?;
        let session = Self {
            heap,
            committed,
            root,
        };
        session.see_to_dirt().map_err(Failure::Unfit)?;
        Ok(session)
    }

    pub(crate) fn heap(&self) -> &Mapped {
        &self.heap
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.committed.is_some()
    }

    /// Does something with the records, while no other process can.
    pub(crate) fn with<R>(
        &self,
        act: impl FnOnce(&mut Records<'_>) -> Result<R, MappedError>,
    ) -> Result<R, Failure> {
        let mut guard = self.lock()?;
        let is_abandoned = guard.is_abandoned();
        let mut records = self.records(&mut guard);
        if is_abandoned || !records.is_indexed() {
            let rebuilt = records.rebuild(true).map_err(|error| self.failure(error))?;
            guard.mark_fit();
            if is_abandoned {
                let what = "a process was killed in the midst of a change";
                tell(what, &rebuilt);
            }
        }
        act(&mut self.records(&mut guard)).map_err(|error| self.failure(error))
    }

    /// Makes durable what was changed, if the store is. Nobody may have the lock: who opens the store would find it abandoned.
    pub(crate) fn commit(&mut self) -> Result<(), Failure> {
        let Some(heap) = self.committed else {
            return Ok(());
        };
        // SAFETY: 1. this program has one thread that uses the heap.
        let done = unsafe { heap.commit() };
        done.map_err(|error| {
            Failure::Other(match error {
                MappedError::NoSpace => {
                    "the disk has no room: nothing since the last commit is there".into()
                }
                error => why(error),
            })
        })
    }

    /// Drops what was changed since the last commit, in a durable store.
    pub(crate) fn rollback(&mut self) -> Result<(), Failure> {
        let Some(heap) = self.committed else {
            return Ok(());
        };
        // SAFETY: 1. this program has one thread that uses the heap. 2. all that is kept of it is the root, found anew below.
        let done = unsafe { heap.rollback() };
        self.root = done
            .and_then(|()| root(&self.heap))
            .map_err(|error| Failure::Other(why(error)))?;
        Ok(())
    }

    fn records<'a>(&'a self, state: &'a mut State) -> Records<'a> {
        Records {
            heap: &self.heap,
            state,
        }
    }

    /// Waits for the lock, or for Ctrl-C.
    fn lock(&self) -> Result<Guard<'_, State>, Failure> {
        loop {
            match self.root.lock_for(PATIENCE) {
                Ok(guard) | Err(LockError::Abandoned(guard)) => return Ok(guard),
                Err(LockError::Held) if interrupt::requested() => return Err(Failure::Interrupted),
                Err(LockError::Held) => {}
                Err(error) => return Err(Failure::Other(error.to_string())),
            }
        }
    }

    fn failure(&self, error: MappedError) -> Failure {
        Failure::Other(match error {
            MappedError::NoSpace => format!(
                "no room: the store can have {}, or its disk is full",
                human::bytes(self.heap.stats().capacity)
            ),
            error => why(error),
        })
    }

    /// Looks at what a machine left that went down, and keeps the records that are whole. Until this is done, the store stays
    /// dirty, whoever is killed.
    fn see_to_dirt(&self) -> Result<(), String> {
        if self.heap.opened() != Opened::Dirty {
            return Ok(());
        }
        let lock = self.lock();
        let mut guard = lock.map_err(|_| String::from("the lock cannot be had"))?;
        let rebuilt = self.records(&mut guard).rebuild(false).map_err(why)?;
        guard.mark_fit();
        self.heap.mark_fit().map_err(why)?;
        tell("the machine went down", &rebuilt);
        Ok(())
    }

    /// What was not committed in a durable store is gone.
    pub(crate) fn close(self) -> Result<(), MappedError> {
        match self.committed {
            // SAFETY: 1. this program has one thread that uses the heap, and the session's borrows are over.
            Some(heap) => unsafe { heap.close() },
            // SAFETY: 1. as above.
            None => unsafe { self.heap.close() },
        }
    }
}

/// Says on stderr what was made anew.
fn tell(what: &str, rebuilt: &Rebuilt) {
    let count = rebuilt.records;
    let rest = if rebuilt.is_cut {
        "; those behind one that is not whole are lost"
    } else {
        ""
    };
    say::line(
        PROGRAM,
        format_args!("{what}: {count} records are whole{rest}"),
    );
}

/// The heap of a store, and the same again if it is durable. One that is there need not be said to be durable.
fn find(wanted: Wanted<'_>) -> Result<(Mapped, Option<Committed>), MappedError> {
    let path = bytes_of(wanted.path);
    if !wanted.is_durable {
        let options = Mapped::options().may_be_dirty(wanted.may_be_dirty);
        let found = match wanted.capacity {
            // SAFETY: 1. who uses the heap is this program, which changes what lies there with the lock alone. 2. as the
            // user sees to.
            Some(bytes) => unsafe { options.capacity(bytes).open_or_create(path) },
            // SAFETY: 1. and 2. as above.
            None => unsafe { options.open(path) },
        };
        if !matches!(found, Err(MappedError::Kind)) {
            return Ok((found?, None));
        }
    }
    let options = Committed::options();
    let heap = match wanted.capacity {
        // SAFETY: 1. who uses the heap is this program; as the user sees to.
        Some(bytes) => unsafe { options.capacity(bytes).open_or_create(path) },
        // SAFETY: 1. as above.
        None => unsafe { options.open(path) },
    }?;
    Ok((*heap, Some(heap)))
}

/// The same, once other processes have left it.
fn find_patiently(wanted: Wanted<'_>) -> Result<(Mapped, Option<Committed>), Failure> {
    let begun = Instant::now();
    loop {
        match find(wanted) {
            Err(MappedError::InUse) if begun.elapsed() < wanted.patience => {
                if interrupt::requested() {
                    return Err(Failure::Interrupted);
                }
                thread::sleep(LOOK);
            }
            found => {
                let describe = |error| Failure::Unfit(describe(error, wanted.capacity.is_some()));
                return found.map_err(describe);
            }
        }
    }
}

/// What all who open the store at once find, or one of them makes.
fn root(heap: &Mapped) -> Result<&'static Root, MappedError> {
    loop {
        if let Some(root) = heap.get(NAME)? {
            return Ok(root);
        }
        match heap.insert(NAME, Root::new(State::new())) {
            Err(MappedError::Exists) => {}
            made => return made,
        }
    }
}

/// What is wrong with a path, and what to do.
fn describe(error: MappedError, could_make: bool) -> String {
    match error {
        MappedError::NotFound if could_make => "there is no such folder".into(),
        MappedError::NotFound => "there is no store; `set`, `load`, `fill` and `batch` make one".into(),
        MappedError::NoHeap => "this is no store, but another file".into(),
        MappedError::Dirty => "the store was in use when the machine went down, and parts of it may be older than \
             others: copy the file, then open it with --may-be-dirty, which keeps the records that are whole"
            .into(),
        MappedError::Capacity => "a store can have from 256K to some terabytes".into(),
        MappedError::NoSpace => "the disk has no room for the store, or a file may not be so long: see --capacity".into(),
        MappedError::Kind => "this store is not durable, as it was made without --durable. Make another: what `list` \
             prints of this one is what `load` reads"
            .into(),
        MappedError::InUse => "another process has this store, which is durable, and so for one at a time; `--wait 10` \
             waits ten seconds for it"
            .into(),
        error => why(error),
    }
}
