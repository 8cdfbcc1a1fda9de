//! The kernel's choice of huge pages while we measure.

use std::fs;

use clap::ValueEnum;

const SWITCH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// For all memory.
    Always,
    /// For memory that asks for it.
    Madvise,
    /// For none: each program turns them off for itself.
    Never,
}

impl Choice {
    const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Madvise => "madvise",
            Self::Never => "never",
        }
    }
}

/// What the kernel says: its choice in brackets among all.
pub(crate) fn chosen() -> Option<String> {
    let text = fs::read_to_string(SWITCH).ok()?;
    bracketed(&text).map(str::to_owned)
}

fn bracketed(text: &str) -> Option<&str> {
    let (choice, _) = text.split_once('[')?.1.split_once(']')?;
    Some(choice)
}

/// Puts the machine's choice back when it ends.
pub(crate) struct Changed {
    before: Option<String>,
}

/// Makes the choice for the whole machine where programs cannot make it for themselves.
///
/// # Errors
///
/// A message for the user: the switch cannot be turned.
pub(crate) fn choose(choice: Option<Choice>) -> Result<Changed, String> {
    let mut changed = Changed { before: None };
    let Some(choice @ (Choice::Always | Choice::Madvise)) = choice else {
        return Ok(changed);
    };
    let before = chosen().ok_or_else(|| format!("--thp: there is no {SWITCH}"))?;
    if before != choice.name() {
        fs::write(SWITCH, choice.name())
            .map_err(|error| format!("--thp: {SWITCH} cannot be written: {error}"))?;
        changed.before = Some(before);
    }
    Ok(changed)
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Some(before) = self.before.take()
            && let Err(error) = fs::write(SWITCH, &before)
        {
            eprintln!("warning: {SWITCH} was {before} and cannot be put back: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_in_brackets() {
        assert_eq!(bracketed("always [madvise] never\n"), Some("madvise"));
        assert_eq!(bracketed(""), None);
    }
}
