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

/// What a file was told: nobody wants to know.
#[cfg(feature = "mapped")]
#[derive(Clone, Copy)]
#[expect(dead_code, reason = "made for nobody")]
pub(crate) enum Written<'a> {
    Bytes { place: usize, bytes: &'a [u8] },
    Length(usize),
    Hole { place: usize, length: usize },
    SyncedRange { place: usize, length: usize },
    Synced,
}

#[cfg(feature = "mapped")]
#[inline(always)]
pub(crate) fn tell<'a>(_: i32, _: impl FnOnce() -> Written<'a>) {}
