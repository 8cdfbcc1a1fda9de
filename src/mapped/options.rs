//! How a heap over a mapping is made or found.

use core::ffi::c_int;
use core::ptr::NonNull;

use super::Mapped;
use super::area::Area;
use super::attachment::{Attachment, Found, State};
use super::error::{MappedError, MappingName};
use super::geometry::Geometry;
use super::header::{CONSTANTS, Constants, Kind};
use super::opened::Opened;
use super::processes::{Joined, let_go};
use super::source::{Source, refused};
use crate::config::HugePages;
use crate::os::files::{FileKind, Path};
use crate::os::shared::{File, NO_MEMORY, SEALED, Sharing, TAKEN};
use crate::os::{self, Attributes, Held, PageLen};
use crate::sync::Ordering;
use crate::units::CHUNK;

/// Addresses that heaps lie at: where neither programs, libraries nor stacks lie, in spaces of 47 bits and of 39.
const PLACES: [[usize; 2]; 2] = [
    [0x1000_0000_0000, 0x5000_0000_0000],
    [0x10_0000_0000, 0x40_0000_0000],
];
/// Places that are tried in each of these.
const TRIES: usize = 8;

/// Rounds of looking for a file and making it, in which others remove and make it.
const ROUNDS: usize = 16;

/// How a [`Mapped`] heap is to be made or found; [`Mapped::options`] begins one.
///
/// ```
/// use flagstone::Mapped;
///
/// let folder = std::env::temp_dir();
/// let options = Mapped::options().capacity(64 << 20);
/// let heap = options.spill(folder.as_os_str().as_encoded_bytes())?;
/// assert_eq!(heap.stats().capacity, 64 << 20);
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options make no heap until one is created or opened"]
pub struct MappedOptions<'a> {
    capacity: usize,
    name: &'a str,
    mode: u32,
    may_be_dirty: bool,
    is_for_reading: bool,
    may_lie_anywhere: bool,
    is_populated: bool,
    attributes: Attributes,
}

