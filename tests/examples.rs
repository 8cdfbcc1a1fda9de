//! Without this, a wrong command line could end an example with success or with a panic.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs an example, or tells why it cannot: cargo builds the examples for `cargo test`, not for
/// `cargo test --test examples`.
fn run(name: &str, arguments: &[&str]) -> Option<Output> {
    let test = env::current_exe().expect("the path of this test");
    // `<target>/debug/deps/examples-…` stands beside `<target>/debug/examples/`.
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("the folder of this profile");
    let example: PathBuf = profile.join("examples").join(name);
    if !example.exists() {
        println!("skipped: {} is not built", example.display());
        return None;
    }
    Some(
        Command::new(example)
            .args(arguments)
            .output()
            .expect("the example starts"),
    )
}

#[track_caller]
fn expect_refusal(name: &str, arguments: &[&str], words: &str) {
    let Some(output) = run(name, arguments) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{name} {arguments:?}: {output:?}"
    );
    assert!(
        said.contains(words),
        "{name} {arguments:?} does not say {words:?}: {said}"
    );
    assert!(!said.contains("panicked"), "{name} {arguments:?}: {said}");
}

#[test]
fn index_refuses_a_missing_folder() {
    expect_refusal("index", &["no/such/folder"], "no/such/folder");
}

#[test]
fn index_refuses_an_unknown_option() {
    expect_refusal("index", &["--no-such-option"], "--no-such-option");
}

#[test]
fn stress_refuses_an_unknown_option() {
    expect_refusal("stress", &["--no-such-option"], "--no-such-option");
}

#[test]
fn stress_refuses_a_number_that_is_none() {
    expect_refusal("stress", &["--threads", "many"], "many");
}
