//! Without this, an option could do nothing, or a wrong one could do something, or go unnoticed.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::Layout;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;

use common::block::{Block, Heap};
use common::child::{run_child_with, scenario};
use common::process::{is_in_memory, page_size, stats, until_others_sleep, verify};
use common::raw_thread::on_raw_thread;
use flagstone::{Background, Config, Flagstone};

/// What no variable says is what this says: a delay that no test waits for.
#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(
    Config::new()
        .purge_delay_ms(3_600_000)
        .background(Background::Off),
);

/// Comes too late to say anything.
static SECOND: Flagstone = Flagstone::with_config(
    Config::new()
        .purge_delay_ms(0)
        .dirty_budget(0)
        .large_cache(0)
        .thread_cache(0),
);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const DELAY: &str = "FLAGSTONE_PURGE_DELAY_MS";
const BUDGET: &str = "FLAGSTONE_DIRTY_BUDGET";
const LARGE: &str = "FLAGSTONE_LARGE_CACHE";
const THREAD: &str = "FLAGSTONE_THREAD_CACHE";
const HUGE: &str = "FLAGSTONE_HUGE_PAGES";
const THREADS: &str = "FLAGSTONE_BACKGROUND";
/// Those that take a number of bytes.
const BYTES: [&str; 3] = [BUDGET, LARGE, THREAD];
const ALL: [&str; 6] = [DELAY, BUDGET, LARGE, THREAD, HUGE, THREADS];
/// Those that take words.
const WORDS: [&str; 2] = [HUGE, THREADS];

/// What the options do, as seen from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Bytes of freed mappings that are still committed.
    mappings: usize,
    /// Bytes of freed spans that are still in memory.
    spans: usize,
    /// KiB of free blocks in the thread's magazines.
    cached: usize,
    /// Whether the kernel was asked for huge pages in a large mapping.
    huge: bool,
    /// Whether there is a thread beside those of the test harness, of which one runs the test.
    thread: bool,
}

impl Facts {
    const MAPPINGS: usize = 24 * MIB;
    const SPANS: usize = 16 * MIB;

    fn find(heap: &Heap) -> Self {
        Self {
            mappings: freed_mappings(heap),
            spans: freed_spans(heap),
            cached: freed_blocks(heap) / KIB,
            huge: has_huge_pages(heap),
            thread: has_background_thread(),
        }
    }

    fn write(self) {
        let Self {
            mappings,
            spans,
            cached,
            huge,
            thread,
        } = self;
        let facts = format!("{mappings} {spans} {cached} {huge} {thread}");
        writeln!(io::stdout(), "\nfacts {facts}").expect("a message");
    }

    fn read(text: &str) -> Self {
        let line = text.lines().find_map(|line| line.strip_prefix("facts "));
        let words: Vec<&str> = line.expect("facts").split(' ').collect();
        let number = |word: &str| word.parse().expect("a number");
        Self {
            mappings: number(words[0]),
            spans: number(words[1]),
            cached: number(words[2]),
            huge: words[3] == "true",
            thread: words[4] == "true",
        }
    }

    /// The options in force without any variable.
    #[track_caller]
    fn expect_default(self) {
        assert_eq!(self.mappings, Self::MAPPINGS, "{self:?}");
        assert_eq!(self.spans, Self::SPANS, "{self:?}");
        assert!(self.cached > 512, "{self:?}");
        assert_eq!(self.huge, kernel_has_huge_pages(), "{self:?}");
        assert!(!self.thread, "{self:?}");
    }
}

fn kernel_has_huge_pages() -> bool {
    Path::new("/sys/kernel/mm/transparent_hugepage").exists()
}

/// Allocates and frees `count` blocks of `size` bytes; their addresses.
fn use_blocks(heap: &Heap, size: usize, count: usize) -> Vec<usize> {
    let blocks: Vec<Block> = (0..count)
        .map(|tag| Block::filled(heap, size, 8, tag))
        .collect();
    let free = |block: Block| {
        let address = block.addr();
        block.free(heap);
        address
    };
    blocks.into_iter().map(free).collect()
}

fn freed_mappings(heap: &Heap) -> usize {
    const SIZE: usize = 2 * MIB;
    Flagstone::purge();
    let before = stats().committed;
    use_blocks(heap, SIZE, Facts::MAPPINGS / SIZE);
    stats().committed - before
}

fn freed_spans(heap: &Heap) -> usize {
    const SIZE: usize = MIB;
    Flagstone::purge();
    let spans = use_blocks(heap, SIZE, Facts::SPANS / SIZE);
    let pages = spans
        .iter()
        .flat_map(|start| (*start..start + SIZE).step_by(page_size()));
    pages.filter(|page| is_in_memory(*page)).count() * page_size()
}

