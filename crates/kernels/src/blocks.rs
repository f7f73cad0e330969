//! How row-wise operations are cut into tasks. The cut never shows in a result: rows do not depend on each other, and
//! reductions over rows are cut by columns.

use crate::cpu::Cpu;
use crate::pool::{Pool, Shareable};

/// Elements of a task.
const TASK: usize = 1 << 13;

/// Rows of `width` elements for one task: all of them, when they are too few to be worth waking a thread.
pub(crate) fn rows_per_task(rows: usize, width: usize) -> usize {
    if rows * width < 2 * TASK { rows.max(1) } else { (TASK / width).clamp(1, rows) }
}

/// Columns for one task that walks down all rows: all of them, when the matrix is small.
pub(crate) fn columns_per_task(cpu: &Cpu, rows: usize, cols: usize) -> usize {
    if rows * cols < 2 * TASK {
        return cols.max(1);
    }
    cols.div_ceil(cpu.pool().threads()).next_multiple_of(16).max(64)
}

/// Three slices cut into as many chunks, of lengths of their own, that belong together.
pub(crate) fn chunks_mut_3<A: Send, B: Send, C: Send>(
    pool: &Pool,
    (a, a_len): (&mut [A], usize),
    (b, b_len): (&mut [B], usize),
    (c, c_len): (&mut [C], usize),
    run: impl Fn(usize, &mut [A], &mut [B], &mut [C]) + Sync,
) {
    let chunks = a.len().div_ceil(a_len);
    assert!(b.len() <= chunks * b_len && c.len() <= chunks * c_len, "chunks that do not belong together");
    let (b_total, b_start) = (b.len(), Shareable(b.as_mut_ptr()));
    let (c_total, c_start) = (c.len(), Shareable(c.as_mut_ptr()));
    pool.chunks_mut(a, a_len, |i, a| {
        let (from, to) = ((i * b_len).min(b_total), ((i + 1) * b_len).min(b_total));
        // SAFETY: from..to lies inside `b` and apart from the range of any other i, and each i comes once.
        let b = unsafe { std::slice::from_raw_parts_mut(b_start.get().add(from), to - from) };
        let (from, to) = ((i * c_len).min(c_total), ((i + 1) * c_len).min(c_total));
        // SAFETY: the same for `c`.
        let c = unsafe { std::slice::from_raw_parts_mut(c_start.get().add(from), to - from) };
        run(i, a, b, c);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_belong_together() {
        let pool = Pool::new(3);
        let (mut a, mut b, mut c) = (vec![0; 10], vec![0; 5], [(); 0]);
        chunks_mut_3(&pool, (&mut a, 4), (&mut b, 2), (&mut c, 0), |i, a, b, _| {
            a.fill(i + 1);
            b.fill(i + 1);
        });
        assert_eq!((a, b), (vec![1, 1, 1, 1, 2, 2, 2, 2, 3, 3], vec![1, 1, 2, 2, 3]));
    }

    #[test]
    fn small_work_is_one_task() {
        assert_eq!(rows_per_task(100, 163), 100);
        assert_eq!(rows_per_task(100, 164), 49);
        assert_eq!(rows_per_task(3, 1 << 20), 1);
        assert_eq!((rows_per_task(0, 7), rows_per_task(7, 0)), (1, 7));
        let cpu = Cpu::new(crate::Isa::Portable, 2);
        assert_eq!((columns_per_task(&cpu, 9, 100), columns_per_task(&cpu, 1000, 300)), (100, 160));
    }
}
