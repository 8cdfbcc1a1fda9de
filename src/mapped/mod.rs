//! What programs put inside a [`Mapped`] heap: [`Vec`], [`Box`] and [`String`] with its handle, a [`Map`] that another program
//! can open, a [`Mutex`] and an [`Event`] that outlive who uses them, [`Arc`], and [places](Off) that do not depend on the
//! heap's address. [`Persist`] says what may lie there. See [the design](crate::algorithm::mapped).

// Heaps over mappings: one heap that several processes have at the same address, see docs/mapped.md.
//
// Each file names only those before it: `words` (what a unit is), `slab` (two bitmaps), `handover` (words that several
// want), `names` (the table of roots), `geometry`, `header`, `error`, `source` (the file), `own` (that file for a moment),
// `buffer` (memory for a while), `logged` (what stands in a log), `changed` (pages and words), `log`, `replay`, `area` (places
// in the mapping), `hints`, `private` (what a private mapping holds), `commits`, `opened` (openings of files), `processes` (who lives), `holder` (the word of a lock), `lock`, `space` (room on
// a disk), `units`, `part` (a thread's), `attachment` (a process's), `handle`, `opening` (files that become heaps, or are),
// `options`, `committed`, `inside` (what programs put there), `roots`, `named` (roots with types),
// `sweep`, `looks` (what can be seen without a change), `snapshot`.

mod area;
mod attachment;
mod buffer;
mod changed;
mod commits;
mod committed;
mod error;
mod geometry;
mod handle;
mod handover;
mod header;
mod hints;
mod holder;
mod inside;
mod lock;
mod log;
mod logged;
mod looks;
mod named;
mod names;
mod opened;
mod opening;
mod options;
mod own;
mod part;
mod private;
mod processes;
mod replay;
mod roots;
mod slab;
mod snapshot;
mod source;
mod space;
mod sweep;
mod units;
mod words;

use core::ffi::c_int;
use core::fmt;
use core::ptr::NonNull;

use crate::size_class::SizeClass;
use crate::sync::Ordering;
use crate::units::UNIT;

pub use committed::{Committed, CommittedOptions};
pub use error::{MappedError, MappingName};
pub use handle::Handle;
pub use header::Kind;
pub use inside::{
    Arc, Box, Event, Guard, LockError, Map, Mutex, Off, Persist, Shape, String, Vec, Visit,
    shape_of,
};
pub use looks::{Occupancy, Span, SpanKind, User};
pub use named::{RootName, RootNames};
pub use opened::Opened;
pub use options::MappedOptions;
pub use sweep::{Sweep, Swept};

use attachment::{Attachment, State};
use geometry::blocks_of;
use words::Unit;

/// A heap in memory that processes share.
///
/// It lies at the same address in each of them, so that `Vec`, `Box` and `hashbrown::HashMap` can lie in it, with a
/// [`Handle`] as their allocator. Any thread of any of these processes allocates and frees, and may be killed at any
/// time: the others go on, and nothing is lost but the block that was on its way.
///
/// | lies in | made by | found by | goes |
/// |---|---|---|---|
/// | a file of memory (`memfd`) | [`create`](Self::create) | `fork`, [`attach`](Self::attach) | with the last process |
/// | a file on a disk or in `/dev/shm` | [`create_file`](MappedOptions::create_file) | its path: [`open`](MappedOptions::open), [`open_or_create`](MappedOptions::open_or_create) | when it is removed |
/// | a file without a name, for more than there is memory for | [`spill`](MappedOptions::spill) | `fork`, [`attach`](Self::attach) | with the last process |
///
/// It takes memory, or room on a disk, where it is used. A child of `fork` shares the heap. Another program attaches it by
/// the descriptor ([`as_raw_fd`](Self::as_raw_fd)), inherited or sent by a socket, or opens the path.
///
/// What lies in the heap must mean the same in each process: no references to what lies outside, no functions, no `dyn`,
/// nothing of the standard library's that allocates by itself.
///
/// ```
/// use flagstone::Mapped;
/// use flagstone::allocator_api2::vec::Vec;
///
/// let heap = Mapped::create(64 << 20)?;
/// let mut words = Vec::new_in(heap.handle());
/// words.extend_from_slice(b"seen by all");
/// heap.set_root("words", words.as_ptr(), words.len() as u64)?;
/// // In another process, perhaps:
/// let (place, length) = heap.root("words").expect("just set");
/// // SAFETY: so many bytes, which nobody changes.
/// let read = unsafe { core::slice::from_raw_parts(place.as_ptr(), length as usize) };
/// assert_eq!(read, b"seen by all");
/// # Ok::<(), flagstone::MappedError>(())
/// ```
///
/// In a file, for the next time that this program runs:
///
/// ```
/// use flagstone::Mapped;
/// use flagstone::mapped::Mutex;
///
/// let path = std::env::temp_dir().join(format!("visits-{}", std::process::id()));
/// let path = path.as_os_str().as_encoded_bytes();
/// let options = Mapped::options().capacity(1 << 20);
/// // SAFETY: who has the file is this program, which changes what lies there by locks alone.
/// let heap = unsafe { options.open_or_create(path) }?;
/// let visits = match heap.get::<Mutex<u64>>("visits")? {
///     Some(visits) => visits,
///     None => heap.insert("visits", Mutex::new(0))?,
/// };
/// *visits.lock().expect("nobody was killed with it") += 1;
/// // SAFETY: no other thread uses the heap, and `visits` is not used any more.
/// unsafe { heap.close() }?;
/// # std::fs::remove_file(std::env::temp_dir().join(format!("visits-{}", std::process::id()))).unwrap();
/// # Ok::<(), flagstone::MappedError>(())
/// ```
///
/// Dropping the value does nothing to the heap, which the process keeps until it ends, or [closes](Self::close) it.
#[derive(Clone, Copy)]
#[doc(alias("shared memory", "shm", "memfd", "interprocess", "mmap"))]
pub struct Mapped {
    attachment: &'static Attachment,
}

