//! `flagstone meminfo`: what memory each heap over a mapping takes in a process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use engine::Mapped;

use crate::output::{Side, columns, tame, write};
use crate::smaps::{self, Amounts, FileNumber, Mapping};

#[derive(clap::Args)]
pub(crate) struct Meminfo {
    /// The number of the process.
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    process: u32,
}

/// A heap in a process.
struct Heap<'a> {
    first: &'a Mapping,
    amounts: Amounts,
    access: &'static str,
}

pub(crate) fn meminfo(arguments: &Meminfo) -> Result<ExitCode> {
    let process = arguments.process;
    let mappings = smaps::of(process).map_err(|error| explained(process, &error))?;
    let looks = Looks::new(process);
    let mut heaps = Vec::new();
    let mut unseen = 0;
    for group in groups(&mappings) {
        match looks.is_heap(&group) {
            Some(true) => heaps.extend(Heap::of(&group)),
            Some(false) => {}
            None => unseen += usize::from(group[0].path.starts_with(b"/memfd:")),
        }
    }
    if unseen != 0 {
        let files = if unseen == 1 { "file" } else { "files" };
        crate::say(format_args!(
            "process {process}: {unseen} {files} of memory could not be looked at: they may be heaps"
        ));
    }
    if heaps.is_empty() {
        write(&format!("process {process} has no heaps over mappings\n"))?;
    } else {
        write(&table(&heaps, &looks))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explained(process: u32, error: &io::Error) -> anyhow::Error {
    let is_there = Path::new(&format!("/proc/{process}")).exists();
    match (error.raw_os_error(), is_there) {
        (Some(libc::EACCES | libc::EPERM), _) => {
            anyhow!(
                "process {process}: permission denied; ask as the user whose process it is, or as root"
            )
        }
        (Some(libc::ENOENT | libc::ESRCH), false) => anyhow!("there is no process {process}"),
        (Some(libc::ESRCH), true) => anyhow!("process {process} has ended"),
        _ => anyhow!("process {process}: {error}"),
    }
}

/// The mappings of each file, in the order of their addresses.
fn groups(mappings: &[Mapping]) -> Vec<Vec<&Mapping>> {
    let mut groups = Vec::<Vec<&Mapping>>::new();
    let mut places = std::collections::HashMap::<FileNumber, usize>::new();
    for mapping in mappings.iter().filter(|mapping| mapping.file.1 != 0) {
        let place = *places.entry(mapping.file).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(mapping);
    }
    groups
}

/// Whether a mapping is the page by which a process keeps its slot.
fn is_slot(mapping: &Mapping) -> bool {
    mapping.access.starts_with("---s")
}

impl<'a> Heap<'a> {
    fn of(group: &[&'a Mapping]) -> Option<Self> {
        let parts: Vec<&Mapping> = group
            .iter()
            .copied()
            .filter(|part| !is_slot(part))
            .collect();
        let first = *parts.first()?;
        let mut amounts = Amounts::default();
        parts.iter().for_each(|part| amounts.add(part.amounts));
        let has_slot = parts.len() < group.len();
        let access = match first.access.as_bytes() {
            [.., b'p'] => "copy",
            [_, b'w', ..] if has_slot => "uses",
            [_, b'w', ..] => "maps",
            _ => "reads",
        };
        Some(Self {
            first,
            amounts,
            access,
        })
    }

    fn row(&self, looks: &Looks) -> Vec<String> {
        let path = looks.path_of(self.first).display().to_string();
        row(
            format!("{:#x}", self.first.start),
            self.amounts,
            self.access,
            tame(&path),
        )
    }
}

fn row(address: String, amounts: Amounts, access: &str, file: String) -> Vec<String> {
    let known = [
        amounts.rss,
        amounts.pss,
        amounts.shared,
        amounts.private,
        amounts.swap,
    ];
    let known = known.map(|amount| amount.map_or("-".into(), |amount| amount.to_string()));
    let mut row = vec![address, amounts.size.to_string()];
    row.extend(known);
    row.extend([access.to_owned(), file]);
    row
}

/// In kibibytes.
fn table(heaps: &[Heap<'_>], looks: &Looks) -> String {
    let head = [
        "ADDRESS", "SIZE", "RSS", "PSS", "SHARED", "PRIVATE", "SWAP", "ACCESS", "FILE",
    ];
    let mut all = Amounts::default();
    heaps.iter().for_each(|heap| all.add(heap.amounts));
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(heaps.iter().map(|heap| heap.row(looks)));
    rows.push(row("total".into(), all, "", "KiB".into()));
    let mut sides = [Side::Right; 9];
    (sides[0], sides[7], sides[8]) = (Side::Left, Side::Left, Side::Left);
    columns(&sides, &rows)
}

/// The ways to a process's files.
struct Looks {
    process: u32,
    /// Its descriptors, and their files.
    descriptors: Vec<(FileNumber, PathBuf)>,
    memory: Option<File>,
}

impl Looks {
    fn new(process: u32) -> Self {
        let folder = fs::read_dir(format!("/proc/{process}/fd"));
        let paths = folder.into_iter().flatten().flatten();
        let descriptors = paths.filter_map(|entry| {
            let path = entry.path();
            Some((number_of(&fs::metadata(&path).ok()?), path))
        });
        Self {
            process,
            descriptors: descriptors.collect(),
            memory: File::open(format!("/proc/{process}/mem")).ok(),
        }
    }

    /// Whether the file of these mappings is a heap's; `None` if nobody can tell.
    fn is_heap(&self, group: &[&Mapping]) -> Option<bool> {
        let process = self.process;
        let by_mapping = group
            .iter()
            .map(|part| PathBuf::from(format!("/proc/{process}/map_files/{}", part.range())));
        let file = group[0].file;
        let by_descriptor = self.descriptors.iter();
        let by_descriptor = by_descriptor.filter(|(number, _)| *number == file);
        let named = group[0]
            .path()
            .to_str()
            .filter(|path| path.starts_with('/'));
        let named = named.map(|path| PathBuf::from(format!("/proc/{process}/root{path}")));
        let is_it =
            |path: &PathBuf| fs::metadata(path).is_ok_and(|found| number_of(&found) == file);
        let mut paths = by_mapping
            .chain(by_descriptor.map(|(_, path)| path.clone()))
            .chain(named.filter(is_it));
        let first = paths.find_map(|path| first_bytes(&path).ok());
        let first = first.or_else(|| self.first_in_memory(group));
        first.map(|first| Mapped::is_heap(&first))
    }

    /// The path of a mapping's file. A file that was made without a name, and got one, the kernel lists as deleted in the
    /// process that made it: it is looked for in its folder.
    fn path_of(&self, mapping: &Mapping) -> PathBuf {
        let listed = PathBuf::from(mapping.path());
        let is_nameless = |name: &OsStr| {
            let name = name.as_bytes();
            name.starts_with(b"#") && name.ends_with(b" (deleted)")
        };
        let folder = listed
            .parent()
            .filter(|_| listed.file_name().is_some_and(is_nameless));
        let found = folder.and_then(|folder| {
            let here = format!("/proc/{}/root{}", self.process, folder.to_str()?);
            let mut entries = fs::read_dir(here).ok()?.flatten();
            let is_it = |entry: &fs::DirEntry| {
                let about = |entry: &fs::DirEntry| entry.metadata().ok();
                entry.ino() == mapping.file.1
                    && about(entry).is_some_and(|found| number_of(&found) == mapping.file)
            };
            Some(folder.join(entries.find(is_it)?.file_name()))
        });
        found.unwrap_or(listed)
    }

    /// As the process itself sees them.
    fn first_in_memory(&self, group: &[&Mapping]) -> Option<[u8; 8]> {
        let is_first = |part: &&&Mapping| part.offset == 0 && part.access.starts_with('r');
        let part = group.iter().find(is_first)?;
        let mut bytes = [0; 8];
        let memory = self.memory.as_ref()?;
        memory.read_exact_at(&mut bytes, part.start).ok()?;
        Some(bytes)
    }
}

fn number_of(found: &fs::Metadata) -> FileNumber {
    let device = found.dev();
    let device = (libc::major(device).into(), libc::minor(device).into());
    (device, found.ino())
}

/// Of what is a file and nothing else: others are not to be opened.
fn first_bytes(path: &Path) -> io::Result<[u8; 8]> {
    let mut bytes = [0; 8];
    if !fs::metadata(path)?.is_file() {
        return Ok(bytes);
    }
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    match file.read_exact_at(&mut bytes, 0) {
        // Shorter: no heap.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok([0; 8]),
        read => read.map(|()| bytes),
    }
}
