//! What a heap is made with, what it tells of itself, and what can go wrong.
#![forbid(unsafe_code)]

use core::fmt;

use super::Heap;
use super::memory::Refused;
use super::shared::Wanted;

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

    /// Makes the heap.
    ///
    /// # Errors
    ///
    /// [`HeapError::Limit`] for a limit below 4096 bytes, which a heap holds when it is empty;
    /// [`HeapError::NoMemory`] if there is no memory for these.
    pub fn create(self) -> Result<Heap, HeapError> {
        let made = Heap::create(Wanted {
            name: self.name,
            limit: self.limit.unwrap_or(usize::MAX),
            panics: self.panics,
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
}

impl From<Refused> for HeapError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Limit => Self::Limit,
            Refused::NoMemory => Self::NoMemory,
        }
    }
}

impl fmt::Display for HeapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Limit => "the heap's limit is too low for what it would hold",
            Self::NoMemory => "out of memory",
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
