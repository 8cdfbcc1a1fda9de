//! Groups of processes, of which the kernel kills those that use more than they may (`cgroup`).

use std::path::{Path, PathBuf};
use std::{fs, process};

/// One whose processes may use so many bytes of memory; gone when this is dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    /// `None` where nobody may make one.
    pub(crate) fn new(test: &str, bytes: usize) -> Option<Self> {
        // The two versions of control groups.
        let kinds = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        kinds.into_iter().find_map(|(root, limit)| {
            let group = Path::new(root).join(format!("flagstone-{test}-{}", process::id()));
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            // The file exists already where the kernel counts memory here.
            let limited = group.0.join(limit).exists()
                && fs::write(group.0.join(limit), bytes.to_string()).is_ok();
            limited.then_some(group)
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes this process in.
    pub(crate) fn join(&self) {
        let members = self.0.join("cgroup.procs");
        fs::write(members, process::id().to_string()).expect("a place in the group");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            println!("{} stays: {error}", self.0.display());
        }
    }
}
