//! Without this, `flagstone inspect`, `verify` and `meminfo` could change the heap that they look at, end in a crash, or say
//! what is not so; and `flagstone snapshot` could leave half a copy.

#[path = "looks/commits.rs"]
mod commits;
#[path = "looks/snapshots.rs"]
mod snapshots;

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use capi_tests::{Exit, built, run};
use engine::allocator_api2::vec::Vec as MappedVec;
use engine::mapped::Mutex;
use engine::{Mapped, MappedOptions};

const UNIT: usize = 64 << 10;
const CAPACITY: usize = 128 * UNIT;
/// Says what heap a child of this program is to make.
const CHILD: &str = "HEAP_OF_CHILD";
const IN_MEMORY: &str = "in memory";

fn flagstone(arguments: &[&str]) -> Exit {
    let mut command = Command::new(built().join("flagstone"));
    run(command.args(arguments))
}

/// Fails unless it ended with this code, and with no word on standard error if that is 0 or 1.
#[track_caller]
fn ended(arguments: &[&str], code: i32) -> Exit {
    let found = flagstone(arguments);
    assert_eq!(found.code, Some(code), "{arguments:?}: {found:?}");
    assert_eq!(
        found.stderr.is_empty(),
        code == 0 || !found.stdout.is_empty(),
        "{found:?}"
    );
    found
}

fn options<'a>() -> MappedOptions<'a> {
    Mapped::options().capacity(CAPACITY).name("words of all")
}

/// Slabs, a long block, a free unit, names.
fn fill(heap: Mapped) {
    for size in [16, 1_000, 30_000] {
        let mut bytes = MappedVec::<u8, _>::with_capacity_in(size, heap.handle());
        bytes.push(1);
        let _ = bytes.leak();
    }
    let gone = MappedVec::<u8, _>::with_capacity_in(2 * UNIT, heap.handle());
    let long = MappedVec::<u8, _>::with_capacity_in(5 * UNIT, heap.handle());
    heap.set_root("long \u{1b}[31m", long.leak().as_ptr(), 7)
        .expect("room");
    heap.insert("limit", Mutex::new(10_u32)).expect("room");
    drop(gone);
}

/// A heap in a file that was closed.
fn closed(folder: &Path) -> PathBuf {
    let path = folder.join("heap");
    let heap = options().create_file(text(&path)).expect("a heap");
    fill(heap);
    // SAFETY: 1. nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The value of a line that begins with this word.
fn value<'a>(found: &'a Exit, word: &str) -> &'a str {
    let mut lines = found.stdout.lines();
    let value = lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {word}: {found:?}"))
        .trim()
}

