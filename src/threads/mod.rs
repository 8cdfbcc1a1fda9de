//! The threads of the program: how each gets its cache and gives it up, and what a forked child makes of those that are
//! gone.

mod fork;
mod key;
mod lifecycle;
pub(crate) mod parked;
mod registry;

pub(crate) use fork::{Part, adopt_orphans};
pub(crate) use key::is_ready;
pub(crate) use lifecycle::{
    begin, is_for_a_table, lock_own, lock_own_for, prepare, repair_child, set_option,
};
pub(crate) use registry::{
    PURGES, REGISTRY, Registry, is_abandoned, is_of_this_process, is_own, lock_registered,
};
