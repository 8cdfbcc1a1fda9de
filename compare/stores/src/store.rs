//! What the rows ask of a store.

use std::error::Error;
use std::path::Path;

use crate::disk;

/// Bytes of a value.
pub(crate) const VALUE: usize = 100;

/// A value: as long in every store.
pub(crate) type Value = [u8; VALUE];

/// Why a store did not do what it was asked for.
pub(crate) type Failure = Box<dyn Error>;

/// A store of keys and values in a folder of its own.
///
/// Keys are numbers, as each of the four has a way for these that is its fastest: a row's number in SQLite, keys of the
/// machine's own integers in LMDB, fixed widths in redb. Keys of bytes would cost SQLite an index.
pub(crate) trait Store: Sized {
    /// An empty store in an empty folder, with room for so many entries where the store has to be told.
    fn create(folder: &Path, entries: u64) -> Result<Self, Failure>;

    /// The store that lies in a folder, whoever closed it or was killed.
    fn open(folder: &Path) -> Result<Self, Failure>;

    /// Gives keys their values, new ones or others, by one commit. When it returns, they are on the disk.
    fn put_batch(&mut self, batch: &[(u64, Value)]) -> Result<(), Failure>;

    /// Looks keys up, in one read transaction, and hands over each value where it lies: without a copy.
    fn get(&self, keys: &[u64], see: impl FnMut(u64, Option<&[u8]>)) -> Result<(), Failure>;

    /// Closes it, as a program that ends.
    fn close(self) -> Result<(), Failure>;

    /// Bytes that it takes on the disk.
    fn size(folder: &Path) -> Result<u64, Failure> {
        Ok(disk::taken(folder)?)
    }
}
