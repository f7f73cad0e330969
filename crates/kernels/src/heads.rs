//! Columns of heads inside rows, copied from one layout to another.

use crate::cpu::Cpu;

/// Where heads' columns lie: element i of head h in row r is at `r * row + h * head + offset + i`.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Distance between rows.
    pub row: usize,
    /// Distance between heads.
    pub head: usize,
    /// Where the first head's columns begin.
    pub offset: usize,
}

/// to (=, += if `add`) from, `width` columns of each of `heads` heads in each of `rows` rows.
pub fn copy_heads(
    cpu: &Cpu,
    (rows, heads, width): (usize, usize, usize),
    (from, source): (&[f32], Heads),
    (to, target): (&mut [f32], Heads),
    add: bool,
) {
    if rows * heads * width == 0 {
        return;
    }
    let last = |at: Heads| (rows - 1) * at.row + (heads - 1) * at.head + at.offset + width;
    assert!(last(source) <= from.len() && last(target) <= to.len(), "heads past the end of a slice");
    assert!(last(target) <= (rows - 1) * target.row + target.row, "heads wider than their row");
    let block = 64;
    cpu.pool().chunks_mut(to, block * target.row, |i, to| {
        for (r, to) in to.chunks_mut(target.row).take(rows.saturating_sub(i * block)).enumerate() {
            let from = &from[(i * block + r) * source.row..];
            for h in 0..heads {
                let from = &from[h * source.head + source.offset..][..width];
                let to = &mut to[h * target.head + target.offset..][..width];
                if add {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                } else {
                    to.copy_from_slice(from);
                }
            }
        }
    });
}
