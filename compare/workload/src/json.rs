//! j_: a text parsed into a tree of values, and the tree dropped.

use std::fmt::{self, Write};
use std::hint::black_box;

use serde_json::Value;

use super::meter::{Meter, Reading};
use super::random::Random;

/// A file of data, and an answer of a service.
const LONG: usize = 8 << 20;
const SHORT: usize = 64 << 10;

/// An array of records with strings, numbers and nested arrays.
fn text(length: usize) -> Result<String, fmt::Error> {
    let mut random = Random::new(9);
    let mut text = String::with_capacity(length + 1024);
    let mut id = 0;
    let mut separator = '[';
    while text.len() < length {
        let word = random.next();
        write!(
            text,
            "{separator}{{\"id\":{id},\"name\":\"user {:x}\",",
            word >> 40
        )?;
        write!(
            text,
            "\"active\":{},\"balance\":{}.25,",
            word.is_multiple_of(2),
            word % 10_000
        )?;
        write!(
            text,
            "\"tags\":[\"alpha\",\"{:x}\",\"{:o}\"],",
            word % 4096,
            word % 512
        )?;
        write!(
            text,
            "\"address\":{{\"street\":\"{:x} Main Street\",",
            word % 65_536
        )?;
        write!(
            text,
            "\"zip\":\"{:05}\",\"lines\":[{},{},{}]}},",
            word % 99_999,
            id,
            id + 1,
            id + 2
        )?;
        write!(text, "\"note\":\"")?;
        for _ in 0..word % 12 {
            write!(text, "lorem {:x} ", random.next() % 4096)?;
        }
        write!(text, "\"}}")?;
        separator = ',';
        id += 1;
    }
    text.push(']');
    Ok(text)
}

pub(crate) fn long(meter: &Meter) -> Reading {
    parse(meter, LONG, 1)
}

pub(crate) fn short(meter: &Meter) -> Reading {
    parse(meter, SHORT, 100)
}

/// An operation is one byte of text.
fn parse(meter: &Meter, length: usize, rounds: u64) -> Reading {
    let text = text(length).expect("writing to a string does not fail");
    meter.run(rounds, text.len(), |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let tree: Value = serde_json::from_str(black_box(&text)).expect("the text is valid");
            let records = tree.as_array().expect("the text is an array");
            sum = records.iter().fold(sum, |sum, record| {
                sum.wrapping_add(record["address"]["lines"][2].as_u64().unwrap_or(0))
            });
        }
        sum
    })
}
