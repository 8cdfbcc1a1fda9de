//! SQLite with a log beside the file, each commit waited for. It reads through a mapping, and has a cache as large as redb's.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use crate::store::{Failure, Store, Value};

/// Mapped: two gibibytes are the most that SQLite maps. The cache: KiB, if negative.
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA mmap_size = 2147418112; PRAGMA cache_size = -1048576;";

pub(crate) struct Sqlite {
    connection: Connection,
}

fn connect(folder: &Path, flags: OpenFlags) -> Result<Sqlite, Failure> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join("sqlite"), flags)?;
    connection.execute_batch(SETTINGS)?;
    Ok(Sqlite { connection })
}

impl Store for Sqlite {
    fn create(folder: &Path, _: u64) -> Result<Self, Failure> {
        let store = connect(folder, OpenFlags::SQLITE_OPEN_CREATE)?;
        let table = "CREATE TABLE entries (key INTEGER PRIMARY KEY, value BLOB NOT NULL)";
        store.connection.execute_batch(table)?;
        Ok(store)
    }

    fn open(folder: &Path) -> Result<Self, Failure> {
        connect(folder, OpenFlags::empty())
    }

    fn put_batch(&mut self, batch: &[(u64, Value)]) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        let mut put = transaction.prepare_cached("REPLACE INTO entries VALUES (?1, ?2)")?;
        for (key, value) in batch {
            put.execute(params![key.cast_signed(), value])?;
        }
        drop(put);
        Ok(transaction.commit()?)
    }

    fn get(&self, keys: &[u64], mut see: impl FnMut(u64, Option<&[u8]>)) -> Result<(), Failure> {
        let transaction = self.connection.unchecked_transaction()?;
        let sql = "SELECT value FROM entries WHERE key = ?1";
        let mut get = transaction.prepare_cached(sql)?;
        for key in keys {
            let mut rows = get.query(params![key.cast_signed()])?;
            match rows.next()? {
                Some(row) => see(*key, Some(row.get_ref(0)?.as_blob()?)),
                None => see(*key, None),
            }
        }
        Ok(())
    }

    fn close(self) -> Result<(), Failure> {
        self.connection.close().map_err(|(_, error)| error.into())
    }
}
