//! What the allocator must not do: hand out memory that is already in use.

use std::collections::BTreeMap;

/// The address ranges in use, from start to end.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    ranges: BTreeMap<usize, usize>,
}

impl Shadow {
    /// Notes a new range, or tells which range in use it overlaps.
    pub(crate) fn insert(&mut self, start: usize, len: usize) -> Result<(), (usize, usize)> {
        let end = start.checked_add(len).ok_or((start, usize::MAX))?;
        // The ranges do not overlap each other, so the last that starts before `end` also ends last.
        if let Some((&other, &other_end)) = self.ranges.range(..end).next_back()
            && other_end > start
        {
            return Err((other, other_end));
        }
        self.ranges.insert(start, end);
        Ok(())
    }

    pub(crate) fn remove(&mut self, start: usize) {
        self.ranges.remove(&start).expect("a range in use");
    }
}