/// Not a test by itself: the process of another.
#[test]
fn child() {
    let Some(place) = env::var_os(CHILD) else {
        return;
    };
    let heap = match place.to_str() {
        Some(IN_MEMORY) => options().create(),
        _ => options().create_file(place.as_encoded_bytes()),
    };
    let heap = heap.expect("a heap");
    fill(heap);
    println!("ready {}", heap.as_raw_fd());
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

/// Another process that has a heap, ended with this value.
struct Other {
    process: process::Child,
    descriptor: String,
}

impl Other {
    fn start(place: &str) -> Self {
        let mut command = Command::new(env::current_exe().expect("a program"));
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        command.env(CHILD, place);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("a process");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let words = output.lines().map_while(Result::ok);
        let ready = words
            .filter_map(|line| Some(line.split_once("ready ")?.1.to_owned()))
            .next();
        let descriptor = ready.expect("a heap");
        Self {
            process,
            descriptor,
        }
    }

    fn number(&self) -> String {
        self.process.id().to_string()
    }

    fn place(&self) -> String {
        format!("/proc/{}/fd/{}", self.number(), self.descriptor)
    }

    fn kill(&mut self) {
        self.process.kill().expect("our own");
        self.process.wait().expect("our own");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_closed_heap_is_seen_and_stays_as_it_is() {
    for parent in ["/var/tmp", "/dev/shm"] {
        let folder = tempfile::tempdir_in(parent).expect("a folder");
        let path = closed(folder.path());
        fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("our own");
        let before = (fs::read(&path).expect("a file"), changed(&path));
        let found = ended(&["inspect", "--map", text(&path)], 0);
        assert_eq!(value(&found, "file"), text(&path));
        assert_eq!(value(&found, "kind"), "a file with a path");
        assert_eq!(
            value(&found, "capacity"),
            "8388608 bytes, 8.0 MiB, 128 units of 64 KiB"
        );
        assert_eq!(value(&found, "state"), "clean: closed by all who used it");
        assert!(value(&found, "base").starts_with("0x"), "{found:?}");
        assert!(!found.stdout.contains("users") && !found.stdout.contains('\u{1b}'));
        for line in [
            "  long \\u{1b}[31m  0x0000000000000007",
            "  limit            0x",
            "map, a character for 1 unit: ",
            "units that nobody ever used",
        ] {
            assert!(found.stdout.contains(line), "{line:?}: {}", found.stdout);
        }
        let map = found.stdout.lines().find(|line| line.contains("  TT"));
        let map = map.expect("a map");
        assert!(
            map.contains("RRRRR") && map.contains('0') && map.contains('5') && map.contains('.'),
            "{map}"
        );
        assert!(map.starts_with("             0x0  TT"), "{map}");
        let found = ended(&["verify", text(&path)], 0);
        assert_eq!(found.stdout, format!("{}: sound\n", path.display()));
        assert!(before == (fs::read(&path).expect("a file"), changed(&path)));
    }
}

fn changed(path: &Path) -> (i64, i64, u64) {
    let about = fs::metadata(path).expect("a file");
    (about.mtime(), about.mtime_nsec(), about.blocks())
}

/// Who may not write the file needs not: also as a user who is nobody.
#[test]
fn a_file_of_somebody_else() {
    // SAFETY: 1. no precondition.
    if unsafe { libc::getuid() } != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our own");
    let path = closed(folder.path());
    let program = folder.path().join("flagstone");
    fs::copy(built().join("flagstone"), &program).expect("a copy");
    let by_nobody =
        |words: &[&str]| run(Command::new(&program).args(words).uid(65_534).gid(65_534));
    fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("our own");
    assert_eq!(by_nobody(&["inspect", text(&path)]).code, Some(0));
    assert_eq!(by_nobody(&["verify", text(&path)]).code, Some(0));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own");
    let found = by_nobody(&["inspect", text(&path)]);
    assert_eq!(found.code, Some(2), "{found:?}");
    assert!(found.stderr.contains("Permission denied"), "{found:?}");
    let found = by_nobody(&["meminfo", &process::id().to_string()]);
    assert_eq!(found.code, Some(2), "{found:?}");
    assert!(found.stderr.contains("permission denied"), "{found:?}");
}

#[test]
fn a_heap_of_a_process_that_lives_and_of_one_that_was_killed() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let path = folder.path().join("heap");
    let mut other = Other::start(text(&path));
    for place in [text(&path), &other.place()] {
        let found = ended(&["inspect", place], 0);
        assert_eq!(value(&found, "state"), "in use by 1 process");
        let line = format!("{} {}", other.number(), " lives");
        assert!(found.stdout.contains(&line), "{found:?}");
        let found = ended(&["verify", place], 0);
        assert!(
            found.stdout.contains("not judged: what 1 process"),
            "{found:?}"
        );
    }
    other.kill();
    let before = fs::read(&path).expect("a file");
    let found = ended(&["inspect", text(&path)], 0);
    let state = value(&found, "state");
    assert_eq!(state, "not closed: 1 process ended without closing");
    assert!(
        found.stdout.contains(&format!("{}  gone", other.number())),
        "{found:?}"
    );
    let found = ended(&["verify", text(&path)], 0);
    assert!(found.stdout.contains("half done"), "{found:?}");
    assert!(before == fs::read(&path).expect("a file"), "it took a slot");
    // As the machine would have left it.
    let file = File::options().write(true).open(&path).expect("our own");
    file.write_all_at(&[7], 64).expect("room");
    let found = ended(&["inspect", text(&path)], 0);
    assert!(value(&found, "state").starts_with("dirty"), "{found:?}");
}

#[test]
fn a_heap_in_memory_by_its_descriptor() {
    let other = Other::start(IN_MEMORY);
    let found = ended(&["inspect", "--map", &other.place()], 0);
    assert_eq!(value(&found, "kind"), "a file of memory");
    assert_eq!(value(&found, "state"), "in use by 1 process");
    // As standard input of the command.
    for words in [&["inspect", "0"], &["verify", "0"]] {
        let file = File::open(other.place()).expect("our own");
        let mut command = Command::new(built().join("flagstone"));
        let found = command.args(words).stdin(file).output().expect("it runs");
        assert!(found.status.success(), "{found:?}");
        let said = String::from_utf8(found.stdout).expect("UTF-8");
        assert!(said.contains("descriptor 0"), "{said}");
    }
    // Frozen, and used by nobody.
    let heap = options().create().expect("a heap");
    fill(heap);
    // SAFETY: 1. nobody changes it.
    unsafe { heap.freeze() }.expect("nobody else has it");
    let place = format!("/proc/{}/fd/{}", process::id(), heap.as_raw_fd());
    let found = ended(&["inspect", &place], 0);
    assert_eq!(value(&found, "state"), "frozen: nobody can change it");
    ended(&["verify", &place], 0);
}

#[test]
fn what_is_no_heap_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = closed(folder.path());
    let whole = fs::read(&path).expect("a file");
    let other = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("room");
        path
    };
    let mut newer = whole.clone();
    newer[7] = 99;
    let mut wrong = whole.clone();
    wrong[40] ^= 1;
    let cut = &whole[..whole.len() / 2];
    let cases = [
        (
            other(
                "text",
                b"once upon a time, there was no heap, and nobody missed it",
            ),
            2,
            "no heap",
        ),
        (other("empty", b""), 2, "no heap"),
        (other("short", &whole[..40]), 2, "no heap"),
        (other("newer", &newer), 2, "another version"),
        (other("cut", cut), 1, "shorter or longer"),
        (other("wrong", &wrong), 1, "damaged"),
        (folder.path().to_owned(), 2, "no heap"),
        (folder.path().join("missing"), 2, "no such file"),
        ("/dev/null".into(), 2, "no heap"),
        ("/proc/self/maps".into(), 2, "heap"),
        ("9999".into(), 2, "Bad file descriptor"),
        ("99999999999".into(), 2, "no such file"),
    ];
    for (path, code, words) in cases {
        for verb in ["inspect", "verify"] {
            let found = ended(&[verb, text(&path)], code);
            assert!(
                found.stderr.contains(words) && found.stderr.lines().count() == 1,
                "{found:?}"
            );
            assert_eq!(found.stdout, "", "{path:?}");
        }
    }
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let path = closed(folder.path());
    let file = File::options().write(true).open(&path).expect("our own");
    // The word of a unit: of no kind.
    file.write_all_at(&[7], UNIT as u64 + 20 * 8).expect("room");
    file.write_all_at(&[30], 448).expect("room");
    let found = ended(&["verify", text(&path)], 1);
    assert!(found.stdout.contains("damaged"), "{found:?}");
    let found = ended(&["inspect", "--map", text(&path)], 1);
    assert_eq!(value(&found, "check"), "damaged");
    assert!(found.stdout.contains("? unknown"), "{found:?}");
}

