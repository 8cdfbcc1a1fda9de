//! Which safeguards are on, and which way calls take.
#![forbid(unsafe_code)]

use core::fmt;

use crate::available;

/// Safeguards of the hardened mode, each a switch of its own. `SECURITY.md` says what each of them
/// notices, and what it costs.
///
/// ```
/// use flagstone::{Config, Flagstone, Hardening};
///
/// #[global_allocator]
/// static ALLOCATOR: Flagstone = Flagstone::with_config(Config::new().hardening(Hardening::ALL));
/// # fn main() {}
/// ```
///
/// In the environment `FLAGSTONE_HARDENED` is `1` or `all`, `0` or `off`, or a list of the words below
/// with commas between them.
///
/// | switch | word |
/// |---|---|
/// | [`CHECKS`](Self::CHECKS) | `checks` |
/// | [`CANARIES`](Self::CANARIES) | `canaries` |
/// | [`ZERO`](Self::ZERO) | `zero` |
/// | [`QUARANTINE`](Self::QUARANTINE) | `quarantine` |
/// | [`RANDOM`](Self::RANDOM) | `random` |
/// | [`GUARDS`](Self::GUARDS) | `guards` |
/// | [`ISOLATION`](Self::ISOLATION) | `isolation` |
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hardening(u8);

/// Bytes of a canary, see [`Hardening::CANARIES`].
pub(crate) const CANARY: usize = 8;

/// Bytes at the beginning of a block, its front, that [`Hardening::ZERO`] is about. All of a long block would
/// make every pair pay for bytes that nobody wrote.
pub(crate) const FRONT: usize = 256;

impl Hardening {
    /// No safeguard but those that are always on.
    pub const NONE: Self = Self(0);
    /// Every block of up to 256 KiB has a tag outside of it that says whether it is live and what
    /// its class is: a double free, or a free of anything but a live block of the layout's class, is
    /// noticed at once, whichever threads do it.
    pub const CHECKS: Self = Self(1);
    /// Eight bytes behind each block, unforeseeable, checked when it is freed or reallocated.
    pub const CANARIES: Self = Self(1 << 1);
    /// The first 256 bytes of a block of up to 256 KiB are zeroed when it is freed, and those that its next
    /// owner asks for are checked to be zero still.
    pub const ZERO: Self = Self(1 << 2);
    /// Freed blocks wait before they can be handed out again; freed mappings that are kept cannot be
    /// accessed meanwhile.
    pub const QUARANTINE: Self = Self(1 << 3);
    /// Blocks are handed out in an order that cannot be foreseen from outside.
    pub const RANDOM: Self = Self(1 << 4);
    /// Blocks of more than 256 KiB lie between two inaccessible pages.
    pub const GUARDS: Self = Self(1 << 5);
    /// The allocator's own tables lie between inaccessible pages.
    pub const ISOLATION: Self = Self(1 << 6);
    /// All safeguards.
    pub const ALL: Self = Self((1 << 7) - 1);
    /// Those that there are on this system: [`ALL`](Self::ALL), or [`NONE`](Self::NONE) where calls pass through to the
    /// system's allocator. A program that must not be built without some of them says
    /// `const _: () = assert!(Hardening::AVAILABLE.contains(Hardening::CHECKS));`. Whether they are on, the running
    /// process tells ([`Flagstone::require`](crate::Flagstone::require)).
    pub const AVAILABLE: Self = if available::ENGINE {
        Self::ALL
    } else {
        Self::NONE
    };

