//! Without this, a lower layer could come to depend on a higher one, and kernel calls could spread.

mod circles;

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/`, highest layer first. A file may name its own module and the modules of the
/// lines below its own; modules of one line are independent of each other. `lib.rs` may name them all.
const LAYERS: &[&[&str]] = &[
    &["mapped"],
    &["global", "raw", "first_class", "elsewhere"],
    &["cache"],
    &["reclaim"],
    &["threads"],
    &["thread_cache"],
    &["heap"],
    &["slab", "large", "sample"],
    &["arena"],
    &["wakeup"],
    &["demand"],
    &["os"],
    &["size_map", "config"],
    &["stats", "size_class"],
    &["hardening", "random"],
    &[
        "sync",
        "units",
        "ptr",
        "error",
        "available",
        "failpoints",
        "valgrind",
        "valgrind_off",
    ],
];

const MAX_LINES: usize = 600;

/// Where `libc::` may be named: the kernel calls, and what else the C library is asked.
fn may_name_libc(file: &str) -> bool {
    file.starts_with("os/")
}

/// Functions of the C library that are called by their names, which can be another's: see "What is called by name" in
/// `docs/tools.md`. The kernel is called by instruction.
const CALLED: [&str; 15] = [
    "__errno_location",
    "abort",
    "dladdr",
    "dlopen",
    "dlsym",
    "getauxval",
    "pthread_atfork",
    "pthread_attr_destroy",
    "pthread_attr_init",
    "pthread_attr_setdetachstate",
    "pthread_attr_setstacksize",
    "pthread_create",
    "pthread_key_create",
    "pthread_setspecific",
    "sysconf",
];

/// Where others are: for Miri and the thread sanitizer.
fn calls_by_name(file: &str) -> bool {
    file == "os/portable.rs" || file.ends_with("_libc.rs")
}

#[test]
fn every_file_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(
        files.contains(&root.join("lib.rs")),
        "no lib.rs in {}",
        root.display()
    );
    let faults: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let name = path
                .strip_prefix(&root)
                .expect("a path in src")
                .to_str()
                .expect("UTF-8");
            let source = fs::read_to_string(path).expect("a readable file");
            faults(name, &source)
                .into_iter()
                .map(move |fault| format!("src/{name}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Everything wrong with one file. `name` is its path below `src/`.
fn faults(name: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{lines} lines, at most {MAX_LINES} are allowed"));
    }
    let tokens = tokens(source);
    let mut is_test = false;
    for (i, token) in tokens.iter().enumerate() {
        let text = |i: usize| tokens.get(i).map(|token| token.text);
        let next = text(i + 1);
        is_test |= token.text == "mod" && next == Some("tests");
        if let (false, "libc", Some("::"), Some(function), Some("(")) =
            (is_test, token.text, next, text(i + 2), text(i + 3))
            && !CALLED.contains(&function)
            && !calls_by_name(name)
        {
            faults.push(format!(
                "line {}: `{function}` by its name, which can be another's",
                token.line
            ));
        }
        if token.text == "static" && next == Some("mut") && !is_foreign(&tokens[..i]) {
            faults.push(format!("line {}: `static mut`", token.line));
        }
        if token.text == "libc" && !may_name_libc(name) {
            faults.push(format!(
                "line {}: libc, which only src/os/ may name",
                token.line
            ));
        }
    }
    let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" {
        return faults;
    }
    let own = path.split('/').next().expect("a first part");
    if layer(own).is_none() {
        faults.push(format!(
            "module `{own}` has no layer: add it to LAYERS in tests/layering/main.rs"
        ));
        return faults;
    }
    for (line, named) in named_modules(&tokens, path.split('/').count()) {
        match layer(named) {
            _ if named == own => {}
            None => faults.push(format!(
                "line {line}: `crate::{named}` has no layer: name the module that defines it, or add \
                 it to LAYERS in tests/layering/main.rs"
            )),
            named_layer if named_layer > layer(own) => {}
            _ => faults.push(format!("line {line}: `{own}` may not name `{named}`, see LAYERS")),
        }
    }
    faults
}

/// Whether what follows `before` stands in an `extern` block: such a variable is declared, not ours.
fn is_foreign(before: &[Token<'_>]) -> bool {
    let brace = before
        .iter()
        .rposition(|token| matches!(token.text, "{" | "}"));
    brace.is_some_and(|i| i > 0 && before[i].text == "{" && before[i - 1].text == "extern")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level modules that a file names by `crate::` or by enough `super::`, with the line.
/// `depth` is how many modules below the crate the file is.
fn named_modules<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<(usize, &'a str)> {
    let mut named = Vec::new();
    // For each open brace, whether it belongs to an inline module.
    let mut braces = Vec::new();
    let mut supers = 0;
    for (i, token) in tokens.iter().enumerate() {
        let is_path = tokens.get(i + 1).is_some_and(|next| next.text == "::");
        let modules = depth + braces.iter().filter(|&&is_module| is_module).count();
        match token.text {
            "{" => braces.push(i >= 2 && tokens[i - 2].text == "mod"),
            "}" => drop(braces.pop()),
            "crate" if is_path => first_names(&tokens[i + 2..], &mut named),
            "super" if is_path => {
                supers += 1;
                if supers == modules {
                    first_names(&tokens[i + 2..], &mut named);
                }
                continue;
            }
            "::" => continue,
            _ => {}
        }
        supers = 0;
    }
    named
}

/// The names that stand directly after `crate::`: one, or those of a braced list.
fn first_names<'a>(tokens: &[Token<'a>], named: &mut Vec<(usize, &'a str)>) {
    let mut depth = 0;
    let mut expected = true;
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => {
                expected = true;
                continue;
            }
            "self" | "*" => {}
            name if expected => {
                // A macro of this crate is not in a module.
                if tokens.get(i + 1).is_none_or(|token| token.text != "!") {
                    named.push((token.line, name));
                }
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Words, `::` and other characters, without comments, literals and lifetimes.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped(rest);
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let len = match skipped {
            0 if rest.starts_with("::") => 2,
            0 => word.max(first.len_utf8()),
            _ => skipped,
        };
        let (text, after) = rest.split_at(len);
        if skipped == 0 {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Length of the space, comment, literal or lifetime at the start of `rest`.
fn skipped(rest: &str) -> usize {
    let up_to = |end: &str, from: usize| {
        rest[from..]
            .find(end)
            .map_or(rest.len(), |at| from + at + end.len())
    };
    let space = rest.len() - rest.trim_start().len();
    if space > 0 {
        return space;
    }
    if rest.starts_with("//") {
        return up_to("\n", 0);
    }
    if rest.starts_with("/*") {
        return up_to("*/", 2);
    }
    let prefix = ["br", "cr", "r", "b", "c"]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix));
    let literal = &rest[prefix.map_or(0, str::len)..];
    let hashes = literal.len() - literal.trim_start_matches('#').len();
    let is_raw = prefix.is_some_and(|prefix| prefix.ends_with('r'));
    if is_raw && literal[hashes..].starts_with('"') {
        let start = rest.len() - literal.len() + hashes + 1;
        return up_to(&format!("\"{}", "#".repeat(hashes)), start);
    }
    if literal.starts_with('"') && !is_raw {
        return rest.len() - literal.len() + quoted(literal, '"');
    }
    if let Some(quoted_char) = rest.strip_prefix('\'') {
        let mut chars = quoted_char.chars();
        let is_char = chars.next() == Some('\\') || chars.next() == Some('\'');
        let name = quoted_char.find(|c: char| !c.is_alphanumeric() && c != '_');
        return if is_char {
            quoted(rest, '\'')
        } else {
            name.map_or(rest.len(), |len| len + 1)
        };
    }
    0
}

/// Length of the quoted text at the start of `literal`, with its quotes.
fn quoted(literal: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in literal.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return i + c.len_utf8(),
            _ => {}
        }
    }
    literal.len()
}

#[track_caller]
fn expect(name: &str, source: &str, fault: Option<&str>) {
    let faults = faults(name, source);
    match fault {
        None => assert!(faults.is_empty(), "{faults:?}"),
        Some(fault) => {
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(fault), "{faults:?}");
        }
    }
}

#[test]
fn upward_paths_are_found() {
    let upward = Some("`slab` may not name `heap`");
    expect("slab/mod.rs", "use crate::heap::Heap;", upward);
    expect("slab/bitmap.rs", "fn f() { crate::heap::refill() }", upward);
    expect(
        "slab/bitmap.rs",
        "use crate::{\n  arena::{self, Span},\n  heap::Heap,\n};",
        upward,
    );
    expect("slab/mod.rs", "use super::heap::Heap;", upward);
    expect("slab/bitmap.rs", "use super::super::heap;", upward);
    expect(
        "slab/bitmap.rs",
        "mod tests { use super::super::super::heap; }",
        upward,
    );
    expect(
        "slab/mod.rs",
        "use crate::large;",
        Some("`slab` may not name `large`"),
    );
    expect(
        "slab/mod.rs",
        "use crate::Flagstone;",
        Some("`crate::Flagstone` has no layer"),
    );
    expect("novel.rs", "", Some("module `novel` has no layer"));
}

#[test]
fn downward_paths_are_allowed() {
    expect(
        "heap/mod.rs",
        "use crate::{arena::Span, slab};\nuse super::slab::Slab;",
        None,
    );
    expect(
        "heap/refill.rs",
        "use super::flush;\nuse crate::heap::Heap;",
        None,
    );
    expect(
        "heap/mod.rs",
        "mod tests { use super::*; use super::cache; }",
        None,
    );
    expect(
        "heap/mod.rs",
        "pub(crate) fn f() { crate::check!(1) }\npub(super) mod x {}",
        None,
    );
    expect(
        "slab/mod.rs",
        "// crate::heap\nconst A: &str = \"crate::heap\"; /* crate::heap */",
        None,
    );
    expect(
        "lib.rs",
        "mod heap;\npub use crate::global::Flagstone;",
        None,
    );
}

#[test]
fn other_faults_are_found() {
    expect(
        "heap/mod.rs",
        "fn f() { unsafe { libc::abort() } }",
        Some("libc"),
    );
    expect("heap/mod.rs", "use libc::mmap;", Some("libc"));
    expect(
        "heap/mod.rs",
        "static mut A: u8 = b'\\'';",
        Some("static mut"),
    );
    expect(
        "heap/mod.rs",
        &"\n".repeat(MAX_LINES + 1),
        Some("601 lines"),
    );
    expect(
        "os/linux.rs",
        "unsafe extern \"C\" { static mut environ: *mut u8; }",
        None,
    );
    expect(
        "os/linux.rs",
        "fn f<'a>(x: &'static mut u8) { libc::abort() }",
        None,
    );
    let by_name = "fn f() { libc::mmap() }";
    expect("os/linux.rs", by_name, Some("`mmap` by its name"));
    expect("os/syscall_libc.rs", by_name, None);
    expect("os/linux.rs", "mod tests { fn f() { libc::open() } }", None);
    expect("threads/key.rs", "use libc::pthread_key_t;", Some("libc"));
}
