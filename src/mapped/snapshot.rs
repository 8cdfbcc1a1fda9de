//! Snapshots: a heap's file once more, by another name, as one that everybody closed. See docs/mapped.md, "Snapshots".

use core::ops::Range;
use core::ptr::NonNull;

use super::area::Area;
use super::attachment::Attachment;
use super::buffer::Buffer;
use super::error::MappedError;
use super::geometry::BITS;
use super::header::{Constants, Header, Kind, SLOTS};
use super::log::{Commits, LEAST, Log};
use super::logged::WORD;
use super::opened::{LOCKS, Opened};
use super::options::MODE;
use super::source::{kind_for_heaps, refused};
use super::space::{pages_of, words_of};
use super::words::{Process, Unit};
use super::{Committed, Mapped, MappedOptions};
use crate::os::files::is_no_space;
use crate::os::paths::Path;
use crate::os::shared::File;
use crate::os::{self, PageLen};
use crate::sync::Ordering;
use crate::units::UNIT;

/// Bytes of the buffer: it holds a header, and is cheap beside the calls that fill it.
const BUFFER: usize = UNIT;
static_assertions::const_assert!(size_of::<Header>() <= BUFFER);

/// A copy on its way from one file to another.
struct Copy {
    from: File,
    to: File,
    buffer: Buffer,
    /// Until it is refused.
    is_by_kernel: bool,
}

impl Copy {
    /// To a file in which a heap can lie.
    fn new(from: File, to: File) -> Result<Self, MappedError> {
        kind_for_heaps(to)?;
        Ok(Self {
            from,
            to,
            buffer: Buffer::new(BUFFER)?,
            is_by_kernel: true,
        })
    }

    /// What lies in the buffer as a header, whatever it is.
    fn header(&mut self) -> &Header {
        let header = NonNull::from(&mut *self.buffer).cast::<Header>();
        // SAFETY: 1. as long and aligned as a header, of which any bytes are one; borrowed as the buffer.
        unsafe { header.as_ref() }
    }

    /// Copies what of these bytes is no hole.
    fn range(&mut self, bytes: Range<usize>) -> Result<(), MappedError> {
        let mut left = bytes;
        while let Some(stored) = self.from.stored_in(left.clone()) {
            left.start = stored.end;
            self.stored(stored)?;
        }
        Ok(())
    }

    fn stored(&mut self, mut bytes: Range<usize>) -> Result<(), MappedError> {
        while !bytes.is_empty() {
            bytes.start += self.some(bytes.clone())?;
        }
        Ok(())
    }

    /// Copies some of these bytes from the first on; how many.
    fn some(&mut self, bytes: Range<usize>) -> Result<usize, MappedError> {
        if self.is_by_kernel {
            match self.from.copy_to(self.to, bytes.clone()) {
                Err(refusal) if is_no_space(refusal) => return Err(refused(refusal)),
                // From one filesystem to another, say, or none of either.
                Ok(0) | Err(_) => self.is_by_kernel = false,
                Ok(count) => return Ok(count),
            }
        }
        let length = bytes.len().min(BUFFER);
        let buffer = &mut self.buffer.bytes()[..length];
        let read = self.from.read_bytes(bytes.start, buffer).map_err(refused)?;
        if read == 0 {
            // Somebody made it shorter.
            return Err(MappedError::Length);
        }
        let read = &buffer[..read];
        self.to.write_bytes(bytes.start, read).map_err(refused)?;
        Ok(read.len())
    }

    /// Copies what these parts of the file have, in whole pages: neighbours at once.
    fn ranges(&mut self, all: impl Iterator<Item = Range<usize>>) -> Result<(), MappedError> {
        let mut run = 0..0;
        for range in all.filter(|range| !range.is_empty()) {
            let (from, length) = pages_of(range);
            let to = from + length.bytes();
            if (run.start..=run.end).contains(&from) {
                run.end = run.end.max(to);
            } else {
                self.range(run)?;
                run = from..to;
            }
        }
        self.range(run)
    }

