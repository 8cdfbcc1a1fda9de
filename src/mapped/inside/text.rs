//! Strings: allocator-api2 has none.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use core::str;

use super::Vec;
use crate::mapped::{Handle, MappedError};

/// A string in a heap over a mapping. Whatever makes it longer returns an error where the heap has no room.
///
/// ```
/// use flagstone::{Mapped, mapped};
///
/// let heap = Mapped::create(16 << 20)?;
/// let mut text = mapped::String::try_from_str_in("seen by", heap.handle())?;
/// text.push_str(" all")?;
/// assert_eq!(text.as_str(), "seen by all");
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[repr(transparent)]
pub struct String {
    /// UTF-8.
    bytes: Vec<u8>,
}

impl String {
    /// An empty one, which allocates nothing.
    #[must_use]
    pub fn new_in(handle: Handle) -> Self {
        Self {
            bytes: Vec::new_in(handle),
        }
    }

    /// One with this text.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`].
    pub fn try_from_str_in(text: &str, handle: Handle) -> Result<Self, MappedError> {
        let mut string = Self::new_in(handle);
        string.push_str(text)?;
        Ok(string)
    }

    /// Makes room for so many bytes more.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`]; the text stays as it is.
    pub fn reserve(&mut self, additional: usize) -> Result<(), MappedError> {
        let reserved = self.bytes.try_reserve(additional);
        reserved.map_err(|_| MappedError::NoSpace)
    }

    /// Appends a text.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`]; the text stays as it is.
    pub fn push_str(&mut self, text: &str) -> Result<(), MappedError> {
        self.reserve(text.len())?;
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Appends a character.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`]; the text stays as it is.
    pub fn push(&mut self, character: char) -> Result<(), MappedError> {
        self.push_str(character.encode_utf8(&mut [0; 4]))
    }

    /// Removes all of the text; the block stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: 1. only whole texts are appended.
        unsafe { str::from_utf8_unchecked(&self.bytes) }
    }

    /// Bytes that it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The bytes, UTF-8.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Deref for String {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for String {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for String {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for String {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl PartialEq<str> for String {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for String {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Eq for String {}

impl PartialOrd for String {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for String {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other)
    }
}

impl Hash for String {
    // As `str` does: a map with such keys is asked by `&str`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Write for String {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text).map_err(|_| fmt::Error)
    }
}

impl fmt::Display for String {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), out)
    }
}

impl fmt::Debug for String {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}