    /// These and `others`.
    ///
    /// ```
    /// use flagstone::Hardening;
    ///
    /// let two = Hardening::CHECKS.union(Hardening::GUARDS);
    /// assert!(two.contains(Hardening::GUARDS));
    /// ```
    #[must_use]
    pub const fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without `others`.
    ///
    /// ```
    /// use flagstone::Hardening;
    ///
    /// let cheaper = Hardening::ALL.difference(Hardening::ZERO);
    /// assert!(!cheaper.contains(Hardening::ZERO));
    /// ```
    #[must_use]
    pub const fn difference(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of `others` are among these.
    ///
    /// ```
    /// use flagstone::Hardening;
    ///
    /// assert!(Hardening::ALL.contains(Hardening::CANARIES));
    /// assert!(!Hardening::NONE.contains(Hardening::CANARIES));
    /// ```
    #[must_use]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Those of these bits that are safeguards.
    pub(crate) const fn of_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// What `FLAGSTONE_HARDENED` says; `None` if that is nothing.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"1" | b"all" => return Some(Self::ALL),
            b"0" | b"off" => return Some(Self::NONE),
            _ => {}
        }
        let mut found = Self::NONE;
        for word in text.split(|byte| *byte == b',') {
            let (_, switch) = SWITCHES.iter().find(|(name, _)| name.as_bytes() == word)?;
            found = found.union(*switch);
        }
        Some(found)
    }
}

/// The words for the switches.
const SWITCHES: [(&str, Hardening); 7] = [
    ("checks", Hardening::CHECKS),
    ("canaries", Hardening::CANARIES),
    ("zero", Hardening::ZERO),
    ("quarantine", Hardening::QUARANTINE),
    ("random", Hardening::RANDOM),
    ("guards", Hardening::GUARDS),
    ("isolation", Hardening::ISOLATION),
];

impl Default for Hardening {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for Hardening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = out.debug_set();
        for (name, switch) in SWITCHES {
            if self.contains(switch) {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

/// Safeguards that a program [requires](crate::Flagstone::require) are not on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingSafeguards {
    /// Those that are not.
    pub missing: Hardening,
}

impl MissingSafeguards {
    /// An error, if any of those that are required is not among those that are on.
    pub(crate) fn check(required: Hardening, on: Hardening) -> Result<(), Self> {
        let missing = required.difference(on);
        if missing == Hardening::NONE {
            Ok(())
        } else {
            Err(Self { missing })
        }
    }
}

impl fmt::Display for MissingSafeguards {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("safeguards are not on:")?;
        let missing = SWITCHES
            .iter()
            .filter(|(_, switch)| self.missing.contains(*switch));
        let mut mark = "";
        for (name, _) in missing {
            write!(out, "{mark} {name}")?;
            mark = ",";
        }
        Ok(())
    }
}

impl core::error::Error for MissingSafeguards {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn words_are_switches() {
        assert_eq!(Hardening::parse(b"1"), Some(Hardening::ALL));
        assert_eq!(Hardening::parse(b"off"), Some(Hardening::NONE));
        let two = Hardening::ZERO.union(Hardening::GUARDS);
        assert_eq!(Hardening::parse(b"guards,zero"), Some(two));
        assert_eq!(format!("{two:?}"), "{zero, guards}");
        for text in [&b""[..], b"2", b"zero,", b"zero guards", b"ALL", b"\xff"] {
            assert_eq!(Hardening::parse(text), None, "{text:?}");
        }
        let all = SWITCHES
            .iter()
            .fold(Hardening::NONE, |sum, (_, switch)| sum.union(*switch));
        assert_eq!(all, Hardening::ALL);
    }
    #[test]
    fn what_is_missing_is_told() {
        let two = Hardening::ZERO.union(Hardening::GUARDS);
        assert_eq!(MissingSafeguards::check(two, Hardening::ALL), Ok(()));
        let none = MissingSafeguards::check(Hardening::NONE, Hardening::NONE);
        assert_eq!(none, Ok(()));
        let on = Hardening::of_bits(Hardening::ZERO.bits());
        let error = MissingSafeguards::check(two, on).expect_err("guards are off");
        assert_eq!(error.missing, Hardening::GUARDS);
        let error = MissingSafeguards::check(two, Hardening::NONE).expect_err("both are off");
        assert_eq!(format!("{error}"), "safeguards are not on: zero, guards");
        assert_eq!(Hardening::of_bits(u8::MAX), Hardening::ALL);
    }
}
