//! Without this, those who read a frozen heap could each have a copy of it, or none.

use crate::{expect_refusal, lines, run};

#[test]
fn frozen_refuses_numbers_that_are_none() {
    expect_refusal("frozen", &["--mib", "0"], "--mib");
    expect_refusal("frozen", &["--readers", "many"], "many");
    expect_refusal("frozen", &["--descriptor", "1"], "--descriptor");
}

#[test]
fn frozen_says_that_a_descriptor_is_no_heap() {
    let Some(output) = run("frozen", &["--descriptor", "77"]) else {
        return;
    };
    assert!(lines(&output, 1).is_empty());
}

/// A size in KiB, as the example prints it.
fn kib(count: &str, unit: &str) -> f64 {
    let count: f64 = count.parse().expect("a number");
    count * if unit == "MiB" { 1024.0 } else { 1.0 }
}

#[test]
fn frozen_memory_is_there_once() {
    let Some(output) = run(
        "frozen",
        &["--mib", "32", "--readers", "3", "--lookups", "50000"],
    ) else {
        return;
    };
    let lines = lines(&output, 0);
    let rows: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("reader"))
        .collect();
    assert_eq!(rows.len(), 3, "{lines:?}");
    for row in rows {
        let words: Vec<_> = row.split_whitespace().collect();
        let [_, all, unit, share, unit_of_share] = words[..] else {
            panic!("{row}");
        };
        let (all, share) = (kib(all, unit), kib(share, unit_of_share));
        // All of the table, which four share, and at most 8 MiB of its own.
        assert!(all > f64::from(31 << 10), "{row}");
        assert!(share < f64::from(16 << 10), "{row}");
    }
}
