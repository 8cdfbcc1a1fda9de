//! Columns: numbers of one meaning, one after the other, in as few bytes as each needs.

/// How an operation begins: its kind, whether the thread is another one than before, and the
/// alignment of a new block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u8);

impl Tag {
    const KIND: u8 = 0b11;
    const SWITCH: u8 = 0b100;
    const ALIGN_SHIFT: u32 = 3;

    /// What is left of the byte for the alignment.
    pub(crate) const MAX_ALIGN_LOG2: u8 = u8::MAX >> Self::ALIGN_SHIFT;

    /// The alignment is at most `MAX_ALIGN_LOG2`.
    pub(crate) fn new(kind: u8, is_switch: bool, align_log2: u8) -> Self {
        debug_assert!(kind <= Self::KIND && align_log2 <= Self::MAX_ALIGN_LOG2);
        let switch = if is_switch { Self::SWITCH } else { 0 };
        Self(kind | switch | align_log2 << Self::ALIGN_SHIFT)
    }

    pub(crate) fn kind(self) -> u8 {
        self.0 & Self::KIND
    }

    pub(crate) fn is_switch(self) -> bool {
        self.0 & Self::SWITCH != 0
    }

    pub(crate) fn align_log2(self) -> u8 {
        self.0 >> Self::ALIGN_SHIFT
    }
}

const MORE: u8 = 0x80;

/// Seven bits per byte, the lowest first.
pub(crate) fn push(column: &mut Vec<u8>, mut value: u64) {
    while value >= MORE.into() {
        // The lowest eight bits, of which the eighth is overwritten.
        column.push(value as u8 | MORE);
        value >>= 7;
    }
    column.push(value as u8);
}

/// As `push`, numbers near zero in few bytes whatever their sign.
pub(crate) fn push_signed(column: &mut Vec<u8>, value: i64) {
    push(column, (value << 1 ^ value >> 63).cast_unsigned());
}

/// What is left of a column.
#[derive(Debug)]
pub(crate) struct Column<'a>(pub(crate) &'a [u8]);

impl Column<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` where the column ends or the number has more than 64 bits.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & !MORE);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & MORE == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn next_signed(&mut self) -> Option<i64> {
        let value = self.next()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut values = vec![0, u64::MAX];
        for shift in 0..64 {
            values.extend([(1 << shift) - 1, 1 << shift]);
        }
        let mut bytes = Vec::new();
        for &value in &values {
            push(&mut bytes, value);
            push_signed(&mut bytes, value.cast_signed());
        }
        let mut column = Column(&bytes);
        for &value in &values {
            assert_eq!(column.next(), Some(value));
            assert_eq!(column.next_signed(), Some(value.cast_signed()));
        }
        assert!(column.is_empty() && column.next().is_none());
    }

    #[test]
    fn numbers_too_long_are_refused() {
        assert_eq!(Column(&[0xff; 20]).next(), None);
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(Column(&most).next(), Some(u64::MAX));
        most[9] = 2;
        assert_eq!(Column(&most).next(), None);
    }

    #[test]
    fn tags_come_back() {
        for byte in 0..=u8::MAX {
            let tag = Tag(byte);
            assert_eq!(Tag::new(tag.kind(), tag.is_switch(), tag.align_log2()), tag);
        }
    }
}
