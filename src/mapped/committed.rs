//! Heaps that survive the loss of power.

use core::fmt;
use core::ops::Deref;

use super::Mapped;
use super::error::MappedError;
use super::options::MappedOptions;

/// A heap in a file whose state is that of the last [`commit`](Self::commit), whatever happens: the process is killed, the
/// machine goes down, the disk is full.
///
/// It is one process's. What that stores stays in its memory; a commit writes what changed since the last one, all or
/// nothing, and waits for the disk once. Nothing is logged or copied as it is stored. What was changed since the last
/// commit has to fit into memory.
///
/// All else is as of a [`Mapped`] heap: its allocator, names, and what can lie there.
///
/// ```
/// use flagstone::Committed;
/// use flagstone::mapped::Mutex;
///
/// let path = std::env::temp_dir().join(format!("balance-{}", std::process::id()));
/// let path = path.as_os_str().as_encoded_bytes();
/// let heap = Committed::options().capacity(1 << 20).create(path)?;
/// let balance = heap.insert("balance", Mutex::new(100_i64))?;
/// // SAFETY: no other thread stores in the heap.
/// unsafe { heap.commit() }?;
///
/// *balance.lock().expect("nobody was killed with it") -= 30;
/// // SAFETY: no other thread uses the heap, and `balance` is not used any more.
/// unsafe { heap.rollback() }?;
/// let balance = heap.get::<Mutex<i64>>("balance")?.expect("committed");
/// assert!(balance.lock().is_ok_and(|balance| *balance == 100));
/// # std::fs::remove_file(std::env::temp_dir().join(format!("balance-{}", std::process::id()))).unwrap();
/// # Ok::<(), flagstone::MappedError>(())
/// ```
///
/// The method is that of databases with a log of what is to be done (*redo*), whose changes are found by the kernel's table
/// of pages, as msync of a private mapping would if there were one (*failure-atomic msync*, Park, Kelly and Shen 2013).
#[derive(Clone, Copy)]
#[doc(alias("durable", "persistent", "transaction", "atomic", "msync", "pmem"))]
pub struct Committed {
    heap: Mapped,
}

impl Committed {
    /// How such a heap is to be made or found.
    pub const fn options<'a>() -> CommittedOptions<'a> {
        CommittedOptions {
            options: MappedOptions::new(),
        }
    }

