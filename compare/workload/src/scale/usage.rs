//! What the kernel has done for this process.

use std::mem::MaybeUninit;
use std::ops::{AddAssign, Sub};
use std::time::Duration;

#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Time of all threads inside the kernel.
    pub(super) system: Duration,
    /// Page faults without reading from a disk.
    pub(super) faults: u64,
}

impl Usage {
    /// Since the process began.
    pub(super) fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: 1. the pointer is valid for a rusage. It cannot fail for RUSAGE_SELF.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        // SAFETY: 1. zeros are a value, which the kernel has replaced.
        let usage = unsafe { usage.assume_init() };
        let (seconds, micros) = (usage.ru_stime.tv_sec, usage.ru_stime.tv_usec);
        Self {
            system: Duration::from_secs(seconds as u64) + Duration::from_micros(micros as u64),
            faults: usage.ru_minflt as u64,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            system: self.system.saturating_sub(before.system),
            faults: self.faults - before.faults,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.system += more.system;
        self.faults += more.faults;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::mapped::MappedArray;
    use super::*;

    #[test]
    fn faults_of_fresh_pages_are_counted() {
        let before = Usage::now();
        let _array = MappedArray::<u64>::new(1 << 20).expect("8 MiB");
        // at most a huge page at a time
        assert!((Usage::now() - before).faults >= 4);
    }
}
