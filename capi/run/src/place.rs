//! A heap that is looked at, and not changed, or used.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::{OsStringValueParser, TypedValueParser};
use engine::{Committed, Mapped, MappedError, MappedOptions};

/// The file of a heap, as the command line names it.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Path(PathBuf),
    Descriptor(i32),
}

impl Place {
    /// Of an argument: digits alone are a descriptor's.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().map(|text: OsString| {
            let number = text.to_str().filter(|text| is_number(text));
            match number.and_then(|text| text.parse().ok()) {
                Some(number) => Self::Descriptor(number),
                None => Self::Path(text.into()),
            }
        })
    }

    /// Opens the heap for looks alone, wherever there is room for it.
    pub(crate) fn open(&self) -> Result<Mapped> {
        let options = Mapped::options().read_only(true).anywhere(true);
        self.open_with(options.may_be_dirty(true))
    }

    /// Opens the heap as its users do, wherever there is room for it.
    pub(crate) fn open_for_use(&self) -> Result<Mapped> {
        let heap = self.open_with(Mapped::options().anywhere(true));
        let is_other = |error: &anyhow::Error| {
            let error = error.downcast_ref::<MappedError>();
            matches!(error, Some(MappedError::Kind))
        };
        match (heap, self) {
            (Err(error), Self::Path(path)) if is_other(&error) => {
                // SAFETY: 1. as in `open_with`.
                let heap = unsafe { Committed::options().open(path.as_os_str().as_bytes()) };
                heap.map(|heap| *heap)
                    .map_err(|error| anyhow::Error::new(error).context(self.to_string()))
            }
            (heap, _) => heap,
        }
    }

    fn open_with(&self, options: MappedOptions<'_>) -> Result<Mapped> {
        end_at_lost_pages().context("signals")?;
        let opened = match self {
            Self::Path(path) => {
                // SAFETY: 1. none of its blocks is looked at, its tables as atomics alone. 2. a file that gets shorter ends
                // this process with a message.
                unsafe { options.open(path.as_os_str().as_bytes()) }
            }
            // SAFETY: 1. as above.
            Self::Descriptor(number) => unsafe { options.attach(*number) },
        };
        opened.map_err(|error| anyhow::Error::new(error).context(self.to_string()))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => {
                let path = path.display().to_string();
                out.write_str(&crate::output::tame(&path))
            }
            Self::Descriptor(number) => write!(out, "descriptor {number}"),
        }
    }
}

/// What an error says, and the code that the command ends with: 1 if it is about a heap that is damaged, else 2.
pub(crate) fn fault(error: &anyhow::Error) -> (String, u8) {
    match error.downcast_ref::<MappedError>() {
        Some(MappedError::Damaged | MappedError::Length) => (format!("{error:#}"), 1),
        Some(MappedError::System { errno }) => {
            let why = io::Error::from_raw_os_error(*errno);
            (format!("{error}: {why}"), 2)
        }
        _ => (format!("{error:#}"), 2),
    }
}

/// A page of the file that is not there any more ends the command with a message: somebody made the file shorter, or its
/// disk is broken.
fn end_at_lost_pages() -> io::Result<()> {
    const MESSAGE: &[u8] = b"flagstone: the file became shorter, or cannot be read\n";
    let end = || {
        // SAFETY: 1. the bytes are readable.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        // SAFETY: 1. no precondition.
        unsafe { libc::_exit(2) }
    };
    // SAFETY: 1. it makes two calls that handlers of signals may make.
    unsafe { signal_hook::low_level::register(libc::SIGBUS, end) }.map(|_| ())
}
