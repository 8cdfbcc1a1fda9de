//! What a heap is made with, what it tells of itself, and what can go wrong.
#![forbid(unsafe_code)]

use core::fmt;

use super::Heap;
use super::wanted::{Refused, Wanted};
use crate::config::{Attributes, HugePages};

/// How a [`Heap`] is to be made; [`Heap::options`] begins one.
///
/// ```
/// use flagstone::Heap;
///
/// let heap = Heap::options().name("request 17").limit(1 << 20).create()?;
/// assert_eq!(heap.name(), "request 17");
/// assert_eq!(heap.limit(), Some(1 << 20));
/// # Ok::<(), flagstone::HeapError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options make no heap until `create` is called"]
pub struct HeapOptions<'a> {
    name: &'a str,
    limit: Option<usize>,
    panics: bool,
    attributes: Attributes,
}

impl Default for HeapOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> HeapOptions<'a> {
    /// No name, no limit, errors where there is no memory.
    pub const fn new() -> Self {
        Self {
            name: "",
            limit: None,
            panics: false,
            attributes: Attributes::NONE,
        }
    }

    /// A name for people: it stands in panics and can be asked for. The first 47 bytes of it are kept, whole
    /// characters of them.
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// The most bytes that the heap may hold at a time, counted as [`HeapStats::held`] counts. `None`, the default, is
    /// no limit. It can be [changed](Heap::set_limit) later. A block that becomes shorter is served up to 64 KiB beyond it.
    pub fn limit(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.limit = bytes.into();
        self
    }

    /// Whether an allocation that is refused panics. By default it is an error, which collections turn into the end of
    /// the process unless they are asked by `try_reserve` and the like. A panic unwinds, from `Vec::push` too, and the
    /// collection is as it was before. Inside [`Heap::fallibly`] there are errors even so.
    ///
    /// ```
    /// use flagstone::Heap;
    /// use flagstone::allocator_api2::vec::Vec;
    ///
    /// let heap = Heap::options().limit(64 << 10).panics(true).create()?;
    /// let filled = std::panic::catch_unwind(|| {
    ///     let mut numbers = Vec::new_in(&heap);
    ///     loop {
    ///         numbers.push(0_u64);
    ///     }
    /// });
    /// assert!(filled.is_err());
    /// # Ok::<(), flagstone::HeapError>(())
    /// ```
    pub const fn panics(mut self, panics: bool) -> Self {
        self.panics = panics;
        self
    }

    /// Whether the heap's memory has huge pages: [`HugePages::Advise`] asks for them from the first block on,
    /// [`HugePages::Off`] keeps them out. [`HugePages::Auto`], the default, is what the process does with all its memory.
    /// A wish: the kernel may have none to give.
    ///
    /// Heaps with the same options of this kind (this one and those that follow) share chunks of 4 MiB. What such a heap
    /// has beyond its tables comes in multiples of 2 KiB and, from 64 KiB on, of pages; above 1 MiB a block that grows is
    /// copied. Safeguards and samples of a hardened process hold for its blocks above 1 MiB only. Under valgrind
    /// these options do nothing.
    pub const fn huge_pages(mut self, advice: HugePages) -> Self {
        self.attributes.huge_pages = advice;
        self
    }

    /// Whether the heap's memory is made of pages of 1 GiB, which who runs the machine has set aside
    /// (`/sys/kernel/mm/hugepages/hugepages-1048576kB`). The kernel gives and takes them whole, and so they stay in memory
    /// until all that lies in them is freed. A child of a fork that writes to one needs another, and is ended by the
    /// kernel if there is none. Blocks aligned to more than 4 MiB are refused. `false` by default;
    /// [`huge_pages`](Self::huge_pages) means nothing beside it.
    pub const fn gigantic_pages(mut self, are_wanted: bool) -> Self {
        self.attributes.is_gigantic = are_wanted;
        self
    }

    /// Whether the heap's blocks stand in the process's core dumps, which they do by default. Its own tables do anyway.
    /// Blocks of more than 1 MiB are written with zeros when they are freed, as their memory is anyone's afterwards.
    ///
    /// ```
    /// use flagstone::{Heap, HeapError};
    /// use flagstone::allocator_api2::vec::Vec;
    ///
    /// match Heap::options().name("keys").core_dumps(false).create() {
    ///     Ok(heap) => {
    ///         let mut key = Vec::new_in(&heap);
    ///         key.extend_from_slice(b"not for the dump");
    ///     }
    ///     Err(HeapError::Unsupported) => println!("no such memory here"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), HeapError>(())
    /// ```
    #[doc(alias("madvise", "MADV_DONTDUMP"))]
    pub const fn core_dumps(mut self, are_allowed: bool) -> Self {
        self.attributes.is_dumped = are_allowed;
        self
    }

    /// Whether the kernel may keep equal pages of this heap and of others once ("kernel samepage merging", KSM, where it
    /// runs). It costs the kernel time, and tells by the time that a write takes whether an equal page was there: not for
    /// secrets. `false` by default.
    #[doc(alias("ksm", "MADV_MERGEABLE"))]
    pub const fn mergeable(mut self, is_allowed: bool) -> Self {
        self.attributes.is_merged = is_allowed;
        self
    }

    /// The node of memory (NUMA) that the heap's blocks are to lie in, by the kernel's number. Once that has no more,
    /// they lie in others. `None`, the default, is that of the processor that touches a page first.
    #[doc(alias("numa", "mbind"))]
    pub fn node(mut self, number: impl Into<Option<u32>>) -> Self {
        self.attributes.node = number.into();
        self
    }

    /// Makes the heap.
    ///
    /// # Errors
    ///
    /// [`HeapError::Limit`] for a limit below 4096 bytes, which a heap holds when it is empty;
    /// [`HeapError::NoMemory`] if there is no memory for these; [`HeapError::Unsupported`] if the kernel or the machine
    /// has no memory of the kind that is asked for: no such node, no pages of 1 GiB to spare, no merging, or none of
    /// those.
    pub fn create(self) -> Result<Heap, HeapError> {
        let mut attributes = self.attributes;
        if attributes.is_gigantic {
            attributes.huge_pages = HugePages::Auto;
        }
        let made = Heap::create(Wanted {
            name: self.name,
            limit: self.limit.unwrap_or(usize::MAX),
            panics: self.panics,
            attributes,
        });
        made.map_err(HeapError::from)
    }
}