impl Default for MappedOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> MappedOptions<'a> {
    /// No capacity, which is for those that are found alone; files that only their owner may use.
    pub const fn new() -> Self {
        Self {
            capacity: 0,
            name: "flagstone",
            mode: 0o600,
            may_be_dirty: false,
            is_for_reading: false,
            may_lie_anywhere: false,
            is_populated: false,
            attributes: Attributes::NONE,
        }
    }

    /// Bytes that the heap can have, a multiple of 64 KiB, less its own tables: a fiftieth, and at least 128 KiB. It takes
    /// memory, or room on a disk, where it is used. One that is found has the capacity that it was made with.
    pub const fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// A name for people, of a heap in a file of memory: the kernel lists it as `/memfd:NAME (deleted)`. At most 249 bytes
    /// without zeros. Other heaps are listed by the path of their file; in the process that made it, as it had no name then,
    /// by a number in its folder.
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// Who may use a file that is made, as for `chmod`, less the process's `umask`: the owner alone, unless told otherwise.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Whether a file is opened that nobody closed before the machine went down: [`Opened::Dirty`]. What was stored there
    /// may be there in parts. The heap's own tables are mended or refused ([`MappedError::Damaged`]); what lies in blocks is
    /// for the program to check, which then [says so](Mapped::mark_fit).
    pub const fn may_be_dirty(mut self, may_be: bool) -> Self {
        self.may_be_dirty = may_be;
        self
    }

    /// Whether a heap that is found is to be read alone. This process takes no part in it then: nobody waits for it, and
    /// what it finds may change or go at any time, unless the heap is [frozen](Mapped::freeze), or the programs agree.
    /// A file that may not be written can be read so. Handles of the heap allocate and free nothing.
    pub const fn read_only(mut self, is_for_reading: bool) -> Self {
        self.is_for_reading = is_for_reading;
        self
    }

    /// Whether a heap that is found may lie elsewhere in this process, if something else lies at its address. What is stored
    /// there may be used by its distance from the base alone: no `Vec`, no `Box`, no [`Handle`](super::Handle) that another
    /// process left there.
    pub const fn anywhere(mut self, may_lie_anywhere: bool) -> Self {
        self.may_lie_anywhere = may_lie_anywhere;
        self
    }

    /// Whether all memory is there before the heap is handed out: of a new one all that it can have, of one that is found
    /// all that it had. So nobody waits later for the kernel to find a page.
    #[doc(alias("prefault", "MADV_POPULATE_WRITE"))]
    pub const fn populate(mut self, is_populated: bool) -> Self {
        self.is_populated = is_populated;
        self
    }

    /// Whether this process's mapping has huge pages, where the kernel gives some to files of memory
    /// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`). A wish.
    pub const fn huge_pages(mut self, advice: HugePages) -> Self {
        self.attributes.huge_pages = advice;
        self
    }

    /// Whether the heap stands in this process's core dumps, which it does by default.
    #[doc(alias("madvise", "MADV_DONTDUMP"))]
    pub const fn core_dumps(mut self, are_allowed: bool) -> Self {
        self.attributes.is_dumped = are_allowed;
        self
    }

    /// Whether the kernel may keep equal pages once (KSM). It does so of private memory alone: asked for a heap that
    /// processes share it does nothing, and says nothing. So this is always [`MappedError::Unsupported`];
    /// [`Heap`](crate::Heap)s have it.
    #[doc(alias("ksm", "MADV_MERGEABLE"))]
    pub const fn mergeable(mut self, is_allowed: bool) -> Self {
        self.attributes.is_merged = is_allowed;
        self
    }

    /// The node of memory (NUMA) that pages are to come from which this process touches first, by the kernel's number.
    #[doc(alias("numa", "mbind"))]
    pub fn node(mut self, number: impl Into<Option<u32>>) -> Self {
        self.attributes.node = number.into();
        self
    }

    /// A heap in a file of memory: for forked children, and for who gets the descriptor. It goes when nobody has it any more.
    ///
    /// # Errors
    ///
    /// [`MappedError::Capacity`]; [`Name`](MappedError::Name); [`System`](MappedError::System) if the kernel refuses the
    /// memory or the addresses.
    pub fn create(self) -> Result<Mapped, MappedError> {
        let geometry = Geometry::of(self.capacity).ok_or(MappedError::Capacity)?;
        let mut name = [0_u8; 250];
        let bytes = self.name.as_bytes();
        if bytes.len() >= name.len() || bytes.contains(&0) {
            return Err(MappedError::Name);
        }
        name[..bytes.len()].copy_from_slice(bytes);
        let name = core::ffi::CStr::from_bytes_until_nul(&name).map_err(|_| MappedError::Name)?;
        let file = File::of_memory(name, PageLen::kept(self.capacity)).map_err(refused)?;
        let whole = Whole {
            geometry,
            file,
            options: self,
        };
        whole
            .begin(Kind::Object, |_| Ok(()))
            .inspect_err(|_| file.close())
    }

    /// A heap in a file without a name, in this folder: for more than there is memory for, as the kernel writes to the disk
    /// what does not fit. It goes when nobody has it any more. Forked children have it, too.
    ///
    /// It is slower than memory by what the disk is when it is far larger: what is used at random is read at random.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`MappedError::NoSpace`] if the disk has no room for the heap's tables,
    /// [`NotFound`](MappedError::NotFound) for a folder that is none,
    /// [`Unsupported`](MappedError::Unsupported) for filesystems of other machines, or that cannot reserve space.
    pub fn spill(self, folder: impl AsRef<[u8]>) -> Result<Mapped, MappedError> {
        let geometry = Geometry::of(self.capacity).ok_or(MappedError::Capacity)?;
        let path = Path::new(folder.as_ref()).map_err(refused)?;
        let file = path
            .nameless_in(self.mode, os::random()[0])
            .map_err(refused)?;
        let whole = Whole {
            geometry,
            file,
            options: self,
        };
        whole
            .begin(Kind::Spill, |_| Ok(()))
            .inspect_err(|_| file.close())
    }

    /// A heap in a new file, which stays when all processes have ended.
    ///
    /// Nobody finds it before it is whole. Space is reserved before it is handed out, so that a full disk is an allocation
    /// that fails. Filesystems that store what is written elsewhere than what was reserved break that: btrfs, and files that
    /// share their blocks with others (`cp --reflink`); there a full disk ends who stores (`SIGBUS`).
    ///
    /// # Errors
    ///
    /// As [`spill`](Self::spill); [`MappedError::Exists`].
    pub fn create_file(self, path: impl AsRef<[u8]>) -> Result<Mapped, MappedError> {
        let path = Path::new(path.as_ref()).map_err(refused)?;
        self.create_at(&path)
    }

    fn create_at(self, path: &Path) -> Result<Mapped, MappedError> {
        let geometry = Geometry::of(self.capacity).ok_or(MappedError::Capacity)?;
        let unnamed = path.begin(self.mode, os::random()[0]).map_err(refused)?;
        let file = unnamed.file;
        let whole = Whole {
            geometry,
            file,
            options: self,
        };
        let name = |area: &Area| {
            unnamed.name(path).map_err(refused)?;
            path.keep_name().map_err(refused)?;
            self.map_by_name(area, path)
        };
        let made = whole.begin(Kind::File, name);
        made.inspect_err(|_| {
            unnamed.forget();
            file.close();
        })
    }

    /// Maps a heap by the name that its file just got: else the kernel would list it as deleted. If that is refused, or
    /// somebody took the name meanwhile, it stays as it is.
    fn map_by_name(self, area: &Area, path: &Path) -> Result<(), MappedError> {
        let Ok(file) = path.open(false) else {
            return Ok(());
        };
        let is_same = file.identify().is_ok_and(|(id, _)| id == area.source.id);
        let length = PageLen::kept(area.geometry.bytes());
        // SAFETY: 1. our own mapping of this file.
        let mapped = is_same && unsafe { file.map_over(area.base(), length, Sharing::All) }.is_ok();
        if mapped {
            // The descriptor may lead to the same file by either name.
            let _ = area.source.file().become_other(file);
        }
        file.close();
        if !mapped {
            return Ok(());
        }
        self.tell(area)?;
        if self.is_populated {
            area.populate_all()?;
        }
        Ok(())
    }

    /// The heap in a file. [`Mapped::opened`] tells how it was found.
    ///
    /// # Errors
    ///
    /// [`MappedError::NotFound`]; [`NoHeap`](MappedError::NoHeap), [`Version`](MappedError::Version),
    /// [`Length`](MappedError::Length), [`Damaged`](MappedError::Damaged) for what is none that can be used;
    /// [`Dirty`](MappedError::Dirty), unless [allowed](Self::may_be_dirty); [`BaseBusy`](MappedError::BaseBusy) if something
    /// else lies at its address; [`Unsupported`](MappedError::Unsupported); [`System`](MappedError::System).
    ///
    /// # Safety
    ///
    /// 1. As for [`Mapped::attach`]. 2. Nobody makes the file shorter, or changes it by other means than this library, while
    ///    it is in use. What programs left there they left as the program expects it.
    pub unsafe fn open(self, path: impl AsRef<[u8]>) -> Result<Mapped, MappedError> {
        let path = Path::new(path.as_ref()).map_err(refused)?;
        self.open_at(&path)
    }

    fn open_at(self, path: &Path) -> Result<Mapped, MappedError> {
        let file = path.open(self.is_for_reading).map_err(refused)?;
        self.find(file).inspect_err(|_| file.close())
    }

    /// The heap of another process, by a descriptor of its file, which is not closed, nor needed any more. In a process that
    /// has the heap already it is the same one.
    ///
    /// # Errors
    ///
    /// As [`Mapped::attach`].
    ///
    /// # Safety
    ///
    /// 1. As for [`Mapped::attach`].
    pub unsafe fn attach(self, fd: c_int) -> Result<Mapped, MappedError> {
        let file = File(fd).duplicate().map_err(refused)?;
        self.find(file).inspect_err(|_| file.close())
    }

    /// The heap in a file, which is made if there is none: of any number of processes that do so at once, one makes it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create_file`](Self::create_file).
    ///
    /// # Safety
    ///
    /// 1. As for [`open`](Self::open).
    pub unsafe fn open_or_create(self, path: impl AsRef<[u8]>) -> Result<Mapped, MappedError> {
        let path = Path::new(path.as_ref()).map_err(refused)?;
        let mut last = MappedError::NotFound;
        for _ in 0..ROUNDS {
            last = match self.open_at(&path) {
                Err(MappedError::NotFound) => match self.create_at(&path) {
                    Err(MappedError::Exists) => MappedError::Exists,
                    done => return done,
                },
                done => return done,
            };
        }
        Err(last)
    }

    /// What no heap over a mapping can have.
    fn check(self) -> Result<(), MappedError> {
        if self.attributes.is_merged {
            return Err(MappedError::Unsupported);
        }
        Ok(())
    }

    /// Tells the kernel what the mapping is to be.
    fn tell(self, area: &Area) -> Result<(), MappedError> {
        let length = PageLen::kept(area.geometry.bytes());
        let told = self.attributes.give_to(area.base(), length);
        told.map_err(|_| MappedError::Unsupported)
    }

    fn sharing(self) -> Sharing {
        if self.is_for_reading {
            Sharing::Reader
        } else {
            Sharing::All
        }
    }

    /// The heap of a file that was opened for it, which is closed if it is not needed.
    fn find(self, file: File) -> Result<Mapped, MappedError> {
        self.check()?;
        let (id, bytes) = file.identify().map_err(refused)?;
        let bytes = match file.kind().map_err(refused)? {
            FileKind::Regular => Some(bytes),
            // Longer than the heap, as a rule.
            FileKind::Device => None,
            FileKind::Elsewhere => return Err(MappedError::Unsupported),
            FileKind::Other => return Err(MappedError::NoHeap),
        };
        let constants = read_constants(file, bytes)?;
        let geometry = constants.geometry().ok_or(MappedError::Damaged)?;
        if bytes.is_none() {
            let length = file.device_length().map_err(refused)?;
            if length != 0 && length < geometry.bytes() {
                return Err(MappedError::Length);
            }
        }
        let entering = Attachment::entering();
        let join = |area: &Area| self.join(area);
        if let Some(attachment) = Attachment::of(id, constants) {
            if attachment.state() == State::Closed {
                attachment.open_again(&entering, (file, self.sharing()), join)?;
            } else {
                file.close();
            }
            return Ok(Mapped { attachment });
        }
        let base = self.map(file, geometry, constants)?;
        let source = Source::new(file, id, constants);
        // SAFETY: 1. just mapped, for this.
        let area = unsafe { Area::new(base, geometry, source) };
        enter(&entering, area, join)
    }

    /// Maps a heap where it lies in every process, or elsewhere if it may.
    fn map(
        self,
        file: File,
        geometry: Geometry,
        constants: Constants,
    ) -> Result<NonNull<u8>, MappedError> {
        #[expect(clippy::cast_possible_truncation, reason = "it was checked to fit")]
        let base = constants.base as usize;
        let bytes = geometry.bytes();
        // Elsewhere it could lie in the way of a stack that grows.
        let is_in = |[from, to]: &[usize; 2]| (*from..*to).contains(&base) && bytes <= to - base;
        if !PLACES.iter().any(is_in) {
            return Err(MappedError::Damaged);
        }
        let length = PageLen::kept(bytes);
        let place = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(base));
        let map = |sharing| file.map(length, place, sharing);
        let mapped = match map(self.sharing()) {
            // Older kernels take it for a mapping in which something could be stored later.
            Err(SEALED) if self.is_for_reading => map(Sharing::Frozen),
            mapped => mapped,
        };
        match mapped {
            Err(TAKEN) if self.may_lie_anywhere => {
                map_somewhere(file, geometry, self.sharing(), os::random()[0])
            }
            Err(TAKEN) => Err(MappedError::BaseBusy {
                base,
                by: MappingName::at(base, base + bytes),
            }),
            Err(SEALED) => Err(MappedError::ReadOnly),
            mapped => mapped.map_err(refused),
        }
    }

    /// Has this process use a heap that is in a file; others are used once somebody allocates.
    fn join(self, area: &Area) -> Result<Found, MappedError> {
        self.tell(area)?;
        if self.is_for_reading {
            let opened = area.look(self.may_be_dirty)?;
            if self.is_populated {
                area.populate_touched()?;
            }
            return Ok(Found {
                opened,
                joined: None,
                state: State::ReadOnly,
            });
        }
        let mut found = Found {
            opened: Opened::Joined,
            joined: None,
            state: State::Open,
        };
        if area.source.kind() == Kind::File {
            let joined = area.join(self.may_be_dirty)?;
            found.opened = joined.opened;
            found.joined = Some(joined);
        }
        let fit = match &found.joined {
            Some(joined) if joined.opened != Opened::Joined => self.mend(area, joined),
            _ => Ok(()),
        };
        let fit = fit.and_then(|()| match self.is_populated {
            true => area.populate_touched(),
            false => Ok(()),
        });
        fit.inspect_err(|_| undo(area, found.joined.as_ref()))?;
        Ok(found)
    }

    /// Sees to a heap that nobody had.
    fn mend(self, area: &Area, joined: &Joined) -> Result<(), MappedError> {
        area.reserve_again()?;
        if joined.opened == Opened::Dirty {
            // Tables that were torn are mended with the lock, or say so.
            area.lock(joined.process)?.verify()?;
        }
        Ok(())
    }
}

