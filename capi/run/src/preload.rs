//! Which library is preloaded, and into what.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

const NAME: &str = "libflagstone.so";
/// Names the callers of sampled blocks.
const UNWINDER: &str = "libgcc_s.so.1";

/// The library: the one named, or the one beside this program, as it is built, or in `../lib`, as it is
/// installed.
pub(crate) fn library(named: Option<&Path>) -> Result<PathBuf> {
    let found = match named {
        Some(path) => path.to_owned(),
        None => {
            let own = std::env::current_exe().context("where this program is")?;
            let folder = own.parent().context("where this program is")?;
            let places = [folder.join(NAME), folder.join("../lib").join(NAME)];
            let found = places.into_iter().find(|place| place.is_file());
            found.with_context(|| {
                format!("no {NAME} beside {}: build it by `cargo build --release` in capi/, or name it by --library", own.display())
            })?
        }
    };
    let path = found
        .canonicalize()
        .with_context(|| found.display().to_string())?;
    if !path.is_file() {
        bail!("{} is no file", path.display());
    }
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| matches!(byte, b' ' | b':' | b'$'))
    {
        bail!(
            "{}: the loader preloads no path with a space, a colon or a dollar",
            path.display()
        );
    }
    Ok(path)
}

/// `LD_PRELOAD`: the library in front of what was there.
pub(crate) fn list(library: &Path, samples: bool) -> Result<OsString> {
    let mut list = library.as_os_str().to_owned();
    if samples {
        list.push(":");
        list.push(UNWINDER);
    }
    if let Some(before) = std::env::var_os("LD_PRELOAD").filter(|before| !before.is_empty()) {
        list.push(":");
        list.push(before);
    }
    Ok(list)
}

/// Why the loader will not preload anything into `program`, if that is so and can be told.
pub(crate) fn unaffected(program: &OsStr) -> Option<&'static str> {
    let path = on_path(program)?;
    let about = fs::metadata(&path).ok()?;
    // SAFETY: 1. no precondition, here and below.
    let others_user = about.uid() != unsafe { libc::getuid() };
    // SAFETY: 1. as above.
    let others_group = about.gid() != unsafe { libc::getgid() };
    let mode = about.permissions().mode();
    if (mode & libc::S_ISUID != 0 && others_user) || (mode & libc::S_ISGID != 0 && others_group) {
        return Some("runs with raised privileges");
    }
    let file = ReadCache::new(fs::File::open(&path).ok()?);
    let header = elf::FileHeader64::<object::Endianness>::parse(&file).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, &file).ok()?;
    let is_dynamic = segments
        .iter()
        .any(|segment| segment.p_type(endian) == elf::PT_INTERP);
    (!is_dynamic).then_some("is linked statically")
}

fn on_path(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let can_run = |place: &PathBuf| {
        fs::metadata(place)
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(can_run)
}