/// Whatever stands in the file, no look ends in a crash.
#[test]
fn hostile_files() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let path = closed(folder.path());
    let whole = fs::read(&path).expect("a file");
    let copy = folder.path().join("copy");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut counts = [0; 3];
    for round in 0..400_u32 {
        let mut image = whole.clone();
        // The tables' places: constants seldom, as their sum tells; headers, slots, words, descriptors.
        let places = [
            0..64,
            64..704,
            704..4_864,
            4_864..37_632,
            UNIT..UNIT + 1_024,
            UNIT..3 * UNIT,
        ];
        for _ in 0..=random() % 20 {
            let first = usize::from(!round.is_multiple_of(20));
            let choice = first + random() as usize % (places.len() - first);
            let range = &places[choice];
            let at = (range.start + random() as usize % (range.len() - 8)) & !7;
            let word = match random() % 6 {
                0 => random(),
                1 => u64::MAX,
                2 => random() % 256,
                3 => 2,
                4 => 3 | (random() % 128) << 12,
                _ => 4 | random() << 12,
            };
            image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if round % 50 == 49 {
            image.truncate(random() as usize % image.len());
        }
        fs::write(&copy, &image).expect("room");
        for words in [
            &["inspect", "--map", text(&copy)][..],
            &["verify", text(&copy)],
        ] {
            let found = flagstone(words);
            let code = found.code.filter(|code| (0..3).contains(code));
            let code = code.unwrap_or_else(|| {
                let kept = env::temp_dir().join("flagstone-hostile");
                fs::write(&kept, &image).expect("room");
                panic!("{words:?}, kept as {kept:?}: {found:?}")
            });
            counts[usize::try_from(code).expect("small")] += 1;
            assert!(!found.stderr.contains("panicked"), "{found:?}");
        }
        assert!(fs::read(&copy).expect("a file") == image);
    }
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
}

