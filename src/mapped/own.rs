//! Files that threads of this process open anew for a moment, to lock bytes by: a child that is forked meanwhile has them,
//! too, with their locks.

use super::error::MappedError;
use super::source::Source;
use crate::os::shared::{File, FileId};
use crate::os::{self, Held, Lock};

/// Threads that do so at once, at most, whose files a child finds: each is there for some microseconds.
const MOST: usize = 16;

/// What is open at the moment, in a process.
struct Files {
    generation: u32,
    all: [Option<(File, FileId)>; MOST],
}

static FILES: Lock<Files> = Lock::new(Files {
    generation: 0,
    all: [None; MOST],
});

/// The files of this process. In a forked child those of its parent are closed first.
fn files() -> Held<'static, Files> {
    FILES.break_inherited();
    let mut files = FILES.lock();
    let own = os::fork_generation().number();
    if files.generation != own {
        for (left, id) in files.all.iter_mut().filter_map(Option::take) {
            if left.identify().is_ok_and(|(found, _)| found == id) {
                left.close();
            }
        }
        files.generation = own;
    }
    files
}

impl Source {
    /// Does something by the file opened anew, and closes that.
    pub(super) fn with_own<T>(
        &self,
        act: impl FnOnce(File) -> Result<T, MappedError>,
    ) -> Result<T, MappedError> {
        let own = {
            let mut files = files();
            let own = self.open_anew()?;
            if let Some(free) = files.all.iter_mut().find(|file| file.is_none()) {
                *free = Some((own, self.id));
            }
            own
        };
        let done = act(own);
        let mut files = files();
        own.close();
        let is_own =
            |file: &&mut Option<(File, FileId)>| matches!(file, Some((file, _)) if *file == own);
        if let Some(entry) = files.all.iter_mut().find(is_own) {
            *entry = None;
        }
        done
    }
}