/// Why there is no heap, or no block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapError {
    /// The heap would hold more than its limit.
    Limit,
    /// The system has no memory, or the process's own limit is reached.
    NoMemory,
    /// The kernel or the machine has no memory of the kind that the options ask for.
    Unsupported,
}

impl From<Refused> for HeapError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Limit => Self::Limit,
            Refused::NoMemory => Self::NoMemory,
            Refused::Unsupported => Self::Unsupported,
        }
    }
}

impl fmt::Display for HeapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Limit => "the heap's limit is too low for what it would hold",
            Self::NoMemory => "out of memory",
            Self::Unsupported => "no memory of the kind that the options ask for",
        })
    }
}

impl core::error::Error for HeapError {}

/// What a [`Heap`] holds at the moment. While other threads are in calls, what they are at may or may not be counted.
///
/// ```
/// use flagstone::Heap;
/// use flagstone::allocator_api2::boxed::Box;
///
/// let heap = Heap::new()?;
/// let number = Box::new_in(7_u64, &heap);
/// let stats = heap.stats();
/// assert_eq!(stats.blocks, 1);
/// assert!(stats.live >= 8 && stats.held >= stats.live);
/// drop(number);
/// assert_eq!(heap.stats().blocks, 0);
/// # Ok::<(), flagstone::HeapError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStats {
    /// Bytes of the blocks that are in use, as long as they truly are: a request is rounded up, by a quarter at
    /// most from 64 bytes to 64 KiB, and to whole pages beyond.
    pub live: usize,
    /// Blocks in use.
    pub blocks: usize,
    /// Bytes that the heap has of the allocator: blocks in use, free ones that it keeps, and its own tables. This is
    /// what the limit bounds.
    pub held: usize,
    /// The most that [`held`](Self::held) has been since the heap was made or [reset](Heap::reset).
    pub peak: usize,
    /// Requests that were refused since the heap was made.
    pub refused: usize,
}
