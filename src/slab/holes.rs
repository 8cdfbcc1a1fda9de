//! Whole free pages inside a partly used slab. Pure: bits and numbers in, runs of pages out.
#![forbid(unsafe_code)]

use crate::size_class::ClassInfo;

/// Whether the bits `first` to `last` are all set.
fn all_set(bits: &[u64; 64], first: usize, last: usize) -> bool {
    let (low, high) = (first / 64, last / 64);
    let from = u64::MAX << (first % 64);
    let to = u64::MAX >> (63 - last % 64);
    if low == high {
        return bits[low] & from & to == from & to;
    }
    bits[low] & from == from
        && bits[high] & to == to
        && bits[low + 1..high].iter().all(|word| *word == u64::MAX)
}

/// Whether no block that is not free reaches into the page at `offset` of the slab.
fn is_free_page(info: &ClassInfo, free: &[u64; 64], offset: usize, page: usize) -> bool {
    let last_block = info.blocks as usize - 1;
    let (first, _) = info.locate(offset);
    let (last, _) = info.locate(offset + page - 1);
    // Past the last block there is only waste.
    first > last_block || all_set(free, first, last.min(last_block))
}

/// The runs of free pages of a slab, as (offset, bytes), for pages of `page` bytes.
pub(crate) fn runs(
    info: &ClassInfo,
    free: &[u64; 64],
    page: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let end = info.units.bytes();
    let mut offset = 0;
    core::iter::from_fn(move || {
        while offset < end && !is_free_page(info, free, offset, page) {
            offset += page;
        }
        let start = offset;
        while offset < end && is_free_page(info, free, offset, page) {
            offset += page;
        }
        (offset > start).then_some((start, offset - start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size_class::SizeClass;

    const PAGES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

    /// The bits of a slab without used blocks: none past the last block.
    fn all_free(info: &ClassInfo) -> [u64; 64] {
        let mut free = [0; 64];
        (0..info.blocks as usize).for_each(|block| free[block / 64] |= 1 << (block % 64));
        free
    }

    /// The same question asked byte range by byte range.
    fn touches_used(info: &ClassInfo, free: &[u64; 64], offset: usize, page: usize) -> bool {
        let size = info.size as usize;
        (0..info.blocks as usize).any(|block| {
            let overlaps = block * size < offset + page && offset < (block + 1) * size;
            overlaps && free[block / 64] >> (block % 64) & 1 == 0
        })
    }

    #[test]
    fn runs_are_exactly_the_pages_without_a_used_block() {
        for class in SizeClass::all() {
            let info = class.info();
            for (seed, page) in PAGES.into_iter().enumerate() {
                let mut state = class.index() as u64 * 3 + seed as u64 + 1;
                // A few used blocks at pseudo-random places (xorshift).
                let mut free = all_free(info);
                for _ in 0..info.blocks / 40 + 1 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let block = usize::try_from(state % u64::from(info.blocks)).unwrap();
                    free[block / 64] &= !(1 << (block % 64));
                }
                let mut expected = std::vec![false; info.units.bytes() / page];
                for (index, found) in expected.iter_mut().enumerate() {
                    *found = !touches_used(info, &free, index * page, page);
                }
                let mut got = std::vec![false; expected.len()];
                for (offset, length) in runs(info, &free, page) {
                    got[offset / page..(offset + length) / page].fill(true);
                }
                assert_eq!(got, expected, "{class:?} with pages of {page}");
            }
        }
    }

    #[test]
    fn an_all_free_slab_is_one_run() {
        for class in SizeClass::all() {
            let info = class.info();
            let all: std::vec::Vec<_> = runs(info, &all_free(info), 4096).collect();
            assert_eq!(all, [(0, info.units.bytes())]);
        }
    }
}
