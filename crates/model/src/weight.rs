//! A block's tensors: packed for forward, with their places in the arena for backward.

use std::borrow::Cow;

use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::{Cpu, Dtype, Matrix, View};

use crate::checkpoint::Checkpoint;
use crate::dequantize::DataType;
use crate::error::Result;
use crate::parameters::{Parameter, Parameters};
use crate::stored::{Precision, Stored};

/// Where a model's numbers come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// All of them, laid out as [`Parameters`] says.
    Arena(&'a [f32]),
    /// The files of a model with the same configuration.
    Checkpoint(&'a Checkpoint),
}

/// Hands out a model's tensors in the order of their places.
pub(crate) struct Reader<'a, 'p> {
    source: Source<'a>,
    left: std::slice::Iter<'p, Parameter>,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub fn new(source: Source<'a>, parameters: &'p Parameters) -> Reader<'a, 'p> {
        if let Source::Arena(values) = source {
            assert_eq!(values.len(), parameters.len(), "an arena of another model");
        }
        Reader { source, left: parameters.iter() }
    }

    fn take(&mut self, count: usize) -> &'p [Parameter] {
        let tensors = &self.left.as_slice()[..count];
        self.left.nth(count - 1);
        tensors
    }

    /// The type that the next tensor is stored in.
    pub fn dtype(&self) -> Result<DataType> {
        let next = &self.left.as_slice()[0];
        match self.source {
            Source::Arena(_) => Ok(DataType::F32),
            Source::Checkpoint(checkpoint) => Ok(checkpoint.stored(&next.name, &next.shape)?.dtype()),
        }
    }

    /// The next `count` tensors, which stand side by side, and their place.
    pub fn next(&mut self, count: usize) -> Result<(usize, Cow<'a, [f32]>)> {
        let tensors = self.take(count);
        let at = tensors[0].offset;
        let values = match self.source {
            Source::Arena(values) => Cow::Borrowed(&values[at..tensors[count - 1].range().end]),
            Source::Checkpoint(checkpoint) => {
                let mut all = Vec::new();
                for tensor in tensors {
                    all.append(&mut checkpoint.tensor(&tensor.name, &tensor.shape)?);
                }
                Cow::Owned(all)
            }
        };
        Ok((at, values))
    }
}

/// A matrix, or several side by side that share their input.
pub(crate) struct Weight {
    /// One, or one for each tensor where they are kept in different bits.
    parts: Vec<Matrix>,
    outputs: usize,
    inputs: usize,
    precision: Precision,
    at: usize,
}

impl Weight {
    /// A place for `outputs` by `inputs` numbers, filled by [`Weight::fill`].
    pub fn new(precision: Precision, outputs: usize, inputs: usize) -> Weight {
        Weight { parts: Vec::new(), outputs, inputs, precision, at: 0 }
    }