/// What a heap over a mapping holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedStats {
    /// Bytes that the heap can have, its own tables included.
    pub capacity: usize,
    /// Bytes of the heap's tables, which have memory where they were touched.
    pub tables: usize,
    /// Bytes of slabs and of long blocks, whoever has them, in whole units of 64 KiB.
    pub held: usize,
    /// Bytes of blocks in use. Those that dead processes had are in use.
    pub live: usize,
    /// Processes that allocate or free in the heap, and have not ended, as far as anyone noticed.
    pub processes: usize,
    /// Frees of this process that were none of a live block's, and did nothing.
    pub refused: usize,
}

impl Mapped {
    /// How a heap is to be made or found.
    pub const fn options<'a>() -> MappedOptions<'a> {
        MappedOptions::new()
    }

    /// A heap in a file of memory, that can have `capacity` bytes: with no [options](MappedOptions::capacity) but this.
    ///
    /// # Errors
    ///
    /// As [`MappedOptions::create`].
    pub fn create(capacity: usize) -> Result<Self, MappedError> {
        Self::options().capacity(capacity).create()
    }

    /// The heap of another process, by a descriptor of its file, which is not closed, nor needed any more. In a process that
    /// has the heap already it is the same one. The file may be a device which begins with a heap.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoHeap`], [`Version`](MappedError::Version) or [`Damaged`](MappedError::Damaged) for what is none;
    /// [`BaseBusy`](MappedError::BaseBusy) if something else lies at its address; [`System`](MappedError::System).
    ///
    /// # Safety
    ///
    /// 1. The other processes that have the heap use it by this library, and its blocks as if they were threads of this
    ///    process: no two change one at a time, none reads what another changes, but by atomics and locks made for that.
    ///    Tables that say nothing sensible make errors, and nothing else; blocks are the programs' affair.
    pub unsafe fn attach(fd: c_int) -> Result<Self, MappedError> {
        // SAFETY: 1. our own.
        unsafe { Self::options().attach(fd) }
    }

