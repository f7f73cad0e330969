//! A block's tensors: packed for forward, with their places in the arena for backward.

use std::borrow::Cow;
use std::sync::Arc;

use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::{Cpu, Dtype, Matrix, Packed, Packing, View};

use crate::checkpoint::Checkpoint;
use crate::dequantize::DataType;
use crate::error::Result;
use crate::lora::{Adapters, Lora, product};
use crate::packed::Shelf;
use crate::parameters::{Parameter, Parameters};
use crate::stored::{Precision, Stored, side_by_side};

/// Numbers of a frozen weight that are unpacked at a time, but 256 rows at least: a product goes by 256 of them anyway.
const UNPACKED: usize = 1 << 20;

/// Where a model's numbers come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// All of them, laid out as [`Parameters`] says.
    Arena(&'a [f32]),
    /// The files of a model with the same configuration.
    Checkpoint(&'a Checkpoint),
    /// The same, with its matrices put on a shelf, or taken from one.
    Packed(&'a Checkpoint, &'a Shelf<'a>),
    /// The model that is there already, now frozen; the numbers are those of its adapters.
    Adapters(&'a Lora, &'a [f32]),
}

impl<'a> Source<'a> {
    fn checkpoint(self) -> Option<&'a Checkpoint> {
        match self {
            Source::Arena(_) | Source::Adapters(..) => None,
            Source::Checkpoint(checkpoint) | Source::Packed(checkpoint, _) => Some(checkpoint),
        }
    }

    /// Whether matrices are packed from its numbers, so that these are needed.
    pub(crate) fn packs(self) -> bool {
        match self {
            Source::Arena(_) | Source::Checkpoint(_) => true,
            Source::Packed(_, shelf) => shelf.packs(),
            Source::Adapters(..) => false,
        }
    }

    /// The next matrix, which `pack` packs where it is not packed yet.
    fn matrix(self, packing: Packing, outputs: usize, inputs: usize, pack: impl FnOnce() -> Matrix) -> Result<Matrix> {
        match self {
            Source::Packed(_, shelf) => shelf.matrix(packing, outputs, inputs, pack),
            Source::Arena(_) | Source::Checkpoint(_) | Source::Adapters(..) => Ok(pack()),
        }
    }
}

/// Hands out a model's tensors in the order of their places.
pub(crate) struct Reader<'a, 'p> {
    source: Source<'a>,
    left: std::slice::Iter<'p, Parameter>,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub fn new(source: Source<'a>, parameters: &'p Parameters) -> Reader<'a, 'p> {
        match source {
            Source::Arena(values) => assert_eq!(values.len(), parameters.len(), "an arena of another model"),
            Source::Adapters(lora, values) => {
                assert_eq!(values.len(), lora.parameters().len(), "an arena of other adapters");
            }
            Source::Checkpoint(_) | Source::Packed(..) => {}
        }
        Reader { source, left: parameters.iter() }
    }

    /// Goes on with the last `count` tensors.
    pub fn skip_to_last(&mut self, count: usize) {
        let before = self.left.len() - count;
        self.left = self.left.as_slice()[before..].iter();
    }

    /// Passes over the next `count` tensors where there is nothing to read of them: they are frozen, and stay as they are.
    pub fn freezes(&mut self, count: usize) -> bool {
        let freezes = matches!(self.source, Source::Adapters(..));
        if freezes {
            self.take(count);
        }
        freezes
    }

    fn take(&mut self, count: usize) -> &'p [Parameter] {
        let tensors = &self.left.as_slice()[..count];
        self.left.nth(count - 1);
        tensors
    }

    /// The type that the next tensor is stored in.
    pub fn dtype(&self) -> Result<DataType> {
        let next = &self.left.as_slice()[0];
        match self.source.checkpoint() {
            None => Ok(DataType::F32),
            Some(checkpoint) => Ok(checkpoint.stored(&next.name, &next.shape)?.dtype()),
        }
    }

    /// The next `count` tensors, which stand side by side, and their place.
    pub fn next(&mut self, count: usize) -> Result<(usize, Cow<'a, [f32]>)> {
        let tensors = self.take(count);
        let at = tensors[0].offset;
        let values = match self.source {
            Source::Arena(values) => Cow::Borrowed(&values[at..tensors[count - 1].range().end]),
            Source::Packed(_, shelf) if shelf.plans() => Cow::Borrowed(&[][..]),
            Source::Adapters(..) => Cow::Borrowed(&[][..]),
            Source::Checkpoint(checkpoint) | Source::Packed(checkpoint, _) => {
                let mut all = Vec::new();
                for tensor in tensors {
                    let stored = checkpoint.stored(&tensor.name, &tensor.shape)?;
                    all.append(&mut stored.to_f32(&tensor.shape));
                    checkpoint.release(&stored);
                }
                Cow::Owned(all)
            }
        };
        Ok((at, values))
    }

    /// As [`Reader::next`], for numbers that are only needed where matrices are packed from them.
    pub fn next_to_pack(&mut self, count: usize) -> Result<(usize, Cow<'a, [f32]>)> {
        match self.source.packs() {
            true => self.next(count),
            false => Ok((self.take(count)[0].offset, Cow::Borrowed(&[]))),
        }
    }

    /// Keeps matrix `index` of some, of these outputs and inputs: packed from `w` or, where it is packed already, as it is.
    pub fn keep<'w>(
        &self,
        cpu: &Cpu,
        matrices: &mut Vec<Arc<Matrix>>,
        index: usize,
        dtype: Dtype,
        (outputs, inputs): (usize, usize),
        w: impl FnOnce() -> View<'w>,
    ) -> Result<()> {
        match self.source {
            Source::Arena(_) => keep(cpu, matrices, index, dtype, w()),
            source => {
                let pack = || Matrix::lasting(cpu, dtype, w());
                matrices.push(Arc::new(source.matrix(Packing::Dense(dtype), outputs, inputs, pack)?));
            }
        }
        Ok(())
    }
}

