//! The ways to copy a file, and to search it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use memchr::memmem;
use memmap2::{Mmap, MmapMut, MmapOptions};

/// Bytes that a program reads at a time.
const PIECE: usize = 1 << 20;

/// What is looked for: it stands at the end of the file.
pub(crate) const NEEDLE: &[u8] = b"\xffneedle\xff";

pub(crate) type Copy = fn(&Path, &Path) -> io::Result<()>;
pub(crate) type Search = fn(&Path) -> io::Result<Option<usize>>;

pub(crate) const COPIES: [(&str, Copy); 4] = [
    ("read and write", copy_by_pieces),
    ("copy_file_range", copy_in_kernel),
    ("both mapped", copy_mapped),
    ("mapped, written", copy_from_mapping),
];

pub(crate) const SEARCHES: [(&str, Search); 4] = [
    ("read whole", search_read),
    ("read by 1 MiB", search_pieces),
    ("mapped", search_mapped),
    ("mapped at once", search_populated),
];

fn copy_by_pieces(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            length => to.write_all(&piece[..length])?,
        }
    }
}

fn copy_in_kernel(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let mut left = usize::try_from(from.metadata()?.len()).unwrap_or(usize::MAX);
    while left > 0 {
        match rustix::fs::copy_file_range(&from, None, &to, None, left)? {
            0 => break,
            copied => left -= copied,
        }
    }
    Ok(())
}

fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: 1. a file of this program's own, which nobody else changes.
    unsafe { Mmap::map(&file) }
}

fn copy_mapped(from: &Path, to: &Path) -> io::Result<()> {
    let from = map(from)?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let to = options.open(to)?;
    to.set_len(from.len() as u64)?;
    // SAFETY: 1. as in `map`.
    let mut to = unsafe { MmapMut::map_mut(&to) }?;
    to.copy_from_slice(&from);
    Ok(())
}

fn copy_from_mapping(from: &Path, to: &Path) -> io::Result<()> {
    File::create(to)?.write_all(&map(from)?)
}

fn search_read(path: &Path) -> io::Result<Option<usize>> {
    Ok(memmem::find(&fs::read(path)?, NEEDLE))
}

/// The end of each piece is looked at again with the next: the needle may lie across.
fn search_pieces(path: &Path) -> io::Result<Option<usize>> {
    let finder = memmem::Finder::new(NEEDLE);
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    let (mut kept, mut before) = (0, 0);
    loop {
        let read = file.read(&mut piece[kept..])?;
        if read == 0 {
            return Ok(None);
        }
        let length = kept + read;
        if let Some(place) = finder.find(&piece[..length]) {
            return Ok(Some(before + place));
        }
        kept = length.min(NEEDLE.len() - 1);
        piece.copy_within(length - kept..length, 0);
        before += length - kept;
    }
}

fn search_mapped(path: &Path) -> io::Result<Option<usize>> {
    Ok(memmem::find(&map(path)?, NEEDLE))
}

fn search_populated(path: &Path) -> io::Result<Option<usize>> {
    let file = File::open(path)?;
    // SAFETY: 1. as in `map`.
    let mapped = unsafe { MmapOptions::new().populate().map(&file) }?;
    Ok(memmem::find(&mapped, NEEDLE))
}
