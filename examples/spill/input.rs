//! Where the lines come from.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Lines to sort.
pub(crate) enum Input<'a> {
    Files(&'a [PathBuf]),
    /// So many bytes of random lines.
    MadeUp {
        bytes: u64,
        seed: u64,
    },
}

impl Input<'_> {
    /// How many bytes there are. `None` for pipes. An `Err` is for people.
    pub(crate) fn length(&self) -> Result<Option<u64>, String> {
        let paths = match self {
            Self::Files(paths) => paths,
            Self::MadeUp { bytes, .. } => return Ok(Some(*bytes)),
        };
        let mut length = Some(0);
        for path in *paths {
            let found = fs::metadata(path).map_err(|error| describe(path, &error))?;
            if found.is_dir() {
                return Err(format!("{}: Is a directory", path.display()));
            }
            length = length
                .filter(|_| found.is_file())
                .map(|length| length + found.len());
        }
        Ok(length)
    }

    /// Calls with each line, without its end, until that fails.
    pub(crate) fn each<E: From<String>>(
        &self,
        mut act: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut line = Vec::new();
        match self {
            Self::Files(paths) => {
                for path in *paths {
                    let refuse = |error: io::Error| describe(path, &error);
                    let mut file = BufReader::new(File::open(path).map_err(refuse)?);
                    while file.read_until(b'\n', &mut line).map_err(refuse)? != 0 {
                        act(line.strip_suffix(b"\n").unwrap_or(&line))?;
                        line.clear();
                    }
                }
            }
            Self::MadeUp { bytes, seed } => {
                let mut random = SmallRng::seed_from_u64(*seed);
                let mut left = *bytes;
                while left > 0 {
                    let length = random.random_range(10..90_u64).min(left - 1);
                    line.clear();
                    line.extend((0..length).map(|_| random.random_range(b'a'..=b'z')));
                    act(&line)?;
                    left -= length + 1;
                }
            }
        }
        Ok(())
    }
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
