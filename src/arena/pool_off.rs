//! There are no pools without first-class heaps: the same names, no code.

use core::ptr::NonNull;

use super::reservation::Reservation;
use super::{Bins, Locked};

/// None.
#[derive(Debug)]
pub(crate) enum Pool {}

impl Locked {
    pub(super) fn pools(&self) -> impl Iterator<Item = &'static Pool> {
        core::iter::from_fn(|| self.first_pool.get())
    }
}

impl Pool {
    pub(super) fn bins(&self, _: &Locked) -> &Bins {
        match *self {}
    }

    pub(super) fn is_gigantic(&self) -> bool {
        match *self {}
    }

    pub(super) fn wants_huge(&self) -> bool {
        match *self {}
    }

    pub(super) fn is_small(&self) -> bool {
        match *self {}
    }

    pub(super) fn new_addresses(&self) -> Option<NonNull<u8>> {
        match *self {}
    }

    pub(super) fn next(&self) -> Option<&'static Self> {
        match *self {}
    }

    pub(super) fn reservation(&self) -> &Reservation {
        match *self {}
    }

    /// # Safety
    /// 1. Never called.
    pub(super) unsafe fn unmap(&self, _: NonNull<u8>) -> bool {
        match *self {}
    }
}

pub(crate) fn taken() -> [usize; 2] {
    [0; 2]
}
