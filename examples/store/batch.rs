//! Changes that come together: all of some lines, or none.

use crate::common::{interrupt, say};
use crate::session::{Failure, Session};
use crate::{PROGRAM, key};

/// Does what the lines say, as one commit.
pub(crate) fn run(session: &mut Session, lines: &[u8], is_verbose: bool) -> Result<(), Failure> {
    let done = changes(session, lines).and_then(|count| session.commit().map(|()| count));
    match done {
        Ok(count) if is_verbose => say::line(PROGRAM, format_args!("1 commit of {count} changes")),
        Ok(_) => {}
        Err(failure) => {
            session.rollback()?;
            say::line(PROGRAM, format_args!("nothing was changed"));
            return Err(failure);
        }
    }
    Ok(())
}

/// How many there were. A failure leaves those before it, which the caller drops.
fn changes(session: &Session, lines: &[u8]) -> Result<usize, Failure> {
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    if lines.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        count += 1;
        change(session, line).map_err(|failure| match failure {
            Failure::Other(what) => Failure::Other(format!("line {count}: {what}")),
            failure => failure,
        })?;
        if interrupt::requested() {
            return Err(Failure::Interrupted);
        }
    }
    Ok(count)
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
