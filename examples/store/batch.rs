//! Changes that come together: all of the lines on stdin, or none.

use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use crate::common::{interrupt, say};
use crate::session::{Failure, Session};
use crate::{PATIENCE, PROGRAM, key};

/// Lines that are read ahead.
const AHEAD: usize = 1024;

/// Does what the lines say, as one commit.
pub(crate) fn run(session: &mut Session, is_verbose: bool) -> Result<(), Failure> {
    let done = changes(session, &read()).and_then(|count| session.commit().map(|()| count));
    match done {
        Ok(count) if is_verbose => say::line(PROGRAM, format_args!("{count} changes, 1 commit")),
        Ok(_) => {}
        Err(failure) => {
            session.rollback()?;
            say::line(PROGRAM, format_args!("nothing was changed"));
            return Err(failure);
        }
    }
    Ok(())
}

/// The lines of stdin. A thread of its own waits for them, so that Ctrl-C is noticed meanwhile.
fn read() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(AHEAD);
    // It ends with the lines, with the receiver, or with the program.
    thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            let is_last = line.is_err();
            if sender.send(line).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}

/// How many there were. A failure leaves those before it, which the caller drops.
fn changes(session: &Session, lines: &Receiver<io::Result<Vec<u8>>>) -> Result<u64, Failure> {
    let mut count = 0;
    loop {
        let refuse = |what: &str| Failure::Other(format!("line {}: {what}", count + 1));
        match lines.recv_timeout(PATIENCE) {
            Ok(Ok(line)) => match change(session, &line) {
                Ok(()) => count += 1,
                Err(Failure::Other(what)) => return Err(refuse(&what)),
                Err(failure) => return Err(failure),
            },
            Ok(Err(error)) => return Err(refuse(&error.to_string())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(count),
        }
        if interrupt::requested() {
            return Err(Failure::Interrupted);
        }
    }
}

fn change(session: &Session, line: &[u8]) -> Result<(), Failure> {
    let line = str::from_utf8(line).map_err(|error| Failure::Other(error.to_string()))?;
    match line.split_once('\t') {
        Some(("set", rest)) => {
            let (name, value) = rest
                .split_once('\t')
                .ok_or_else(|| Failure::Other("`set` has no value".into()))?;
            let name = key(name).map_err(Failure::Other)?;
            session.with(|records| records.set(&name, value))
        }
        Some(("delete", name)) => {
            let name = key(name).map_err(Failure::Other)?;
            match session.with(|records| records.delete(&name))? {
                true => Ok(()),
                false => Err(Failure::Other(format!("there is no key {name:?}"))),
            }
        }
        _ => Err(Failure::Other(
            "neither set<TAB>KEY<TAB>VALUE nor delete<TAB>KEY".into(),
        )),
    }
}
