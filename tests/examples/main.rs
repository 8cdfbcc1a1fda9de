//! Without this, a wrong command line could end an example with success or with a panic, and the
//! examples of heaps could refuse what they should not, or the other way round.

mod frozen;
mod spill;
mod store;
mod store_durable;
mod warm;

use std::env;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program of an example. None if there is none: cargo builds the examples for `cargo test`, not
/// for `cargo test --test examples`.
fn program(name: &str) -> Option<PathBuf> {
    let test = env::current_exe().expect("the path of this test");
    // `<target>/debug/deps/examples-…` stands beside `<target>/debug/examples/`.
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("the folder of this profile");
    let example = profile.join("examples").join(name);
    if !example.exists() {
        println!("skipped: {} is not built", example.display());
        return None;
    }
    Some(example)
}

/// Runs an example, or tells why it cannot.
fn run(name: &str, arguments: &[&str]) -> Option<Output> {
    run_with(name, arguments, b"")
}

/// The same, with something on stdin.
fn run_with(name: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut child = Command::new(program(name)?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // An example that reads nothing may have ended, and what little there is fits the pipe.
    let _ = stdin.write_all(input);
    drop(stdin);
    Some(child.wait_with_output().expect("the example ends"))
}

/// The lines of stdout, if the example ended with `status` and said nothing of a panic.
#[track_caller]
fn lines(output: &Output, status: i32) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(!said.contains("panicked"), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    printed.lines().map(String::from).collect()
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

#[test]
fn request_heap_refuses_an_address_that_is_none() {
    expect_refusal("request_heap", &["--listen", "nowhere"], "nowhere");
    expect_refusal("request_heap", &["--load", "0"], "--load");
}

#[test]
fn request_heap_says_that_a_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let Some(output) = run("request_heap", &["--listen", &address]) else {
        return;
    };
    assert!(lines(&output, 1).is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.lines().count() == 1 && said.contains(&address),
        "{said}"
    );
}

/// The program checks each answer itself: that this one ends with success says it all.
#[test]
fn request_heap_refuses_what_is_too_large_and_nothing_else() {
    for limit in ["128", "256", "2048"] {
        let arguments = ["--load", "160", "--limit", limit, "--clients", "3"];
        let Some(output) = run("request_heap", &arguments) else {
            return;
        };
        let lines = lines(&output, 0);
        let has = |words: &str| lines.iter().any(|line| line.contains(words));
        assert!(has("60 of 60 that were too large"), "{lines:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn shared_refuses_what_is_not_there() {
    expect_refusal("shared", &["no/such/folder"], "no/such/folder");
    expect_refusal("shared", &["--workers", "0", "src"], "--workers");
}

#[test]
fn shared_counts_what_one_process_counts() {
    let counted = ["1", "3"].map(|workers| run("shared", &["--workers", workers, "docs"]));
    let [Some(one), Some(three)] = counted else {
        return;
    };
    let (one, three) = (lines(&one, 0), lines(&three, 0));
    assert_eq!((one.len(), &one[..10]), (11, &three[..10]));
}

#[test]
fn passed_answers_each_question() {
    expect_refusal("passed", &["--count", "none"], "none");
    let Some(output) = run("passed", &["--count", "1000"]) else {
        return;
    };
    let lines = lines(&output, 0);
    assert!(
        lines.len() == 2 && lines[1].contains(" 0 bytes live"),
        "{lines:?}"
    );
}

#[test]
fn tenants_refuses_a_number_that_is_none() {
    expect_refusal("tenants", &["--demo", "many"], "many");
}

/// The entries, the refusals and the name in a line of a table; `None` for any other line.
fn row(line: &str) -> Option<(u64, u64, &str)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [entries, .., refused, name] = words[..] else {
        return None;
    };
    Some((entries.parse().ok()?, refused.parse().ok()?, name))
}

fn rows(lines: &[String]) -> Vec<(u64, u64, &str)> {
    lines.iter().filter_map(|line| row(line)).collect()
}

#[test]
fn tenants_refuses_one_that_is_full_and_no_other() {
    let mut input = String::from("small color red and blue\n");
    for number in 0..1_000 {
        input += &format!("large key{number} {}\n", "v".repeat(50));
    }
    input += "small color green\nsmall size 7\n";
    let Some(output) = run_with("tenants", &["--limit", "32"], input.as_bytes()) else {
        return;
    };
    let lines = lines(&output, 0);
    let rows = rows(&lines);
    // Who holds the most comes first.
    let [(entries, refused, "large"), (2, 0, "small")] = rows[..] else {
        panic!("{lines:?}");
    };
    assert!(entries > 50 && entries + refused == 1_000, "{lines:?}");
}

#[test]
fn tenants_forgets_one_that_is_dropped() {
    let input = b"a x 1\nb x 1\nb y 2\nlist\ndrop b\nlist\nb z 3\n";
    let Some(output) = run_with("tenants", &[], input) else {
        return;
    };
    let lines = lines(&output, 0);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("dropped b: 2 entries")),
        "{lines:?}"
    );
    let mut found = rows(&lines);
    found.sort_unstable();
    let mut expected = [
        (1, 0, "a"),
        (2, 0, "b"),
        (1, 0, "a"),
        (1, 0, "a"),
        (1, 0, "b"),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected, "{lines:?}");
}

#[test]
fn tenants_names_a_line_that_makes_no_sense_and_goes_on() {
    let Some(output) = run_with("tenants", &[], b"nonsense\ndrop nobody\na x 1\n") else {
        return;
    };
    let lines = lines(&output, 1);
    assert_eq!(rows(&lines), [(1, 0, "a")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("line 1: ") && said.contains("\"nobody\""),
        "{said}"
    );
}

#[test]
fn tenants_makes_up_lines() {
    let Some(output) = run("tenants", &["--demo", "20000"]) else {
        return;
    };
    let lines = lines(&output, 0);
    // All eight of them, and seven when one has left.
    assert_eq!(rows(&lines).len(), 15, "{lines:?}");
    assert!(rows(&lines).iter().any(|row| row.1 > 0), "{lines:?}");
}
