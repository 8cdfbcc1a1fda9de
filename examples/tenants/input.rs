//! Lines, of stdin or made up, and what they say.

use core::time::Duration;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::common::interrupt;

/// Longest line, with its newline.
const LONGEST: usize = 64 << 10;

/// How late Ctrl-C may be noticed.
const TICK: Duration = Duration::from_millis(50);

const NAMES: [&str; 8] = [
    "alder", "birch", "cedar", "elm", "fir", "hazel", "linden", "oak",
];

pub(crate) enum Line<'a> {
    Nothing,
    Put {
        tenant: &'a str,
        key: &'a str,
        value: &'a str,
    },
    Drop(&'a str),
    List,
}

pub(crate) fn parse(text: &str) -> Result<Line<'_>, String> {
    let text = text.trim();
    let (first, rest) = split(text);
    let (second, third) = split(rest);
    // A tenant may be called `drop` or `list`: its lines have three words.
    match (first, second, third) {
        ("", ..) => Ok(Line::Nothing),
        ("list", "", _) => Ok(Line::List),
        ("drop", tenant, "") if !tenant.is_empty() => Ok(Line::Drop(tenant)),
        (_, _, "") => Err("`TENANT KEY VALUE`, `drop TENANT` or `list` is needed".into()),
        (tenant, key, value) => Ok(Line::Put { tenant, key, value }),
    }
}

/// The first word, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// A line, or why it is none.
pub(crate) type Given = Result<String, String>;

/// Ends early on Ctrl-C.
pub(crate) enum Lines {
    Stdin(Receiver<Given>),
    MadeUp {
        random: Box<Xoshiro256PlusPlus>,
        left: u64,
    },
}

impl Lines {
    /// A thread reads, as Ctrl-C does not end a read that waits for somebody to type.
    pub(crate) fn of_stdin() -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(256);
        thread::Builder::new().spawn(move || read(&mut io::stdin().lock(), &sender))?;
        Ok(Self::Stdin(receiver))
    }

    /// The same lines each time. At the end, the largest tenant leaves.
    pub(crate) fn made_up(count: u64) -> Self {
        let random = Box::new(Xoshiro256PlusPlus::seed_from_u64(7));
        Self::MadeUp {
            random,
            left: count + 2,
        }
    }
}

impl Iterator for Lines {
    type Item = Given;

    fn next(&mut self) -> Option<Given> {
        match self {
            Self::Stdin(receiver) => loop {
                if interrupt::requested() {
                    return None;
                }
                match receiver.recv_timeout(TICK) {
                    Ok(line) => return Some(line),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            },
            Self::MadeUp { random, left } => {
                if interrupt::requested() {
                    return None;
                }
                *left = left.checked_sub(1)?;
                Some(Ok(match *left {
                    1 => "list".into(),
                    0 => format!("drop {}", NAMES[0]),
                    _ => make_up(random),
                }))
            }
        }
    }
}

/// Of two tenants, the first has twice as many lines; values are of many lengths.
fn make_up(random: &mut Xoshiro256PlusPlus) -> String {
    let tenant = NAMES[(random.random::<u32>() | 1 << 7).trailing_zeros() as usize];
    let key = random.random_range(0..20_000_u32);
    let longest = 1_usize << random.random_range(2..=8);
    let length = random.random_range(1..=longest);
    format!("{tenant} key-{key} {}", "v".repeat(length))
}

/// Sends lines until there are none, or nobody takes them.
fn read(input: &mut impl BufRead, sender: &SyncSender<Given>) {
    loop {
        let line = match next_line(input) {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(error) => {
                // An error of the input is its end: the next read would meet it again.
                let _ = sender.send(Err(format!("cannot read: {error}")));
                return;
            }
        };
        if sender.send(line).is_err() {
            return;
        }
    }
}

/// A line, whose length is bounded: of a longer one, the rest is skipped.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Given>> {
    let mut bytes = Vec::new();
    let most = LONGEST as u64;
    if input.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() == LONGEST && !bytes.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(format!("it is longer than {LONGEST} bytes"))));
    }
    let text = String::from_utf8(bytes);
    Ok(Some(text.map_err(|_| "it is not UTF-8".into())))
}
