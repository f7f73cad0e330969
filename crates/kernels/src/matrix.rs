//! Weights, packed once for the products that read them often.

use crate::arch::PANEL;
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::quantized::{Format, Row, Strips};
use crate::view::View;

/// How a weight's numbers are stored. Sums are always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits; products are exact to one rounding a step.
    F32,
    /// The upper half of an `f32`; the activations it meets are rounded to bf16 too.
    Bf16,
}

impl Dtype {
    /// As recipes and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A weight of `outputs` rows by `inputs` columns, packed for y = x Wᵀ.
///
/// As the right operand of a product it is Wᵀ, `inputs` by `outputs`, cut into panels of 32 columns (outputs);
/// a panel holds its `inputs` rows one behind the other, the last panel padded with zeros.
#[derive(Clone)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    pub(crate) panels: Panels,
}

#[derive(Clone)]
pub(crate) enum Panels {
    /// [panels][inputs][PANEL]
    F32(Buffer<f32>),
    /// [panels][inputs / 2, rounded up][PANEL][2]
    Bf16(Buffer<u16>),
    /// Two strips a panel.
    Quantized(Strips),
}

impl Matrix {
    /// Packs `w`, `outputs` by `inputs`, for some products.
    pub fn pack(cpu: &Cpu, dtype: Dtype, w: View<'_>) -> Matrix {
        let (f32, bf16) = Matrix::lengths(w);
        let panels = match dtype {
            Dtype::F32 => Panels::F32(Buffer::zeros(f32)),
            Dtype::Bf16 => Panels::Bf16(Buffer::zeros(bf16)),
        };
        Matrix::filled(cpu, w, panels)
    }

    /// Packs `w`, `outputs` by `inputs`, for as long as its model is kept.
    pub fn lasting(cpu: &Cpu, dtype: Dtype, w: View<'_>) -> Matrix {
        let (f32, bf16) = Matrix::lengths(w);
        let panels = match dtype {
            Dtype::F32 => Panels::F32(Buffer::lasting(f32)),
            Dtype::Bf16 => Panels::Bf16(Buffer::lasting(bf16)),
        };
        Matrix::filled(cpu, w, panels)
    }

    /// Numbers that panels of `w` take in f32 and in bf16.
    fn lengths(w: View<'_>) -> (usize, usize) {
        let (width, inputs) = (w.rows().next_multiple_of(PANEL), w.cols());
        (width * inputs, width * inputs.next_multiple_of(2))
    }

    fn filled(cpu: &Cpu, w: View<'_>, panels: Panels) -> Matrix {
        let (outputs, inputs) = (w.rows(), w.cols());
        let mut matrix = Matrix { outputs, inputs, panels };
        matrix.repack(cpu, w);
        matrix
    }

    /// Packs `outputs` rows of `inputs` quantised elements as they are; `read` sets row i of them, from any thread.
    pub fn quantized(
        cpu: &Cpu,
        format: Format,
        outputs: usize,
        inputs: usize,
        read: &(dyn Fn(usize, &mut Row) + Sync),
    ) -> Matrix {
        Matrix { outputs, inputs, panels: Panels::Quantized(Strips::pack(cpu, format, outputs, inputs, read)) }
    }

    /// Replaces the numbers by those of `w`, of the same shape.
    ///
    /// # Panics
    /// If the shape differs, or the matrix is quantised.
    pub fn repack(&mut self, cpu: &Cpu, w: View<'_>) {
        assert_eq!((w.rows(), w.cols()), (self.outputs, self.inputs), "a matrix changes its shape");
        let (outputs, inputs) = (self.outputs, self.inputs);
        if outputs * inputs == 0 {
            return;
        }
        match &mut self.panels {
            Panels::F32(buffer) => cpu.pool().chunks_mut(buffer, inputs * PANEL, |panel, out| {
                pack_panel(w.t(), 0, panel * PANEL, inputs, out);
            }),
            Panels::Bf16(buffer) => {
                let pairs = inputs.div_ceil(2);
                cpu.pool().chunks_mut(buffer, pairs * 2 * PANEL, |panel, out| pack_pairs(cpu, w, panel * PANEL, out));
            }
            Panels::Quantized(_) => panic!("a quantised matrix takes no new numbers"),
        }
    }