    /// Takes the next `count` tensors.
    pub fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>, count: usize) -> Result<()> {
        let tensors = reader.take(count);
        self.at = tensors[0].offset;
        match reader.source {
            Source::Arena(values) => {
                let values = &values[self.at..tensors[count - 1].range().end];
                self.pack(cpu, self.precision.dtype(DataType::F32), values);
            }
            Source::Checkpoint(checkpoint) => {
                let stored = tensors.iter().map(|tensor| checkpoint.stored(&tensor.name, &tensor.shape));
                let stored: Vec<Stored<'_>> = stored.collect::<Result<_>>()?;
                let parts = tensors.iter().zip(stored.iter().copied());
                if self.precision == Precision::Stored && stored.iter().any(Stored::is_quantised) {
                    self.parts = parts.map(|(tensor, part)| part.matrix(cpu, &tensor.shape, self.precision)).collect();
                } else {
                    let dtypes = stored.iter().map(|part| self.precision.dtype(part.dtype()));
                    // The widest of them, so that nothing is lost.
                    let dtype = if dtypes.clone().any(|dtype| dtype == Dtype::F32) { Dtype::F32 } else { Dtype::Bf16 };
                    let values: Vec<f32> = parts.flat_map(|(tensor, part)| part.to_f32(&tensor.shape)).collect();
                    self.pack(cpu, dtype, &values);
                }
            }
        }
        Ok(())
    }

    /// Whether a stored tensor that is packed as `matrix` would be packed the same here.
    pub fn holds(&self, matrix: &Matrix) -> bool {
        match self.precision {
            Precision::Stored => true,
            Precision::In(dtype) => matrix.format() == dtype.name(),
        }
    }

    fn pack(&mut self, cpu: &Cpu, dtype: Dtype, values: &[f32]) {
        self.parts.truncate(1);
        keep(cpu, &mut self.parts, 0, dtype, View::new(values, self.outputs, self.inputs));
    }

    /// Width of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Width of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The one matrix of a weight that is one tensor.
    pub fn matrix(&self) -> &Matrix {
        assert_eq!(self.parts.len(), 1, "one tensor's matrix");
        &self.parts[0]
    }

    /// The products that make x Wᵀ, with the result's first row at `row`.
    pub fn jobs<'a>(&'a self, x: View<'a>, row: usize) -> impl Iterator<Item = Job<'a>> {
        let starts = self.parts.iter().scan(0, |next, part| Some(std::mem::replace(next, *next + part.outputs())));
        starts.zip(&self.parts).map(move |(col, part)| Job { a: x, b: Operand::Packed(part), row, col })
    }

    /// Its numbers in an arena, outputs by inputs.
    pub fn rows<'v>(&self, values: &'v [f32]) -> View<'v> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        View::new(&values[self.at..self.at + outputs * inputs], outputs, inputs)
    }

    /// Its place in the arena.
    pub fn at(&self) -> usize {
        self.at
    }

    /// y = x Wᵀ
    pub fn forward(&self, cpu: &Cpu, x: View<'_>, mode: Mode, y: &mut [f32]) {
        match self.parts.as_slice() {
            [matrix] => gemm(cpu, y, self.outputs, mode, &[Job { a: x, b: Operand::Packed(matrix), row: 0, col: 0 }]),
            _ => gemm(cpu, y, self.outputs, mode, &self.jobs(x, 0).collect::<Vec<_>>()),
        }
    }

    /// dW += dyᵀ x
    pub fn backward_weight(&self, cpu: &Cpu, dy: View<'_>, x: View<'_>, gradient: &mut [f32]) {
        let (outputs, inputs) = (self.outputs, self.inputs);
        let gradient = &mut gradient[self.at..self.at + outputs * inputs];
        self.backward(cpu, dy.t(), x, Mode::Add, gradient);
    }

    /// dx (=, +=) dy W
    pub fn backward_input(&self, cpu: &Cpu, values: &[f32], dy: View<'_>, mode: Mode, dx: &mut [f32]) {
        self.backward(cpu, dy, self.rows(values), mode, dx);
    }

    /// A product of the backward pass, in the dtype of the forward one.
    fn backward(&self, cpu: &Cpu, a: View<'_>, b: View<'_>, mode: Mode, out: &mut [f32]) {
        let packed;
        let operand = match self.precision.dtype(DataType::F32) {
            Dtype::F32 => Operand::View(b),
            Dtype::Bf16 => {
                packed = Matrix::pack(cpu, Dtype::Bf16, b.t());
                Operand::Packed(&packed)
            }
        };
        gemm(cpu, out, b.cols(), mode, &[Job { a, b: operand, row: 0, col: 0 }]);
    }
}

/// Packs `w` as matrix `index` of some: in the place of the one before, which training does after every step, or behind them.
pub(crate) fn keep(cpu: &Cpu, matrices: &mut Vec<Matrix>, index: usize, dtype: Dtype, w: View<'_>) {
    match matrices.get_mut(index) {
        Some(matrix) if matrix.format() == dtype.name() => matrix.repack(cpu, w),
        Some(matrix) => *matrix = Matrix::lasting(cpu, dtype, w),
        None => matrices.push(Matrix::lasting(cpu, dtype, w)),
    }
}

/// A vector: a norm's scale, a bias.
#[derive(Default)]
pub(crate) struct Vector {
    pub values: Vec<f32>,
    at: usize,
}

impl Vector {
    /// Takes the next `count` tensors.
    pub fn fill(&mut self, reader: &mut Reader<'_, '_>, count: usize) -> Result<()> {
        let (at, values) = reader.next(count)?;
        self.at = at;
        self.values.clear();
        self.values.extend_from_slice(&values);
        Ok(())
    }

    /// Its place in a gradient.
    pub fn gradient<'g>(&self, gradient: &'g mut [f32]) -> &'g mut [f32] {
        &mut gradient[self.at..self.at + self.values.len()]
    }
}
