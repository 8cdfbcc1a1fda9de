//! A heap's name.
#![forbid(unsafe_code)]

/// At most so many bytes of a name are kept.
const NAME: usize = 47;

/// It lies in the heap.
pub(super) struct Name {
    length: u8,
    bytes: [u8; NAME],
}

impl Name {
    /// As many whole characters of `name` as there is room for.
    pub(super) fn new(name: &str) -> Self {
        let mut length = name.len().min(NAME);
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        let mut bytes = [0; NAME];
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        #[expect(clippy::cast_possible_truncation, reason = "at most `NAME`")]
        Self {
            length: length as u8,
            bytes,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}
