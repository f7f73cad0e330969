//! A block's tensors: packed for forward, with their places in the arena for backward.

use std::borrow::Cow;

use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::{Cpu, Dtype, Matrix, View};

use crate::error::Result;
use crate::parameters::{Parameter, Parameters};

/// Where a model's numbers come from: an arena, or one tensor at a time.
pub enum Source<'a> {
    /// All of them, laid out as [`Parameters`] says.
    Arena(&'a [f32]),
    /// Called once for each tensor, in order.
    Read(&'a mut dyn FnMut(&Parameter) -> Result<Vec<f32>>),
}

/// Hands out a model's tensors in the order of their places.
pub(crate) struct Reader<'a, 'p> {
    source: Source<'a>,
    left: std::slice::Iter<'p, Parameter>,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub fn new(source: Source<'a>, parameters: &'p Parameters) -> Reader<'a, 'p> {
        if let Source::Arena(values) = &source {
            assert_eq!(values.len(), parameters.len(), "an arena of another model");
        }
        Reader { source, left: parameters.iter() }
    }

    /// The next `count` tensors, which stand side by side, and their place.
    pub fn next(&mut self, count: usize) -> Result<(usize, Cow<'a, [f32]>)> {
        let tensors = &self.left.as_slice()[..count];
        self.left.nth(count - 1);
        let at = tensors[0].offset;
        let values = match &mut self.source {
            Source::Arena(values) => Cow::Borrowed(&values[at..tensors[count - 1].range().end]),
            Source::Read(read) => {
                let mut all = Vec::new();
                for tensor in tensors {
                    all.append(&mut read(tensor)?);
                }
                Cow::Owned(all)
            }
        };
        Ok((at, values))
    }
}

/// A matrix, or several side by side that share their input.
pub(crate) struct Weight {
    pub matrix: Matrix,
    at: usize,
}

impl Weight {
    /// A place for `outputs` by `inputs` numbers, filled by [`Weight::fill`].
    pub fn new(cpu: &Cpu, dtype: Dtype, outputs: usize, inputs: usize) -> Weight {
        let zeros = vec![0.0; inputs];
        // Every row is the same row of zeros, so that nothing large is allocated to be thrown away.
        let zeros = View::columns(&zeros, 1, inputs, 0, inputs).repeat_row(outputs);
        Weight { matrix: Matrix::pack(cpu, dtype, zeros), at: 0 }
    }

    /// Takes the next `count` tensors.
    pub fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>, count: usize) -> Result<()> {
        let (at, values) = reader.next(count)?;
        self.at = at;
        self.matrix.repack(cpu, View::new(&values, self.matrix.outputs(), self.matrix.inputs()));
        Ok(())
    }

    /// Shares the numbers of an embedding table.
    pub fn tie(&mut self, cpu: &Cpu, embedding: &Vector) {
        self.at = embedding.at;
        self.matrix.repack(cpu, View::new(&embedding.values, self.matrix.outputs(), self.matrix.inputs()));
    }

    /// Its numbers in an arena, outputs by inputs.
    pub fn rows<'v>(&self, values: &'v [f32]) -> View<'v> {
        let (outputs, inputs) = (self.matrix.outputs(), self.matrix.inputs());
        View::new(&values[self.at..self.at + outputs * inputs], outputs, inputs)
    }

    /// Its place in the arena.
    pub fn at(&self) -> usize {
        self.at
    }

    /// y = x Wᵀ
    pub fn forward(&self, cpu: &Cpu, x: View<'_>, mode: Mode, y: &mut [f32]) {
        gemm(cpu, y, self.matrix.outputs(), mode, &[Job { a: x, b: Operand::Packed(&self.matrix), row: 0, col: 0 }]);
    }

    /// dW += dyᵀ x
    pub fn backward_weight(&self, cpu: &Cpu, dy: View<'_>, x: View<'_>, gradient: &mut [f32]) {
        let (outputs, inputs) = (self.matrix.outputs(), self.matrix.inputs());
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
        let operand = match self.matrix.dtype() {
            Dtype::F32 => Operand::View(b),
            Dtype::Bf16 => {
                packed = Matrix::pack(cpu, Dtype::Bf16, b.t());
                Operand::Packed(&packed)
            }
        };
        gemm(cpu, out, b.cols(), mode, &[Job { a, b: operand, row: 0, col: 0 }]);
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
