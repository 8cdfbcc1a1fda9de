//! The index itself: for each word, the files that have it and how often.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// One word in one file.
#[derive(Clone, Copy)]
pub(crate) struct Posting {
    file: u32,
    pub(crate) count: u32,
}

/// Words to postings.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) words: HashMap<Box<str>, Vec<Posting>>,
}

impl Index {
    /// Counts every word of `text`, lowercased. `word` is scratch space.
    pub(crate) fn add_text(&mut self, file: u32, text: &str, word: &mut String) {
        for token in text
            .split(|c: char| !c.is_alphabetic())
            .filter(|token| !token.is_empty())
        {
            word.clear();
            word.extend(token.chars().flat_map(char::to_lowercase));
            self.add(file, word);
        }
    }

    /// A file's words come in one go, so its posting, if any, is the last of the list.
    fn add(&mut self, file: u32, word: &str) {
        let Some(postings) = self.words.get_mut(word) else {
            self.words
                .insert(word.into(), vec![Posting { file, count: 1 }]);
            return;
        };
        match postings.last_mut() {
            Some(last) if last.file == file => last.count = last.count.saturating_add(1),
            _ => postings.push(Posting { file, count: 1 }),
        }
    }

    /// Takes over another index, whose files must be others. Lists are in order after `sort`.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        if other.words.len() > self.words.len() {
            core::mem::swap(self, &mut other);
        }
        for (word, mut postings) in other.words {
            match self.words.entry(word) {
                Entry::Occupied(mut entry) => entry.get_mut().append(&mut postings),
                Entry::Vacant(entry) => drop(entry.insert(postings)),
            }
        }
    }

    /// Puts every list in the order of its files.
    pub(crate) fn sort(&mut self) {
        for postings in self.words.values_mut() {
            postings.sort_unstable_by_key(|posting| posting.file);
        }
    }
}
