//! Kind `size`: public programs from the registry, built with each allocator, and the bytes of their machine code.
//!
//! A program is copied from where cargo keeps its sources, with the `Cargo.lock` that it was published with. The
//! allocators are added to its manifest, each behind a feature, and the choice among them to its `main.rs`.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::args::{Plan, Profile};
use crate::interrupt;
use crate::table::Table;

/// A program of the registry.
struct Program {
    name: &'static str,
    version: &'static str,
    /// Its binary, and where that begins.
    binary: &'static str,
    main: &'static str,
}

const PROGRAMS: [Program; 2] = [
    Program {
        name: "ripgrep",
        version: "14.1.1",
        binary: "rg",
        main: "crates/core/main.rs",
    },
    Program {
        name: "tokei",
        version: "15.0.0",
        binary: "tokei",
        main: "src/main.rs",
    },
];

/// An allocator that a program declares by one line.
struct Declared {
    name: &'static str,
    /// Its line in the manifest, behind `crate = `; `{path}` is this repository's folder.
    dependency: &'static str,
    /// Its type, and its value.
    declaration: [&'static str; 2],
}

/// The system's is what a program has that declares none.
const SYSTEM: &str = "system";

/// Not jemalloc: ripgrep names another crate of it, for some targets, and cargo lets no two link one library.
const ALLOCATORS: [Declared; 3] = [
    Declared {
        name: "flagstone",
        dependency: r#"{ path = "{path}", optional = true }"#,
        declaration: ["flagstone::Flagstone", "flagstone::Flagstone::new()"],
    },
    Declared {
        name: "mimalloc",
        dependency: r#"{ version = "=0.1.52", optional = true }"#,
        declaration: ["mimalloc::MiMalloc", "mimalloc::MiMalloc"],
    },
    Declared {
        name: "dlmalloc",
        dependency: r#"{ version = "=0.2.14", features = ["global"], optional = true }"#,
        declaration: ["dlmalloc::GlobalDlmalloc", "dlmalloc::GlobalDlmalloc"],
    },
];

/// The release profile of all of them: the published ones differ.
const PROFILE: &str = "
[profile.release]
opt-level = 3
debug = 0
strip = false
panic = \"unwind\"
";

/// Builds what is asked for and prints one line for each program.
pub(crate) fn measure(plan: &Plan, out: &mut impl Write) -> Result<(), String> {
    let programs: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| program.name.contains(&plan.filter))
        .collect();
    if programs.is_empty() {
        return Err(format!("--filter {}: no program matches", plan.filter));
    }
    let is_named = |name: &str| plan.allocators.iter().any(|found| found.name == name);
    let allocators: Vec<_> = ALLOCATORS
        .iter()
        .filter(|allocator| is_named(allocator.name))
        .collect();
    let folder = folder(plan.profile);
    let sources = match sources(&folder) {
        Ok(sources) => sources,
        Err(reason) => {
            eprintln!("skipped: the programs cannot be had: {reason}");
            return Ok(());
        }
    };
    let mut headings = vec![String::new(), format!("{SYSTEM}, bytes")];
    headings.extend(allocators.iter().map(|found| found.name.to_owned()));
    let mut table = Table::new(headings);
    for program in programs {
        let copy = prepare(program, &sources, &folder)?;
        let plain = text_of(program, None, &copy, plan.profile)?;
        let mut cells = vec![
            format!("{} {}", program.name, program.version),
            plain.to_string(),
        ];
        for allocator in &allocators {
            if interrupt::requested() {
                return Err("interrupted".to_owned());
            }
            cells.push(
                match text_of(program, Some(allocator), &copy, plan.profile) {
                    Ok(bytes) => format!("{:+.1} %", (bytes as f64 / plain as f64 - 1.0) * 100.0),
                    Err(reason) => {
                        eprintln!("skipped {}: {reason}", allocator.name);
                        "-".to_owned()
                    }
                },
            );
        }
        table.add(cells);
    }
    let print = |out: &mut dyn Write| -> io::Result<()> {
        writeln!(out, "Machine code (.text), {}", describe(plan.profile))?;
        writeln!(out)
    };
    print(out)
        .and_then(|()| table.print(out))
        .map_err(|error| format!("standard output cannot be written: {error}"))
}

fn describe(profile: Profile) -> String {
    let lto = profile.lto.map_or("no", |lto| lto.name());
    let units = if profile.lto.is_some() { 1 } else { 16 };
    format!("release, {lto} LTO, codegen-units = {units}")
}

