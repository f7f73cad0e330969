//! Token embeddings: rows of a table, and gradients back into it.

use crate::blocks::{columns_per_task, rows_per_task};
use crate::cpu::Cpu;
use crate::gemm::Operand;
use crate::pool::Shareable;

/// `out[i] = table[ids[i]]`. `table` is vocabulary by d, a packed weight or a view with contiguous rows; `out` ids by d.
pub fn gather(cpu: &Cpu, table: Operand<'_>, ids: &[u32], out: &mut [f32]) {
    let d = match table {
        Operand::View(table) => table.cols(),
        Operand::Packed(table) => table.inputs(),
        Operand::Columns(..) => panic!("a part of a table"),
    };
    assert_eq!(out.len(), ids.len() * d, "embeddings of {} tokens", ids.len());
    let block = rows_per_task(ids.len(), d);
    cpu.pool().chunks_mut(out, (block * d).max(1), |i, out| {
        for (r, out) in out.chunks_exact_mut(d).enumerate() {
            let id = ids[i * block + r] as usize;
            match table {
                Operand::Packed(table) => table.row(id, out),
                Operand::View(table) => out.copy_from_slice(table.row(id)),
                Operand::Columns(..) => unreachable!("refused above"),
            }
        }
    });
}

/// Gradient of [`gather`]: `d_table[ids[i]] += d_out[i]`, one row after the other. `d_table` is vocabulary by d.
pub fn scatter_add(cpu: &Cpu, ids: &[u32], d_out: &[f32], d_table: &mut [f32]) {
    if ids.is_empty() {
        assert!(d_out.is_empty(), "gradients of no tokens");
        return;
    }
    let d = d_out.len() / ids.len();
    assert!(d > 0 && d_out.len() == ids.len() * d && d_table.len().is_multiple_of(d), "rows of {d} embeddings");
    for &id in ids {
        assert!((id as usize) < d_table.len() / d, "token {id} in a table of {} rows", d_table.len() / d);
    }
    let width = columns_per_task(cpu, ids.len(), d);
    let table = Shareable(d_table.as_mut_ptr());
    cpu.pool().run(d.div_ceil(width), &|task| {
        let from = task * width;
        let n = width.min(d - from);
        for (i, &id) in ids.iter().enumerate() {
            let d_out = d_out[i * d + from..][..n].as_ptr();
            // SAFETY: columns from..from + n of a row that exists (asserted above); no other task has these columns.
            unsafe { (cpu.kernels.axpy)(n, 1.0, d_out, table.get().add(id as usize * d + from)) };
        }
    });
}
