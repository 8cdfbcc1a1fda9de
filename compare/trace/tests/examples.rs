//! The recorded programs and their traces: without this nobody would notice that a program cannot be
//! recorded any more, or that a trace in the repository cannot be replayed.

mod common;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use trace::{Summary, Trace};

const PROGRAMS: [(&str, usize); 3] = [("rust_sources", 1), ("doc_site", 1), ("search_server", 6)];

/// What the standard library never frees: the main thread's handle, buffers of standard output.
const END_LIVE_BYTES: u64 = 16 << 10;

/// Beside the folder of this test's binary.
fn example(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).ok_or("the test has no folder")?;
    let path = folder.join("examples").join(name);
    assert!(
        path.is_file(),
        "no {}: cargo test --examples first",
        path.display()
    );
    Ok(path)
}

/// A small input in the form of the repository.
fn input(folder: &Path) -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(folder.join("src"))?;
    for name in ["op.rs", "mapped.rs"] {
        fs::copy(here.join("src").join(name), folder.join("src").join(name))?;
    }
    for name in ["README.md", "ALGORITHM.md", "CHANGELOG.md"] {
        fs::copy(here.join("../traces/README.md"), folder.join(name))?;
    }
    Ok(())
}

#[test]
fn programs_are_recorded_packed_and_replayed() -> Result<(), Box<dyn Error>> {
    for (name, threads) in PROGRAMS {
        let folder = tempfile::tempdir()?;
        input(folder.path())?;
        let raw = folder.path().join("recording.raw");
        let output = Command::new(example(name)?)
            .arg(folder.path())
            .env("ALLOC_TRACE", &raw)
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{name}: {errors}"
        );
        let trace = common::pack(&raw)?;
        assert_eq!(trace.threads(), threads, "{name}");
        assert!(trace.ops().len() > 1000, "{name}");
        assert!(trace.end_live_bytes() < END_LIVE_BYTES, "{name}");
        common::replay(&trace);
        let summary = Summary::of(&trace);
        assert_eq!(summary.foreign_frees > 0, threads > 1, "{name}");
    }
    Ok(())
}

#[test]
fn traces_of_the_repository_can_be_replayed() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    for (name, threads) in PROGRAMS {
        let path = folder.join(name).with_extension("trace");
        assert!(
            fs::metadata(&path)?.len() <= 300 << 10,
            "{name} is too long"
        );
        let trace = Trace::open(&path)?;
        assert_eq!(trace.threads(), threads, "{name}");
        assert!(trace.end_live_bytes() < END_LIVE_BYTES, "{name}");
        common::replay(&trace);
        let output = Command::new(env!("CARGO_BIN_EXE_trace"))
            .arg("info")
            .arg(&path)
            .output()?;
        let report = String::from_utf8_lossy(&output.stdout);
        let first = report.split_whitespace().nth(1);
        assert_eq!(
            first,
            Some(trace.ops().len().to_string().as_str()),
            "{report}"
        );
    }
    Ok(())
}
