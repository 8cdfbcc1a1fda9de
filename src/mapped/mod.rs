//! Heaps over mappings: one heap that several processes have at the same address, see docs/mapped.md.
//!
//! Each file names only those before it: `words` (what a unit is), `slab` (two bitmaps), `geometry`, `header`, `error`,
//! `source` (the file), `area` (places in the mapping), `hints`, `processes` (who lives), `lock`, `units`, `part` (a
//! thread's), `attachment` (a process's), `handle`, `roots`.

mod area;
mod attachment;
mod error;
mod geometry;
mod handle;
mod header;
mod hints;
mod lock;
mod part;
mod processes;
mod roots;
mod slab;
mod source;
mod units;
mod words;

use core::ffi::{CStr, c_int};
use core::fmt;
use core::ptr::NonNull;

use crate::os::shared::{File, NO_MEMORY, TAKEN};
use crate::os::{self, Held, PageLen};
use crate::size_class::SizeClass;
use crate::sync::Ordering;
use crate::units::{CHUNK, UNIT};

pub use error::MappedError;
pub use handle::Handle;

use area::Area;
use attachment::Attachment;
use geometry::{Geometry, blocks_of};
use header::{Constants, Header};
use source::{Source, refused};
use words::Unit;

/// Addresses that heaps lie at: where neither programs, libraries nor stacks lie, in spaces of 47 bits and of 39.
const PLACES: [[usize; 2]; 2] = [
    [0x1000_0000_0000, 0x5000_0000_0000],
    [0x10_0000_0000, 0x40_0000_0000],
];
/// Places that are tried in each of these.
const TRIES: usize = 8;