fn freed_blocks(heap: &Heap) -> usize {
    Flagstone::purge();
    let before = stats().cached;
    for size in (16..=1_024).step_by(16) {
        // Several times, as magazines grow when they run full and empty by turns.
        for _ in 0..4 {
            use_blocks(heap, size, 200);
        }
    }
    stats().cached.saturating_sub(before)
}

fn has_huge_pages(heap: &Heap) -> bool {
    // Whatever they cost here and now.
    flagstone::failpoints::set_huge_price(1);
    let layout = Layout::from_size_align(16 * MIB, 8).expect("a valid layout");
    let block = Block::alloc(heap, layout).expect("memory");
    let smaps = fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps can be read");
    let mut is_inside = false;
    let mut flags = None;
    for line in smaps.lines() {
        if let Some((start, end)) = range(line) {
            is_inside = (start..end).contains(&block.addr());
        } else if is_inside && let Some(words) = line.strip_prefix("VmFlags:") {
            flags = Some(words);
        }
    }
    let flags = flags.expect("the flags of the block's mapping");
    let is_huge = flags.split(' ').any(|flag| flag == "hg");
    block.free(heap);
    is_huge
}

fn has_background_thread() -> bool {
    let tasks = fs::read_dir("/proc/self/task").expect("a list of threads");
    let mut names =
        tasks.map(|task| fs::read_to_string(task.expect("a thread").path().join("comm")));
    names.any(|name| name.is_ok_and(|name| name.trim_end() == "flagstone"))
}

/// The addresses of a mapping, if this is the first line about one.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

/// The test that child processes run, and what they do before they look for facts.
const NAME: &str = "without_variables_the_program_decides";
const PLAIN: &str = "plain";
const CHANGED: &str = "changed";
const OTHER: &str = "other";

/// What a child process does: it ends here.
fn report(scenario: &str) -> ! {
    until_others_sleep();
    if scenario == CHANGED {
        for name in ALL {
            let value = if WORDS.contains(&name) { "bad" } else { "0" };
            // SAFETY: the other thread of the test harness sleeps and reads no variables.
            unsafe { env::set_var(name, value) };
        }
        // Nor does a new thread read them.
        on_raw_thread(&mut (), |()| {
            use_blocks(&ALLOC, 100, 1_000);
        });
    }
    let facts = Facts::find(if scenario == OTHER { &SECOND } else { &ALLOC });
    verify();
    facts.write();
    process::exit(0);
}

/// Runs a process with these variables: the facts and what it wrote to standard error.
#[track_caller]
fn run_scenario<V: AsRef<OsStr>>(scenario: &str, variables: &[(&str, V)]) -> (Facts, String) {
    let exit = run_child_with(NAME, scenario, variables);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    (Facts::read(&exit.stdout), exit.stderr)
}

/// The facts where the variables have good values.
#[track_caller]
fn facts_with(variables: &[(&str, &str)]) -> Facts {
    let (facts, stderr) = run_scenario(PLAIN, variables);
    assert_eq!(stderr, "", "{variables:?}");
    facts
}

#[test]
fn without_variables_the_program_decides() {
    if let Some(scenario) = scenario() {
        report(&scenario);
    }
    facts_with(&[]).expect_default();
}

#[test]
fn purge_delay() {
    assert_eq!(facts_with(&[(DELAY, "0")]).spans, 0);
    for long in ["100000000", "4294967295", "0000000100000000"] {
        facts_with(&[(DELAY, long)]).expect_default();
    }
}

#[test]
fn dirty_budget() {
    assert_eq!(facts_with(&[(BUDGET, "0")]).spans, 0);
    let spans = facts_with(&[(BUDGET, "4194304")]).spans;
    // The thread keeps one at hand.
    assert!((1..=5 * MIB).contains(&spans), "{spans}");
    for four in ["4M", "4m", "4096K", "4096k"] {
        assert_eq!(facts_with(&[(BUDGET, four)]).spans, spans, "{four}");
    }
    for much in ["1G", "1g", "16777215G"] {
        facts_with(&[(BUDGET, much)]).expect_default();
    }
}

#[test]
fn large_cache() {
    assert_eq!(facts_with(&[(LARGE, "0")]).mappings, 0);
    let mappings = facts_with(&[(LARGE, "8388608")]).mappings;
    assert!((1..=8 * MIB).contains(&mappings), "{mappings}");
    for eight in ["8M", "8m", "8192K", "8192k"] {
        assert_eq!(facts_with(&[(LARGE, eight)]).mappings, mappings, "{eight}");
    }
    for much in ["1G", "1g"] {
        facts_with(&[(LARGE, much)]).expect_default();
    }
}

