//! Where the blocks of a heap come from: the engine, or, for a heap whose memory has attributes, a pool.
//!
//! | bytes | from the engine | with attributes |
//! |---|---|---|
//! | to 64 KiB | blocks of its classes | granules of plots |
//! | to 1 MiB | spans | spans of the pool |
//! | more | mappings | mappings, which have the attributes while they are the heap's; slots of gigantic pages |

use core::ptr::NonNull;

use super::carve::{self, Carver};
use super::engine;
use super::wanted::Refused;
use crate::arena::Zeroed;
use crate::config;
use crate::config::Attributes;
use crate::error::Call;
use crate::large;
use crate::os::{self, PageLen};
use crate::size_class::{Request, classify};
use crate::units::{CHUNK, round_up};

/// Where blocks come from.
#[derive(Clone, Copy)]
pub(super) enum Store {
    Engine,
    Pool(&'static Carver),
}

/// What serves a layout.
enum Kind {
    Engine,
    Carver(&'static Carver),
    /// A mapping of the engine's that is given attributes.
    Mapping(Attributes),
    Gigantic(&'static Carver),
}

impl Store {
    /// That of memory with these attributes. Under valgrind there are none, as it looks after each block of the engine.
    pub(super) fn of(attributes: Attributes) -> Result<Self, Refused> {
        if attributes == Attributes::NONE || crate::valgrind::is_running() {
            return Ok(Self::Engine);
        }
        Carver::of(attributes).map(Self::Pool)
    }

    /// Whether a heap cuts blocks into its own. With safeguards, samples or valgrind each block is one of the engine's,
    /// and is looked after as all are; but the engine has none with attributes.
    pub(super) fn cuts(self) -> bool {
        match self {
            Self::Engine => config::mode().is_plain() && !crate::valgrind::is_running(),
            Self::Pool(_) => true,
        }
    }

    /// Whether the engine may change a block's length where it is, or have the kernel move it.
    pub(super) fn resizes(self) -> bool {
        matches!(self, Self::Engine)
    }

    fn kind(self, size: usize, align: usize) -> Kind {
        let Self::Pool(carver) = self else {
            return Kind::Engine;
        };
        if classify(size, align) != Request::Large && size <= CHUNK {
            Kind::Carver(carver)
        } else if carver.attributes().is_gigantic {
            Kind::Gigantic(carver)
        } else {
            Kind::Mapping(carver.attributes())
        }
    }

    /// A block by its layout.
    pub(super) fn block(
        self,
        size: usize,
        align: usize,
        wanted: Zeroed,
    ) -> Result<NonNull<u8>, Refused> {
        match self.kind(size, align) {
            Kind::Engine => engine::block(size, align, wanted),
            Kind::Carver(carver) => engine::or_reclaim(|| carver.block(size, align, wanted)),
            // Slots are aligned to chunks, and no more.
            Kind::Gigantic(_) if align > CHUNK => Err(Refused::NoMemory),
            Kind::Gigantic(carver) => engine::or_reclaim(|| carver.long(size)),
            Kind::Mapping(attributes) => {
                let block = engine::block(size, align, wanted)?;
                let (base, length) = pages(block, size);
                if attributes.give_to(base, length).is_ok() {
                    return Ok(block);
                }
                attributes.take_from(base, length);
                // SAFETY: 1. just served with this layout. 2. nobody has it.
                unsafe { engine::give_back(block, size, align) };
                Err(Refused::NoMemory)
            }
        }
    }

    /// Takes back what [`block`](Self::block) gave.
    ///
    /// # Safety
    /// 1. It is live and of this layout.
    /// 2. Nobody uses it any more.
    pub(super) unsafe fn give_back(self, block: NonNull<u8>, size: usize, align: usize) {
        match self.kind(size, align) {
            Kind::Engine => {}
            // SAFETY: 1. and 2. our own.
            Kind::Carver(carver) => return unsafe { carver.free(block, size, align) },
            // SAFETY: 1. our own.
            Kind::Gigantic(carver) => return unsafe { carver.free_long(block, size) },
            Kind::Mapping(attributes) => {
                let (base, length) = pages(block, size);
                if !attributes.is_dumped {
                    erase(block, size);
                }
                attributes.take_from(base, length);
            }
        }
        // SAFETY: 1. and 2. our own.
        unsafe { engine::give_back(block, size, align) };
    }

    /// Bytes that a block counts for: of a span only what its user may have, as the rest is not touched. `None` past the
    /// end of memory.
    pub(super) fn counted(self, size: usize, align: usize) -> Option<usize> {
        match (self.kind(size, align), classify(size, align)) {
            (Kind::Carver(_), _) => Some(carve::rounded(size, align)),
            (Kind::Gigantic(_), _) => round_up(size, CHUNK),
            (_, Request::Block(class)) => Some(class.size()),
            (_, Request::Span(_) | Request::Large) => round_up(size, os::page_size()),
        }
    }

    /// Bytes that the user of a block may use, of which so many count. Safeguards keep what is behind its size.
    pub(super) fn length(
        self,
        block: NonNull<u8>,
        (size, align): (usize, usize),
        counted: usize,
    ) -> usize {
        match self.kind(size, align) {
            Kind::Carver(_) | Kind::Gigantic(_) => counted,
            _ if !config::mode().is_plain() => size,
            _ if matches!(classify(size, align), Request::Block(_)) => counted,
            // A span may begin some lines behind its first page.
            _ => large::length(block, Call::Alloc).min(counted),
        }
    }
}

/// Writes zeros to a block that nobody uses any more, but that may stand in dumps from here on. Safeguards look at what
/// is behind it.
fn erase(block: NonNull<u8>, size: usize) {
    if config::mode().is_plain() {
        let (base, length) = pages(block, size);
        // SAFETY: 1. the pages of a mapping whose block is in nobody's use.
        let _ = unsafe { os::zero(base, length) };
    } else {
        // SAFETY: 1. the block, which nobody uses.
        unsafe { block.write_bytes(0, size) };
    }
}

/// The pages that a block lies in.
fn pages(block: NonNull<u8>, size: usize) -> (NonNull<u8>, PageLen) {
    let before = block.addr().get() % os::page_size();
    // SAFETY: 1. a mapping begins with a page, at or before its block.
    let base = unsafe { block.sub(before) };
    let length = PageLen::holding(before + size).unwrap_or(PageLen::within(size));
    (base, length)
}
