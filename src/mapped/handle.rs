//! A heap's address as an allocator: what containers in it keep.

use core::fmt;
use core::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator, Layout};

use super::area::Area;
use super::attachment::Attachment;
use super::geometry::blocks_of;
use super::handover::take_run;
use super::part::Part;
use super::slab::Freed;
use super::units::LONG;
use super::words::Unit;
use crate::size_class::SizeClass;
use crate::size_map::table_class;
use crate::sync::Ordering;
use crate::thread_cache::tls;
use crate::units::{CHUNK, UNIT};

/// After so many claims of units a thread looks for processes and threads that are gone.
const CLAIMS: u32 = 64;

/// A heap over a mapping, as an allocator for what lies in it: eight bytes, the address that the heap has in every process.
///
/// It can be kept in the heap, by the containers there, and is as good in each process that has
/// [attached](super::Mapped::attach) the heap. Where the heap is not attached, or was closed, it allocates nothing, and
/// frees nothing.
///
/// ```
/// use flagstone::Mapped;
/// use flagstone::allocator_api2::vec::Vec;
///
/// let heap = Mapped::create(64 << 20)?;
/// let mut numbers = Vec::new_in(heap.handle());
/// numbers.extend(0..1000_u32);
/// assert!(heap.contains(numbers.as_ptr()));
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Handle {
    base: NonNull<u8>,
}