/// A heap in a sparse file of a tebibyte, which says that so many of its units were used.
#[expect(
    clippy::disallowed_methods,
    reason = "addresses of a heap that is closed"
)]
fn holes(folder: &Path, units: u64) -> PathBuf {
    let path = folder.join("holes");
    const BYTES: usize = 1 << 40;
    let heap = Mapped::options().capacity(BYTES);
    let heap = heap.create_file(text(&path)).expect("a heap");
    fill(heap);
    let base = heap.base().as_ptr();
    // SAFETY: 1. nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    // A closed heap keeps its addresses, and this process opens others, which have theirs.
    // SAFETY: 1. of a heap that is closed, and that nobody uses.
    assert_eq!(unsafe { libc::munmap(base.cast(), BYTES) }, 0);
    let file = File::options().write(true).open(&path).expect("our own");
    file.write_all_at(&units.to_le_bytes(), 448).expect("room");
    path
}

/// A sparse file that says it is far longer than anything in it.
#[test]
fn a_long_file_of_holes() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let path = holes(folder.path(), 1 << 20);
    let found = ended(&["inspect", "--map", text(&path)], 0);
    assert!(
        found.stdout.contains("a character for 1024 units"),
        "{found:?}"
    );
    assert!(found.stdout.lines().count() < 40, "{found:?}");
    ended(&["verify", text(&path)], 0);
}

