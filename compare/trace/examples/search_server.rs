//! A search service: a loader hands documents to two workers, which cut them into postings; the
//! index merges those and answers clients. Every message is freed on another thread than the one
//! that made it. Threads: main (the index), a loader, two workers, two clients.

mod common;

use std::alloc::System;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;

use trace::Recorder;

#[global_allocator]
static ALLOCATOR: Recorder<System> = Recorder::new(System);

const WORKERS: usize = 2;
const CLIENTS: usize = 2;
/// Messages that may wait.
const QUEUE: usize = 16;
const LINES_PER_DOCUMENT: usize = 40;
const QUERIES_PER_CLIENT: usize = 1500;

/// A piece of a file.
struct Document {
    id: usize,
    title: String,
    text: String,
}

/// What a worker made of a document.
struct Postings {
    id: usize,
    title: String,
    /// The numbers of a word's lines.
    words: HashMap<String, Vec<u32>>,
}

struct Query {
    words: Vec<String>,
    reply: Sender<Answer>,
}

/// Titles with the lines that were found, best first.
type Answer = Vec<(String, Vec<u32>)>;

fn load(root: &Path, sources: &[PathBuf], documents: &SyncSender<Document>) -> std::io::Result<()> {
    let mut id = 0;
    for path in sources {
        let text = fs::read_to_string(path)?;
        let name = path.strip_prefix(root).unwrap_or(path);
        let lines: Vec<_> = text.lines().collect();
        for (part, lines) in lines.chunks(LINES_PER_DOCUMENT).enumerate() {
            let document = Document {
                id,
                title: format!("{}:{part}", name.display()),
                text: lines.join("\n"),
            };
            if documents.send(document).is_err() {
                return Ok(());
            }
            id += 1;
        }
    }
    Ok(())
}

fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| word.len() > 2)
        .map(str::to_lowercase)
}

fn work(documents: &Mutex<Receiver<Document>>, postings: &Sender<Postings>) {
    loop {
        let next = documents.lock().map(|documents| documents.recv());
        let Ok(Ok(document)) = next else { return };
        let mut found: HashMap<String, Vec<u32>> = HashMap::new();
        for (number, line) in (0_u32..).zip(document.text.lines()) {
            for word in words(line) {
                found.entry(word).or_default().push(number);
            }
        }
        let done = Postings {
            id: document.id,
            title: document.title,
            words: found,
        };
        if postings.send(done).is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Index {
    titles: BTreeMap<usize, String>,
    words: HashMap<String, Vec<(usize, Vec<u32>)>>,
}

impl Index {
    fn add(&mut self, postings: Postings) {
        self.titles.insert(postings.id, postings.title);
        for (word, lines) in postings.words {
            self.words
                .entry(word)
                .or_default()
                .push((postings.id, lines));
        }
    }

    fn answer(&self, words: &[String]) -> Answer {
        let mut hits: HashMap<usize, Vec<u32>> = HashMap::new();
        for (id, lines) in words
            .iter()
            .filter_map(|word| self.words.get(word))
            .flatten()
        {
            hits.entry(*id).or_default().extend(lines);
        }
        let mut hits: Vec<_> = hits.into_iter().collect();
        hits.sort_by_key(|(id, lines)| (std::cmp::Reverse(lines.len()), *id));
        hits.truncate(10);
        hits.into_iter()
            .map(|(id, lines)| (self.titles[&id].clone(), lines))
            .collect()
    }
}

/// Asks for words of the vocabulary by a fixed rule; the number of titles in all answers.
fn ask(client: usize, vocabulary: &[String], queries: &SyncSender<Query>) -> usize {
    let (reply, answers) = mpsc::channel();
    let mut state = client as u64 + 1;
    let mut titles = 0;
    for _ in 0..QUERIES_PER_CLIENT {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let first = (state >> 33) as usize;
        let words = (0..1 + first % 3)
            .map(|step| vocabulary[(first + step * 17) % vocabulary.len()].clone())
            .collect();
        let reply = reply.clone();
        if queries.send(Query { words, reply }).is_err() {
            break;
        }
        titles += answers.recv().map_or(0, |answer| answer.len());
    }
    titles
}

fn build(root: &Path) -> Result<Index, Box<dyn Error>> {
    let mut sources = common::files(&root.join("src"), "rs")?;
    sources.push(root.join("ALGORITHM.md"));
    let (documents, queue) = mpsc::sync_channel(QUEUE);
    let queue = Mutex::new(queue);
    let (postings, done) = mpsc::channel();
    let mut index = Index::default();
    thread::scope(|scope| {
        let loader = scope.spawn(|| {
            let documents = documents;
            load(root, &sources, &documents)
        });
        for _ in 0..WORKERS {
            let postings = postings.clone();
            scope.spawn(|| {
                let postings = postings;
                work(&queue, &postings);
            });
        }
        drop(postings);
        done.iter().for_each(|postings| index.add(postings));
        loader.join().map_err(|_| "the loader panicked")
    })??;
    Ok(index)
}

fn main() -> Result<(), Box<dyn Error>> {
    let index = build(&common::root())?;
    let mut vocabulary: Vec<_> = index.words.keys().cloned().collect();
    vocabulary.sort();
    let vocabulary = Arc::new(vocabulary);
    let (queries, requests) = mpsc::sync_channel::<Query>(QUEUE);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let vocabulary = vocabulary.clone();
            let queries = queries.clone();
            thread::spawn(move || ask(client, &vocabulary, &queries))
        })
        .collect();
    drop(queries);
    let mut answered = 0;
    for query in requests {
        answered += 1;
        // A client that is gone needs no answer.
        let _ = query.reply.send(index.answer(&query.words));
    }
    let mut titles = 0;
    for client in clients {
        titles += client.join().map_err(|_| "a client panicked")?;
    }
    println!(
        "{} documents, {} words, {answered} queries, {titles} titles",
        index.titles.len(),
        vocabulary.len()
    );
    Ok(())
}
