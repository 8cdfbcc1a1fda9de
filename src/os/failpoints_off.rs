//! The feature `failpoints` is off: the same names, no code.
#![forbid(unsafe_code)]

#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    Gate,
    Refill,
    Flush,
    Claim,
    Release,
    Hold,
    LetGo,
    Holes,
    Purge,
    Reserve,
    Adopt,
    Large,
    Stock,
    Registry,
    Meta,
    #[cfg(feature = "heaps")]
    Heap,
    #[cfg(feature = "heaps")]
    Part,
    #[cfg(feature = "mapped")]
    Units,
    #[cfg(feature = "mapped")]
    Slot,
    #[cfg(feature = "mapped")]
    Parts,
    #[cfg(feature = "mapped")]
    Enter,
}

#[inline(always)]
pub(super) const fn refuses() -> bool {
    false
}

#[inline(always)]
pub(super) const fn forbids_waiting() -> bool {
    false
}

#[inline(always)]
pub(crate) const fn at(_: Point) {}

#[inline(always)]
pub(crate) const fn count_step() {}

/// What a huge page costs by a test.
#[inline(always)]
pub(crate) fn huge_price() -> Option<u64> {
    None
}
