//! How a heap over a mapping is made or found.

use core::ffi::c_int;

use super::Mapped;
use super::area::Area;
use super::error::MappedError;
use super::geometry::Geometry;
use super::header::Kind;
use super::opening::{Settings, Whole};
use super::source::refused;
use crate::config::HugePages;
use crate::os::paths::Path;
use crate::os::shared::File;
use crate::os::{self, PageLen};

/// Who may use a file that is made: its owner.
pub(super) const MODE: u32 = 0o600;

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
    pub(super) mode: u32,
    settings: Settings,
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
            mode: MODE,
            settings: Settings::NONE,
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

    /// Whether a file is opened that nobody closed before the machine went down ([`Opened::Dirty`](super::Opened::Dirty)).
    /// What was stored there may be there in parts. The heap's own tables are mended or refused
    /// ([`MappedError::Damaged`]); what lies in blocks is for the program to check, which then
    /// [says so](Mapped::mark_fit).
    pub const fn may_be_dirty(mut self, may_be: bool) -> Self {
        self.settings.may_be_dirty = may_be;
        self
    }

    /// Whether a heap that is found is to be read alone. This process takes no part in it then: nobody waits for it, and
    /// what it finds may change or go at any time, unless the heap is [frozen](Mapped::freeze), or the programs agree.
    /// A file that may not be written can be read so. Handles of the heap allocate and free nothing. What stores anything
    /// ends the process, though: the locks of mutexes, events that are waited for, counts of [`Arc`](super::Arc)s, atomics.
    pub const fn read_only(mut self, is_for_reading: bool) -> Self {
        self.settings.is_for_reading = is_for_reading;
        self
    }

    /// Whether a heap that is found may lie elsewhere in this process, if something else lies at its address. What is stored
    /// there may be used by its distance from the base alone: no `Vec`, no `Box`, no [`Handle`](super::Handle) that another
    /// process left there.
    pub const fn anywhere(mut self, may_lie_anywhere: bool) -> Self {
        self.settings.may_lie_anywhere = may_lie_anywhere;
        self
    }

    /// Whether all memory is there before the heap is handed out: of a new one all that it can have, of one that is found
    /// all that it had. So nobody waits later for the kernel to find a page.
    #[doc(alias("prefault", "MADV_POPULATE_WRITE"))]
    pub const fn populate(mut self, is_populated: bool) -> Self {
        self.settings.is_populated = is_populated;
        self
    }

    /// Whether this process's mapping has huge pages, where the kernel gives some to files of memory
    /// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`). A wish.
    pub const fn huge_pages(mut self, advice: HugePages) -> Self {
        self.settings.attributes.huge_pages = advice;
        self
    }

    /// Whether the heap stands in this process's core dumps, which it does by default.
    #[doc(alias("madvise", "MADV_DONTDUMP"))]
    pub const fn core_dumps(mut self, are_allowed: bool) -> Self {
        self.settings.attributes.is_dumped = are_allowed;
        self
    }

    /// Whether the kernel may keep equal pages once (KSM). It does so of private memory alone: asked for a heap that
    /// processes share it does nothing, and says nothing. So this is always [`MappedError::Unsupported`];
    /// [`Heap`](crate::Heap)s have it.
    #[doc(alias("ksm", "MADV_MERGEABLE"))]
    pub const fn mergeable(mut self, is_allowed: bool) -> Self {
        self.settings.attributes.is_merged = is_allowed;
        self
    }

    /// The node of memory (NUMA) that pages are to come from which this process touches first, by the kernel's number.
    #[doc(alias("numa", "mbind"))]
    pub fn node(mut self, number: impl Into<Option<u32>>) -> Self {
        self.settings.attributes.node = number.into();
        self
    }

    /// It is a heap that commits.
    pub(super) const fn committing(mut self) -> Self {
        self.settings.commits = true;
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
        let whole = Whole::new(self.settings, file, geometry);
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
        let whole = Whole::new(self.settings, file, geometry);
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
        let whole = Whole::new(self.settings, file, geometry);
        let name = |area: &Area| {
            unnamed.name(path).map_err(refused)?;
            // From here on it is there. Where the kernel refuses this, the name may be lost with the machine: nothing for a
            // heap that promises more.
            if let (Err(errno), true) = (path.keep_name(), self.settings.commits) {
                let _ = path.remove();
                return Err(refused(errno));
            }
            // Or the list of mappings has another.
            let _ = self.settings.map_by_name(area, path);
            Ok(())
        };
        let kind = match self.settings.commits {
            true => Kind::Committed,
            false => Kind::File,
        };
        let made = whole.begin(kind, name);
        made.inspect_err(|_| {
            unnamed.forget();
            file.close();
        })
    }

    /// The heap in a file. [`Mapped::opened`] tells how it was found. In a process that has it already it is the same one, as it
    /// was found then.
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
        let file = path.open(self.settings.is_for_reading).map_err(refused)?;
        self.settings.find(file).inspect_err(|_| file.close())
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
        self.settings.find(file).inspect_err(|_| file.close())
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
}
