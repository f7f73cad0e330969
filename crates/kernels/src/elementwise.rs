//! Sums, products and moves of rows: residuals, biases, SwiGLU, and what experts gather and give back.

use crate::blocks::{columns_per_task, rows_per_task};
use crate::cpu::Cpu;

/// Elements of a task for operations that know no rows.
const CHUNK: usize = 1 << 13;

/// y += x
pub fn add(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "a sum of unequal lengths");
    let chunk = CHUNK * rows_per_task(x.len().div_ceil(CHUNK), CHUNK);
    cpu.pool().chunks_mut(y, chunk, |i, y| add_row(cpu, 1.0, &x[i * chunk..][..y.len()], y));
}

/// `y[r] += bias`, for each row of `y`, rows by bias.len().
pub fn add_bias(cpu: &Cpu, bias: &[f32], y: &mut [f32]) {
    for_rows(cpu, y, bias.len(), |_, y| add_row(cpu, 1.0, bias, y));
}

/// Gradient of [`add_bias`]: `d_bias` gains the rows of `dy`, one after the other.
pub fn bias_backward(cpu: &Cpu, dy: &[f32], d_bias: &mut [f32]) {
    let n = d_bias.len();
    let rows = count_rows(dy.len(), n);
    let width = columns_per_task(cpu, rows, n);
    cpu.pool().chunks_mut(d_bias, width, |i, d_bias| {
        for dy in dy.chunks_exact(n) {
            add_row(cpu, 1.0, &dy[i * width..][..d_bias.len()], d_bias);
        }
    });
}

/// out = silu(gate) * up (Shazeer, arXiv 2002.05202). A row of `gate_up` is f of gate, then f of up; `out` is rows by f.
pub fn swiglu(cpu: &Cpu, gate_up: &[f32], f: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "SwiGLU of unequal lengths");
    for_rows(cpu, out, f, |r, out| {
        let (gate, up) = gate_up[r * 2 * f..][..2 * f].split_at(f);
        // SAFETY: all three have f elements.
        unsafe { (cpu.kernels.swiglu)(f, gate.as_ptr(), up.as_ptr(), out.as_mut_ptr()) };
    });
}

/// Gradient of [`swiglu`], set in `d_gate_up`, rows by 2 f.
pub fn swiglu_backward(cpu: &Cpu, gate_up: &[f32], f: usize, d_out: &[f32], d_gate_up: &mut [f32]) {
    assert_eq!((gate_up.len(), 2 * d_out.len()), (d_gate_up.len(), d_gate_up.len()), "SwiGLU of unequal lengths");
    for_rows(cpu, d_gate_up, 2 * f, |r, d_gate_up| {
        let (gate, up) = gate_up[r * 2 * f..][..2 * f].split_at(f);
        let d_out = &d_out[r * f..][..f];
        let (d_gate, d_up) = d_gate_up.split_at_mut(f);
        // SAFETY: all five have f elements.
        unsafe {
            (cpu.kernels.swiglu_backward)(
                f,
                gate.as_ptr(),
                up.as_ptr(),
                d_out.as_ptr(),
                d_gate.as_mut_ptr(),
                d_up.as_mut_ptr(),
            );
        }
    });
}

/// `out[i] = x[index[i]]`; rows of d numbers.
pub fn gather_rows(cpu: &Cpu, x: &[f32], d: usize, index: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), index.len() * d, "rows gathered");
    count_rows(x.len(), d);
    for_rows(cpu, out, d, |i, out| out.copy_from_slice(&x[index[i] as usize * d..][..d]));
}

/// Gradient of [`gather_rows`], where row r of x went to rows `slots[r * k..][..k]`: `d_x[r]` += sum over j of
/// `d_gathered[slots[r][j]]`, in order of j. `slots` is rows by k.
pub fn scatter_rows_add(cpu: &Cpu, d_gathered: &[f32], d: usize, slots: &[u32], d_x: &mut [f32]) {
    count_rows(d_gathered.len(), d);
    let k = per_row(slots.len(), count_rows(d_x.len(), d));
    for_rows(cpu, d_x, d, |r, d_x| {
        for &slot in &slots[r * k..][..k] {
            add_row(cpu, 1.0, &d_gathered[slot as usize * d..][..d], d_x);
        }
    });
}

