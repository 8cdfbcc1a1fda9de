//! Something to wait for, that processes share.

use core::fmt;
use core::time::Duration;

use crate::os;
use crate::os::shared::{wait_shared, wake_all_shared};
use crate::sync::{AtomicU32, Ordering};

/// A waiter looks by itself so often. Whoever signals may be killed between the count and the call that wakes.
const PATIENCE_NS: u64 = 250_000_000;

/// A count that goes up, and that threads of any process wait for, in the kernel.
///
/// Look at the count, then at what the event is about, then wait beyond that count: no signal is lost between.
///
/// ```
/// use core::time::Duration;
/// use flagstone::mapped::{Box, Event};
/// use flagstone::Mapped;
///
/// let heap = Mapped::create(16 << 20)?;
/// let event = Box::new_in(Event::new(), heap.handle());
/// let seen = event.count();
/// event.signal();
/// assert!(event.wait_beyond(seen, Duration::from_secs(1)));
/// assert!(!event.wait_beyond(seen + 1, Duration::from_millis(1)));
/// # Ok::<(), flagstone::MappedError>(())
/// ```
///
/// A process that is killed before it signals signals nothing: a wait has a time at most, after which to look whether there
/// is anybody to wait for. One that is killed in the midst of `signal` may leave waiters asleep for a quarter of a second.
#[repr(C)]
#[derive(Default)]
pub struct Event {
    count: AtomicU32,
    /// 1 if somebody may sleep.
    sleepers: AtomicU32,
}

impl Event {
    /// One with count 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
        }
    }

    /// How often it was signalled, modulo 2^32. What was written before these signals is seen.
    #[must_use]
    pub fn count(&self) -> u32 {
        // ORDERING: acquire: pairs with `signal`.
        self.count.load(Ordering::Acquire)
    }

    /// Raises the count, and wakes all who wait for it.
    pub fn signal(&self) {
        // ORDERING: release: pairs with `count`. More than that, here and below: of a signaller and a waiter one sees what the
        // other wrote first. Either the kernel, which looks at the count once more, does not put the waiter to sleep, or the
        // waiter is woken.
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.swap(0, Ordering::SeqCst) != 0 {
            wake_all_shared(&self.count);
        }
    }

    /// Waits until the count is beyond `count`, for so long at most; whether it is. Counts up to 2^31 before it are beyond
    /// it, too: the count begins again at 0.
    pub fn wait_beyond(&self, count: u32, time: Duration) -> bool {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let deadline = os::now_ns().saturating_add(time);
        loop {
            let found = self.count();
            if found.wrapping_sub(count).cast_signed() > 0 {
                return true;
            }
            let left = deadline.saturating_sub(os::now_ns());
            if left == 0 {
                return false;
            }
            self.sleepers.store(1, Ordering::SeqCst);
            wait_shared(&self.count, found, left.min(PATIENCE_NS) as u32);
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Event").field(&self.count()).finish()
    }
}
