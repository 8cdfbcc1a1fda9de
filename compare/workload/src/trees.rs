//! i_tree: binary trees, after the program of that name in the Computer Language Benchmarks Game.

use super::meter::{Meter, Reading};

/// Of the tree that lives throughout.
const LONG_DEPTH: u32 = 14;
/// Of those that are built and dropped, two levels apart.
const DEPTHS: [u32; 5] = [4, 6, 8, 10, 12];
const MOST: u32 = 12;

struct Node {
    children: Option<[Box<Node>; 2]>,
}

impl Node {
    fn tree(depth: u32) -> Self {
        let child = || Box::new(Self::tree(depth - 1));
        Self {
            children: (depth > 0).then(|| [child(), child()]),
        }
    }

    fn count(&self) -> u64 {
        let below = |children: &[Box<Self>; 2]| children[0].count() + children[1].count();
        1 + self.children.as_ref().map_or(0, below)
    }
}

/// So many trees of a depth that each depth has about the same number of nodes.
fn trees(depth: u32) -> u32 {
    1 << (MOST - depth)
}

/// An operation is one node.
pub(crate) fn binary(meter: &Meter) -> Reading {
    let long_lived = Node::tree(LONG_DEPTH);
    let nodes = DEPTHS.map(|depth| trees(depth) as usize * ((2 << depth) - 1));
    meter.run(20, nodes.iter().sum(), |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            for depth in DEPTHS {
                for _ in 0..trees(depth) {
                    let count = Node::tree(depth).count();
                    sum = sum.wrapping_mul(31).wrapping_add(count);
                }
            }
        }
        sum.wrapping_mul(31).wrapping_add(long_lived.count())
    })
}