#[test]
fn memory_of_a_process() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let path = folder.path().join("heap");
    let [in_file, in_memory] = [text(&path), IN_MEMORY].map(Other::start);
    for (other, file) in [
        (&in_file, text(&path)),
        (&in_memory, "/memfd:words of all (deleted)"),
    ] {
        let found = ended(&["meminfo", &other.number()], 0);
        let lines: Vec<Vec<&str>> = found
            .stdout
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 3, "{found:?}");
        assert_eq!(&lines[0][..2], ["ADDRESS", "SIZE"]);
        let number = |line: &[&str], at: usize| line[at].parse::<usize>().expect("a number");
        let heap = &lines[1];
        assert_eq!(number(heap, 1), CAPACITY >> 10);
        let (rss, pss) = (number(heap, 2), number(heap, 3));
        let (shared, private) = (number(heap, 4), number(heap, 5));
        assert!(
            rss > 0 && pss <= rss && shared + private == rss,
            "{found:?}"
        );
        assert_eq!((heap[7], heap[8..].join(" ")), ("uses", file.to_owned()));
        assert_eq!(lines[2][0], "total");
        assert_eq!(lines[2][1..7], heap[1..7]);
    }
    // Another who reads: the test itself.
    // SAFETY: 1. nothing but tables is read.
    let reader = unsafe { Mapped::options().read_only(true).open(in_memory.place()) };
    let reader = reader.expect("a heap");
    let found = ended(&["meminfo", &process::id().to_string()], 0);
    let base = format!("{:#x}", reader.base().addr());
    let line = found.stdout.lines().find(|line| line.starts_with(&base));
    assert!(line.is_some_and(|line| line.contains("reads")), "{found:?}");
    // A program that has none.
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep");
    let found = ended(&["meminfo", &sleeper.id().to_string()], 0);
    assert!(found.stdout.contains("has no heaps"), "{found:?}");
    sleeper.kill().expect("our own");
    // One that has ended, and nobody asked how.
    let found = flagstone(&["meminfo", &sleeper.id().to_string()]);
    assert!(
        matches!(found.code, Some(0 | 2)) && found.signal.is_none(),
        "{found:?}"
    );
    sleeper.wait().expect("our own");
}

#[test]
fn who_is_not_there_and_what_is_not_asked() {
    let found = ended(&["meminfo", "4194305"], 2);
    assert_eq!(found.stderr, "flagstone: there is no process 4194305\n");
    for words in [
        &["meminfo", "0"][..],
        &["meminfo", "-1"],
        &["meminfo", "init"],
        &["meminfo"],
        &["inspect"],
        &["verify"],
        &["inspect", "a", "b"],
        &["verify", "--map", "a"],
        &["snapshot"],
        &["snapshot", "a"],
        &["snapshot", "a", "b", "c"],
    ] {
        let found = flagstone(words);
        assert_eq!(found.code, Some(2), "{words:?}: {found:?}");
        assert!(
            found.stderr.contains("Usage") || found.stderr.contains("--help"),
            "{found:?}"
        );
    }
    for verb in ["inspect", "verify", "meminfo", "snapshot"] {
        let found = flagstone(&[verb, "--help"]);
        assert_eq!(found.code, Some(0), "{found:?}");
        assert!(found.stdout.contains("Ends with"), "{found:?}");
    }
}

/// Who reads no further does no harm; a full disk is said.
#[test]
fn nobody_reads_what_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = closed(folder.path());
    let own = process::id().to_string();
    for words in [
        &["inspect", "--map", text(&path)][..],
        &["verify", text(&path)],
        &["meminfo", &own],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(built().join("flagstone"));
        let found = command
            .args(words)
            .stdout(writer)
            .output()
            .expect("it runs");
        assert!(
            found.status.success() && found.stderr.is_empty(),
            "{found:?}"
        );
        let full = File::options().write(true).open("/dev/full");
        let mut command = Command::new(built().join("flagstone"));
        command.args(words).stdout(full.expect("/dev/full"));
        let found = command.output().expect("it runs");
        assert_eq!(found.status.code(), Some(2), "{found:?}");
        assert!(!found.stderr.is_empty());
    }
}

/// A file that is cut while it is looked at ends the command with a message, by no signal.
#[test]
fn a_file_is_cut_meanwhile() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let mut said = Vec::new();
    for round in 0..20 {
        let path = holes(folder.path(), 1 << 24);
        let mut command = Command::new(built().join("flagstone"));
        command.args(["verify", text(&path)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("it runs");
        std::thread::sleep(Duration::from_millis(round));
        let file = File::options().write(true).open(&path).expect("our own");
        file.set_len(0).expect("our own");
        let found: Exit = child.wait_with_output().expect("our own").into();
        assert!(
            found.code.is_some_and(|code| (0..3).contains(&code)),
            "{found:?}"
        );
        said.push(found.stderr);
        fs::remove_file(&path).expect("our own");
    }
    let is_cut = |words: &String| words.contains("became shorter");
    assert!(said.iter().any(is_cut), "{said:?}");
}
