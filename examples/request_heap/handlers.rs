//! What can be asked for. No handler asks how much memory is left: a heap that is full ends it.

use core::cmp::Reverse;
use core::fmt::{self, Write};
use core::mem::ManuallyDrop;
use std::hash::RandomState;

use flagstone::Heap;
use flagstone::allocator_api2::boxed::Box as HeapBox;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use hashbrown::HashMap;

use crate::request;
use crate::wire::{Problem, Wire};

/// Most words of a text: a bound on time, as the heap's limit is one on memory.
pub(crate) const MOST_WORDS: u64 = 1_000_000;

/// How many words are told.
const TOP: usize = 10;

const HELP: &str = "GET /words?n=N    the most frequent of N words\n\
                    GET /expand?n=N   N bytes\n\
                    POST /upper       the body in capitals\n";

/// An answer's body. The heap outlives it, so it is sent without a copy.
pub(crate) type Body<'h> = HeapVec<u8, &'h Heap>;

/// How often each word occurs, all of it in one heap.
type Words<'h> = HashMap<HeapBox<[u8], &'h Heap>, u64, RandomState, &'h Heap>;

/// Reads a request and does what it asks for.
pub(crate) fn answer<'h>(wire: &mut Wire, heap: &'h Heap) -> Result<Body<'h>, Problem> {
    let received = request::receive(wire, heap)?;
    let request = received.parse(heap)?;
    match (request.method, request.path) {
        ("GET", "/") => expand(HELP.len() as u64, HELP, heap),
        ("GET", "/words") => words(request.number()?, heap),
        ("GET", "/expand") => expand(request.number()?, "flagstone\n", heap),
        ("POST", "/upper") => {
            let mut body = request.body(wire, heap)?;
            body.make_ascii_uppercase();
            Ok(body)
        }
        (_, "/" | "/words" | "/expand" | "/upper") => {
            Err(Problem::Status(405, "not with this method"))
        }
        _ => Err(Problem::Status(404, "no such path")),
    }
}

/// `text` over and over, `count` bytes of it.
fn expand<'h>(count: u64, text: &str, heap: &'h Heap) -> Result<Body<'h>, Problem> {
    let mut body = HeapVec::new_in(heap);
    let mut left = count;
    while left > 0 {
        // It grows by itself. A number that is no length must not be reserved.
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(text.len());
        body.extend_from_slice(&text.as_bytes()[..part]);
        left -= part as u64;
    }
    Ok(body)
}

/// Counts the words of a text that is made up on the way: some are frequent, most are not.
fn words(count: u64, heap: &Heap) -> Result<Body<'_>, Problem> {
    if count > MOST_WORDS {
        return Err(Problem::Status(400, "these are too many words"));
    }
    let words: Words<'_> = HashMap::with_hasher_in(RandomState::new(), heap);
    // Nobody frees each word: all of them go with the heap.
    let mut words = ManuallyDrop::new(words);
    let mut word = HeapVec::new_in(heap);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for number in 0..count {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let choice = if state & 1 == 0 { state >> 60 } else { number };
        spell(choice, &mut word);
        match words.get_mut(&word[..]) {
            Some(occurrences) => *occurrences += 1,
            None => {
                let mut own = HeapVec::with_capacity_in(word.len(), heap);
                own.extend_from_slice(&word);
                words.insert(own.into_boxed_slice(), 1);
            }
        }
    }
    let mut found = HeapVec::with_capacity_in(words.len(), heap);
    found.extend(
        words
            .iter()
            .map(|(word, count)| (Reverse(*count), &word[..])),
    );
    found.sort_unstable();
    let mut text = Text(HeapVec::new_in(heap));
    // Memory that runs out is a panic, not an error of these.
    let _ = writeln!(text, "{count} words, {} distinct", found.len());
    for (Reverse(count), word) in found.iter().take(TOP) {
        let _ = writeln!(text, "{count:>8} {}", word.escape_ascii());
    }
    Ok(text.0)
}

/// A word for each number.
fn spell(mut number: u64, word: &mut HeapVec<u8, &Heap>) {
    const SYLLABLES: [&[u8]; 8] = [b"ka", b"lo", b"mi", b"ne", b"pu", b"ra", b"so", b"ti"];
    word.clear();
    loop {
        word.extend_from_slice(SYLLABLES[usize::from((number & 7) as u8)]);
        number >>= 3;
        if number == 0 {
            return;
        }
    }
}

/// Text that is formatted into a heap.
struct Text<'h>(Body<'h>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
