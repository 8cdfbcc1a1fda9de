//! A site generator: the repository's Markdown documents and the doc comments of its sources become
//! HTML pages and a search index in JSON. Single-threaded; strings that grow, maps of strings, and
//! events that live for one page.

mod common;

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};
use regex::Regex;
use serde_json::{Value, json};
use trace::Recorder;

#[global_allocator]
static ALLOCATOR: Recorder<System> = Recorder::new(System);

struct Page {
    name: String,
    markdown: String,
}

struct Rendered {
    name: String,
    html: String,
    headings: Vec<String>,
    words: BTreeMap<String, usize>,
}

/// The doc comments of a source file, one section each.
fn documentation(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines().map(str::trim_start) {
        let comment = line
            .strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"));
        if let Some(comment) = comment {
            text.push_str(comment.strip_prefix(' ').unwrap_or(comment));
            text.push('\n');
        } else if !text.is_empty() && !text.ends_with("\n\n") {
            text.push_str(&format!("\n## `{}`\n\n", line.trim_end_matches(['{', ' '])));
        }
    }
    text
}

fn pages(root: &Path) -> Result<Vec<Page>, Box<dyn Error>> {
    let mut pages = Vec::new();
    for name in ["README.md", "ALGORITHM.md", "CHANGELOG.md"] {
        pages.push(Page {
            name: name.to_owned(),
            markdown: fs::read_to_string(root.join(name))?,
        });
    }
    for path in common::files(&root.join("src"), "rs")? {
        let name = path.strip_prefix(root)?.display().to_string();
        let markdown = documentation(&fs::read_to_string(&path)?);
        pages.push(Page { name, markdown });
    }
    Ok(pages)
}

fn render(page: &Page, word: &Regex) -> Rendered {
    let mut headings = Vec::new();
    let mut heading = None;
    let mut words = BTreeMap::new();
    let events = Parser::new_ext(&page.markdown, Options::all()).inspect(|event| match event {
        Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
        Event::End(TagEnd::Heading(_)) => headings.extend(heading.take()),
        Event::Text(text) | Event::Code(text) => {
            if let Some(heading) = &mut heading {
                heading.push_str(text);
            }
            for found in word.find_iter(text) {
                *words.entry(found.as_str().to_lowercase()).or_default() += 1;
            }
        }
        _ => {}
    });
    let mut html = String::new();
    html::push_html(&mut html, events);
    Rendered {
        name: page.name.clone(),
        html,
        headings,
        words,
    }
}

/// From words to the pages that have them, with the pages' headings.
fn index(site: &[Rendered]) -> Value {
    let mut words: BTreeMap<&str, BTreeSet<(usize, &str)>> = BTreeMap::new();
    for page in site {
        for (word, &count) in &page.words {
            words.entry(word).or_default().insert((count, &page.name));
        }
    }
    let pages: Vec<_> = site
        .iter()
        .map(|page| json!({ "name": page.name, "headings": page.headings, "bytes": page.html.len() }))
        .collect();
    let words: serde_json::Map<_, _> = words
        .into_iter()
        .map(|(word, pages)| {
            let best: Vec<_> = pages
                .iter()
                .rev()
                .take(8)
                .map(|(count, page)| json!([page, count]))
                .collect();
            (word.to_owned(), Value::Array(best))
        })
        .collect();
    json!({ "pages": pages, "words": words })
}

fn main() -> Result<(), Box<dyn Error>> {
    let word = Regex::new(r"[\p{Alphabetic}_]{3,}")?;
    let pages = pages(&common::root())?;
    let site: Vec<_> = pages.iter().map(|page| render(page, &word)).collect();
    let text = serde_json::to_string_pretty(&index(&site))?;
    // A reader of the index, as the site's search would be.
    let read: Value = serde_json::from_str(&text)?;
    let words = read["words"].as_object().map_or(0, serde_json::Map::len);
    let bytes: usize = site.iter().map(|page| page.html.len()).sum();
    println!("{} pages, {bytes} bytes of HTML, {words} words", site.len());
    Ok(())
}
