//! Which library is preloaded, and into what.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::elf;
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
        .any(|byte| matches!(byte, b' ' | b':'))
    {
        bail!(
            "{}: the loader preloads no path with a space or a colon",
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

/// Why the loader will not preload anything into `program`, if that is so.
pub(crate) fn unaffected(program: &OsStr) -> Option<&'static str> {
    let path = on_path(program)?;
    let mode = fs::metadata(&path).ok()?.permissions().mode();
    if mode & 0o6000 != 0 {
        return Some("runs with raised privileges");
    }
    let bytes = fs::read(&path).ok()?;
    let header = elf::FileHeader64::<object::Endianness>::parse(&*bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, &*bytes).ok()?;
    let is_dynamic = segments
        .iter()
        .any(|segment| segment.p_type(endian) == elf::PT_INTERP);
    (!is_dynamic).then_some("is linked statically")
}

fn on_path(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|place| place.is_file())
}