/// A heap in memory that processes share.
///
/// It lies at the same address in each of them, so that `Vec`, `Box` and `hashbrown::HashMap` can lie in it, with a
/// [`Handle`] as their allocator. Any thread of any of these processes allocates and frees, and may be killed at any
/// time: the others go on, and nothing is lost but the block that was on its way. The memory is a file of memory
/// (`memfd`) of which the kernel gives a page when it is touched. It goes when the last process is gone.
///
/// A child of `fork` shares the heap. Another program gets it by the descriptor ([`as_raw_fd`](Self::as_raw_fd)), inherited
/// or sent by a socket, and [attaches](Self::attach) it.
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
    /// A heap that can hold `capacity` bytes, a multiple of 64 KiB, less its own tables: a fiftieth, and at least
    /// 128 KiB. It takes memory where it is touched.
    ///
    /// # Errors
    ///
    /// [`MappedError::Capacity`], [`MappedError::System`] if the kernel refuses the memory or the addresses.
    pub fn create(capacity: usize) -> Result<Self, MappedError> {
        Self::create_named(c"flagstone", capacity)
    }

    /// The same with a name for people, by which the kernel lists the mapping: `/memfd:NAME (deleted)`. At most 249 bytes.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`MappedError::System`] for a longer name.
    pub fn create_named(name: &CStr, capacity: usize) -> Result<Self, MappedError> {
        let geometry = Geometry::of(capacity).ok_or(MappedError::Capacity)?;
        let file = File::of_memory(name, PageLen::kept(capacity)).map_err(refused)?;
        Self::begin(file, geometry).inspect_err(|_| file.close())
    }

    fn begin(file: File, geometry: Geometry) -> Result<Self, MappedError> {
        let (id, _) = file.identify().map_err(refused)?;
        let random = os::random();
        let base = map_somewhere(file, geometry, random[0])?;
        // SAFETY: 1. just mapped, for this.
        let area = unsafe { Area::new(base, geometry, Source { file, id }) };
        area.begin_free(geometry.first);
        let high = &area.header().high.0;
        // ORDERING: nobody else knows the heap yet.
        high.store(geometry.first.into(), Ordering::Relaxed);
        area.header().begin(Constants {
            bytes: geometry.bytes() as u64,
            base: base.addr().get() as u64,
            id: random[1],
        });
        Self::enter(&Attachment::entering(), area)
    }

    fn enter(entering: &Held<'static, ()>, area: Area) -> Result<Self, MappedError> {
        let entered = Attachment::enter(entering, area);
        let attachment = entered.inspect_err(|_| {
            let length = PageLen::kept(area.geometry.bytes());
            // SAFETY: 1. just mapped, and nobody knows it.
            let _ = unsafe { os::unmap(area.base(), length) };
        })?;
        Ok(Self { attachment })
    }

    /// The heap of another process, by a descriptor of its file, which is not closed, nor needed any more. In a process that
    /// has the heap already it is the same one.
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
        let file = File(fd).duplicate().map_err(refused)?;
        Self::attach_own(file).inspect_err(|_| file.close())
    }

    /// The same, by a descriptor of its own, which is closed if it is not needed.
    fn attach_own(file: File) -> Result<Self, MappedError> {
        let (id, bytes) = file.identify().map_err(refused)?;
        let geometry = Geometry::of(bytes).ok_or(MappedError::NoHeap)?;
        let constants = read_constants(file, bytes)?;
        #[expect(clippy::cast_possible_truncation, reason = "it was checked to fit")]
        let base = constants.base as usize;
        let entering = Attachment::entering();
        if let Some(attachment) = Attachment::at(base).filter(|other| other.area.source.id == id) {
            if attachment.is_closed() {
                return Err(MappedError::Closed);
            }
            file.close();
            return Ok(Self { attachment });
        }
        let place = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(base));
        let mapped = file.map(PageLen::kept(bytes), place);
        let base = mapped.map_err(|errno| match errno {
            TAKEN => MappedError::BaseBusy { base },
            errno => refused(errno),
        })?;
        // SAFETY: 1. just mapped, for this.
        let area = unsafe { Area::new(base, geometry, Source { file, id }) };
        Self::enter(&entering, area)
    }

    /// The descriptor of the heap's file: for children that do not fork from this process, and for sockets. It stays the
    /// heap's, and is closed when a new program begins (`FD_CLOEXEC`).
    #[must_use]
    pub fn as_raw_fd(&self) -> c_int {
        self.attachment.area.source.file.0
    }

    /// The allocator of what lies in the heap.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.attachment.area.base())
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
            processes: area.processes(),
            // ORDERING: a count.
            refused: self.attachment.refused.load(Ordering::Relaxed) as usize,
        }
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
            while self.attachment.area.lock(process)?.purge_slice() {}
        }
        Ok(())
    }

    /// Checks the heap's tables. While others are in calls, it cannot judge what they are at.
    ///
    /// # Errors
    ///
    /// [`MappedError::Damaged`] if they contradict each other; [`Closed`](MappedError::Closed) and
    /// [`System`](MappedError::System) as for an allocation.
    pub fn verify(&self) -> Result<(), MappedError> {
        let process = self.attachment.process()?;
        self.attachment.area.lock(process)?.verify()
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
    pub unsafe fn close(self) -> Result<(), MappedError> {
        // SAFETY: 1. our own.
        unsafe { self.attachment.close() }
    }
}

/// The constants that stand in a file.
fn read_constants(file: File, bytes: usize) -> Result<Constants, MappedError> {
    let length = PageLen::kept(UNIT);
    let first = file.map(length, None).map_err(refused)?;
    // SAFETY: 1. mapped, and all of it is atomic; gone after the next lines.
    let constants = unsafe { first.cast::<Header>().as_ref() }.constants(bytes);
    // SAFETY: 1. just mapped, and not used any more.
    let _ = unsafe { os::unmap(first, length) };
    Ok(constants?)
}

/// Maps a file where nothing lies, and where other processes are likely to have room for it, too.
fn map_somewhere(file: File, geometry: Geometry, random: u64) -> Result<NonNull<u8>, MappedError> {
    let length = geometry.bytes();
    let mut refusal = NO_MEMORY;
    for [from, to] in PLACES {
        let Some(room) = (to - from).checked_sub(length).map(|room| room / CHUNK + 1) else {
            continue;
        };
        for number in 0..TRIES {
            // OVERFLOW: any number will do.
            let random = random.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let base = from + (random >> 16) as usize % room * CHUNK;
            let place = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(base));
            match file.map(PageLen::kept(length), place) {
                Ok(base) => return Ok(base),
                Err(errno) => refusal = errno,
            }
        }
    }
    Err(refused(refusal))
}

impl fmt::Debug for Mapped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mapped")
            .field("base", &self.attachment.area.base())
            .field("stats", &self.stats())
            .finish()
    }
}