/// Where copies and builds go.
fn folder(profile: Profile) -> PathBuf {
    let base = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    base.join(format!(
        "programs-{}",
        profile.lto.map_or("default", |lto| lto.name())
    ))
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What a cargo call printed, or its first error.
fn run(command: &mut Command) -> Result<Output, String> {
    let output = command
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    let first = messages.lines().find(|line| line.starts_with("error"));
    Err(first.unwrap_or("cargo failed without a message").to_owned())
}

/// Has cargo fetch the programs, and tells the folders where it keeps sources. Of the programs themselves its metadata
/// does not tell, if they have no library.
fn sources(folder: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let fetch = folder.join("fetch");
    let mut manifest = String::from(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n",
    );
    for program in &PROGRAMS {
        let _ = writeln!(manifest, "{} = \"={}\"", program.name, program.version);
    }
    write(&fetch.join("Cargo.toml"), &manifest)?;
    write(&fetch.join("src/lib.rs"), "")?;
    run(cargo().current_dir(&fetch).arg("fetch"))?;
    let output = run(cargo()
        .current_dir(&fetch)
        .args(["metadata", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo's metadata cannot be read: {error}"))?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    Ok(packages
        .iter()
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some(manifest.parent()?.parent()?.to_owned())
        })
        .collect())
}

/// Copies a program and gives it the choice of an allocator; where the copy is.
fn prepare(
    program: &Program,
    sources: &BTreeSet<PathBuf>,
    folder: &Path,
) -> Result<PathBuf, String> {
    let from = sources
        .iter()
        .map(|kept| kept.join(format!("{}-{}", program.name, program.version)))
        .find(|source| source.join("Cargo.toml").exists())
        .ok_or_else(|| format!("{} was not fetched", program.name))?;
    let copy = folder.join(program.name);
    copy_all(&from, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let (mut added, mut choice) = (String::new(), String::new());
    for allocator in &ALLOCATORS {
        let Declared {
            name,
            dependency,
            declaration: [kind, value],
        } = allocator;
        let dependency = dependency.replace("{path}", path);
        // Tables of their own, as the manifest may end in any.
        let fields = dependency.trim_matches(['{', '}', ' ']).replace(", ", "\n");
        let _ = writeln!(added, "\n[dependencies.{name}]\n{fields}");
        let _ = writeln!(
            choice,
            "\n#[cfg(feature = \"{name}\")]\n#[global_allocator]\nstatic ALLOCATOR: {kind} = {value};"
        );
    }
    let manifest = copy.join("Cargo.toml");
    let text = without_profile(&read(&manifest)?);
    write(&manifest, &format!("{text}{added}\n[workspace]\n{PROFILE}"))?;
    let main = copy.join(program.main);
    write(&main, &(read(&main)? + &choice))?;
    Ok(copy)
}

/// A manifest without its own release profile.
fn without_profile(manifest: &str) -> String {
    let mut is_profile = false;
    let mut kept = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_profile = line.starts_with("[profile.release]");
        }
        if !is_profile {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Builds a program over an allocator; the bytes of its machine code.
fn text_of(
    program: &Program,
    allocator: Option<&Declared>,
    copy: &Path,
    profile: Profile,
) -> Result<u64, String> {
    let name = allocator.map_or(SYSTEM, |found| found.name);
    let spinner =
        ProgressBar::new_spinner().with_message(format!("building {} over {name}", program.name));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let target = copy.join("target");
    let mut command = cargo();
    command
        .current_dir(copy)
        .args(["build", "--release", "--quiet", "--color=never", "--bin"])
        .arg(program.binary)
        .arg("--target-dir")
        .arg(&target);
    if let Some(allocator) = allocator {
        command.args(["--features", allocator.name]);
    }
    if let Some(lto) = profile.lto {
        command
            .arg("--config")
            .arg(format!("profile.release.lto=\"{}\"", lto.name()))
            .args(["--config", "profile.release.codegen-units=1"]);
    }
    let built = run(&mut command);
    spinner.finish_and_clear();
    built?;
    let binary =
        target
            .join("release")
            .join(format!("{}{}", program.binary, env::consts::EXE_SUFFIX));
    let bytes = fs::read(&binary).map_err(|error| format!("{}: {error}", binary.display()))?;
    section_size(&bytes, ".text").ok_or_else(|| format!("{} is no ELF file", binary.display()))
}

/// The size of a section of a 64-bit little-endian ELF file.
fn section_size(file: &[u8], wanted: &str) -> Option<u64> {
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(file.get(at..at + bytes)?);
        Some(u64::from_le_bytes(all))
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let place = |at| number(at, 8).and_then(|number| usize::try_from(number).ok());
    let headers = place(0x28)?;
    let (length, count) = (number(0x3a, 2)? as usize, number(0x3c, 2)? as usize);
    let header = |index: usize| headers + index * length;
    let names = place(header(number(0x3e, 2)? as usize) + 0x18)?;
    (0..count).find_map(|index| {
        let name = file.get(names + number(header(index), 4)? as usize..)?;
        let name = name.split(|byte| *byte == 0).next()?;
        if name == wanted.as_bytes() {
            number(header(index) + 0x20, 8)
        } else {
            None
        }
    })
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_loses_its_release_profile_alone() {
        let manifest = "[a]\nb = 1\n[profile.release]\nlto = true\n[profile.release-x]\nc = 2\n";
        assert_eq!(
            without_profile(manifest),
            "[a]\nb = 1\n[profile.release-x]\nc = 2\n"
        );
    }

    #[test]
    #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        target_endian = "little"
    ))]
    fn this_program_has_code() {
        let program = env::current_exe().expect("it runs");
        let bytes = fs::read(program).expect("it is readable");
        let code = section_size(&bytes, ".text").expect("it is an ELF file");
        assert!(code > 1000 && code < bytes.len() as u64);
        assert_eq!(section_size(&bytes, ".no"), None);
        assert_eq!(section_size(&bytes[..100], ".text"), None);
    }
}
