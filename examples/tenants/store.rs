//! All tenants.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use crate::tenant::{Row, Tenant};

/// A typing error in each line must not make a heap of each line without end.
const MOST_TENANTS: usize = 100_000;

pub(crate) struct Store {
    tenants: BTreeMap<String, Tenant>,
    /// Of each tenant.
    limit: usize,
}

impl Store {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            tenants: BTreeMap::new(),
            limit,
        }
    }

    /// A tenant comes with its first line.
    pub(crate) fn put(&mut self, name: &str, key: &str, value: &str) -> Result<(), String> {
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.put(key, value);
            return Ok(());
        }
        if self.tenants.len() == MOST_TENANTS {
            return Err(format!("no room for {name:?}: too many tenants"));
        }
        let tenant = Tenant::new(name, self.limit);
        let mut tenant = tenant.map_err(|error| format!("no heap for {name:?}: {error}"))?;
        tenant.put(key, value);
        self.tenants.insert(name.into(), tenant);
        Ok(())
    }

    /// What the tenant had.
    pub(crate) fn drop(&mut self, name: &str) -> Result<Row, String> {
        let tenant = self.tenants.remove(name);
        let mut tenant = tenant.ok_or_else(|| format!("there is no tenant {name:?}"))?;
        Ok(tenant.row())
    }

    /// Who holds the most comes first.
    pub(crate) fn rows(&mut self) -> Vec<Row> {
        let mut rows: Vec<_> = self.tenants.values_mut().map(Tenant::row).collect();
        // A stable sort: those that hold the same stay in the order of their names.
        rows.sort_by_key(|row| Reverse(row.stats.held));
        rows
    }
}
