//! Which files of a folder name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Token, collect, first_names, tokens};

/// The children of a module, as far as they name each other: by `super::`, or by what the module takes from one of them.
#[derive(Default)]
struct Family {
    children: BTreeSet<String>,
    /// What the module itself takes from its children, and from which.
    exports: BTreeMap<String, String>,
    /// Who names what.
    named: Vec<(String, String)>,
}

impl Family {
    /// Each child with those that it names.
    fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (child, name) in &self.named {
            let of = self.children.get(name).or_else(|| self.exports.get(name));
            if let Some(other) = of.filter(|other| *other != child) {
                edges.entry(child).or_default().insert(other);
            }
        }
        edges
    }

    /// Children that name each other in a circle.
    fn circle(&self) -> BTreeSet<&str> {
        let mut edges = self.edges();
        // Who names nobody that is left is in no circle, nor is whom nobody names.
        loop {
            let left: BTreeSet<&str> = edges.keys().copied().collect();
            for named in edges.values_mut() {
                named.retain(|name| left.contains(name));
            }
            let named: BTreeSet<&str> = edges.values().flatten().copied().collect();
            edges.retain(|child, others| !others.is_empty() && named.contains(child));
            if edges.len() == left.len() {
                return left;
            }
        }
    }
}

/// The families of all modules, by the module's path, from the names and sources of files.
fn families<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    for (name, source) in files {
        let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
        let tokens = tokens(source);
        let parts: Vec<&str> = path.split('/').collect();
        for (level, child) in parts.iter().enumerate().skip(1) {
            let family = families.entry(parts[..level].join("/")).or_default();
            family.children.insert((*child).to_owned());
            let named = named_above(&tokens, parts.len(), level);
            let named = named
                .into_iter()
                .map(|name| ((*child).to_owned(), name.to_owned()));
            family.named.extend(named);
        }
        if name.ends_with("/mod.rs") {
            let family = families.entry(path.to_owned()).or_default();
            family.exports.extend(exports(&tokens));
        }
    }
    families
}

/// What a module takes from its children by `use child::name`, with the child.
fn exports(tokens: &[Token<'_>]) -> Vec<(String, String)> {
    let mut exports = Vec::new();
    let uses = tokens.iter().enumerate();
    for (i, _) in uses.filter(|(_, token)| token.text == "use") {
        let mut path = &tokens[i + 1..];
        if path.first().is_some_and(|first| first.text == "self") {
            path = &path[2..];
        }
        if let [child, colons, rest @ ..] = path
            && colons.text == "::"
            && !matches!(child.text, "crate" | "super" | "core" | "std")
        {
            let mut names = Vec::new();
            first_names(rest, &mut names);
            let of_child = names
                .into_iter()
                .map(|(_, name)| (name.to_owned(), child.text.to_owned()));
            exports.extend(of_child);
        }
    }
    exports
}

/// The names that stand after as many `super::` as lead from a file `depth` modules below the crate to one `level`
/// below.
fn named_above<'a>(tokens: &[Token<'a>], depth: usize, level: usize) -> Vec<&'a str> {
    let mut names = Vec::new();
    let mut supers = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "super" => supers += 1,
            "::" => continue,
            _ => supers = 0,
        }
        // Not the one of `pub(super)`.
        let is_path = tokens.get(i + 1).is_some_and(|next| next.text == "::");
        let is_last = tokens.get(i + 2).is_some_and(|next| next.text != "super");
        if supers > 0 && supers == depth - level && is_path && is_last {
            first_names(&tokens[i + 2..], &mut names);
        }
    }
    names.into_iter().map(|(_, name)| name).collect()
}

/// A file that names another is not named by it, directly or by way of others: only a module and its children may name
/// each other. So the files of a folder can be read in order.
#[test]
fn no_files_name_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).expect("a path in src");
        let name = name.to_str().expect("UTF-8").to_owned();
        (name, fs::read_to_string(path).expect("a readable file"))
    };
    let files: Vec<(String, String)> = files.iter().map(read).collect();
    let families = families(
        files
            .iter()
            .map(|(name, source)| (name.as_str(), source.as_str())),
    );
    assert!(families.len() > 8, "{} folders", families.len());
    let circles: Vec<_> = families
        .iter()
        .map(|(module, family)| (module, family.circle()))
        .filter(|(_, circle)| !circle.is_empty())
        .collect();
    for (module, circle) in &circles {
        println!("{module}: {circle:?}");
        println!("{:?}", families[*module].edges());
    }
    assert!(circles.is_empty(), "{circles:?}");
}

#[test]
fn circles_are_found() {
    let circle = |files: &[(&str, &str)]| {
        let families = families(files.iter().copied());
        let circle = families["a"].circle();
        circle.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let direct = [
        ("a/b.rs", "use super::c::x;"),
        ("a/c.rs", "fn f() { super::b::y() }"),
    ];
    assert_eq!(circle(&direct), ["b", "c"]);
    let long = [
        ("a/b.rs", "use super::{d, c};"),
        ("a/c.rs", "use super::d;"),
        ("a/d/e.rs", "use super::super::b;"),
    ];
    assert_eq!(circle(&long), ["b", "c", "d"]);
    let exported = [
        ("a/mod.rs", "mod b;\npub(crate) use b::{x, y};"),
        ("a/b.rs", "use super::c;"),
        ("a/c.rs", "use super::y;"),
    ];
    assert_eq!(circle(&exported), ["b", "c"]);
    let none = [
        ("a/mod.rs", "use self::b::x; fn own() {}"),
        ("a/b.rs", "use super::{c, own};"),
        ("a/c.rs", "use super::own;"),
    ];
    assert!(circle(&none).is_empty());
}
