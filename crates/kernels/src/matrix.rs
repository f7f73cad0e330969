//! Weights, packed once for the products that read them often.

use std::ops::{Deref, Range};

use crate::arch::{PANEL, prefetch};
use crate::blocks::rows_per_task;
use crate::buffer::{Buffer, Shared};
use crate::cpu::Cpu;
use crate::half::f32_from_bf16;
use crate::quantized::{Format, Row, Strips};
use crate::view::View;

/// The cost of unpacking a number, in elements of plain arithmetic.
const UNPACKING: usize = 8;

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

/// How a matrix is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// In panels of numbers.
    Dense(Dtype),
    /// In strips of codes and scales.
    Quantized(Format),
}

impl Packing {
    /// Counts the changes of how bytes of packed matrices are laid out: those of another number are of no use.
    pub const LAYOUT: u32 = 1;

    /// The name of the type that the numbers are stored in.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Dense(dtype) => dtype.name(),
            Packing::Quantized(format) => format.name(),
        }
    }

    /// Bytes of each stream of a matrix that is packed so: of its panels, or of its codes, scales and scales of scales.
    pub fn lengths(self, outputs: usize, inputs: usize) -> [usize; 3] {
        let width = outputs.next_multiple_of(PANEL);
        match self {
            Packing::Dense(Dtype::F32) => [4 * width * inputs, 0, 0],
            Packing::Dense(Dtype::Bf16) => [2 * width * inputs.next_multiple_of(2), 0, 0],
            Packing::Quantized(format) => Strips::lengths(format, outputs, inputs),
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
    pub fn pack<'a>(cpu: &'a Cpu, dtype: Dtype, w: View<'_>) -> Packed<'a> {
        let (f32, bf16) = Matrix::lengths(w);
        let panels = match dtype {
            Dtype::F32 => Panels::F32(cpu.spare(f32)),
            Dtype::Bf16 => Panels::Bf16(cpu.spare(bf16.div_ceil(2)).recast(bf16)),
        };
        Packed { cpu, matrix: Matrix::filled(cpu, w, panels) }
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

    /// Packs `outputs` rows of `inputs` numbers for as long as their model is kept; `read` sets row i, from any thread. So no
    /// more than some rows are ever there unpacked.
    pub fn dense(
        cpu: &Cpu,
        dtype: Dtype,
        outputs: usize,
        inputs: usize,
        read: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Matrix {
        let [bytes, ..] = Packing::Dense(dtype).lengths(outputs, inputs);
        let rows = |panel: usize| {
            let rows = PANEL.min(outputs - panel * PANEL);
            let mut values = vec![0.0; rows * inputs];
            values.chunks_exact_mut(inputs).enumerate().for_each(|(i, row)| read(panel * PANEL + i, row));
            (values, rows)
        };
        let panels = match dtype {
            Dtype::F32 => {
                let mut buffer = Buffer::lasting(bytes / size_of::<f32>());
                cpu.pool().chunks_mut(&mut buffer, (inputs * PANEL).max(1), |panel, out| {
                    let (values, rows) = rows(panel);
                    pack_panel(View::new(&values, rows, inputs).t(), 0, 0, inputs, out);
                });
                Panels::F32(buffer)
            }
            Dtype::Bf16 => {
                let mut buffer = Buffer::lasting(bytes / size_of::<u16>());
                cpu.pool().chunks_mut(&mut buffer, (inputs.next_multiple_of(2) * PANEL).max(1), |panel, out| {
                    let (values, rows) = rows(panel);
                    pack_pairs(cpu, View::new(&values, rows, inputs), 0, out);
                });
                Panels::Bf16(buffer)
            }
        };
        Matrix { outputs, inputs, panels }
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

    /// A matrix of no numbers, which says how it is packed all the same.
    pub fn empty(packing: Packing) -> Matrix {
        let panels = match packing {
            Packing::Dense(Dtype::F32) => Panels::F32(Buffer::default()),
            Packing::Dense(Dtype::Bf16) => Panels::Bf16(Buffer::default()),
            Packing::Quantized(format) => Panels::Quantized(Strips::of(format, 0, Default::default())),
        };
        Matrix { outputs: 0, inputs: 0, panels }
    }

    /// A matrix whose [`Matrix::streams`] lie in `memory` from each of these bytes on; none where they can't.
    pub fn shared(
        packing: Packing,
        outputs: usize,
        inputs: usize,
        memory: &Shared,
        starts: [usize; 3],
    ) -> Option<Matrix> {
        let lengths = packing.lengths(outputs, inputs);
        let panels = match packing {
            Packing::Dense(Dtype::F32) => Panels::F32(Buffer::shared(memory, starts[0], lengths[0] / 4)?),
            Packing::Dense(Dtype::Bf16) => Panels::Bf16(Buffer::shared(memory, starts[0], lengths[0] / 2)?),
            Packing::Quantized(format) => {
                if !inputs.is_multiple_of(format.block()) {
                    return None;
                }
                let [codes, scales, supers] = [0, 1, 2].map(|i| Buffer::shared(memory, starts[i], lengths[i]));
                Panels::Quantized(Strips::of(format, inputs, [codes?, scales?, supers?]))
            }
        };
        Some(Matrix { outputs, inputs, panels })
    }

    /// The bytes of each stream, in this machine's byte order.
    pub fn streams(&self) -> [&[u8]; 3] {
        match &self.panels {
            Panels::F32(b) => [b.bytes(), &[], &[]],
            Panels::Bf16(b) => [b.bytes(), &[], &[]],
            Panels::Quantized(strips) => strips.streams(),
        }
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
                    *x = f32_from_bf16(panel[(p / 2 * PANEL + column) * 2 + p % 2]);
                }
            }
            Panels::Quantized(strips) => {
                let mut stored = Row::new(strips.format, self.inputs);
                strips.row(row, &mut stored);
                stored.to_f32(strips.format, out);
            }
        }
    }

    /// Sets `out` to some rows of W, each as [`Matrix::row`] has it.
    pub fn rows(&self, cpu: &Cpu, rows: Range<usize>, out: &mut [f32]) {
        assert!(rows.end <= self.outputs && out.len() == rows.len() * self.inputs, "rows {rows:?} of {}", self.outputs);
        let block = rows_per_task(rows.len(), self.inputs * UNPACKING);
        cpu.pool().chunks_mut(out, (block * self.inputs).max(1), |i, out| {
            let (first, out) = (rows.start + i * block, out.chunks_exact_mut(self.inputs.max(1)).enumerate());
            match &self.panels {
                Panels::Quantized(strips) => {
                    let mut stored = Row::new(strips.format, self.inputs);
                    for (r, out) in out {
                        strips.row(first + r, &mut stored);
                        stored.to_f32(strips.format, out);
                    }
                }
                Panels::F32(_) | Panels::Bf16(_) => out.for_each(|(r, out)| self.row(first + r, out)),
            }
        });
    }

    /// How the numbers are stored.
    pub fn packing(&self) -> Packing {
        match &self.panels {
            Panels::F32(_) => Packing::Dense(Dtype::F32),
            Panels::Bf16(_) => Packing::Dense(Dtype::Bf16),
            Panels::Quantized(strips) => Packing::Quantized(strips.format),
        }
    }

    /// The name of how the numbers are stored.
    pub fn format(&self) -> &'static str {
        self.packing().name()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.streams().map(<[u8]>::len).iter().sum()
    }
}

