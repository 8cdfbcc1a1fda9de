//! The heap of a store, from its opening to its end, and the lock around all that is done with it.

use std::path::Path;

use flagstone::mapped::{Guard, LockError};
use flagstone::{Mapped, MappedError, Opened};

use crate::common::{human, interrupt, say};
use crate::mapped::{bytes_of, why};
use crate::records::{Rebuilt, Records, State};
use crate::{PATIENCE, PROGRAM, Root};

/// The name of the root.
const NAME: &str = "store";

/// Why a command was not obeyed.
pub(crate) enum Failure {
    NotThere(String),
    Interrupted,
    Other(String),
}

pub(crate) struct Session {
    heap: Mapped,
    root: &'static Root,
}

impl Session {
    /// Opens a store, or makes one if there is none and it is told how much it can have. An `Err` is for people.
    pub(crate) fn open(
        path: &Path,
        capacity: Option<usize>,
        may_be_dirty: bool,
        is_verbose: bool,
    ) -> Result<Self, String> {
        let options = Mapped::options().may_be_dirty(may_be_dirty);
        let heap = match capacity {
            // SAFETY: 1. who uses the heap is this program, which changes what lies there with the lock alone. 2. as the
            // user sees to.
            Some(bytes) => unsafe { options.capacity(bytes).open_or_create(bytes_of(path)) },
            // SAFETY: 1. and 2. as above.
            None => unsafe { options.open(bytes_of(path)) },
        };
        let heap = heap.map_err(|error| describe(error, capacity.is_some()))?;
        if is_verbose {
            let (found, stats) = (heap.opened(), heap.stats());
            let (live, all) = (human::bytes(stats.live), human::bytes(stats.capacity));
            say::line(PROGRAM, format_args!("{found:?}: {live} in use of {all}"));
        }
        let root = root(&heap).map_err(|error| match error {
            MappedError::Type => String::from("a heap of another program, or of another version"),
            error => why(error),
        })?;
        let session = Self { heap, root };
        session.see_to_dirt()?;
        Ok(session)
    }

    pub(crate) fn heap(&self) -> &Mapped {
        &self.heap
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

    pub(crate) fn close(self) -> Result<(), MappedError> {
        // SAFETY: 1. this program has one thread that uses the heap, and the session's borrows are over.
        unsafe { self.heap.close() }
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
        MappedError::NotFound => "there is no store; `set`, `load` and `fill` make one".into(),
        MappedError::NoHeap => "this is no store, but another file".into(),
        MappedError::Dirty => "the store was in use when the machine went down, and parts of it may be older than \
             others: copy the file, then open it with --may-be-dirty, which keeps the records that are whole"
            .into(),
        MappedError::Capacity => "a store can have from 256K to some terabytes".into(),
        error => why(error),
    }
}