    /// Writes the bitmap of units that have space: those that somebody has. What others had stays behind, and who opens the
    /// copy reserves space for these.
    fn write_reserved(&mut self, area: &Area) -> Result<(), MappedError> {
        const WORDS: usize = BUFFER / WORD;
        let words = area.geometry.words_of_bits();
        let mut used = area.used();
        let mut run = used.next();
        for first in (0..words).step_by(WORDS) {
            let end = words.min(first + WORDS);
            let bytes = &mut self.buffer.bytes()[..(end - first) * WORD];
            bytes.fill(0);
            while let Some(units) = run.clone() {
                let of_run = words_of(units.start, units.end - units.start);
                for (word, bits) in of_run.filter(|(word, _)| (first..end).contains(word)) {
                    let place = (word - first) * WORD;
                    for (byte, bits) in bytes[place..place + WORD]
                        .iter_mut()
                        .zip(bits.to_ne_bytes())
                    {
                        *byte |= bits;
                    }
                }
                if units.end as usize > end * BITS {
                    break;
                }
                run = used.next();
            }
            // Of a long heap most words are zero in both: no room for these.
            let was_any = (first..end).any(|word| area.reserved(word).load(Ordering::Relaxed) != 0);
            if was_any || bytes.iter().any(|byte| *byte != 0) {
                let place = area.geometry.reserved + first * WORD;
                self.to.write_bytes(place, bytes).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Writes the header, as it is of a heap that nobody has: what all processes had is anyone's.
    fn write_header(&mut self, area: &Area) -> Result<(), MappedError> {
        const LENGTH: usize = size_of::<Header>();
        let bytes = &mut self.buffer.bytes()[..LENGTH];
        let read = self.from.read_bytes(0, bytes).map_err(refused)?;
        if read != LENGTH {
            return Err(MappedError::Length);
        }
        let header = self.header();
        header.begin(Constants {
            id: os::random()[1],
            kind: Kind::File,
            ..area.source.constants
        });
        // ORDERING: this thread's own, here and below.
        header.boot.0.store(0, Ordering::Relaxed);
        header.forget_lines();
        header.sleepers.0.store(0, Ordering::Relaxed);
        header.set_unmended();
        // Free units have no pages.
        header.dirty.0.store(0, Ordering::Relaxed);
        header.purged.0.store(0, Ordering::Relaxed);
        // No file's: who opens it reserves what is marked.
        header.home.0.store(0, Ordering::Relaxed);
        // What lies behind was never anybody's here, and its tables have no pages.
        let end = area.used_end();
        header.high.0.store(end.into(), Ordering::Relaxed);
        header.tabled.0.store(end.into(), Ordering::Relaxed);
        let bytes = &self.buffer.bytes()[..LENGTH];
        self.to.write_bytes(0, bytes).map_err(refused)
    }
}

impl Area {
    /// The units that somebody has, in runs.
    fn used(&self) -> impl Iterator<Item = Range<u32>> {
        let mut left = self.touched();
        core::iter::from_fn(move || {
            let length = |unit| match self.unit(unit) {
                Unit::Slab { .. } => 1,
                Unit::Head | Unit::Going { .. } => self.run(unit),
                _ => 0,
            };
            let first = left.find(|unit| length(*unit) != 0)?;
            let mut end = first;
            while end < left.end && length(end) != 0 {
                end += length(end);
            }
            left.start = end.min(left.end);
            Some(first..left.start)
        })
    }

    /// From this unit on nobody has one.
    fn used_end(&self) -> u32 {
        let last = self.used().last();
        last.map_or(self.geometry.first, |run| run.end)
    }

    /// Whether another process has a slot.
    fn has_others(&self, own: File, process: Process) -> Result<bool, MappedError> {
        let slot = u64::from(process.slot());
        let around = [
            (LOCKS + 1, slot - 1),
            (LOCKS + slot + 1, SLOTS as u64 - slot),
        ];
        for (place, count) in around {
            // None at all would be all that there are.
            if count != 0 && own.is_locked_by_others(place, count).map_err(refused)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies what is in use of the heap to a new file, in which nobody looks yet.
    fn copy_to(&self, own: File, to: File, process: Process) -> Result<(), MappedError> {
        let mut copy = Copy::new(own, to)?;
        // What processes left half done that were killed is mended before, and nobody claims units meanwhile.
        let held = self.lock(process)?;
        held.verify()?;
        // Slabs are found by who has the copy.
        self.set_all_hints();
        let length = PageLen::kept(self.geometry.bytes());
        to.set_length(length).map_err(refused)?;
        if to.share_blocks_of(own).is_err() {
            let (first, end) = (self.geometry.first as usize, self.used_end() as usize);
            let tables = self.geometry.tables_of(first..end);
            copy.ranges(tables.chain([self.geometry.bitmaps()]))?;
            let bytes = |units: Range<u32>| units.start as usize * UNIT..units.end as usize * UNIT;
            copy.ranges(self.used().map(bytes))?;
        }
        copy.write_reserved(self)?;
        // Last: before, it is no heap, or one of a file that nobody closed.
        copy.write_header(self)?;
        to.sync().map_err(refused)
    }

    /// Copies the last commit to a new file, in which nobody looks yet.
    fn copy_commits_to(&self, commits: &Commits, own: File, to: File) -> Result<(), MappedError> {
        let mut copy = Copy::new(own, to)?;
        // Nobody commits meanwhile. What the log alone has is in the file first.
        let mut log = commits.log();
        self.catch_up(&mut log, self.source.open().ok_or(MappedError::Closed)?)?;
        let bytes = self.geometry.bytes();
        let whole = PageLen::kept(bytes + LEAST);
        if to.share_blocks_of(own).is_err() {
            copy.range(0..bytes)?;
        }
        // With room for a log of its own, behind what was another's.
        to.set_length(whole).map_err(refused)?;
        let constants = Constants {
            id: os::random()[1],
            ..self.source.constants
        };
        to.write_words(0, &constants.words()).map_err(refused)?;
        Log::new(bytes, constants.id)?.create(to)?;
        // Who opens it forgets whose it was.
        to.sync().map_err(refused)
    }
}

impl Attachment {
    fn snapshot(&self, path: &Path, mode: u32) -> Result<(), MappedError> {
        let process = self.process()?;
        let area = &self.area;
        let copy = |own| {
            if area.has_others(own, process)? {
                return Err(MappedError::InUse);
            }
            if area.condition()? == Opened::Dirty {
                return Err(MappedError::Dirty);
            }
            // The name decides at last, but not after a long copy.
            if path.is_taken() {
                return Err(MappedError::Exists);
            }
            let unnamed = path.begin(mode, os::random()[0]).map_err(refused)?;
            let copied = match &area.commits {
                Some(commits) => area.copy_commits_to(commits, own, unnamed.file),
                None => area.copy_to(own, unnamed.file, process),
            };
            let copied = copied.inspect_err(|_| unnamed.forget());
            let named = copied.and_then(|()| unnamed.name(path).map_err(refused));
            unnamed.file.close();
            named?;
            path.keep_name().map_err(|errno| {
                // Nothing that may be gone with the machine. If the kernel refuses that, too, it stays.
                let _ = path.remove();
                refused(errno)
            })
        };
        // Nobody opens it meanwhile.
        area.source
            .with_own(|own| area.alone_at_openings(own, || copy(own)))
    }
}

impl Mapped {
    /// Makes a copy of the heap in a new file, which is on the disk when this returns: a heap by itself, that
    /// [`open`](MappedOptions::open) finds as [`Opened::Clean`], with all that has a name. This heap goes on as before.
    ///
    /// The copy has what is in use, and no room for more. Where the filesystem can, it shares the blocks of the file until
    /// either is changed (`FICLONE`: XFS, btrfs), and is there at once; there a full disk ends who stores in either
    /// (`SIGBUS`). Else its bytes are copied. Nobody finds it before it is whole, and nothing is left of one that failed. Its
    /// owner alone may use it: [`MappedOptions::snapshot`] makes one for others.
    ///
    /// It lies at the address of this heap: a process that has one of them cannot open the other
    /// ([`MappedError::BaseBusy`]), unless to be read [elsewhere](MappedOptions::anywhere), not even once it has closed the
    /// one. A mutex that is locked now was left by its holder there.
    ///
    /// Heaps without a path can be copied, too: the copy has one.
    ///
    /// ```
    /// use flagstone::Mapped;
    /// use flagstone::mapped::Mutex;
    ///
    /// # let folder = std::env::temp_dir().join(format!("snapshot-{}", std::process::id()));
    /// # std::fs::create_dir(&folder).unwrap();
    /// # let path = |name: &str| folder.join(name).into_os_string().into_encoded_bytes();
    /// let heap = Mapped::options().capacity(1 << 20).create_file(path("heap"))?;
    /// heap.insert("visits", Mutex::new(7))?;
    /// // SAFETY: no other thread uses the heap meanwhile, and there are no forked children.
    /// unsafe { heap.snapshot(path("monday")) }?;
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok::<(), flagstone::MappedError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MappedError::Exists`] if something has the name; [`NotFound`](MappedError::NotFound) without its folder;
    /// [`NoSpace`](MappedError::NoSpace) on a full disk; [`InUse`](MappedError::InUse) while other processes have the heap;
    /// [`Dirty`](MappedError::Dirty) before somebody says that it is [fit](Self::mark_fit);
    /// [`Damaged`](MappedError::Damaged) if its tables contradict each other; [`Unsupported`](MappedError::Unsupported) for
    /// filesystems of other machines; [`Closed`](MappedError::Closed) and [`ReadOnly`](MappedError::ReadOnly);
    /// [`System`](MappedError::System). There is no file then.
    ///
    /// # Safety
    ///
    /// Else the copy would be one of different moments, which whoever opens it takes for whole:
    ///
    /// 1. No other thread of this process is in a call for the heap, or changes what lies in it, meanwhile.
    /// 2. No forked child does, that has not allocated there, so that it is no [user](Self::users) of the heap; and of a heap
    ///    without a path no process begins to. Who opens one by its path meanwhile waits.
    #[doc(alias("copy", "clone", "backup", "reflink", "FICLONE"))]
    pub unsafe fn snapshot(&self, path: impl AsRef<[u8]>) -> Result<(), MappedError> {
        // SAFETY: 1. and 2. our own.
        unsafe { Self::options().snapshot(self, path) }
    }
}

impl MappedOptions<'_> {
    /// Makes a copy of a heap in a new file, with the [mode](Self::mode) of these options: see [`Mapped::snapshot`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// 1. and 2. as there.
    pub unsafe fn snapshot(self, heap: &Mapped, path: impl AsRef<[u8]>) -> Result<(), MappedError> {
        let path = Path::new(path.as_ref()).map_err(refused)?;
        heap.attachment.snapshot(&path, self.mode)
    }
}

impl Committed {
    /// Makes a copy of the last commit in a new file, which is on the disk when this returns: a heap by itself, that
    /// [`open`](super::CommittedOptions::open) finds as [`Opened::Clean`]. This heap goes on as before, and what was stored in
    /// it since the last commit is not in the copy. Other threads may go on meanwhile; one that commits waits.
    ///
    /// It lies at the address of this heap, as [another's copy](Mapped::snapshot), and is made in the same ways: in blocks
    /// that both share where the filesystem can, else without the holes that [`compact`](Self::compact) leaves.
    ///
    /// # Errors
    ///
    /// As of [`Mapped::snapshot`], and of [`commit`](Self::commit). There is no file then.
    #[doc(alias("copy", "clone", "backup", "reflink", "FICLONE"))]
    pub fn snapshot(&self, path: impl AsRef<[u8]>) -> Result<(), MappedError> {
        let path = Path::new(path.as_ref()).map_err(refused)?;
        self.attachment.snapshot(&path, MODE)
    }
}
