//! Without this, a kill could cost the example of a store more than the record that was on its way.

use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::{env, thread};

use crate::{expect_refusal, lines, program, run};

/// Where a heap's file has the number of the boot in which it was in use.
const BOOT: usize = 64;

/// A folder that goes with this.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// In memory, where there is such a folder: to close a store waits for its disk.
    pub(crate) fn new(name: &str) -> Self {
        let memory = PathBuf::from("/dev/shm");
        Self::below(
            if memory.is_dir() {
                memory
            } else {
                env::temp_dir()
            },
            name,
        )
    }

    fn below(parent: PathBuf, name: &str) -> Self {
        let folder = parent.join(format!("flagstone-example-{name}-{}", process::id()));
        fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    /// The path of a file there.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.0.join(name);
        path.to_str().expect("UTF-8").into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a command on a store prints, if it ends with `status`.
#[track_caller]
pub(crate) fn expect(path: &str, command: &[&str], status: i32) -> Vec<String> {
    let arguments = [&[path], command].concat();
    lines(&run("store", &arguments).expect("built"), status)
}

/// A store that sets random keys.
fn filler(path: &str) -> Child {
    let program = program("store").expect("built");
    let mut command = Command::new(program);
    command.args([path, "fill", "100000000"]);
    command.stderr(Stdio::null()).spawn().expect("a process")
}

pub(crate) fn count(path: &str) -> u64 {
    let lines = expect(path, &["count"], 0);
    lines[0].parse().expect("a number")
}

#[test]
fn store_refuses_what_is_none() {
    let folder = Folder::new("refused");
    let text = folder.path("text");
    fs::write(&text, "no heap\n".repeat(100_000)).expect("a file");
    let fresh = folder.path("fresh");
    expect_refusal("store", &[&text, "count"], "no store");
    expect_refusal("store", &[&text, "set", "a", "b"], "no store");
    expect_refusal("store", &[&fresh, "get", "a"], "no store");
    expect_refusal(
        "store",
        &[&folder.path("no/file"), "set", "a", "b"],
        "folder",
    );
    expect_refusal("store", &[&fresh, "set", "a\tb", "c"], "tab");
    expect_refusal(
        "store",
        &[&fresh, "set", "a", "b", "--capacity", "1"],
        "256K",
    );
    expect_refusal(
        "store",
        &[&fresh, "set", "a", "b", "--capacity", "x"],
        "--capacity",
    );
    expect_refusal("store", &[&fresh, "nonsense"], "nonsense");
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 1);
}

#[test]
fn store_does_what_it_is_told() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("store");
    let path = folder.path("store");
    expect(&path, &["set", "b", "1"], 0);
    expect(&path, &["set", "a", "-2"], 0);
    expect(&path, &["set", "b", "3"], 0);
    assert_eq!(expect(&path, &["get", "b"], 0), ["3"]);
    assert_eq!(expect(&path, &["list"], 0), ["a\t-2", "b\t3"]);
    assert_eq!(expect(&path, &["list", "b"], 0), ["b\t3"]);
    expect(&path, &["delete", "b"], 0);
    expect(&path, &["delete", "b"], 1);
    expect(&path, &["get", "b"], 1);
    let file = folder.path("lines");
    fs::write(&file, "c\tx\ty\nd\t\nnonsense\ne\tz\n").expect("a file");
    expect(&path, &["load", &file], 1);
    assert_eq!(expect(&path, &["list"], 0), ["a\t-2", "c\tx\ty", "d\t"]);
    assert_eq!(count(&path), 3);
    assert!(expect(&path, &["check"], 0)[0].starts_with("3 records"));
}

/// One that is full says so, and goes on.
#[test]
fn store_that_is_full_gives_room_back() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("full");
    let path = folder.path("store");
    expect(&path, &["--capacity", "2M", "fill", "100000"], 1);
    let full = count(&path);
    assert!(full > 1_000, "{full}");
    for line in expect(&path, &["list", "fill-"], 0).iter().take(3) {
        let (key, value) = line.split_once('\t').expect("a tab");
        expect(&path, &["delete", key], 0);
        // What has just left has room for the same again.
        expect(&path, &["set", key, value], 0);
    }
    expect(&path, &["check"], 0);
    assert_eq!(count(&path), full);
}

