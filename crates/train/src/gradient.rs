//! Gradients of a step, added up by a fixed tree.

/// Adds up the gradients of a step's leaves as a binary counter does: two sums of equally many leaves become one.
///
/// The tree depends on the order of the leaves alone, not on threads, so its subtrees may one day be other machines.
pub struct GradientTree {
    len: usize,
    /// At index i a sum of 2^i leaves, the earlier leaves in the higher indices.
    levels: Vec<Option<Vec<f32>>>,
    /// Arenas to use again.
    spare: Vec<Vec<f32>>,
}

impl GradientTree {
    /// For arenas of `len` elements.
    pub fn new(len: usize) -> GradientTree {
        GradientTree { len, levels: Vec::new(), spare: Vec::new() }
    }

    /// A leaf of zeros, to be filled and given to [`GradientTree::add`].
    pub fn leaf(&mut self) -> Vec<f32> {
        match self.spare.pop() {
            Some(mut leaf) => {
                leaf.fill(0.0);
                leaf
            }
            None => vec![0.0; self.len],
        }
    }

    /// Adds the next leaf.
    pub fn add(&mut self, mut sum: Vec<f32>, mut plus: impl FnMut(&[f32], &mut [f32])) {
        assert_eq!(sum.len(), self.len, "a gradient of another model");
        let mut level = 0;
        loop {
            if level == self.levels.len() {
                self.levels.push(None);
            }
            match self.levels[level].take() {
                None => {
                    self.levels[level] = Some(sum);
                    return;
                }
                Some(mut earlier) => {
                    plus(&sum, &mut earlier);
                    self.spare.push(std::mem::replace(&mut sum, earlier));
                    level += 1;
                }
            }
        }
    }

    /// The sum of all leaves, `None` if there were none; the tree is empty again. Give it back by [`GradientTree::recycle`].
    pub fn take(&mut self, mut plus: impl FnMut(&[f32], &mut [f32])) -> Option<Vec<f32>> {
        let mut sum: Option<Vec<f32>> = None;
        for level in &mut self.levels {
            if let Some(mut earlier) = level.take() {
                if let Some(later) = sum.take() {
                    plus(&later, &mut earlier);
                    self.spare.push(later);
                }
                sum = Some(earlier);
            }
        }
        sum
    }

    /// Keeps an arena for later leaves.
    pub fn recycle(&mut self, arena: Vec<f32>) {
        self.spare.push(arena);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plus(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    }

    #[test]
    fn the_sum_is_that_of_a_balanced_tree() {
        // 1e8 swallows a lone 1, so the tree's shape shows in the sum.
        let leaves = [1e8_f32, 1.0, -1e8, 1.0, 3.0];
        let mut tree = GradientTree::new(1);
        for _ in 0..2 {
            assert_eq!(tree.take(plus), None);
            for leaf in leaves {
                let mut arena = tree.leaf();
                assert_eq!(arena, [0.0]);
                arena[0] = leaf;
                tree.add(arena, plus);
            }
            let sum = tree.take(plus).unwrap();
            assert_eq!(sum, [((leaves[0] + leaves[1]) + (leaves[2] + leaves[3])) + leaves[4]]);
            tree.recycle(sum);
        }
    }
}
