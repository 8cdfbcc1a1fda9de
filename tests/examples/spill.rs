//! Without this, lines could be lost or out of order where runs and blocks end.

use std::fs;
use std::path::Path;

use crate::store::Folder;
use crate::{expect_refusal, program, run, run_with};

/// Runs the example, which is to end with `status`; what it said.
#[track_caller]
fn sort(arguments: &[&str], status: i32) -> (Vec<u8>, String) {
    let output = run("spill", arguments).expect("built");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    (output.stdout, said)
}

#[test]
fn spill_refuses_what_it_cannot_use() {
    expect_refusal("spill", &[], "<FILES>");
    expect_refusal("spill", &["no/such/file"], "no/such/file");
    expect_refusal("spill", &["src"], "src");
    expect_refusal("spill", &["Cargo.toml", "--folder", "no/such"], "no/such");
    expect_refusal(
        "spill",
        &["Cargo.toml", "--folder", "Cargo.toml"],
        "Cargo.toml",
    );
    expect_refusal("spill", &["Cargo.toml", "--generate", "1M"], "--generate");
    expect_refusal("spill", &["--generate", "1X"], "--generate");
    expect_refusal(
        "spill",
        &["--generate", "1M", "--capacity", "64K"],
        "64.0 KiB",
    );
    expect_refusal("spill", &["--generate", "1M", "--run", "1"], "--run");
}

#[test]
fn spill_sorts_as_one_who_has_memory() {
    if program("spill").is_none() {
        return;
    }
    let folder = Folder::new("spill");
    let (one, other) = (folder.path("one"), folder.path("other"));
    // No line, empty ones, bytes that are no text, lines longer than a run and than a block, and none at the end.
    let mut text = Vec::new();
    for number in 0..30_000_u32 {
        let byte = (number.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0].max(11);
        text.extend_from_slice(&[byte].repeat(number as usize % 70));
        text.push(b'\n');
    }
    text.extend_from_slice(&vec![b'x'; 3 << 20]);
    text.push(b'\n');
    text.extend_from_slice(&vec![b'x'; 10_000]);
    fs::write(&one, &text).expect("a file");
    fs::write(&other, "").expect("a file");
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    let mut expected = lines.join(&b'\n');
    expected.push(b'\n');
    for run in ["4K", "100K", "32M"] {
        let arguments = [
            &one,
            &other,
            "--check",
            "--run",
            run,
            "--folder",
            &folder.path(""),
        ];
        let (sorted, said) = sort(&arguments, 0);
        assert!(sorted == expected, "--run {run}");
        assert!(said.contains("30002 lines"), "{said}");
        // Nothing is left in the folder.
        assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 2);
    }
    let piped = run_with("spill", &["/dev/stdin", "--run", "4K"], b"b\n\na").expect("built");
    assert_eq!(piped.stdout, b"\na\nb\n");
}

#[test]
fn spill_makes_lines_up_and_says_when_they_do_not_fit() {
    if program("spill").is_none() {
        return;
    }
    let folder = Folder::new("made-up");
    let path = folder.path("sorted");
    let made_up = [
        "--generate",
        "2M",
        "--run",
        "64K",
        "--check",
        "--output",
        &path,
    ];
    let (out, said) = sort(&made_up, 0);
    assert!(out.is_empty() && said.contains(", in order"), "{said}");
    let sorted = fs::read(&path).expect("a file");
    assert_eq!(sorted.len(), 2 << 20);
    assert!(sorted.split(|byte| *byte == b'\n').take(20_000).is_sorted());
    let (out, said) = sort(&["--generate", "20M", "--run", "1M", "--capacity", "8M"], 1);
    assert!(out.is_empty() && said.contains("no room"), "{said}");
    if Path::new("/dev/full").exists() {
        let (_, said) = sort(&["--generate", "1M", "--output", "/dev/full"], 1);
        assert!(said.contains("cannot write"), "{said}");
    }
}