/// A matrix for some products, whose memory goes back to be used again when it is dropped: see [`Cpu::scratch`].
pub struct Packed<'a> {
    cpu: &'a Cpu,
    matrix: Matrix,
}

impl Deref for Packed<'_> {
    type Target = Matrix;
    fn deref(&self) -> &Matrix {
        &self.matrix
    }
}

impl Drop for Packed<'_> {
    fn drop(&mut self) {
        match &mut self.matrix.panels {
            Panels::F32(buffer) => self.cpu.hand_back(std::mem::take(buffer)),
            Panels::Bf16(buffer) => self.cpu.hand_back(std::mem::take(buffer).recast(0)),
            // `Matrix::pack` makes none.
            Panels::Quantized(_) => {}
        }
    }
}

/// Rows that are asked for before they are rounded.
pub(crate) const AHEAD: usize = 16;

/// Rounds the rows of `w` from `first` into a panel of pairs, [inputs / 2, rounded up][PANEL][2].
fn pack_pairs(cpu: &Cpu, w: View<'_>, first: usize, out: &mut [u16]) {
    let (inputs, columns) = (w.cols(), PANEL.min(w.rows() - first));
    if w.row_stride() == 1 && columns == PANEL {
        // What lies side by side in memory stays side by side.
        let zeros = [0.0; PANEL];
        for (pair, out) in out.chunks_exact_mut(2 * PANEL).enumerate() {
            // The next rows' parts lie far from each other, where no processor looks for them by itself.
            for p in (2 * pair + AHEAD..inputs).take(2) {
                prefetch(&w.t().row(p)[first..][..PANEL]);
            }
            let row = |p: usize| if p < inputs { &w.t().row(p)[first..][..PANEL] } else { &zeros };
            let (even, odd) = (row(2 * pair), row(2 * pair + 1));
            // SAFETY: all three are of PANEL columns.
            unsafe { (cpu.kernels.to_bf16_pairs)(even.as_ptr(), odd.as_ptr(), out.as_mut_ptr()) };
        }
        return;
    }
    if columns < PANEL || !inputs.is_multiple_of(2) {
        // What pads columns and pairs is not written below.
        out.fill(0);
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
