//! The stores.

pub(crate) mod flagstone;
pub(crate) mod lmdb;
pub(crate) mod redb;
pub(crate) mod sqlite;
