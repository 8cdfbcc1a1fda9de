//! Without this, a durable store could lose what was committed, or keep a part of what was not.

use core::time::Duration;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use crate::store::{Folder, count, expect};
use crate::{expect_refusal, lines, program, run, run_with};

/// What `batch` says on stderr of these lines, if it ends with `status`.
#[track_caller]
fn batch(path: &str, input: &str, status: i32) -> String {
    let output = run_with("store", &[path, "batch"], input.as_bytes()).expect("built");
    assert!(lines(&output, status).is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into()
}

#[test]
fn durable_store_does_what_it_is_told() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("durable");
    let path = folder.path("store");
    expect(&path, &["--durable", "set", "b", "1"], 0);
    // Once it is made, it need not be said.
    expect(&path, &["set", "a", "-2"], 0);
    expect(&path, &["set", "b", "3"], 0);
    assert_eq!(expect(&path, &["get", "b"], 0), ["3"]);
    expect(&path, &["delete", "b"], 0);
    expect(&path, &["delete", "b"], 1);
    let file = folder.path("lines");
    fs::write(&file, "c\tx\ty\nd\t\nnonsense\ne\tz\n").expect("a file");
    expect(&path, &["load", &file, "--batch", "3"], 1);
    assert_eq!(expect(&path, &["list"], 0), ["a\t-2", "c\tx\ty", "d\t"]);
    expect(&path, &["fill", "1001", "--batch", "100"], 0);
    assert_eq!(count(&path), 1004);
    let said = expect(&path, &["check"], 0);
    assert!(
        said[0].starts_with("1004 records") && said[0].ends_with("durable"),
        "{said:?}"
    );
}

/// All lines of a batch count, or none.
#[test]
fn durable_store_takes_a_batch_whole() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("batch");
    let path = folder.path("store");
    // One that makes the store, too.
    batch(&path, "set\ta\t1\nset\tb\t\nset\tc\tx\ty\n", 0);
    let before = ["a\t1", "b\t", "c\tx\ty"];
    assert_eq!(expect(&path, &["list"], 0), before);
    for wrong in [
        "delete\tnobody",
        "nonsense",
        "",
        "set\td",
        "set\t\tvalue",
        "delete\t",
    ] {
        let said = batch(&path, &format!("set\ta\t2\ndelete\tb\n{wrong}\n"), 1);
        assert!(
            said.contains("line 3: ") && said.contains("nothing was changed"),
            "{wrong:?}: {said}"
        );
        assert_eq!(expect(&path, &["list"], 0), before, "{wrong:?}");
    }
    batch(&path, "", 0);
    batch(&path, "set\ta\t2\ndelete\tb\nset\tb\t3\ndelete\tc", 0);
    assert_eq!(expect(&path, &["list"], 0), ["a\t2", "b\t3"]);
    assert!(expect(&path, &["check"], 0)[0].starts_with("2 records"));
}

/// A batch that has no room is none.
#[test]
fn durable_store_that_is_full_stays_what_it_was() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("full-durable");
    let path = folder.path("store");
    let fill = ["--durable", "--capacity", "2M", "fill", "100000"];
    expect(&path, &fill, 1);
    let full = count(&path);
    assert!(full > 1_000, "{full}");
    let line = |number: u32| format!("set\tkey-{number}\t{}\n", "v".repeat(1_000));
    let lines: String = (0..1_000).map(line).collect();
    let said = batch(&path, &lines, 1);
    assert!(said.contains("no room"), "{said}");
    assert_eq!(count(&path), full);
    let found = expect(&path, &["list"], 0);
    let key = |line: &String| {
        line.split_once('\t')
            .map(|(key, _)| format!("delete\t{key}"))
    };
    let lines: Vec<_> = found.iter().filter_map(key).collect();
    batch(&path, &lines.join("\n"), 0);
    assert_eq!(count(&path), 0);
    expect(&path, &["set", "there", "is room"], 0);
    expect(&path, &["check"], 0);
}

/// One whose disk is full: what is in the store then is what was committed before.
#[test]
fn durable_store_on_a_full_disk_stays_what_it_was() {
    let Some(program) = program("store") else {
        return;
    };
    let folder = Folder::new("full-disk");
    let steps = r#"
        mount -t tmpfs -o size=6m none "$1" || exit 77
        store() { "$0" "$@"; echo "ended with $?"; }
        store "$1/store" --durable fill 500
        store "$1/store" fill 100000 --batch 100000
        store "$1/store" count
        store "$1/store" set there 'is room'
        store "$1/store" check
    "#;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", steps]);
    command
        .arg(program)
        .arg(folder.path(""))
        .stderr(Stdio::null());
    let Ok(output) = command.output() else {
        return println!("skipped: no `unshare`");
    };
    if !output.status.success() {
        return println!("skipped: no disk of its own can be had: {output:?}");
    }
    let said = lines(&output, 0);
    let ended = ["ended with 0", "ended with 1"];
    let [first, second, count, third, fourth, check, last] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(
        [first, second, third, fourth, last].map(|end| &end[..]),
        [ended[0], ended[1], ended[0], ended[0], ended[0]]
    );
    assert_eq!(count, "500");
    assert!(check.starts_with("501 records"), "{check}");
}

