//! A disk whose power goes: what it was told, what it has for sure, and what it may have.

use core::ops::Range;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use flagstone::failpoints::Written;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What a disk writes whole or not at all, by its makers.
pub(crate) const SECTOR: usize = 512;
/// What it loses as a whole, in the log, while it writes a part of it.
const BLOCK: usize = 4096;

pub(crate) type Sector = [u8; SECTOR];

/// What a file was told.
#[derive(Clone)]
pub(crate) enum Told {
    Bytes { place: usize, bytes: Vec<u8> },
    Length(usize),
    Hole { place: usize, length: usize },
    SyncedRange { place: usize, length: usize },
    Synced,
}

impl Told {
    pub(crate) fn new(what: Written<'_>) -> Self {
        match what {
            Written::Bytes { place, bytes } => Self::Bytes {
                place,
                bytes: bytes.to_vec(),
            },
            Written::Length(length) => Self::Length(length),
            Written::Hole { place, length } => Self::Hole { place, length },
            Written::SyncedRange { place, length } => Self::SyncedRange { place, length },
            Written::Synced => Self::Synced,
            _ => panic!("what is this: {what:?}"),
        }
    }
}

/// What a file has of a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All that it was told.
    All,
    /// What was waited for.
    Synced,
    /// Of each sector one of what it may have, by this seed.
    Any(u64),
}

