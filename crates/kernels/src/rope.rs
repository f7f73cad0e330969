//! Rotary position embedding (Su et al., arXiv 2104.09864).

use std::sync::OnceLock;

use crate::blocks::rows_per_task;
use crate::cpu::Cpu;
use crate::math;

/// Positions whose cosines and sines are computed together.
const BLOCK: usize = 256;

/// Cosines and sines of position times frequency, computed when positions are first used: all of a long context's would
/// take longer than a small model's first answer, and more memory than most of its texts.
pub struct RopeTable {
    inv_freq: Vec<f64>,
    positions: usize,
    interleaved: bool,
    amplitude: f32,
    /// Of [`BLOCK`] positions each.
    blocks: Vec<OnceLock<Angles>>,
}

/// [positions][width] in the form that the kernels read: see [`RopeTable::new`].
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Which way vectors turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the angle.
    Forward,
    /// By the negative angle: what gradients need, a rotation's transpose being its inverse. The amplitude is the same.
    Backward,
}

impl RopeTable {
    /// Positions `0..positions`, for heads that rotate 2 * `inv_freq.len()` numbers: as pairs (2i, 2i + 1) when
    /// `interleaved` (DeepSeek), else as pairs (i, i + half) (Llama).
    ///
    /// The angle is rounded to `f32` before its cosine is taken, as transformers does: at position 10 000 that moves it by
    /// up to 5e-4, and models are trained with it. Cosines and sines are multiplied by `amplitude` (YaRN; otherwise 1), so
    /// that rotated vectors are as much longer.
    pub fn new(inv_freq: &[f64], positions: usize, interleaved: bool, amplitude: f32) -> RopeTable {
        let blocks = std::iter::repeat_with(OnceLock::new).take(positions.div_ceil(BLOCK)).collect();
        RopeTable { inv_freq: inv_freq.to_vec(), positions, interleaved, amplitude, blocks }
    }

    /// Cosines and sines of a position.
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let width = self.entries();
        let Angles { cos, sin } = self.blocks[position / BLOCK].get_or_init(|| self.angles(position / BLOCK));
        let at = position % BLOCK * width;
        (&cos[at..at + width], &sin[at..at + width])
    }

    /// Cosines, and as many sines, that a position has.
    fn entries(&self) -> usize {
        if self.interleaved { self.width() } else { self.inv_freq.len() }
    }

    fn angles(&self, block: usize) -> Angles {
        let size = BLOCK * self.entries();
        let mut angles = Angles { cos: Vec::with_capacity(size), sin: Vec::with_capacity(size) };
        for position in (block * BLOCK..self.positions).take(BLOCK) {
            for &frequency in &self.inv_freq {
                let angle = position as f32 * frequency as f32;
                let (sin, cos) = math::sin_cos(f64::from(angle));
                let (sin, cos) = (sin as f32 * self.amplitude, cos as f32 * self.amplitude);
                if self.interleaved {
                    angles.cos.extend([cos, cos]);
                    angles.sin.extend([-sin, sin]);
                } else {
                    angles.cos.push(cos);
                    angles.sin.push(sin);
                }
            }
        }
        angles
    }

    /// Positions that the table holds.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Numbers of a head that are rotated.
    pub fn width(&self) -> usize {
        2 * self.inv_freq.len()
    }
}

/// Rotates, in place, numbers `offset..offset + table.width()` of each head of each row; row r is at `positions[r]`.
///
/// Head h of row r starts at `x[r * row_stride + h * head_stride]`; the last row may end with its last head's rotated part.
pub fn rope(
    cpu: &Cpu,
    table: &RopeTable,
    x: &mut [f32],
    row_stride: usize,
    heads: usize,
    head_stride: usize,
    offset: usize,
    positions: &[u32],
    direction: Direction,
) {
    let (rows, width) = (positions.len(), table.width());
    if rows * heads * width == 0 {
        return;
    }
    let end = (heads - 1) * head_stride + offset + width;
    assert!(heads == 1 || head_stride >= width, "heads of {width} rotated numbers overlap, {head_stride} apart");
    assert!(end <= row_stride && x.len() >= (rows - 1) * row_stride + end, "rotation past the end of a row");
    for &position in positions {
        assert!((position as usize) < table.positions, "position {position} in a table of {}", table.positions);
    }

    let rotate = if table.interleaved { cpu.kernels.rotate_pairs } else { cpu.kernels.rotate_halves };
    let half = table.inv_freq.len();
    let sign = if direction == Direction::Forward { 1.0 } else { -1.0 };
    let block = rows_per_task(rows, heads * width);
    let x = &mut x[..(rows - 1) * row_stride + end];
    cpu.pool().chunks_mut(x, block * row_stride, |i, x| {
        for (r, row) in x.chunks_mut(row_stride).enumerate() {
            let position = positions[i * block + r] as usize;
            let (cos, sin) = table.at(position);
            let first = row[offset..end].as_mut_ptr();
            // SAFETY: the last head's `width` numbers end at `end`, inside the row; a position has `entries` cosines and
            // sines, which is what the kernel of this table's form reads.
            unsafe { rotate(heads, head_stride, half, cos.as_ptr(), sin.as_ptr(), sign, first) };
        }
    });
}
