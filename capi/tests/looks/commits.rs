//! Heaps that commit.

use std::env;
use std::process::Command;

use engine::Committed;
use engine::mapped::Mutex;

use crate::{ended, text};

/// Says where a child of this program is to leave a heap.
const CHILD: &str = "COMMITS_OF_CHILD";

fn make(path: &str) -> Committed {
    let heap = Committed::options().capacity(8 << 20).create(path);
    let heap = heap.expect("a heap");
    heap.insert("visits", Mutex::new(7_u32)).expect("room");
    // SAFETY: nobody else uses it.
    unsafe { heap.commit() }.expect("room");
    heap
}

/// Ends without closing the heap, which has a commit in its log alone.
#[test]
fn child() {
    if let Ok(path) = env::var(CHILD) {
        make(&path);
    }
}

#[test]
fn a_heap_that_commits_is_seen_and_copied() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("heap"), folder.path().join("copy"));
    let (path, copy) = (text(&path), text(&copy));
    let program = env::current_exe().expect("this program");
    let left = Command::new(program)
        .args(["--exact", "commits::child"])
        .env(CHILD, path)
        .output();
    assert!(left.expect("it runs").status.success());

    let found = ended(&["inspect", path], 0);
    assert!(found.stdout.contains("a file that commits"), "{found:?}");
    assert!(found.stdout.contains("its log has"), "{found:?}");
    assert!(found.stdout.contains("visits"), "{found:?}");
    ended(&["verify", path], 0);
    // Nothing was changed by that.
    assert_eq!(ended(&["inspect", path], 0).stdout, found.stdout);

    ended(&["snapshot", path, copy], 0);
    for path in [path, copy] {
        let found = ended(&["inspect", path], 0);
        assert!(
            found.stdout.contains("clean: the file has all"),
            "{found:?}"
        );
        ended(&["verify", path], 0);
    }

    // SAFETY: the file is this test's.
    let heap = unsafe { Committed::options().open(path) }.expect("the heap");
    for words in [&["inspect", path][..], &["snapshot", path, "x"]] {
        let found = ended(words, 2);
        assert!(found.stderr.contains("other processes have"), "{found:?}");
    }
    let visits = heap.get::<Mutex<u32>>("visits").expect("that type");
    let visits = visits.expect("committed");
    assert!(visits.lock().is_ok_and(|visits| *visits == 7));
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
}
