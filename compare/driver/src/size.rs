//! Sizes of heaps, as the command line has them, and whether this machine has room for one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A row of a size needs this many times as much memory: rows that copy, peers that keep.
const ROOM: u64 = 3;

/// MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Size(u64);

impl Size {
    pub(crate) const fn bytes(self) -> u64 {
        self.0 << 20
    }

    /// Repetitions of a row, fewer of one that takes longer.
    pub(crate) const fn reps(self) -> u32 {
        match self.0 {
            ..1024 => 3,
            1024..2048 => 2,
            2048.. => 1,
        }
    }

    /// Whether a row of this size may run where so many KiB are available.
    ///
    /// # Errors
    ///
    /// A message for the user: it may not.
    pub(crate) fn fits(self, available_kb: u64) -> Result<(), String> {
        let needed = Self(ROOM * self.0);
        if available_kb / 1024 >= needed.0 {
            return Ok(());
        }
        Err(format!(
            "needs {needed} of memory, {} are available",
            Self(available_kb / 1024)
        ))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.strip_suffix('G') {
            Some(digits) => (digits, 1024),
            None => (text.strip_suffix('M').unwrap_or(""), 1),
        };
        let number = digits.parse().ok().filter(|number: &u64| *number > 0);
        // what is not counted in bytes by a word is no heap
        let size = number
            .and_then(|number| number.checked_mul(unit))
            .filter(|size| *size < 1 << 40);
        let size = size.ok_or_else(|| format!("{text} is no size such as 64M or 4G"))?;
        Ok(Self(size))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1024) {
            write!(f, "{}G", self.0 / 1024)
        } else {
            write!(f, "{}M", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_shown() {
        for text in ["64M", "1G", "4G", "1500M"] {
            let size: Size = text.parse().expect(text);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!(
            "1024M".parse::<Size>().map(|size| size.to_string()),
            Ok("1G".to_owned())
        );
        for wrong in [
            "",
            "G",
            "0M",
            "64",
            "1K",
            "-1G",
            "99999999999999999999G",
            "18446744073709551615G",
        ] {
            wrong.parse::<Size>().expect_err(wrong);
        }
    }

    #[test]
    fn a_row_needs_three_times_its_size() {
        let size = Size(64);
        assert_eq!(size.fits(3 * 64 * 1024), Ok(()));
        let refused = size.fits(3 * 64 * 1024 - 1).expect_err("too little");
        assert!(refused.contains("192M"), "{refused}");
    }
}