// SAFETY: 1. an address; what it leads to is made for threads and processes.
unsafe impl Send for Handle {}
// SAFETY: 1. as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) fn new(base: NonNull<u8>) -> Self {
        Self { base }
    }

    /// What a thread knows its part of this heap by: no number of a first-class heap.
    #[inline(always)]
    fn key(self) -> u64 {
        (self.base.addr().get() / CHUNK) as u64 | (1 << 63)
    }

    /// The thread's part, if it is at hand.
    #[inline(always)]
    fn part_at_hand(self) -> Option<&'static Part> {
        let part = tls::words().heaps.part(self.key())?;
        // SAFETY: 1. kept for this heap's address, which no other heap has had: one of its parts.
        Some(unsafe { part.cast::<Part>().as_ref() })
    }

    fn attachment(self) -> Option<&'static Attachment> {
        Attachment::at(self.base.addr().get()).filter(|attachment| attachment.writable().is_ok())
    }

    #[inline(always)]
    fn alloc(self, size: usize, align: usize) -> Option<NonNull<[u8]>> {
        if let Some(class) = table_class(size, align)
            && let Some(part) = self.part_at_hand()
            && let Some(block) = part.take(class)
        {
            return Some(NonNull::slice_from_raw_parts(block, class.size()));
        }
        self.alloc_slow(size, align)
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(self, size: usize, align: usize) -> Option<NonNull<[u8]>> {
        if size == 0 {
            let place = NonNull::new(ptr::without_provenance_mut(align))?;
            return Some(NonNull::slice_from_raw_parts(place, 0));
        }
        let attachment = self.attachment()?;
        let process = attachment.process().ok()?;
        let part = self.part(attachment)?;
        let attempt = || match table_class(size, align) {
            Some(class) => {
                let block = part.take(class).or_else(|| part.refill(class))?;
                Some(NonNull::slice_from_raw_parts(block, class.size()))
            }
            None => alloc_run(attachment, size, align),
        };
        let claims = part.claims.get();
        let found = attempt().or_else(|| {
            attachment.reap(process);
            part.sweep();
            attempt()
        })?;
        if part.claims.get() != claims && part.claims.get().is_multiple_of(CLAIMS) {
            attachment.reap(process);
            if part.is_time_to_sweep() {
                part.sweep();
            }
        }
        Some(found)
    }

    /// The thread's part, or one that is made its own.
    fn part(self, attachment: &'static Attachment) -> Option<&'static Part> {
        // In a forked child that of the parent's thread is none.
        if let Some(part) = self.part_at_hand().filter(|part| part.area().is_some()) {
            return Some(part);
        }
        let part = attachment.part().ok()?;
        let place = NonNull::from(part).cast();
        tls::words().heaps.keep(self.key(), place);
        Some(part)
    }

    /// Takes a block back; nothing happens for what is none.
    #[inline(always)]
    fn free(self, block: NonNull<u8>, size: usize, align: usize) {
        if let Some(class) = table_class(size, align)
            && let Some(part) = self.part_at_hand()
            && part.put(class, block)
        {
            return;
        }
        self.free_slow(block);
    }

    #[cold]
    #[inline(never)]
    fn free_slow(self, block: NonNull<u8>) {
        if let Some(attachment) = self.attachment()
            && free_other(attachment, block).is_err()
        {
            // ORDERING: a count.
            attachment.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes that the user of a block may use.
    fn length(self, block: NonNull<u8>) -> Option<usize> {
        let area = &self.attachment()?.area;
        let (unit, distance) = area.locate(block.addr().get())?;
        match area.unit(unit) {
            Unit::Slab { class, .. } => block_at(class, distance)
                .ok()
                .map(|(class, _)| class.size()),
            Unit::Head if distance == 0 => Some(area.run(unit) as usize * UNIT),
            _ => None,
        }
    }
}

/// The block of a slab that begins at this distance.
fn block_at(class: u8, distance: usize) -> Result<(SizeClass, usize), Freed> {
    let class = SizeClass::of_table(class.into());
    let (block, rest) = class.info().locate(distance);
    if rest == 0 && block < blocks_of(class) {
        Ok((class, block))
    } else {
        Err(Freed)
    }
}

fn alloc_run(attachment: &Attachment, size: usize, align: usize) -> Option<NonNull<[u8]>> {
    // The base is aligned to a chunk, in every process.
    let units = |bytes: usize| u32::try_from(bytes.div_ceil(UNIT)).ok();
    let (count, step) = (units(size)?, units(align.min(CHUNK))?);
    if align > CHUNK {
        return None;
    }
    let area = &attachment.area;
    let held = area.lock(attachment.process().ok()?).ok()?;
    let first = held.claim_run(count, step)?;
    let length = count as usize * UNIT;
    Some(NonNull::slice_from_raw_parts(area.start(first), length))
}

/// Frees a block that the calling thread's part does not own.
fn free_other(attachment: &Attachment, block: NonNull<u8>) -> Result<(), Freed> {
    let area = &attachment.area;
    let (unit, distance) = area.locate(block.addr().get()).ok_or(Freed)?;
    match area.unit(unit) {
        Unit::Slab { class, .. } => {
            let (class, block) = block_at(class, distance)?;
            area.slab(unit).give_back(block)?;
            area.set_hint(class.index(), unit);
            Ok(())
        }
        Unit::Head if distance == 0 => free_run(attachment, area, unit),
        _ => Err(Freed),
    }
}

fn free_run(attachment: &Attachment, area: &Area, head: u32) -> Result<(), Freed> {
    let process = attachment.process().map_err(|_| Freed)?;
    let going = Unit::Going {
        owner: process.part(0),
    };
    let word = area.word(head).ok_or(Freed)?;
    if !take_run(word, Unit::Head.bits(), going.bits()) {
        return Err(Freed);
    }
    let count = area.run(head);
    if count >= LONG {
        // Without the lock: it may take a second for some GiB. Nobody else can take it.
        area.empty(head, count);
    }
    // Without the lock it is free once this process is gone.
    if let Ok(held) = area.lock(process) {
        held.release_run(head);
    }
    Ok(())
}

// SAFETY: 1. blocks do not overlap, are as long and aligned as asked, and stay mapped until the process ends, whatever
// becomes of the heap. 2. a copy of the handle is the same allocator.
unsafe impl Allocator for Handle {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.alloc(layout.size(), layout.align()).ok_or(AllocError)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = self.allocate(layout)?;
        // SAFETY: 1. a fresh block of at least so many bytes.
        unsafe { block.cast::<u8>().write_bytes(0, layout.size()) };
        Ok(block)
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            self.free(block, layout.size(), layout.align());
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        unsafe { self.resize(block, old, new) }
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        unsafe { self.resize(block, old, new) }
    }
}

impl Handle {
    /// # Safety
    /// 1. The block is live, of this heap, and `old` fits it.
    /// 2. On success nobody uses the old block any more.
    unsafe fn resize(
        self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let is_aligned = block.addr().get().is_multiple_of(new.align());
        let fits = |length: &usize| (length / 2..=*length).contains(&new.size()) && is_aligned;
        if old.size() != 0
            && new.size() != 0
            && let Some(length) = self.length(block).filter(fits)
        {
            return Ok(NonNull::slice_from_raw_parts(block, length));
        }
        let moved = match self.allocate(new) {
            // A longer block will do.
            Err(_) if old.size() != 0 && new.size() <= old.size() && is_aligned => {
                return Ok(NonNull::slice_from_raw_parts(block, old.size()));
            }
            moved => moved?,
        };
        let target = moved.cast::<u8>();
        // They overlap where the tables are damaged, and say that a unit of the old one is nobody's.
        // SAFETY: 1. both are as long as the shorter of the two layouts.
        unsafe { target.copy_from(block, old.size().min(new.size())) };
        // SAFETY: 1. live, and `old` fits it. 2. its contents were moved.
        unsafe { self.deallocate(block, old) };
        Ok(moved)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Handle({:p})", self.base)
    }
}
