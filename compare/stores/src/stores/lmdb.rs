//! LMDB by heed, as it is by default: a commit is on the disk, pages are written by `pwrite` and read through a mapping.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, IntegerComparator, WithTls};

use crate::store::{Failure, Store, Value};

/// Bytes as they are: heed's own type for numbers allocates with each look-up.
type Entries = Database<'static, Bytes, Bytes, IntegerComparator>;

/// A key as LMDB compares it: the machine's own number, where it may lie.
#[repr(align(8))]
struct Key([u8; 8]);

impl Key {
    fn new(key: u64) -> Self {
        Self(key.to_ne_bytes())
    }
}

pub(crate) struct Lmdb {
    environment: Env<WithTls>,
    entries: Entries,
}

/// Opens what lies in a folder; `None` has it as long as it was made.
fn open(folder: &Path, length: Option<usize>) -> Result<Lmdb, Failure> {
    let mut options = EnvOpenOptions::new();
    if let Some(length) = length {
        options.map_size(length);
    }
    // SAFETY: 1. nobody else changes the files, and none is opened twice in a process.
    let environment = unsafe { options.open(folder) }?;
    let transaction = environment.write_txn()?;
    let entries = environment.create_databases_and_commit(transaction, |opener, transaction| {
        let options = opener.database_options().types::<Bytes, Bytes>();
        let options = options.key_comparator::<IntegerComparator>();
        let made = options.create(transaction);
        made.map(CommitOrAbort::<_, ()>::Commit)
    })?;
    let entries = entries.commit().ok_or("no database")?;
    Ok(Lmdb {
        environment,
        entries,
    })
}

impl Store for Lmdb {
    fn create(folder: &Path, entries: u64) -> Result<Self, Failure> {
        // More than it can come to, in whole gibibytes: it takes addresses alone.
        open(folder, Some((entries as usize >> 20).max(1) << 30))
    }

    fn open(folder: &Path) -> Result<Self, Failure> {
        open(folder, None)
    }

    fn put_batch(&mut self, batch: &[(u64, Value)]) -> Result<(), Failure> {
        let mut transaction = self.environment.write_txn()?;
        for (key, value) in batch {
            let key = Key::new(*key);
            self.entries.put(&mut transaction, &key.0, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, keys: &[u64], mut see: impl FnMut(u64, Option<&[u8]>)) -> Result<(), Failure> {
        let transaction = self.environment.read_txn()?;
        for key in keys {
            see(*key, self.entries.get(&transaction, &Key::new(*key).0)?);
        }
        Ok(())
    }

    fn close(self) -> Result<(), Failure> {
        self.environment.prepare_for_closing().wait();
        Ok(())
    }
}