    /// Rows of W: the width of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of W: the width of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Sets `out` to row `row` of W, `inputs` numbers, as they are stored.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.outputs && out.len() == self.inputs, "row {row} of {} by {}", self.outputs, self.inputs);
        let (panel, column) = (row / PANEL, row % PANEL);
        match &self.panels {
            Panels::F32(b) => {
                let panel = &b[panel * self.inputs * PANEL..];
                for (p, x) in out.iter_mut().enumerate() {
                    *x = panel[p * PANEL + column];
                }
            }
            Panels::Bf16(b) => {
                let panel = &b[panel * self.inputs.next_multiple_of(2) * PANEL..];
                for (p, x) in out.iter_mut().enumerate() {
                    *x = f32::from_bits(u32::from(panel[(p / 2 * PANEL + column) * 2 + p % 2]) << 16);
                }
            }
            Panels::Quantized(strips) => {
                let mut stored = Row::new(strips.format, self.inputs);
                strips.row(row, &mut stored);
                stored.to_f32(strips.format, out);
            }
        }
    }

    /// The name of how the numbers are stored.
    pub fn format(&self) -> &'static str {
        match &self.panels {
            Panels::F32(_) => Dtype::F32.name(),
            Panels::Bf16(_) => Dtype::Bf16.name(),
            Panels::Quantized(strips) => strips.format.name(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(b) => size_of_val(&**b),
            Panels::Bf16(b) => size_of_val(&**b),
            Panels::Quantized(strips) => strips.bytes(),
        }
    }
}

/// Rounds the rows of `w` from `first` into a panel of pairs, [inputs / 2, rounded up][PANEL][2].
fn pack_pairs(cpu: &Cpu, w: View<'_>, first: usize, out: &mut [u16]) {
    let (inputs, columns) = (w.cols(), PANEL.min(w.rows() - first));
    if w.row_stride() == 1 && columns == PANEL {
        // What lies side by side in memory stays side by side.
        let mut rounded = [[0_u16; PANEL]; 2];
        for (pair, out) in out.chunks_exact_mut(2 * PANEL).enumerate() {
            for (p, rounded) in (2 * pair..inputs).zip(&mut rounded) {
                // SAFETY: both are PANEL long.
                unsafe { (cpu.kernels.to_bf16)(PANEL, w.t().row(p)[first..][..PANEL].as_ptr(), rounded.as_mut_ptr()) };
            }
            if 2 * pair + 1 == inputs {
                rounded[1].fill(0);
            }
            for (j, out) in out.chunks_exact_mut(2).enumerate() {
                (out[0], out[1]) = (rounded[0][j], rounded[1][j]);
            }
        }
        return;
    }
    let (mut row, mut rounded) = (vec![0.0; inputs], vec![0_u16; inputs]);
    for j in 0..columns {
        for (p, x) in row.iter_mut().enumerate() {
            *x = w.at(first + j, p);
        }
        // SAFETY: both slices are `inputs` long.
        unsafe { (cpu.kernels.to_bf16)(inputs, row.as_ptr(), rounded.as_mut_ptr()) };
        for (p, &x) in rounded.iter().enumerate() {
            out[(p / 2 * PANEL + j) * 2 + p % 2] = x;
        }
    }
}

/// Copies rows `row..row + rows` and the PANEL columns from `col` of `b` into a panel, zeros past its last column.
pub(crate) fn pack_panel(b: View<'_>, row: usize, col: usize, rows: usize, panel: &mut [f32]) {
    let cols = PANEL.min(b.cols() - col);
    if cols < PANEL {
        panel[..rows * PANEL].fill(0.0);
    }
    if b.col_stride() == 1 {
        for (p, out) in panel.chunks_exact_mut(PANEL).take(rows).enumerate() {
            out[..cols].copy_from_slice(&b.row(row + p)[col..col + cols]);
        }
    } else {
        // A transposed source is contiguous down its columns: eight rows of the panel at a time keep both sides near.
        for start in (0..rows).step_by(8) {
            let end = rows.min(start + 8);
            for j in 0..cols {
                for p in start..end {
                    panel[p * PANEL + j] = b.at(row + p, col + j);
                }
            }
        }
    }
}