/// Sectors that follow each other, which are written at once.
struct Run<'a> {
    file: &'a File,
    first: usize,
    bytes: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(file: &'a File) -> Self {
        let bytes = Vec::new();
        Self {
            file,
            first: 0,
            bytes,
        }
    }

    fn add(&mut self, sector: usize, bytes: &Sector) {
        if sector != self.first + self.bytes.len() / SECTOR {
            self.write();
            self.first = sector;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn write(&mut self) {
        let place = (self.first * SECTOR) as u64;
        self.file.write_all_at(&self.bytes, place).expect("room");
        self.bytes.clear();
    }
}

#[derive(Clone)]
pub(crate) struct Disk {
    /// Where the log begins in the file.
    log: usize,
    /// Sectors for sure; and what they may have instead, in order.
    durable: Vec<Sector>,
    pending: BTreeMap<usize, Vec<Sector>>,
    /// The file's length, and those that it may have instead.
    length: usize,
    lengths: Vec<usize>,
}

impl Disk {
    pub(crate) fn new(log: usize) -> Self {
        Self {
            log,
            durable: Vec::new(),
            pending: BTreeMap::new(),
            length: 0,
            lengths: Vec::new(),
        }
    }

    fn latest(&self, sector: usize) -> Sector {
        match self.pending.get(&sector).and_then(|all| all.last()) {
            Some(latest) => *latest,
            None => self.durable.get(sector).copied().unwrap_or([0; SECTOR]),
        }
    }

    /// Bytes from a place on are these, or zero.
    fn put(&mut self, place: usize, length: usize, bytes: Option<&[u8]>) {
        let mut next = place;
        while next < place + length {
            let sector = next / SECTOR;
            let end = (place + length).min((sector + 1) * SECTOR);
            let mut latest = self.latest(sector);
            let part = &mut latest[next % SECTOR..][..end - next];
            match bytes {
                Some(bytes) => part.copy_from_slice(&bytes[next - place..end - place]),
                None => part.fill(0),
            }
            self.pending.entry(sector).or_default().push(latest);
            next = end;
        }
    }

    /// The sectors that changed for sure.
    pub(crate) fn tell(&mut self, what: &Told) -> Vec<usize> {
        match what {
            Told::Bytes { place, bytes } => self.put(*place, bytes.len(), Some(bytes)),
            Told::Hole { place, length } => self.put(*place, *length, None),
            Told::Length(length) => {
                let last = self.lengths.last().copied().unwrap_or(self.length);
                if *length < last {
                    self.put(*length, last - *length, None);
                }
                self.lengths.push(*length);
            }
            Told::SyncedRange { place, length } => {
                // Else what shares a sector with it would be on the disk, too.
                assert!(place % SECTOR == 0 && length % SECTOR == 0);
                // Whatever it takes to find these bytes is on the disk, too.
                let shortest = self
                    .lengths
                    .iter()
                    .fold(self.length, |least, length| least.min(*length));
                if place + length > shortest {
                    self.sync_length();
                }
                return self.sync(place / SECTOR..(place + length) / SECTOR);
            }
            Told::Synced => {
                self.sync_length();
                return self.sync(0..usize::MAX);
            }
        }
        Vec::new()
    }

    fn sync_length(&mut self) {
        self.length = self.lengths.last().copied().unwrap_or(self.length);
        self.lengths.clear();
    }

    fn sync(&mut self, sectors: Range<usize>) -> Vec<usize> {
        let all: Vec<_> = self
            .pending
            .range(sectors)
            .map(|(sector, _)| *sector)
            .collect();
        for sector in &all {
            let versions = self.pending.remove(sector).expect("just found");
            if self.durable.len() <= *sector {
                self.durable.resize(sector + 1, [0; SECTOR]);
            }
            self.durable[*sector] = *versions.last().expect("one at least");
        }
        all
    }

    /// Has the file what is there for sure.
    pub(crate) fn write_all(&self, file: &File) {
        file.set_len(0).expect("a length");
        file.write_all_at(self.durable.as_flattened(), 0)
            .expect("room");
        file.set_len(self.length as u64).expect("a length");
    }

    /// Sectors that what a program told the file changed.
    pub(crate) fn changed_by(&self, what: &Told) -> Range<usize> {
        let of = |place: usize, length: usize| place / SECTOR..(place + length).div_ceil(SECTOR);
        match what {
            Told::Bytes { place, bytes } => of(*place, bytes.len()),
            Told::Hole { place, length } => of(*place, *length),
            Told::Length(length) => of(*length, self.length.saturating_sub(*length)),
            Told::SyncedRange { .. } | Told::Synced => 0..0,
        }
    }

    /// Has the file what is there for sure of these sectors, which are in order.
    pub(crate) fn write(&self, file: &File, sectors: impl Iterator<Item = usize>) {
        let mut run = Run::new(file);
        for sector in sectors {
            let bytes = self.durable.get(sector).copied().unwrap_or([0; SECTOR]);
            run.add(sector, &bytes);
        }
        run.write();
        file.set_len(self.length as u64).expect("a length");
    }

    /// Has the file, which has what is there for sure, what a loss of power may leave; the sectors that are others.
    pub(crate) fn leave(&self, file: &File, left: Left, random: &mut SmallRng) -> Vec<usize> {
        let mut changed = Vec::new();
        let length = match left {
            Left::All => self.lengths.last().copied().unwrap_or(self.length),
            Left::Synced => self.length,
            Left::Any(_) => match random.random_range(0..=self.lengths.len()) {
                0 => self.length,
                which => self.lengths[which - 1],
            },
        };
        // Disks whose sectors are nearly all there, or nearly all not, are as likely as others.
        let share = random.random_range(0..=8);
        let mut run = Run::new(file);
        for (sector, versions) in &self.pending {
            let which = match left {
                Left::All => versions.len(),
                Left::Synced => 0,
                Left::Any(_) if random.random_range(0..8) < share => {
                    random.random_range(1..=versions.len())
                }
                Left::Any(_) => 0,
            };
            if let Some(version) = which.checked_sub(1) {
                run.add(*sector, &versions[version]);
                changed.push(*sector);
            }
        }
        run.write();
        let in_log = self.pending.range(self.log / SECTOR..);
        for block in in_log.map(|(sector, _)| sector / (BLOCK / SECTOR)) {
            // Of records that are long some, and of short ones and heads often.
            if matches!(left, Left::Any(_)) && random.random_range(0..16) == 0 {
                let garbage: [u8; BLOCK] = core::array::from_fn(|_| random.random());
                file.write_all_at(&garbage, (block * BLOCK) as u64)
                    .expect("room");
                changed.extend((0..BLOCK / SECTOR).map(|sector| block * (BLOCK / SECTOR) + sector));
            }
        }
        file.set_len(length as u64).expect("a length");
        changed
    }

    /// The power stays, and all is as the kernel has it: the file as programs see it.
    pub(crate) fn write_cache(&self, file: &File) {
        self.write_all(file);
        self.leave(file, Left::All, &mut SmallRng::seed_from_u64(0));
    }
}