/// Gives up a slot that a process got of a heap that it does not use after all.
fn undo(area: &Area, joined: Option<&Joined>) {
    if let Some(joined) = joined {
        area.leave(joined.process);
        let_go(joined.kept);
    }
}

/// Enters a heap that was just mapped, or unmaps it.
fn enter(
    entering: &Held<'static, ()>,
    area: Area,
    join: impl FnOnce(&Area) -> Result<Found, MappedError>,
) -> Result<Mapped, MappedError> {
    let (base, length) = (area.base(), PageLen::kept(area.geometry.bytes()));
    let entered = join(&area).and_then(|found| Attachment::enter(entering, area, found));
    let attachment = entered.inspect_err(|_| {
        // SAFETY: 1. just mapped, and nobody knows it.
        let _ = unsafe { os::unmap(base, length) };
    })?;
    Ok(Mapped { attachment })
}

/// A file that is to be a heap.
struct Whole<'a> {
    options: MappedOptions<'a>,
    file: File,
    geometry: Geometry,
}

impl Whole<'_> {
    /// Makes the heap, then does what lets others find it.
    fn begin(
        self,
        kind: Kind,
        publish: impl FnOnce(&Area) -> Result<(), MappedError>,
    ) -> Result<Mapped, MappedError> {
        let Self {
            options,
            file,
            geometry,
        } = self;
        options.check()?;
        if kind.is_on_disk() {
            if file.kind().map_err(refused)? != FileKind::Regular {
                return Err(MappedError::Unsupported);
            }
            let length = PageLen::kept(geometry.bytes());
            file.set_length(length).map_err(refused)?;
        }
        let (id, _) = file.identify().map_err(refused)?;
        let random = os::random();
        let base = map_somewhere(file, geometry, Sharing::All, random[0])?;
        let constants = Constants {
            bytes: geometry.bytes() as u64,
            base: base.addr().get() as u64,
            id: random[1],
            kind,
        };
        // SAFETY: 1. just mapped, for this.
        let area = unsafe { Area::new(base, geometry, Source::new(file, id, constants)) };
        enter(&Attachment::entering(), area, |area| {
            area.reserve_first()?;
            area.begin_free(geometry.first);
            // ORDERING: nobody else knows the heap yet.
            let high = &area.header().high.0;
            high.store(geometry.first.into(), Ordering::Relaxed);
            area.header().begin(constants);
            options.tell(area)?;
            if options.is_populated {
                let all = geometry.first..geometry.units;
                area.reserve_all(all)?;
                area.populate_all()?;
            }
            // Before others can find it: they find it in use.
            let joined = match kind {
                Kind::File => Some(area.join(false)?),
                _ => None,
            };
            publish(area).inspect_err(|_| undo(area, joined.as_ref()))?;
            Ok(Found {
                opened: Opened::Created,
                joined,
                state: State::Open,
            })
        })
    }
}

/// The constants that stand in a file.
fn read_constants(file: File, bytes: Option<usize>) -> Result<Constants, MappedError> {
    let mut words = [0; CONSTANTS];
    let read = file.read_first(&mut words).map_err(refused)?;
    if read < size_of_val(&words) {
        return Err(MappedError::NoHeap);
    }
    Ok(Constants::from_words(words, bytes)?)
}

/// Maps a file where nothing lies, and where other processes are likely to have room for it, too.
fn map_somewhere(
    file: File,
    geometry: Geometry,
    sharing: Sharing,
    random: u64,
) -> Result<NonNull<u8>, MappedError> {
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
            match file.map(PageLen::kept(length), place, sharing) {
                Ok(base) => return Ok(base),
                Err(errno) => refusal = errno,
            }
        }
    }
    // What lies at a place that was tried is no file of that name.
    Err(match refusal {
        TAKEN => MappedError::System { errno: TAKEN },
        errno => refused(errno),
    })
}