#[test]
fn thread_cache() {
    // A block of each size is kept in any case.
    for (value, most) in [("0", 64), ("128K", 192), ("256k", 320)] {
        let cached = facts_with(&[(THREAD, value)]).cached;
        assert!((1..=most).contains(&cached), "{value}: {cached} KiB");
    }
    for much in ["2M", "1G"] {
        facts_with(&[(THREAD, much)]).expect_default();
    }
}

#[test]
fn huge_pages() {
    facts_with(&[(HUGE, "advise")]).expect_default();
    facts_with(&[(HUGE, "auto")]).expect_default();
    assert!(!facts_with(&[(HUGE, "off")]).huge);
}

#[test]
fn background() {
    for on in ["on", "1"] {
        assert!(facts_with(&[(THREADS, on)]).thread, "{on}");
    }
    for off in ["off", "0"] {
        facts_with(&[(THREADS, off)]).expect_default();
    }
    // What a heap this small frees is no reason for a thread, unless the harness's threads free it by slow calls.
    facts_with(&[(THREADS, "auto")]);
}

#[test]
fn several_at_once() {
    let facts = facts_with(&[(DELAY, "0"), (LARGE, "0"), (THREAD, "0"), (HUGE, "off")]);
    let cached = facts.cached;
    assert!(cached <= 64, "{facts:?}");
    let expected = Facts {
        cached,
        ..Facts::default()
    };
    assert_eq!(facts, expected);
}

/// Runs with a bad value: one line says so, and everything is as without it.
#[track_caller]
fn expect_complaint(name: &str, value: &[u8]) {
    let (facts, stderr) = run_scenario(PLAIN, &[(name, OsStr::from_bytes(value))]);
    let text = String::from_utf8_lossy(value);
    let prefix = format!("flagstone: {name}=");
    assert!(stderr.starts_with(&prefix), "{name}={text}: {stderr:?}");
    assert!(stderr.ends_with('\n'), "{name}={text}: {stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{name}={text}: {stderr:?}");
    facts.expect_default();
}

#[test]
fn bad_numbers_are_named() {
    for name in BYTES {
        for value in ["", "-1", "1T", "K", "1 M", "0x10", "18446744073709551615G"] {
            expect_complaint(name, value.as_bytes());
        }
    }
    for value in ["", "-1", "1s", "0.5", "4294967296"] {
        expect_complaint(DELAY, value.as_bytes());
    }
    for value in ["", "on", "1", "OFF", "advise "] {
        expect_complaint(HUGE, value.as_bytes());
    }
    for value in ["", "2", "yes", "OFF", "auto "] {
        expect_complaint(THREADS, value.as_bytes());
    }
}

/// What is no text, or more than a line of it, is named in one line too.
#[test]
fn strange_values_are_named() {
    for name in ALL {
        expect_complaint(name, b"\xff\xfe");
        expect_complaint(name, &[b'7'; 5_000]);
        expect_complaint(name, b"0\n1");
    }
}

#[test]
fn every_bad_value_is_named() {
    let (facts, stderr) = run_scenario(PLAIN, &ALL.map(|name| (name, "x")));
    let mut named: Vec<&str> = stderr
        .lines()
        .map(|line| line.strip_prefix("flagstone: ").expect("a name"))
        .map(|line| line.split('=').next().expect("a name"))
        .collect();
    named.sort_unstable();
    let mut all = ALL;
    all.sort_unstable();
    assert_eq!(named, all);
    facts.expect_default();
}

/// A good value counts beside a bad one.
#[test]
fn good_beside_bad() {
    let (facts, stderr) = run_scenario(PLAIN, &[(BUDGET, "lots"), (LARGE, "0")]);
    assert_eq!(facts.mappings, 0, "{facts:?}");
    assert_eq!(facts.spans, Facts::SPANS, "{facts:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn other_names_are_ignored() {
    let others = [
        ("FLAGSTONE", "0"),
        ("FLAGSTONE_", "0"),
        ("FLAGSTONE_UNKNOWN", "x"),
        ("FLAGSTONE_LARGE", "0"),
        ("FLAGSTONE_LARGE_CACHE_", "0"),
        ("XFLAGSTONE_LARGE_CACHE", "0"),
        ("flagstone_large_cache", "0"),
        ("FLAGSTONE_PURGE_DELAY", "0"),
        ("LARGE_CACHE", "0"),
    ];
    facts_with(&others).expect_default();
}

/// Neither later changes of the environment nor another allocator's options count.
#[test]
fn options_are_read_once() {
    for scenario in [CHANGED, OTHER] {
        let (facts, stderr) = run_scenario::<&str>(scenario, &[]);
        assert_eq!(stderr, "", "{scenario}");
        facts.expect_default();
    }
    let (facts, stderr) = run_scenario(OTHER, &[(LARGE, "0")]);
    assert_eq!((facts.mappings, stderr.as_str()), (0, ""));
}
