//! The word of a unit: what it is, and whose.
//!
//! | bits | of Slab | of Tail |
//! |---|---|---|
//! | 0 to 3 | kind | kind |
//! | 4 to 11 | class | |
//! | 12 to 63 | owner | units since the head |
#![forbid(unsafe_code)]

/// Bits of an owner's parts: the process's slot, the slot's generation, the part of the process.
const SLOT: u32 = 10;
const GENERATION: u32 = 22;
const PART: u32 = 20;

/// Who may own slabs: a part of a process. 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

/// A process: a slot and its generation. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

/// Slots that can be told apart; the first has number 1.
pub(super) const MOST_SLOTS: usize = (1 << SLOT) - 1;
/// Parts of a process that can be told apart.
pub(super) const MOST_PARTS: u32 = (1 << PART) - 1;

const fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The bits of a slot in a process.
const OF_SLOT: u32 = (1 << SLOT) - 1;

impl Process {
    /// The process that has a slot, from 1, in this generation of it.
    pub(super) fn new(slot: u32, generation: u32) -> Self {
        Self(slot | (generation << SLOT))
    }

    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        (bits & OF_SLOT != 0).then_some(Self(bits))
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn slot(self) -> u32 {
        self.0 & OF_SLOT
    }

    /// As far as a word has room for it.
    pub(super) fn generation(self) -> u32 {
        self.0 >> SLOT
    }

    /// The generation that follows one.
    pub(super) fn generation_after(generation: u32) -> u32 {
        generation.wrapping_add(1) & (u32::MAX >> SLOT)
    }

    /// One of its parts.
    pub(super) fn part(self, number: u32) -> Owner {
        Owner(u64::from(self.0) | (u64::from(number) << (SLOT + GENERATION)))
    }
}

impl Owner {
    pub(super) const NOBODY: Self = Self(0);

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits & low(SLOT + GENERATION + PART))
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// The word of its slabs of a class.
    #[inline(always)]
    pub(super) fn slab(self, class: u8) -> u64 {
        1 | (u64::from(class) << 4) | (self.0 << 12)
    }

    /// Its number among the parts of its process.
    pub(super) fn number(self) -> u32 {
        (self.0 >> (SLOT + GENERATION)) as u32
    }

    /// The process whose part it is.
    pub(super) fn process(self) -> Option<Process> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        Process::from_bits(self.0 as u32)
    }
}

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nobody's.
    Free,
    /// A slab.
    Slab { class: u8, owner: Owner },
    /// The first of a run that is one block.
    Head,
    /// Another of a run, so many units behind its head.
    Tail { distance: u32 },
    /// The head of a run that a process is giving back.
    Going { owner: Owner },
    /// Nothing that there can be.
    Unknown,
}

impl Unit {
    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Slab { class, owner } => owner.slab(class),
            Self::Head => 2,
            Self::Tail { distance } => 3 | (u64::from(distance) << 12),
            Self::Going { owner } => 4 | (owner.0 << 12),
            Self::Unknown => 15,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    pub(super) fn from_bits(bits: u64) -> Self {
        match bits & 15 {
            0 => Self::Free,
            1 => Self::Slab {
                class: (bits >> 4) as u8,
                owner: Owner(bits >> 12),
            },
            2 => Self::Head,
            3 => Self::Tail {
                distance: (bits >> 12) as u32,
            },
            4 => Self::Going {
                owner: Owner(bits >> 12),
            },
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        let process = Process::new(1023, (1 << GENERATION) - 1);
        let owner = process.part(MOST_PARTS);
        assert_eq!(owner.process(), Some(process));
        assert_eq!(
            (process.slot(), process.generation()),
            (1023, (1 << GENERATION) - 1)
        );
        assert_eq!(Owner::NOBODY.process(), None);
        assert_eq!(Process::generation_after((1 << GENERATION) - 1), 0);
        let slab = |owner| Unit::Slab { class: 70, owner };
        let units = [
            Unit::Free,
            slab(owner),
            slab(Owner::NOBODY),
            Unit::Head,
            Unit::Tail { distance: u32::MAX },
            Unit::Going { owner },
        ];
        for unit in units {
            assert_eq!(Unit::from_bits(unit.bits()), unit);
        }
        assert_eq!(Unit::from_bits(u64::MAX), Unit::Unknown);
    }
}