#[test]
fn durable_store_is_killed_between_batches_alone() {
    let Some(program) = program("store") else {
        return;
    };
    let folder = Folder::new("kills-durable");
    let path = folder.path("store");
    expect(&path, &["--durable", "fill", "100"], 0);
    let mut before = 100;
    for round in 0..20_u64 {
        let mut command = Command::new(&program);
        command.args([&path, "fill", "100000000", "--batch", "100"]);
        let mut child = command.stderr(Stdio::null()).spawn().expect("a process");
        thread::sleep(Duration::from_millis(10 + 7 * round % 40));
        child.kill().expect("a process to kill");
        child.wait().expect("a process that ends");
        let now = count(&path);
        assert!(
            now >= before && now.is_multiple_of(100),
            "round {round}: {now} after {before}"
        );
        before = now;
    }
    assert!(before > 100, "{before}");
    let said = expect(&path, &["check"], 0);
    assert!(
        said[0].starts_with(&format!("{before} records")),
        "{said:?}"
    );
}

/// Another finds the store in use, or waits for it.
#[test]
fn durable_store_is_one_process_s() {
    let Some(program) = program("store") else {
        return;
    };
    let folder = Folder::new("in-use");
    let path = folder.path("store");
    expect(&path, &["--durable", "set", "a", "b"], 0);
    let mut first = Command::new(&program);
    first.args([&path, "fill", "100000000"]);
    let mut first = first.stderr(Stdio::null()).spawn().expect("a process");
    // Once it has it: until then each finds the store free.
    let is_taken =
        || run("store", &[&path, "get", "a"]).is_some_and(|output| !output.status.success());
    assert!((0..1_000).any(|_| is_taken()), "nobody has it");
    expect_refusal("store", &[&path, "get", "a"], "--wait");
    expect_refusal(
        "store",
        &[&path, "--durable", "set", "a", "c"],
        "another process",
    );
    let mut second = Command::new(&program);
    second.args([&path, "--wait", "100", "get", "a"]);
    let second = second.stdout(Stdio::piped()).spawn().expect("a process");
    first.kill().expect("a process to kill");
    first.wait().expect("a process that ends");
    let output = second.wait_with_output().expect("the example ends");
    assert_eq!(lines(&output, 0), ["b"]);
}

#[test]
fn durable_store_is_no_other() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("kinds");
    let path = folder.path("store");
    expect(&path, &["set", "a", "b"], 0);
    expect_refusal(
        "store",
        &[&path, "--durable", "set", "a", "c"],
        "not durable",
    );
    expect_refusal("store", &[&path, "batch"], "not durable");
    expect_refusal("store", &[&path, "fill", "9", "--batch", "3"], "durable");
    expect_refusal("store", &[&path, "torture"], "there already");
    expect_refusal("store", &[&path, "torture", "0"], "0");
    expect_refusal("store", &[&path, "fill", "9", "--batch", "0"], "--batch");
    expect_refusal("store", &[&path, "get", "a", "--wait", "long"], "--wait");
    let nowhere = folder.path("no/store");
    expect_refusal("store", &[&nowhere, "torture"], "folder");
    expect_refusal("store", &[&nowhere, "--durable", "set", "a", "b"], "folder");
    assert_eq!(expect(&path, &["list"], 0), ["a\tb"]);
}

/// What it checks is its own: that it ends with success, after kills, says it all.
#[test]
fn torture_loses_nothing() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("torture");
    let path = folder.path("store");
    let said = expect(&path, &["torture", "1"], 0);
    let [line] = &said[..] else {
        panic!("{said:?}");
    };
    let (kills, _) = line.split_once(" kills").expect("kills");
    assert!(kills.parse().is_ok_and(|kills: u64| kills > 0), "{line}");
    assert!(fs::metadata(&path).is_err(), "the store is still there");
}

/// It says so if something is lost: here, as somebody took the store away and left an older one.
#[test]
fn torture_says_what_is_lost() {
    let Some(program) = program("store") else {
        return;
    };
    let folder = Folder::new("lost");
    let [path, other, copy] = ["store", "other", "copy"].map(|name| folder.path(name));
    let set = ["--durable", "--capacity", "2M", "set", "batch", "1000000"];
    expect(&other, &set, 0);
    let mut command = Command::new(program);
    command.args([&path, "torture", "60"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    while child.try_wait().expect("a process").is_none() {
        if fs::metadata(&path).is_ok() {
            // Again and again: what is there before the first is killed goes.
            fs::copy(&other, &copy).expect("room");
            fs::rename(&copy, &path).expect("a file");
        }
        thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().expect("the example ends");
    assert!(lines(&output, 1).is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1000000") && said.contains("stays"), "{said}");
    assert!(fs::metadata(&path).is_ok(), "the store is gone");
}
