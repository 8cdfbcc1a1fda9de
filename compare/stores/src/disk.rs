//! What the disk is, and what lies there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

/// Bytes of a sector, by which the kernel counts blocks.
const SECTOR: u64 = 512;

/// Bytes that the files of a folder take on the disk.
pub(crate) fn taken(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        bytes += file?.metadata()?.blocks() * SECTOR;
    }
    Ok(bytes)
}

/// Where a folder lies.
pub(crate) struct Mount {
    /// What the kernel calls the filesystem.
    pub(crate) kind: String,
    /// What is mounted: a device, most often.
    pub(crate) source: String,
    place: String,
}

/// A line of the kernel's list of mounts.
fn parse(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let place = mount.split(' ').nth(4)?;
    let mut words = filesystem.split(' ');
    Some(Mount {
        // As the kernel writes a space.
        place: place.replace("\\040", " "),
        kind: words.next()?.into(),
        source: words.next()?.into(),
    })
}

/// The mount that a folder, from the root on, lies in: of those with the longest place the last, which is over the others.
fn choose(list: &str, folder: &Path) -> Option<Mount> {
    let all = list.lines().filter_map(parse);
    let of_folder = all.filter(|mount| folder.starts_with(&mount.place));
    of_folder.max_by_key(|mount| mount.place.len())
}

/// Where a folder lies, if that is a disk.
///
/// # Errors
///
/// A filesystem of memory, on which nothing is durable.
pub(crate) fn mount(folder: &Path) -> io::Result<Mount> {
    let list = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = choose(&list, &fs::canonicalize(folder)?)
        .ok_or_else(|| io::Error::other("no mount of this folder is listed"))?;
    if ["tmpfs", "ramfs"].contains(&mount.kind.as_str()) {
        let what = format!("{} is in memory ({})", folder.display(), mount.kind);
        return Err(io::Error::other(format!(
            "{what}: choose --folder on a disk"
        )));
    }
    Ok(mount)
}

/// What a page takes that is written to a file and waited for: microseconds, in the middle of so many. The file has the page
/// already, so that it costs the disk no more than the page: stores that commit one after another are hardly faster.
pub(crate) fn page_time(folder: &Path) -> io::Result<f64> {
    const TIMES: usize = 101;
    let path = folder.join("page");
    let file = File::create(&path)?;
    let mut times = Vec::new();
    for number in 0..=TIMES {
        let begin = Instant::now();
        file.write_all_at(&[number as u8; 4096], 0)?;
        file.sync_data()?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    // The first made the file longer.
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(times[TIMES / 2])
}

/// Bytes of pages that this process has changed in files, by calls or through mappings, as the kernel counts them.
pub(crate) fn dirtied() -> Option<u64> {
    let counts = fs::read("/proc/self/io").ok()?;
    let counts = str::from_utf8(&counts).ok()?;
    let count = counts
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    count?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_is_chosen() {
        let list = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
             2 1 0:5 / /var/a\\040b rw shared:7 - tmpfs none rw\n\
             3 1 8:2 / /var rw,nosuid - xfs /dev/b rw\n";
        let kind = |folder: &str| choose(list, Path::new(folder)).map(|mount| mount.kind);
        assert_eq!(kind("/home").as_deref(), Some("ext4"));
        assert_eq!(kind("/var/tmp").as_deref(), Some("xfs"));
        assert_eq!(kind("/variable").as_deref(), Some("ext4"));
        assert_eq!(kind("/var/a b/c").as_deref(), Some("tmpfs"));
    }
}
