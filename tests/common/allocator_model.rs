//! Random programs for an allocator of collections, beside a model: whatever happens, every block keeps what was written
//! to it.

use core::alloc::Layout;
use core::ptr::NonNull;

use flagstone::allocator_api2::alloc::{AllocError, Allocator};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// A live block and the byte that it is full of.
struct Live {
    block: NonNull<u8>,
    layout: Layout,
    length: usize,
    mark: u8,
}

/// An allocator and what the model knows of it.
pub(crate) struct Model<A> {
    allocator: A,
    live: Vec<Live>,
    random: SmallRng,
}

impl<A: Allocator> Model<A> {
    pub(crate) fn new(allocator: A, seed: u64) -> Self {
        Self {
            allocator,
            live: Vec::new(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Most are short; some are as long as an engine's block, a span or a mapping.
    fn layout(&mut self) -> Layout {
        let size = match self.random.random_range(0..100) {
            0..60 => self.random.random_range(1..=256),
            60..85 => self.random.random_range(1..=2_048),
            85..95 => self.random.random_range(1..=10_000),
            95..99 => self.random.random_range(1..=100_000),
            _ => self.random.random_range(1..=2_000_000),
        };
        let shift = match self.random.random_range(0..20) {
            0..14 => self.random.random_range(0..=4),
            14..18 => self.random.random_range(0..=8),
            18 => self.random.random_range(0..=13),
            _ => self.random.random_range(0..=17),
        };
        Layout::from_size_align(size, 1 << shift).expect("a layout")
    }

    fn enter(&mut self, found: NonNull<[u8]>, layout: Layout, zeroed: bool) {
        let block = found.cast::<u8>();
        assert!(found.len() >= layout.size());
        assert!(block.addr().get().is_multiple_of(layout.align()));
        if zeroed {
            // SAFETY: the block is as long as the layout.
            let bytes = unsafe { core::slice::from_raw_parts(block.as_ptr(), layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == 0), "not zeroed");
        }
        let mark = self.random.random();
        // SAFETY: all of the true length is ours.
        unsafe { block.write_bytes(mark, found.len()) };
        self.live.push(Live {
            block,
            layout,
            length: found.len(),
            mark,
        });
    }

    fn check(live: &Live, length: usize) {
        // SAFETY: live, and so long.
        let bytes = unsafe { core::slice::from_raw_parts(live.block.as_ptr(), length) };
        assert!(
            bytes.iter().all(|byte| *byte == live.mark),
            "a block of {} changed",
            live.layout.size()
        );
    }

    fn alloc(&mut self) -> Result<(), AllocError> {
        let layout = self.layout();
        let zeroed = self.random.random_range(0..4) == 0;
        let found = if zeroed {
            self.allocator.allocate_zeroed(layout)
        } else {
            self.allocator.allocate(layout)
        };
        self.enter(found?, layout, zeroed);
        Ok(())
    }

    fn pick(&mut self) -> Option<Live> {
        if self.live.is_empty() {
            return None;
        }
        let place = self.random.random_range(0..self.live.len());
        Some(self.live.swap_remove(place))
    }

    fn free(&mut self) {
        if let Some(live) = self.pick() {
            Self::check(&live, live.length);
            // Any layout that fits.
            let size = self.random.random_range(live.layout.size()..=live.length);
            let layout = Layout::from_size_align(size, live.layout.align()).expect("a layout");
            // SAFETY: live, and not used any more.
            unsafe { self.allocator.deallocate(live.block, layout) };
        }
    }

    fn resize(&mut self) -> Result<(), AllocError> {
        let Some(live) = self.pick() else {
            return Ok(());
        };
        Self::check(&live, live.length);
        let wanted = self.layout().size();
        let new = Layout::from_size_align(wanted, live.layout.align()).expect("a layout");
        let kept = wanted.min(live.layout.size());
        let zeroed = self.random.random_range(0..3) == 0;
        let (block, old) = (live.block, live.layout);
        let resized = if wanted < old.size() {
            // SAFETY: live, and not used any more where another is returned; here and below.
            unsafe { self.allocator.shrink(block, old, new) }
        } else if zeroed {
            // SAFETY: as above.
            unsafe { self.allocator.grow_zeroed(block, old, new) }
        } else {
            // SAFETY: as above.
            unsafe { self.allocator.grow(block, old, new) }
        };
        let Ok(resized) = resized else {
            self.live.push(live);
            return Err(AllocError);
        };
        let moved = Live {
            block: resized.cast(),
            ..live
        };
        Self::check(&moved, kept);
        if zeroed && wanted >= live.layout.size() {
            // SAFETY: as long as `new`.
            let all = unsafe { core::slice::from_raw_parts(moved.block.as_ptr(), wanted) };
            assert!(all[kept..].iter().all(|byte| *byte == 0), "not zeroed");
        }
        self.enter(resized, new, false);
        Ok(())
    }

    /// Allocates, frees or resizes; an error if there is no memory for that.
    pub(crate) fn try_step(&mut self) -> Result<(), AllocError> {
        let most = 400;
        match self.random.random_range(0..10) {
            0..4 if self.live.len() < most => self.alloc()?,
            0..8 => self.free(),
            _ => self.resize()?,
        }
        if self.live.len() < most / 2 {
            self.alloc()?;
        }
        Ok(())
    }

    pub(crate) fn step(&mut self) {
        self.try_step().expect("memory");
    }

    /// How many blocks are live, and their bytes, as long as they truly are.
    pub(crate) fn live(&self) -> (usize, usize) {
        let bytes = self.live.iter().map(|live| live.length).sum();
        (self.live.len(), bytes)
    }

    pub(crate) fn free_all(&mut self) {
        while !self.live.is_empty() {
            self.free();
        }
    }
}