/// A matrix, or several side by side that share their input.
#[derive(Clone)]
pub(crate) struct Weight {
    /// One, or one for each tensor where they are kept in different bits.
    parts: Vec<Arc<Matrix>>,
    outputs: usize,
    inputs: usize,
    precision: Precision,
    at: usize,
    frozen: Option<Box<Frozen>>,
}

/// What takes the place of a gradient where a weight stays as it is.
#[derive(Clone)]
struct Frozen {
    /// In which products of the backward pass are computed.
    dtype: Dtype,
    adapters: Option<Adapters>,
}

impl Weight {
    /// A place for `outputs` by `inputs` numbers, filled by [`Weight::fill`].
    pub fn new(precision: Precision, outputs: usize, inputs: usize) -> Weight {
        Weight { parts: Vec::new(), outputs, inputs, precision, at: 0, frozen: None }
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
            source @ (Source::Checkpoint(checkpoint) | Source::Packed(checkpoint, _)) => {
                let stored = tensors.iter().map(|tensor| checkpoint.stored(&tensor.name, &tensor.shape));
                let stored: Vec<Stored<'_>> = stored.collect::<Result<_>>()?;
                let parts = tensors.iter().zip(stored.iter().copied());
                self.parts.clear();
                if self.precision == Precision::Stored && stored.iter().any(Stored::is_quantised) {
                    for (tensor, part) in parts {
                        let (packing, shape) = (part.packing(self.precision), &tensor.shape);
                        let pack = || part.matrix(cpu, shape, self.precision);
                        self.parts.push(Arc::new(source.matrix(packing, shape[0], shape[1], pack)?));
                    }
                } else {
                    let dtypes = stored.iter().map(|part| self.precision.dtype(part.dtype()));
                    // The widest of them, so that nothing is lost.
                    let dtype = if dtypes.clone().any(|dtype| dtype == Dtype::F32) { Dtype::F32 } else { Dtype::Bf16 };
                    let parts: Vec<_> = parts.map(|(tensor, part)| (part, tensor.shape.as_slice())).collect();
                    let pack = || side_by_side(cpu, dtype, &parts);
                    let matrix = source.matrix(Packing::Dense(dtype), self.outputs, self.inputs, pack)?;
                    self.parts.push(Arc::new(matrix));
                }
                if source.packs() {
                    stored.iter().for_each(|part| checkpoint.release(part));
                }
            }
            Source::Adapters(lora, values) => match &mut self.frozen {
                None => {
                    let adapters = Adapters::new(cpu, lora, tensors, values);
                    self.frozen = Some(Box::new(Frozen { dtype: lora.dtype(), adapters }));
                }
                Some(frozen) => {
                    if let Some(adapters) = &mut frozen.adapters {
                        adapters.refresh(cpu, values);
                    }
                }
            },
        }
        Ok(())
    }

    /// Whether its numbers stay as they are.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
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
        if let Some(adapters) = self.frozen.as_ref().and_then(|frozen| frozen.adapters.as_ref()) {
            adapters.forward(cpu, x, y);
        }
    }

    /// From the gradient of y: dW += dyᵀ x, and dx (=, +=) dy W. Where W is frozen, its adapters' take the place of dW.
    pub fn backward(
        &self,
        cpu: &Cpu,
        values: &[f32],
        dy: View<'_>,
        x: View<'_>,
        mode: Mode,
        dx: &mut [f32],
        gradient: &mut [f32],
    ) {
        let Some(frozen) = &self.frozen else {
            self.backward_weight(cpu, dy, x, gradient);
            self.backward_input(cpu, values, dy, mode, dx);
            return;
        };
        self.backward_frozen(cpu, dy, mode, dx);
        if let Some(adapters) = &frozen.adapters {
            adapters.backward(cpu, values, dy, x, dx, gradient);
        }
    }

    /// dx (=, +=) dy W, whose rows are unpacked some at a time.
    fn backward_frozen(&self, cpu: &Cpu, dy: View<'_>, mut mode: Mode, dx: &mut [f32]) {
        let inputs = self.inputs;
        let height = (UNPACKED / inputs).max(256);
        let mut unpacked = cpu.scratch(height.min(self.outputs) * inputs);
        let mut first = 0;
        for part in &self.parts {
            for start in (0..part.outputs()).step_by(height) {
                let rows = height.min(part.outputs() - start);
                let unpacked = &mut unpacked[..rows * inputs];
                part.rows(cpu, start..start + rows, unpacked);
                let dy = dy.cols_from(first + start, rows);
                product(cpu, self.dtype(), dy, View::new(unpacked, rows, inputs), mode, dx, (inputs, 0));
                mode = Mode::Add;
            }
            first += part.outputs();
        }
    }

    /// What the backward pass multiplies in: the dtype of the forward one.
    pub fn dtype(&self) -> Dtype {
        self.frozen.as_ref().map_or(self.precision.dtype(DataType::F32), |frozen| frozen.dtype)
    }

    /// dW += dyᵀ x
    pub fn backward_weight(&self, cpu: &Cpu, dy: View<'_>, x: View<'_>, gradient: &mut [f32]) {
        let (outputs, inputs) = (self.outputs, self.inputs);
        let gradient = &mut gradient[self.at..self.at + outputs * inputs];
        let packed = Matrix::pack(cpu, self.dtype(), x.t());
        let job = Job { a: dy.t(), b: Operand::Packed(&packed), row: 0, col: 0 };
        gemm(cpu, gradient, inputs, Mode::Add, &[job]);
    }

    /// dx (=, +=) dy W
    pub fn backward_input(&self, cpu: &Cpu, values: &[f32], dy: View<'_>, mode: Mode, dx: &mut [f32]) {
        let packed = self.pack_transposed(cpu, values);
        gemm(cpu, dx, self.inputs, mode, &[Job { a: dy, b: Operand::Packed(&packed), row: 0, col: 0 }]);
    }

    /// Its numbers in an arena, packed for products dy W.
    pub fn pack_transposed<'a>(&self, cpu: &'a Cpu, values: &[f32]) -> Packed<'a> {
        Matrix::pack(cpu, self.dtype(), self.rows(values).t())
    }
}

