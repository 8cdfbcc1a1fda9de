//! Many records at once: those of a file, or random ones.

use core::hash::BuildHasher;
use std::fs::File;
use std::hash::RandomState;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::common::interrupt;
use crate::mapped::bar;
use crate::session::{Failure, Session};

/// After so many records the bar moves.
const STEP: u64 = 256;

/// Sets what the lines of a file say. Each is there at once, so what is interrupted has set those before.
pub(crate) fn file(session: &Session, path: &Path) -> Result<(), Failure> {
    let refuse = |error| Failure::Other(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(refuse)?;
    let length = file.metadata().map_err(refuse)?.len();
    let mut file = BufReader::new(file);
    let bar = bar(length, true);
    let (mut line, mut number, mut read) = (String::new(), 0_u64, 0);
    loop {
        line.clear();
        let bytes = file.read_line(&mut line).map_err(refuse)?;
        if bytes == 0 {
            break;
        }
        number += 1;
        read += bytes as u64;
        let text = line.strip_suffix('\n').unwrap_or(&line);
        let (key, value) = text
            .split_once('\t')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| refuse_line(path, number))?;
        session.with(|records| records.set(key, value))?;
        if number % STEP == 0 {
            bar.set_position(read);
        }
        if interrupt::requested() {
            return Err(Failure::Interrupted);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn refuse_line(path: &Path, number: u64) -> Failure {
    let path = path.display();
    Failure::Other(format!(
        "{path}: line {number} is no KEY<TAB>VALUE; those before are set"
    ))
}

/// Sets random keys, one by one.
pub(crate) fn fill(session: &Session, count: u64) -> Result<(), Failure> {
    let bar = bar(count, false);
    let random = RandomState::new();
    for number in 0..count {
        let random = random.hash_one(number);
        let key = format!("fill-{random:016x}");
        let value = key.repeat(1 + usize::from(random.to_le_bytes()[0] % 10));
        session.with(|records| records.set(&key, &value))?;
        if number % STEP == 0 {
            bar.set_position(number);
        }
        if interrupt::requested() {
            return Err(Failure::Interrupted);
        }
    }
    bar.finish_and_clear();
    Ok(())
}
