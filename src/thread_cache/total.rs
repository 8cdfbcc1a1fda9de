//! What the magazines of all threads may hold together: it follows the process, not its threads.
//!
//! A thread that sleeps keeps what it has, as nobody else may empty its magazines; so thousands that each
//! may keep what one may would keep gigabytes. As many threads as processors run at once: what those may
//! have is enough for all, or an [eighth](PART) of what is in use, if that is more. Beyond it, threads may
//! grow by less and less, and beyond twice as much by next to nothing. To a thread that is at work room gets scarce
//! later, by what those may have that run at once: what sleepers keep that did little would have it flush all the time.
#![forbid(unsafe_code)]

use crate::config;
use crate::demand::DEMAND;
use crate::heap;
use crate::sync::{AtomicUsize, Ordering, OwnLines};

/// One part in so many of what is in use may lie in magazines: as little as rounding to a class may cost.
const PART: usize = 8;
/// What a thread may keep however many there are: less than its stack and the kernel's tables take.
const FLOOR: usize = 16 << 10;

/// Capacity of all magazines with room for more than one block, in bytes. An estimate in a forked child:
/// threads that are gone may have changed one of a magazine's capacity and this.
static TOTAL: OwnLines<AtomicUsize> = OwnLines(AtomicUsize::new(0));

/// Notes that a magazine may hold `after` bytes, `before` so many. Who changes it takes or returns slots,
/// which costs a lock; so this is no burden.
pub(super) fn change(before: usize, after: usize) {
    if before != after {
        // OVERFLOW: modulo 2^64.
        // ORDERING: an estimate, nothing is published through it, here and below.
        TOTAL.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// What all magazines may hold, beyond which room gets scarce to a thread.
fn most(is_at_work: bool) -> usize {
    let running = config::thread_cache().saturating_mul(heap::count());
    let most = DEMAND.part(PART, running);
    if is_at_work {
        most.saturating_add(running)
    } else {
        most
    }
}

/// By how much all magazines may hold more than that.
fn beyond(most: usize) -> usize {
    // Below 0 is none.
    let total = TOTAL.load(Ordering::Relaxed).cast_signed();
    usize::try_from(total).unwrap_or(0).saturating_sub(most)
}

/// How much a thread may have that may have `own` bytes as far as itself and its neighbours go.
pub(super) fn allowed(own: usize, is_at_work: bool) -> usize {
    let most = most(is_at_work);
    allowed_at(own, most, beyond(most))
}

/// Whether all threads have too much, and one that has so many bytes more than it is allowed.
pub(super) fn is_too_much(bytes: usize, own: usize, is_at_work: bool) -> bool {
    let most = most(is_at_work);
    let beyond = beyond(most);
    beyond > 0 && bytes > allowed_at(own, most, beyond)
}

fn allowed_at(own: usize, most: usize, beyond: usize) -> usize {
    if beyond == 0 {
        return own;
    }
    // All of them, evenly: nothing at twice as much.
    let part = own.min(most) as u128 * most.saturating_sub(beyond) as u128 / most.max(1) as u128;
    usize::try_from(part).unwrap_or(own).max(FLOOR.min(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_magazines_stay_below_twice_as_much() {
        let (most, own) = (8 << 20, 1 << 20);
        assert_eq!(allowed_at(own, most, 0), own);
        assert_eq!(allowed_at(own, most, most / 2), own / 2);
        assert_eq!(allowed_at(own, most, most), FLOOR);
        assert_eq!(allowed_at(own, most, usize::MAX), FLOOR);
        assert_eq!(allowed_at(0, 0, 1), 0);
        assert_eq!(allowed_at(usize::MAX, usize::MAX, 1), usize::MAX - 1);
        // Threads that come one after the other and take what they may.
        let mut total = 0_usize;
        for _ in 0..4000 {
            total += allowed_at(own, most, total.saturating_sub(most));
        }
        assert!(total <= 2 * most + 4000 * FLOOR, "{total}");
    }
}