    /// How this process, or the one that it was forked from, came to the heap.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.attachment.opened()
    }

    /// The descriptor of the heap's file: for children that do not fork from this process, and for sockets. It stays the
    /// heap's, and is closed when a new program begins (`FD_CLOEXEC`). A program that closes it (`closefrom(3)`) has a heap
    /// that cannot tell who is gone, and that gets no more room on a disk.
    #[must_use]
    pub fn as_raw_fd(&self) -> c_int {
        self.attachment.area.source.file().0
    }

    /// The allocator of what lies in the heap.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.attachment.area.base())
    }

    /// Where the heap begins: in every process, unless it was told to lie [anywhere](MappedOptions::anywhere).
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.attachment.area.base()
    }

    /// Whether an address is one of the heap's.
    #[must_use]
    pub fn contains<T>(&self, place: *const T) -> bool {
        self.attachment.area.locate(place.addr()).is_some()
    }

    /// What the heap holds. Takes time for all that it ever held.
    #[must_use]
    pub fn stats(&self) -> MappedStats {
        let area = &self.attachment.area;
        let (mut held, mut live) = (0, 0);
        let mut units = area.touched();
        while let Some(unit) = units.next() {
            match area.unit(unit) {
                Unit::Slab { class, .. } => {
                    let class = SizeClass::new(class.into());
                    let blocks = blocks_of(class);
                    held += UNIT;
                    live +=
                        blocks.saturating_sub(area.slab(unit).free_blocks(blocks)) * class.size();
                }
                Unit::Head => {
                    let count = area.run(unit) as usize;
                    held += count * UNIT;
                    live += count * UNIT;
                    units = unit.saturating_add(area.run(unit))..units.end;
                }
                _ => {}
            }
        }
        MappedStats {
            capacity: area.geometry.bytes(),
            tables: area.geometry.first as usize * UNIT,
            held,
            live,
            processes: area.process_numbers().count(),
            // ORDERING: a count.
            refused: self.attachment.refused.load(Ordering::Relaxed) as usize,
        }
    }

    /// The numbers of the processes that [`MappedStats::processes`] counts, as each saw its own: one in another container
    /// may have another here.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.attachment.area.process_numbers()
    }

    /// Waits until what was stored in a heap that is in a file is on disk. If the machine goes down later, it is there if
    /// the heap was [closed](Self::close) by then by all who had it; else parts of it may be older or newer
    /// ([`MappedError::Dirty`]). Other heaps have no disk to reach.
    ///
    /// # Errors
    ///
    /// [`MappedError::Closed`]; [`Kind`](MappedError::Kind) for a heap that [commits](Committed::commit);
    /// [`System`](MappedError::System) if the kernel could not write. What was stored before may be lost then, however often
    /// it is tried again.
    pub fn flush(&self) -> Result<(), MappedError> {
        self.attachment.writable()?;
        if self.attachment.area.commits.is_some() {
            return Err(MappedError::Kind);
        }
        self.attachment.area.flush()
    }

    /// Says that what lies in a [dirty](Opened::Dirty) heap was looked at, and is whole or mended: it reaches the disk, and
    /// others find the heap as any other. Until then it stays dirty, whoever closes it or is killed.
    ///
    /// # Errors
    ///
    /// As of [`flush`](Self::flush), and as for an allocation.
    pub fn mark_fit(&self) -> Result<(), MappedError> {
        self.attachment.mark_fit()
    }

    /// Gives the memory of all free units back to the kernel, in parts, between which others go on. Without it a share of
    /// the heap, an eighth, may be free and in memory.
    ///
    /// # Errors
    ///
    /// As for an allocation: [`MappedError::Closed`], [`System`](MappedError::System).
    pub fn purge(&self) -> Result<(), MappedError> {
        let process = self.attachment.process()?;
        // To the end of a round that is under way, then one more.
        for _ in 0..2 {
            while self.attachment.area.lock(process)?.purge_slice(true) {}
        }
        Ok(())
    }

    /// Checks the heap's tables. While others are in calls, it cannot judge what they are at.
    ///
    /// Who only [reads](MappedOptions::read_only) the heap takes no lock for it, and changes nothing. What contradicts is
    /// looked at again before it counts. What the next who takes the lock would mend does not count: that which processes
    /// left that are gone.
    ///
    /// # Errors
    ///
    /// [`MappedError::Damaged`] if they contradict each other; [`Closed`](MappedError::Closed) and
    /// [`System`](MappedError::System) as for an allocation.
    pub fn verify(&self) -> Result<(), MappedError> {
        if self.attachment.state() == State::ReadOnly {
            return self.attachment.area.verify_by_looks();
        }
        let process = self.attachment.process()?;
        self.attachment.area.lock(process)?.verify()
    }

    /// Has the kernel see to it that nobody changes a heap in a file of memory any more: built once, it is for others to
    /// [read](MappedOptions::read_only), who share its memory. In this process it can be read, too.
    ///
    /// # Errors
    ///
    /// [`MappedError::InUse`] while others have it, forked children, too: nothing changed then.
    /// [`Unsupported`](MappedError::Unsupported) for other kinds of file; [`Closed`](MappedError::Closed) and
    /// [`ReadOnly`](MappedError::ReadOnly); [`System`](MappedError::System) if the kernel refuses, after which the heap
    /// may be closed.
    ///
    /// # Safety
    ///
    /// 1. As for [`close`](Self::close): who changes what lies in it from now on is ended by the kernel.
    #[doc(alias("seal", "F_SEAL_WRITE"))]
    pub unsafe fn freeze(self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.attachment.freeze() }
    }

    /// Gives up what this process owns of the heap, and puts a private copy in its place: what is left of the heap's in this
    /// process can be read, and changing it reaches nobody. [Handles](Handle) of it allocate and free nothing any more. The
    /// addresses stay taken until the process ends.
    ///
    /// # Errors
    ///
    /// [`MappedError::Closed`] if it was closed; [`System`](MappedError::System) if the kernel refuses: then the mapping
    /// stays as it is.
    ///
    /// # Safety
    ///
    /// 1. No other thread of this process is in a call for the heap, or changes what lies in it.
    /// 2. Values of the heap that the process still has are read alone from now on, also once it has opened the heap again:
    ///    what they say may be older than what others made of it. Guards of mutexes are gone before.
    pub unsafe fn close(self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.attachment.close() }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mapped")
            .field("base", &self.attachment.area.base())
            .field("stats", &self.stats())
            .finish()
    }
}
