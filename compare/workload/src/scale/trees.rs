//! s_trees: all of the heap is trees of small nodes, built one after the other, then dropped.

use super::super::mapped::{MappedArray, Zeroed};
use super::trial::{Done, Trial};
use super::watch::Watch;

const ROUNDS: usize = 8;
const DEPTH: u32 = 12;
const NODES: usize = (2 << DEPTH) - 1;

/// 48 bytes.
struct Node {
    children: [Tree; 2],
    words: [u64; 4],
}

#[derive(Default)]
struct Tree(Option<Box<Node>>);

// SAFETY: 1. an `Option<Box>`, so zero is none. 2. aligned to 8.
unsafe impl Zeroed for Tree {}

impl Tree {
    fn build(depth: u32, word: u64, watch: &mut impl Watch) -> Self {
        // The node before its children: the program reads trees from the root.
        let node = watch.time(Box::<Node>::new_uninit);
        let mut below = || match depth {
            0 => Self(None),
            _ => Self::build(depth - 1, word, watch),
        };
        let children = [below(), below()];
        Self(Some(Box::write(
            node,
            Node {
                children,
                words: [word; 4],
            },
        )))
    }

    /// Drops it and returns the sum of its words.
    fn drop(self, watch: &mut impl Watch) -> u64 {
        let Some(mut node) = self.0 else {
            return 0;
        };
        let mut sum = node.words.iter().sum::<u64>();
        for child in &mut node.children {
            sum = sum.wrapping_add(std::mem::take(child).drop(watch));
        }
        watch.time(|| drop(node));
        sum
    }
}

/// A call is a node that comes or goes.
pub(super) fn trees<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let count = (trial.bytes / (NODES * size_of::<Node>())).max(1);
    let mut trees = MappedArray::<Tree>::new(count)?;
    for _ in 0..trial.repeats(ROUNDS) {
        trial.timed(|watch| {
            for (number, tree) in trees.iter_mut().enumerate() {
                *tree = Tree::build(DEPTH, number as u64, watch);
            }
            let mut sum = 0_u64;
            for tree in trees.iter_mut() {
                sum = sum.wrapping_add(std::mem::take(tree).drop(watch));
            }
            Ok(Done {
                calls: 2 * (count * NODES) as u64,
                sum,
            })
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::watch::Unwatched;
    use super::*;

    #[test]
    fn a_tree_has_as_many_nodes_as_are_counted() {
        assert_eq!(size_of::<Node>(), 48);
        let sum = Tree::build(DEPTH, 1, &mut Unwatched).drop(&mut Unwatched);
        assert_eq!(sum, 4 * NODES as u64);
    }
}
