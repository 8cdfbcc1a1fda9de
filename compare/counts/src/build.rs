//! Building the programs. Both trees are laid out and built at the same place, one after the other:
//! the path of a crate is part of its symbols, and they decide how its code is split and what is
//! inlined.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::args::Lto;
use crate::error::Error;
use crate::trees::{Repository, Tree};

/// The package, and the binary in it.
const PACKAGE: &str = "with-flagstone_seeded";

/// Where everything goes that a run leaves behind.
pub(crate) struct Folders {
    base: PathBuf,
    lto: Option<Lto>,
}

impl Folders {
    pub(crate) fn new(lto: Option<Lto>) -> Result<Self, Error> {
        let beside = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| beside.into(), PathBuf::from);
        let base = target.join("counts");
        fs::create_dir_all(&base).map_err(Error::file(&base))?;
        let base = base.canonicalize().map_err(Error::file(&base))?;
        Ok(Self { base, lto })
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.base.join("lock")
    }

    /// An index to make trees with.
    pub(crate) fn scratch_index(&self) -> PathBuf {
        self.base.join("scratch-index")
    }

    /// An empty folder: what valgrind would read from where it is started is not there.
    pub(crate) fn outputs(&self) -> Result<PathBuf, Error> {
        let folder = self.base.join("out");
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        Ok(folder)
    }

    fn target(&self) -> PathBuf {
        let profile = self.lto.map_or("default", Lto::name);
        self.base.join(format!("target-{profile}"))
    }
}

/// A program that is ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    /// `this` or `that`: of the same length, as a path on the stack moves what lies below it.
    pub(crate) tree: &'static str,
    pub(crate) binary: PathBuf,
}

/// Builds the rows over the allocator in `tree`.
pub(crate) fn program(
    repository: &Repository,
    folders: &Folders,
    name: &'static str,
    tree: &Tree,
) -> Result<Program, Error> {
    let laid = folders.base.join("tree");
    repository.lay(tree, &laid, &folders.base.join("index"))?;
    let spinner = ProgressBar::new_spinner().with_message(format!("building {name} tree"));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let target = folders.target();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(laid.join("compare"))
        .args([
            "build",
            "--release",
            "--quiet",
            "--color=never",
            "-p",
            PACKAGE,
        ])
        .arg("--target-dir")
        .arg(&target);
    if let Some(lto) = folders.lto {
        cargo.arg("--config");
        cargo.arg(format!("profile.release.lto=\"{}\"", lto.name()));
    }
    let output = cargo.output();
    spinner.finish_and_clear();
    let output = output.map_err(Error::NoCargo)?;
    if !output.status.success() {
        let log = folders.base.join(format!("{name}.log"));
        fs::write(&log, &output.stderr).map_err(Error::file(&log))?;
        let first = first_error(&String::from_utf8_lossy(&output.stderr));
        return Err(Error::Build {
            tree: name,
            first,
            log,
        });
    }
    // The next tree's program takes its place.
    let binary = folders.base.join(name);
    fs::copy(target.join("release").join(PACKAGE), &binary).map_err(Error::file(&binary))?;
    Ok(Program { tree: name, binary })
}

/// What cargo complains about first.
fn first_error(messages: &str) -> String {
    messages
        .lines()
        .find(|line| line.starts_with("error"))
        .or_else(|| messages.lines().next())
        .unwrap_or("cargo failed without a message")
        .to_owned()
}
