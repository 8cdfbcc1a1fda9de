//! redb, as its documentation has it: a commit is on the disk (`Durability::Immediate`), a cache of a gibibyte.

use std::path::Path;

use ::redb::{Database, ReadableDatabase, TableDefinition};

use crate::store::{Failure, Store, VALUE, Value};

const TABLE: TableDefinition<'_, u64, &[u8; VALUE]> = TableDefinition::new("entries");

pub(crate) struct Redb {
    database: Database,
}

impl Store for Redb {
    fn create(folder: &Path, _: u64) -> Result<Self, Failure> {
        let database = Database::create(folder.join("redb"))?;
        let mut store = Self { database };
        store.put_batch(&[])?;
        Ok(store)
    }

    fn open(folder: &Path) -> Result<Self, Failure> {
        let database = Database::open(folder.join("redb"))?;
        Ok(Self { database })
    }

    fn put_batch(&mut self, batch: &[(u64, Value)]) -> Result<(), Failure> {
        let transaction = self.database.begin_write()?;
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in batch {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }

    fn get(&self, keys: &[u64], mut see: impl FnMut(u64, Option<&[u8]>)) -> Result<(), Failure> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(TABLE)?;
        for key in keys {
            let found = table.get(key)?;
            see(*key, found.as_ref().map(|found| found.value().as_slice()));
        }
        Ok(())
    }

    fn close(self) -> Result<(), Failure> {
        drop(self.database);
        Ok(())
    }
}