    /// Makes durable all that was stored since the last time, or nothing of it. Whoever opens the file later, after
    /// whatever end, finds this state or a later one.
    ///
    /// It takes time for the pages that were changed: to find them, to compare them with the file, to write the changes
    /// to the log and wait for the disk, and to write them home, which is not waited for. Once the log has a sixteenth of
    /// what the heap has, and a megabyte at least, it waits for all of these, too (a *checkpoint*).
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`] if the disk has no room for the log: the last commit stays what is found, and what was
    /// stored since can be committed later. [`Poisoned`](MappedError::Poisoned) if the kernel could not write: nothing can
    /// be committed any more, and what was stored since the last commit may be found or not, by who opens the file anew.
    /// [`Forked`](MappedError::Forked), [`Closed`](MappedError::Closed); [`System`](MappedError::System), as for a process
    /// without `/proc`: the same as without room.
    ///
    /// # Safety
    ///
    /// 1. No other thread of this process is in a call for the heap, or stores anything that lies there, until this returns:
    ///    what it stores would be committed in parts. Mutexes that are held meanwhile are found abandoned later.
    #[doc(alias("msync", "fsync", "sync"))]
    pub unsafe fn commit(&self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.heap.attachment.commit() }
    }

    /// Drops all that was stored since the last commit: the heap is what it was then.
    ///
    /// # Errors
    ///
    /// As of [`commit`](Self::commit); the heap is as it was then.
    ///
    /// # Safety
    ///
    /// 1. No other thread of this process is in a call for the heap.
    /// 2. Nobody uses any more what it had from the heap: references, blocks, guards, containers that lie outside. What lies
    ///    in the heap is found by its names.
    #[doc(alias("abort", "undo"))]
    pub unsafe fn rollback(&self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.heap.attachment.rollback() }
    }

    /// Waits until the file has all that was committed, and shortens the log: the next to open it has nothing to do.
    /// [`close`](Self::close) does so, and commits do from time to time.
    ///
    /// # Errors
    ///
    /// As of [`commit`](Self::commit).
    pub fn checkpoint(&self) -> Result<(), MappedError> {
        self.heap.attachment.process()?;
        self.heap.attachment.area.checkpoint()
    }

    /// Commits, and gives the space of free memory back to the disk.
    ///
    /// # Errors
    ///
    /// As of [`commit`](Self::commit); [`MappedError::Unsupported`] if the filesystem cannot: then all is committed.
    ///
    /// # Safety
    ///
    /// 1. As for [`commit`](Self::commit).
    #[doc(alias("vacuum", "shrink", "punch"))]
    pub unsafe fn compact(&self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.heap.attachment.compact() }
    }

    /// Gives the heap up, as [`Mapped::close`]: what was stored since the last commit is gone, and who opens the file next
    /// has nothing to do.
    ///
    /// # Errors
    ///
    /// As [`Mapped::close`], and as of [`commit`](Self::commit): the heap is closed then, too, and the last commit is what who
    /// opens it finds.
    ///
    /// # Safety
    ///
    /// 1. As for [`Mapped::close`].
    pub unsafe fn close(self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.heap.close() }
    }
}

impl Deref for Committed {
    type Target = Mapped;

    fn deref(&self) -> &Mapped {
        &self.heap
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Committed").field(&self.heap).finish()
    }
}

/// How a [`Committed`] heap is to be made or found; [`Committed::options`] begins one.
#[derive(Clone, Copy, Debug)]
#[must_use = "options make no heap until one is created or opened"]
pub struct CommittedOptions<'a> {
    options: MappedOptions<'a>,
}

impl CommittedOptions<'_> {
    /// Bytes that the heap can have: see [`MappedOptions::capacity`].
    pub const fn capacity(mut self, bytes: usize) -> Self {
        self.options = self.options.capacity(bytes);
        self
    }

    /// Who may use a file that is made: see [`MappedOptions::mode`].
    pub const fn mode(mut self, mode: u32) -> Self {
        self.options = self.options.mode(mode);
        self
    }

    /// Whether the heap stands in this process's core dumps: see [`MappedOptions::core_dumps`].
    pub const fn core_dumps(mut self, are_allowed: bool) -> Self {
        self.options = self.options.core_dumps(are_allowed);
        self
    }

    /// Whether all that the heap has is in memory before it is handed out: see [`MappedOptions::populate`].
    pub const fn populate(mut self, is_populated: bool) -> Self {
        self.options = self.options.populate(is_populated);
        self
    }

    /// A heap in a new file. It is there, empty, once this returns, whatever happens.
    ///
    /// # Errors
    ///
    /// As of [`MappedOptions::create_file`].
    pub fn create(self, path: impl AsRef<[u8]>) -> Result<Committed, MappedError> {
        let heap = self.options.committing().create_file(path)?;
        Ok(Committed { heap })
    }

    /// The heap in a file, as it was at the last commit. [`Mapped::opened`] tells whether it was closed: `Clean`, or
    /// `Recovered` if there were commits that the file's log alone had.
    ///
    /// # Errors
    ///
    /// As of [`MappedOptions::open`]; [`MappedError::InUse`] if another process has it; [`Kind`](MappedError::Kind) if it
    /// is a heap that does not commit; [`NoSpace`](MappedError::NoSpace) if there is no room for what the log has.
    ///
    /// # Safety
    ///
    /// 1. Nobody makes the file shorter, or changes it by other means than this library. What programs left there they left
    ///    as the program expects it.
    pub unsafe fn open(self, path: impl AsRef<[u8]>) -> Result<Committed, MappedError> {
        // SAFETY: 1. and 2. our own.
        let heap = unsafe { self.options.committing().open(path) }?;
        Ok(Committed { heap })
    }

    /// The heap in a file, which is made if there is none.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open) and [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// 1. As for [`open`](Self::open).
    pub unsafe fn open_or_create(self, path: impl AsRef<[u8]>) -> Result<Committed, MappedError> {
        // SAFETY: 1. our own.
        let heap = unsafe { self.options.committing().open_or_create(path) }?;
        Ok(Committed { heap })
    }
}
