//! What lies where in this process, as the kernel tells (`/proc/self/maps`).

use super::paths::Path;

/// Bytes of a line that are looked at: addresses, rights, and a name that is kept up to [`NAME`].
const LINE: usize = 192;
/// Bytes of a mapping's name that are kept.
pub(crate) const NAME: usize = 62;

/// The name of a mapping that has one of these addresses, its last bytes, and how many; none if nothing lies there, it
/// has no name, or nobody can tell.
pub(crate) fn name_at(from: usize, to: usize) -> Option<([u8; NAME], usize)> {
    let path = Path::new(b"/proc/self/maps").ok()?;
    let file = path.open_for_reading().ok()?;
    let mut found = None;
    let mut line = Line::new();
    let mut buffer = [0; 1024];
    while found.is_none() {
        let Ok(read @ 1..) = file.read(&mut buffer) else {
            break;
        };
        for byte in &buffer[..read] {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            if line.overlaps(from, to) {
                found = line.name();
                break;
            }
            line = Line::new();
        }
    }
    file.close();
    found
}

/// A line: its first bytes, and its last.
struct Line {
    first: [u8; LINE],
    last: [u8; NAME],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            first: [0; LINE],
            last: [0; NAME],
            length: 0,
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.first.get_mut(self.length) {
            *place = byte;
        }
        self.last.rotate_left(1);
        self.last[NAME - 1] = byte;
        self.length += 1;
    }

    fn text(&self) -> &[u8] {
        &self.first[..self.length.min(LINE)]
    }

    /// `start-end rights offset device inode   name`.
    fn overlaps(&self, from: usize, to: usize) -> bool {
        let mut ends = self.text().split(|byte| matches!(byte, b'-' | b' '));
        let mut number = || hexadecimal(ends.next()?);
        let (Some(start), Some(end)) = (number(), number()) else {
            return false;
        };
        start < to && from < end
    }

    fn name(&self) -> Option<([u8; NAME], usize)> {
        let text = self.text();
        let mut left = text;
        for _ in 0..5 {
            let end = left.iter().position(|byte| *byte == b' ')?;
            left = left[end..].trim_ascii_start();
        }
        let begin = text.len() - left.len();
        let length = (self.length - begin).min(NAME);
        let mut name = [0; NAME];
        name[..length].copy_from_slice(&self.last[NAME - length..]);
        (length > 0).then_some((name, length))
    }
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    let digits = core::str::from_utf8(digits).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let mut line = Line::new();
        text.bytes().for_each(|byte| line.push(byte));
        line
    }

    #[test]
    fn lines_are_read() {
        let stack =
            line("7ffc0000-7ffd0000 rw-p 00000000 00:00 0                          [stack]");
        assert!(stack.overlaps(0x7ffc_0000, 0x7ffc_0001));
        assert!(stack.overlaps(0, 0x7ffc_0001));
        assert!(!stack.overlaps(0x7ffd_0000, 0x7fff_0000));
        let (name, length) = stack.name().expect("a name");
        assert_eq!(&name[..length], b"[stack]");
        let nameless = line("7ffc0000-7ffd0000 rw-p 00000000 00:00 0 ");
        assert_eq!(nameless.name(), None);
        let long = std::format!("1000-2000 rw-p 0 08:01 7 /{}/end", "long/".repeat(100));
        let (name, length) = line(&long).name().expect("a name");
        assert_eq!(length, NAME);
        assert!(name.ends_with(b"long//end"));
        assert!(!line("no line").overlaps(0, usize::MAX));
    }

    #[test]
    fn this_program_lies_somewhere() {
        let own = lines_are_read as fn() as usize;
        let (name, length) = name_at(own, own + 1).expect("the program's file");
        assert!(name[..length].contains(&b'/'));
        assert_eq!(name_at(0, 1), None);
    }
}
