//! Without this, the documents could name files and constants that are gone.

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 4] = [
    "ALGORITHM.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
];

/// Folders that paths in the documents begin in, besides the root of the repository.
const BEGINNINGS: [&str; 3] = ["", "src", "docs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files in `docs/`.
fn reference() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).expect("the folder");
    entries.map(|entry| entry.expect("a file").path()).collect()
}

/// What stands between backticks in prose and tables, not in pictures and examples.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2))
}

/// Whether it is written like the path of a file in a folder, or of a folder.
fn is_path(text: &str) -> bool {
    let is_plain = text
        .chars()
        .all(|char| char.is_ascii_alphanumeric() || "_-./".contains(char));
    let is_file = [".rs", ".md", ".toml"]
        .iter()
        .any(|end| text.ends_with(end));
    is_plain && text.contains('/') && (is_file || text.ends_with('/'))
}

#[test]
fn paths_exist() {
    let documents = DOCUMENTS.iter().map(|name| root().join(name));
    let mut missing = Vec::new();
    let mut paths = 0;
    for document in documents.chain(reference()) {
        let text = read(&document);
        for path in quoted(&text).filter(|text| is_path(text)) {
            paths += 1;
            let exists = |folder: &&str| root().join(folder).join(path).exists();
            if !BEGINNINGS.iter().any(exists) {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(paths > 100, "{paths} paths found");
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

/// `ALGORITHM.md` leads to each file of the reference, and the documentation holds it.
#[test]
fn the_reference_is_linked() {
    let (introduction, library) = (
        read(&root().join("ALGORITHM.md")),
        read(&root().join("src/lib.rs")),
    );
    let files = reference();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_name().expect("a name").to_str().expect("UTF-8");
        let stem = name.strip_suffix(".md").expect("a document");
        let link = format!("[{stem}]: docs/{name}\n");
        assert!(introduction.contains(&link), "no {link}");
        assert!(
            introduction.contains(&format!("* [{stem}]: ")),
            "{stem}: no line says what is in it"
        );
        assert!(
            library.contains(&format!("\"../docs/{name}\"")),
            "{name} is not in lib.rs"
        );
    }
}

/// Each constant of the table stands in a file of its row.
#[test]
fn constants_are_where_the_table_says() {
    let text = read(&root().join("docs/constants.md"));
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut constants = 0;
    for row in rows {
        let mut cells = row.split('|').skip(1);
        let (names, files) = (cells.next().expect("names"), cells.next().expect("files"));
        let sources: Vec<String> = files
            .split(',')
            .map(|file| root().join("src").join(file.trim()))
            .filter(|path| path.is_file())
            .map(|path| read(&path))
            .collect();
        for name in quoted(names) {
            constants += 1;
            let is_whole = |(at, _): (usize, &str), source: &str| {
                let behind = source[at + name.len()..].chars().next();
                !behind.is_some_and(|char| char.is_alphanumeric() || char == '_')
            };
            let found = sources.iter().any(|source| {
                source
                    .match_indices(name)
                    .any(|found| is_whole(found, source))
            });
            assert!(found, "{name} is not in {files}");
        }
    }
    assert!(constants > 50, "{constants} constants found");
}