/// `y[r]` += sum over j of `weights[r][j] * expert_out[slots[r][j]]`, in order of j. `slots` and `weights` are rows by k.
pub fn combine(cpu: &Cpu, y: &mut [f32], d: usize, expert_out: &[f32], slots: &[u32], weights: &[f32]) {
    assert_eq!(slots.len(), weights.len(), "a slot without a weight");
    count_rows(expert_out.len(), d);
    let k = per_row(slots.len(), count_rows(y.len(), d));
    for_rows(cpu, y, d, |r, y| {
        for (&slot, &weight) in slots[r * k..][..k].iter().zip(&weights[r * k..][..k]) {
            add_row(cpu, weight, &expert_out[slot as usize * d..][..d], y);
        }
    });
}

/// Gradients of [`combine`] from `dy`, set: `d_expert_out[slots[r][j]] = weights[r][j] * dy[r]` (zero in rows that no
/// slot names) and `d_weights[r][j] = dy[r] · expert_out[slots[r][j]]`.
///
/// # Panics
/// If two slots are the same row.
pub fn combine_backward(
    cpu: &Cpu,
    dy: &[f32],
    d: usize,
    expert_out: &[f32],
    slots: &[u32],
    weights: &[f32],
    d_expert_out: &mut [f32],
    d_weights: &mut [f32],
) {
    let rows = count_rows(dy.len(), d);
    let k = per_row(slots.len(), rows);
    assert_eq!((weights.len(), d_weights.len()), (slots.len(), slots.len()), "a slot without a weight");
    assert_eq!(expert_out.len(), d_expert_out.len(), "gradients of another shape than the experts' rows");

    let mut places = vec![None; count_rows(expert_out.len(), d)];
    for (place, &slot) in slots.iter().enumerate() {
        let before = places[slot as usize].replace(place);
        assert!(before.is_none(), "row {slot} of the experts has two places");
    }
    for_rows(cpu, d_expert_out, d, |slot, out| match places[slot] {
        None => out.fill(0.0),
        Some(place) => {
            out.copy_from_slice(&dy[place / k * d..][..d]);
            // SAFETY: `out` has d elements.
            unsafe { (cpu.kernels.scale)(d, weights[place], out.as_mut_ptr()) };
        }
    });
    let block = rows_per_task(rows, k * d);
    cpu.pool().chunks_mut(d_weights, (block * k).max(1), |i, d_weights| {
        for (j, d_weight) in d_weights.iter_mut().enumerate() {
            let place = i * block * k + j;
            let (dy, out) = (&dy[place / k * d..][..d], &expert_out[slots[place] as usize * d..][..d]);
            // SAFETY: both have d elements.
            *d_weight = unsafe { (cpu.kernels.dot)(d, dy.as_ptr(), out.as_ptr()) };
        }
    });
}

/// y = x in bf16, to nearest even.
pub fn round_to_bf16(cpu: &Cpu, x: &[f32], y: &mut [u16]) {
    assert_eq!(x.len(), y.len(), "a copy of unequal lengths");
    let chunk = CHUNK * rows_per_task(x.len().div_ceil(CHUNK), CHUNK);
    cpu.pool().chunks_mut(y, chunk, |i, y| {
        // SAFETY: the slice of x is as long as y.
        unsafe { (cpu.kernels.to_bf16)(y.len(), x[i * chunk..][..y.len()].as_ptr(), y.as_mut_ptr()) };
    });
}

/// y += factor * x
fn add_row(cpu: &Cpu, factor: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    // SAFETY: both have y.len() elements.
    unsafe { (cpu.kernels.axpy)(y.len(), factor, x.as_ptr(), y.as_mut_ptr()) }
}

/// Calls `run(r, row r)` for the rows of `data`, `width` numbers each.
fn for_rows(cpu: &Cpu, data: &mut [f32], width: usize, run: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = count_rows(data.len(), width);
    let block = rows_per_task(rows, width);
    cpu.pool().chunks_mut(data, (block * width).max(1), |i, data| {
        for (r, row) in data.chunks_exact_mut(width).enumerate() {
            run(i * block + r, row);
        }
    });
}

/// Rows of `width` in `len` numbers.
fn count_rows(len: usize, width: usize) -> usize {
    assert!(len == 0 || width > 0 && len.is_multiple_of(width), "{len} numbers are not rows of {width}");
    len / width.max(1)
}

/// Entries of each row in `len` of them.
fn per_row(len: usize, rows: usize) -> usize {
    assert!(len == 0 || rows > 0 && len.is_multiple_of(rows), "{len} entries for {rows} rows");
    len / rows.max(1)
}