/// Two fill a store, and are killed one after the other while the test counts.
#[test]
fn store_loses_nothing_when_it_is_killed() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("kills");
    let path = folder.path("store");
    expect(&path, &["set", "kept", "for ever"], 0);
    let mut before = 1;
    for round in 0..20_u64 {
        let mut two = [filler(&path), filler(&path)];
        thread::sleep(Duration::from_millis(10 + 3 * round % 20));
        for child in &mut two {
            child.kill().expect("a process to kill");
            child.wait().expect("a process that ends");
            let now = count(&path);
            assert!(now >= before, "round {round}: {now} of {before}");
            before = now;
        }
        let said = expect(&path, &["check"], 0);
        assert!(
            said[0].starts_with(&format!("{before} records")),
            "{said:?}"
        );
    }
    assert!(before > 20, "{before}");
    assert_eq!(expect(&path, &["get", "kept"], 0), ["for ever"]);
}

#[test]
fn stores_at_once_see_each_other() {
    let Some(program) = program("store") else {
        return;
    };
    let folder = Folder::new("two");
    let path = folder.path("store");
    let fill = |_| {
        let mut command = Command::new(&program);
        command
            .args([&path, "fill", "2000"])
            .spawn()
            .expect("a process")
    };
    // Both may make it.
    for mut child in [0, 1].map(fill) {
        assert!(child.wait().expect("a process that ends").success());
    }
    assert_eq!(count(&path), 4000);
    expect(&path, &["check"], 0);
}

/// Has a store look as if it was in use before the machine's last start.
fn goes_down(path: &str) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[BOOT..BOOT + 8].fill(7);
    fs::write(path, bytes).expect("a file");
}

/// A machine that went down leaves the number of its last boot, and here a record that is not whole.
#[test]
fn store_of_a_machine_that_went_down_is_opened_on_purpose() {
    if program("store").is_none() {
        return;
    }
    let folder = Folder::new("dirty");
    let path = folder.path("store");
    for key in ["one", "two", "three", "four"] {
        expect(
            &path,
            &["--capacity", "4M", "set", key, "what is stored"],
            0,
        );
    }
    let went_down = || goes_down(&path);
    went_down();
    expect_refusal("store", &[&path, "count"], "--may-be-dirty");
    let said = expect(&path, &["--may-be-dirty", "check"], 0);
    assert!(said[0].starts_with("4 records"), "{said:?}");
    let bytes = fs::read(&path).expect("a file");
    let place = bytes
        .windows(17)
        .position(|part| part == b"twowhat is stored");
    let file = File::options().write(true).open(&path).expect("a file");
    file.write_all_at(b"X", place.expect("the record") as u64 + 3)
        .expect("room");
    drop(file);
    went_down();
    let said = expect(&path, &["--may-be-dirty", "check"], 0);
    // The newest are found first.
    assert!(said[0].starts_with("2 records"), "{said:?}");
    assert_eq!(
        expect(&path, &["list"], 0),
        ["four\twhat is stored", "three\twhat is stored"]
    );
}

/// Who looks at such a store may be killed before it has mended it: the next does so.
#[test]
fn store_of_a_machine_that_went_down_is_mended_before_it_is_used() {
    let Some(program) = program("store") else {
        return;
    };
    // On a disk, which takes its time between what is to be told apart here.
    let folder = Folder::below(env::temp_dir(), "mended");
    let path = folder.path("store");
    for key in ["one", "two", "three", "four"] {
        expect(
            &path,
            &["--capacity", "4M", "set", key, "what is stored"],
            0,
        );
    }
    goes_down(&path);
    let mut bytes = fs::read(&path).expect("a file");
    let place = bytes
        .windows(17)
        .position(|part| part == b"twowhat is stored");
    bytes[place.expect("the record") + 3] = b'X';
    for round in 0..30 {
        fs::write(&path, &bytes).expect("a file");
        let mut command = Command::new(&program);
        command.args([&path, "--may-be-dirty", "count"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a process");
        thread::sleep(Duration::from_micros(500 + 200 * round));
        child.kill().expect("a process to kill");
        child.wait().expect("a process that ends");
        let output = run("store", &[&path, "check"]).expect("built");
        if output.status.code() == Some(2) {
            // It did not come that far.
            continue;
        }
        let said = lines(&output, 0);
        assert!(said[0].starts_with("2 records"), "round {round}: {said:?}");
    }
}
