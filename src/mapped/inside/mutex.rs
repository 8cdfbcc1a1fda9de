//! A mutex that processes share, and that outlives who holds it.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::time::Duration;

use crate::mapped::MappedError;
use crate::mapped::attachment::Attachment;
use crate::mapped::holder::{FREE, Holder, Left};
use crate::mapped::lock::Taken;
use crate::mapped::words::Process;
use crate::os;
use crate::os::shared::wake_shared;
use crate::sync::AtomicU32;

/// A value that one thread of one process at a time can change. It works where it lies in a heap that is attached: on the
/// stack, say, it cannot be locked.
///
/// Its word names the process that holds it. If that is killed meanwhile, the next who locks gets
/// [`LockError::Abandoned`], with the value, and so does everyone after him until one [says](Guard::mark_fit) that the value
/// is fit. A thread that locks what it holds waits for good. A panic lets the lock go, and tells nobody.
///
/// ```
/// use flagstone::mapped::{Box, Mutex};
/// use flagstone::Mapped;
///
/// let heap = Mapped::create(16 << 20)?;
/// let balance = Box::new_in(Mutex::new([60, 40]), heap.handle());
/// // What to do with what a process left that was killed is the program's affair.
/// let mut held = balance
///     .lock()
///     .or_else(|error| error.repair(|[left, right]| *left = 100 - *right))?;
/// held[0] -= 10;
/// held[1] += 10;
/// drop(held);
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[repr(C)]
pub struct Mutex<T> {
    /// See [`Holder`].
    word: AtomicU32,
    sleepers: AtomicU32,
    left: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: 1. `value` is reached by one thread at a time, by the lock.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// Why a lock was not taken, or not as usual.
#[non_exhaustive]
pub enum LockError<'a, T> {
    /// It was taken, and the value may be half changed: a process was killed while it held the lock.
    Abandoned(Guard<'a, T>),
    /// Somebody has it, and the call was one that does not wait, or not any longer.
    Held,
    /// [`MappedError::Foreign`] if the mutex lies in no heap that is attached; otherwise as for an allocation:
    /// [`Closed`](MappedError::Closed), [`System`](MappedError::System).
    Heap(MappedError),
}

/// Holds a lock until it is dropped. A forked child's copy does nothing, and must not be used: the lock is its parent's.
#[must_use = "the lock is let go when it is dropped"]
pub struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
    process: Process,
    /// The process that took it, as [`os::fork_generation`] counts.
    generation: u32,
    /// Not `Send`, as std's.
    of_thread: PhantomData<*const ()>,
}

// SAFETY: 1. a shared guard gives shared references to the value only.
unsafe impl<T: Sync> Sync for Guard<'_, T> {}

impl<T> Mutex<T> {
    /// A mutex that nobody holds.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            sleepers: AtomicU32::new(0),
            left: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until nobody else has the lock, and takes it. Looks every few milliseconds whether the holder lives.
    ///
    /// # Errors
    ///
    /// [`LockError::Abandoned`], which has the lock all the same; [`LockError::Heap`].
    pub fn lock(&self) -> Result<Guard<'_, T>, LockError<'_, T>> {
        self.lock_until(None)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    ///
    /// As of [`lock`](Self::lock), and [`LockError::Held`].
    pub fn lock_for(&self, time: Duration) -> Result<Guard<'_, T>, LockError<'_, T>> {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.lock_until(Some(os::now_ns().saturating_add(time)))
    }

    /// Takes the lock if nobody has it. Does not look whether the holder lives.
    ///
    /// # Errors
    ///
    /// As of [`lock`](Self::lock), and [`LockError::Held`].
    pub fn try_lock(&self) -> Result<Guard<'_, T>, LockError<'_, T>> {
        let (_, process) = self.find()?;
        if self.holder().take(FREE, process.bits()) {
            self.guard(process)
        } else {
            Err(LockError::Held)
        }
    }

    fn lock_until(&self, deadline: Option<u64>) -> Result<Guard<'_, T>, LockError<'_, T>> {
        let (attachment, process) = self.find()?;
        let taken = attachment
            .area
            .take(self.holder(), process, |_| true, |_| (), deadline);
        match taken.map_err(LockError::Heap)? {
            Taken::Late => return Err(LockError::Held),
            Taken::FromTheDead => Left(&self.left).mark(),
            Taken::Free => {}
        }
        self.guard(process)
    }

    /// The heap that the mutex lies in, and this process there.
    fn find(&self) -> Result<(&'static Attachment, Process), LockError<'_, T>> {
        let address = ptr::from_ref(self).addr();
        let attachment = Attachment::over(address).ok_or(LockError::Heap(MappedError::Foreign))?;
        let process = attachment.process().map_err(LockError::Heap)?;
        Ok((attachment, process))
    }

    fn holder(&self) -> Holder<'_> {
        Holder {
            word: &self.word,
            sleepers: &self.sleepers,
        }
    }

    fn guard(&self, process: Process) -> Result<Guard<'_, T>, LockError<'_, T>> {
        let guard = Guard {
            mutex: self,
            process,
            generation: os::fork_generation().number(),
            of_thread: PhantomData,
        };
        if guard.is_abandoned() {
            Err(LockError::Abandoned(guard))
        } else {
            Ok(guard)
        }
    }

    /// The value without the lock.
    ///
    /// # Safety
    /// 1. Nobody changes it meanwhile.
    pub(super) unsafe fn value(&self) -> &T {
        // SAFETY: 1. the caller's.
        unsafe { &*self.value.get() }
    }

    /// The value, by the only reference.
    pub const fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> Guard<'_, T> {
    /// Whether a process was killed that held the lock, and nobody has said since that the value is fit.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        Left(&self.mutex.left).is_marked()
    }

    /// Says that the value is as it has to be. Who locks from now on is not told of processes that were killed before.
    pub fn mark_fit(&mut self) {
        Left(&self.mutex.left).clear();
    }
}

impl<'a, T> LockError<'a, T> {
    /// Has `repair` make an abandoned value whole, and says that it is fit. If that is killed, or panics, the value stays
    /// abandoned.
    ///
    /// # Errors
    ///
    /// What else was wrong: [`MappedError::Held`] if somebody has the lock.
    pub fn repair(self, repair: impl FnOnce(&mut T)) -> Result<Guard<'a, T>, MappedError> {
        match self {
            Self::Abandoned(mut guard) => {
                repair(&mut guard);
                guard.mark_fit();
                Ok(guard)
            }
            Self::Held => Err(MappedError::Held),
            Self::Heap(error) => Err(error),
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // A child's copy is of another generation, once the child knows that it is one.
        Attachment::know_forks();
        if self.generation == os::fork_generation().number() {
            let own = self.process.bits();
            self.mutex.holder().release(own, wake_shared);
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: 1. the lock is held, and the guard borrowed.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: 1. the lock is held, and the guard borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mutex")
            .field("is_held", &(self.holder().get() != FREE))
            .field("is_abandoned", &Left(&self.left).is_marked())
            .finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

impl<T> fmt::Debug for LockError<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(_) => out.write_str("Abandoned"),
            Self::Held => out.write_str("Held"),
            Self::Heap(error) => out.debug_tuple("Heap").field(error).finish(),
        }
    }
}

impl<T> fmt::Display for LockError<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(_) => out.write_str("a process was killed while it held the lock"),
            Self::Held => MappedError::Held.fmt(out),
            Self::Heap(error) => error.fmt(out),
        }
    }
}

impl<T> core::error::Error for LockError<'_, T> {}