/// Packs `w` as matrix `index` of some: in the place of the one before, which training does after every step, or behind them.
fn keep(cpu: &Cpu, matrices: &mut Vec<Arc<Matrix>>, index: usize, dtype: Dtype, w: View<'_>) {
    let Some(place) = matrices.get_mut(index) else { return matrices.push(Arc::new(Matrix::lasting(cpu, dtype, w))) };
    match Arc::get_mut(place) {
        Some(matrix) if matrix.format() == dtype.name() => matrix.repack(cpu, w),
        // One that another model reads too stays as it is.
        Some(_) | None => *place = Arc::new(Matrix::lasting(cpu, dtype, w)),
    }
}

/// A vector: a norm's scale, a bias.
#[derive(Clone, Default)]
pub(crate) struct Vector {
    pub values: Vec<f32>,
    at: usize,
    frozen: bool,
}

impl Vector {
    /// Takes the next `count` tensors.
    pub fn fill(&mut self, reader: &mut Reader<'_, '_>, count: usize) -> Result<()> {
        if reader.freezes(count) {
            self.frozen = true;
            return Ok(());
        }
        let (at, values) = reader.next(count)?;
        self.at = at;
        self.values.clear();
        self.values.extend_from_slice(&values);
        Ok(())
    }

    /// Its place in a gradient; none where it is frozen.
    pub fn gradient<'g>(&self, gradient: &'g mut [f32]) -> Option<&'g mut [f32]> {
        (!self.frozen).then(|| &mut gradient[self.at..self.at + self.values.len()])
    }
}
