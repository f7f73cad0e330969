//! Low-rank adapters (LoRA, arXiv 2106.09685) beside frozen tensors, which stay as they are stored (QLoRA, arXiv 2305.14314).
//!
//! ```text
//! y = x Wᵀ + scale (x Aᵀ) Bᵀ        A is rank by inputs, B outputs by rank
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use minke_kernels::cpu::Scratch;
use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::{Cpu, Dtype, Matrix, View};

use crate::config::Config;
use crate::error::{Error, Result, quoted};
use crate::parameters::{Initial, Parameter, Parameters, tensor_shapes};

/// Projections that can have adapters, by the names that Hugging Face gives them. Left out are the experts that a router
/// chooses, and latent attention's `kv_b_proj`, which never runs as one product.
pub const PROJECTIONS: [&str; 10] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "q_a_proj",
    "q_b_proj",
    "kv_a_proj_with_mqa",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// Which tensors of a model have adapters, and where those lie in an arena: first every A, then every B.
///
/// Each is called as PEFT calls it, by its tensor's name with `lora_A` or `lora_B` before `weight`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    rank: usize,
    scale: f32,
    dtype: Dtype,
    parameters: Parameters,
    /// Whether all projections of a name have adapters, or none.
    whole: bool,
    /// Of each tensor that has an adapter, where its A and its B begin.
    places: BTreeMap<String, [usize; 2]>,
}

/// The projection that a tensor is, if it can have an adapter.
fn projection(name: &str) -> Option<&str> {
    let last = name.strip_suffix(".weight")?.rsplit('.').next()?;
    (PROJECTIONS.contains(&last) && !name.contains(".mlp.experts.")).then_some(last)
}

impl Lora {
    /// Adapters of this rank for the projections of a model that are among `targets`, or for all that can have one. What
    /// they add is multiplied by `scale`; their products are computed in `dtype`, as are the gradients that pass through
    /// what is frozen.
    ///
    /// # Errors
    /// A target that the model does not have.
    pub fn new(config: &Config, rank: usize, scale: f32, dtype: Dtype, targets: Option<&[String]>) -> Result<Lora> {
        let known: Vec<(String, Vec<usize>)> =
            tensor_shapes(config).filter(|(name, _)| projection(name).is_some()).collect();
        let has = |target: &str| known.iter().any(|(name, _)| projection(name) == Some(target));
        if let Some(missing) = targets.into_iter().flatten().find(|target| !has(target)) {
            let all: Vec<&str> = PROJECTIONS.into_iter().filter(|name| has(name)).collect();
            let missing = quoted(missing);
            return Err(Error::new(format!("{missing} can't have adapters in this model; {} can", all.join(", "))));
        }
        let chosen = |name: &str| {
            targets.is_none_or(|targets| targets.iter().any(|target| projection(name) == Some(target.as_str())))
        };
        let adapted: Vec<_> = known.into_iter().filter(|(name, _)| chosen(name)).collect();
        let named = |name: &str, which| format!("{}.{which}.weight", name.strip_suffix(".weight").unwrap_or(name));
        let down = adapted.iter().map(|(name, shape)| (named(name, "lora_A"), vec![rank, shape[1]], Initial::Uniform));
        let up = adapted.iter().map(|(name, shape)| (named(name, "lora_B"), vec![shape[0], rank], Initial::Zeros));
        let parameters = Parameters::laid_out(down.chain(up));
        let at: Vec<usize> = parameters.iter().map(|parameter| parameter.offset).collect();
        let (a, b) = at.split_at(adapted.len());
        let places = adapted.iter().zip(a.iter().zip(b)).map(|((name, _), (&a, &b))| (name.clone(), [a, b])).collect();
        Ok(Lora { rank, scale, dtype, parameters, whole: config.experts.is_none(), places })
    }

    /// Inner width of the adapters.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// What their result is multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The type of their products.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The adapters' tensors and their places in the arena.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The modules that have adapters, as PEFT matches them: by the projection's name, or the whole path where other modules
    /// of that name have none.
    pub fn targets(&self) -> Vec<&str> {
        let paths = self.places.keys().map(|name| name.strip_suffix(".weight").unwrap_or(name));
        if self.whole {
            let names = self.places.keys().filter_map(|name| projection(name));
            return names.collect::<BTreeSet<&str>>().into_iter().collect();
        }
        paths.collect()
    }

    /// Adds what the adapters in `values` say to a tensor of the model, row-major: W += scale B A. Tensors that have no
    /// adapter stay as they are.
    pub fn merge(&self, cpu: &Cpu, values: &[f32], name: &str, shape: &[usize], w: &mut [f32]) {
        let (Some(&[a, b]), &[outputs, inputs]) = (self.places.get(name), shape) else { return };
        let a = View::new(&values[a..a + self.rank * inputs], self.rank, inputs);
        let mut scaled = cpu.scratch(outputs * self.rank);
        scaled.copy_from_slice(&values[b..b + outputs * self.rank]);
        scaled.iter_mut().for_each(|x| *x *= self.scale);
        let b = View::new(&scaled, outputs, self.rank);
        gemm(cpu, w, inputs, Mode::Add, &[Job { a: b, b: Operand::View(a), row: 0, col: 0 }]);
    }
}

/// The adapters of tensors that share their input, packed for forward, with their places in the arena for backward.
#[derive(Clone)]
pub(crate) struct Adapters {
    rank: usize,
    scale: f32,
    dtype: Dtype,
    inputs: usize,
    outputs: usize,
    /// Every A below the one before, width by inputs, and where they begin: in the arena too they follow each other.
    down: Matrix,
    at: usize,
    up: Vec<Up>,
}

/// One adapter's B.
#[derive(Clone)]
struct Up {
    matrix: Matrix,
    at: usize,
    /// Of y.
    columns: Range<usize>,
}

impl Adapters {
    /// Those of `tensors`, whose outputs stand side by side; none where no tensor has any.
    pub fn new(cpu: &Cpu, lora: &Lora, tensors: &[Parameter], values: &[f32]) -> Option<Adapters> {
        let &Lora { rank, scale, dtype, .. } = lora;
        let inputs = tensors[0].shape[1];
        let (mut outputs, mut at, mut up) = (0, None, Vec::new());
        for tensor in tensors {
            let columns = outputs..outputs + tensor.shape[0];
            outputs = columns.end;
            if let Some(&[a, b]) = lora.places.get(&tensor.name) {
                at.get_or_insert(a);
                let rows = View::new(&values[b..b + columns.len() * rank], columns.len(), rank);
                up.push(Up { matrix: Matrix::lasting(cpu, dtype, rows), at: b, columns });
            }
        }
        let (at, width) = (at?, up.len() * rank);
        let down = Matrix::lasting(cpu, dtype, View::new(&values[at..at + width * inputs], width, inputs));
        Some(Adapters { rank, scale, dtype, inputs, outputs, down, at, up })
    }

    /// Takes over new values after an update.
    pub fn refresh(&mut self, cpu: &Cpu, values: &[f32]) {
        let (width, inputs, rank) = (self.width(), self.inputs, self.rank);
        self.down.repack(cpu, View::new(&values[self.at..self.at + width * inputs], width, inputs));
        for up in &mut self.up {
            let outputs = up.columns.len();
            up.matrix.repack(cpu, View::new(&values[up.at..up.at + outputs * rank], outputs, rank));
        }
    }

    /// Inner width of all of them together.
    fn width(&self) -> usize {
        self.up.len() * self.rank
    }

    /// scale x Aᵀ of all of them, rows by width.
    fn inner<'c>(&self, cpu: &'c Cpu, x: View<'_>) -> Scratch<'c> {
        let mut inner = cpu.scratch(x.rows() * self.width());
        gemm(cpu, &mut inner, self.width(), Mode::Set, &[Job { a: x, b: Operand::Packed(&self.down), row: 0, col: 0 }]);
        inner.iter_mut().for_each(|x| *x *= self.scale);
        inner
    }

    /// y += scale (x Aᵀ) Bᵀ
    pub fn forward(&self, cpu: &Cpu, x: View<'_>, y: &mut [f32]) {
        let inner = self.inner(cpu, x);
        let jobs: Vec<Job<'_>> = self
            .up
            .iter()
            .enumerate()
            .map(|(i, up)| Job {
                a: View::columns(&inner, x.rows(), self.width(), i * self.rank, self.rank),
                b: Operand::Packed(&up.matrix),
                row: 0,
                col: up.columns.start,
            })
            .collect();
        gemm(cpu, y, self.outputs, Mode::Add, &jobs);
    }

    /// dB += dyᵀ (scale x Aᵀ), dA += (scale dy B)ᵀ x, dx += (scale dy B) A; `values` is the arena of the adapters.
    pub fn backward(&self, cpu: &Cpu, values: &[f32], dy: View<'_>, x: View<'_>, dx: &mut [f32], gradient: &mut [f32]) {
        let (rows, width, rank, inputs) = (x.rows(), self.width(), self.rank, self.inputs);
        let inner = self.inner(cpu, x);
        let mut d_inner = cpu.scratch(rows * width);
        for (i, up) in self.up.iter().enumerate() {
            let (dy, len) = (dy.cols_from(up.columns.start, up.columns.len()), up.columns.len() * rank);
            let b = View::new(&values[up.at..up.at + len], up.columns.len(), rank);
            product(cpu, self.dtype, dy, b, Mode::Set, &mut d_inner, (width, i * rank));
            let inner = View::columns(&inner, rows, width, i * rank, rank);
            product(cpu, self.dtype, dy.t(), inner, Mode::Add, &mut gradient[up.at..up.at + len], (rank, 0));
        }
        d_inner.iter_mut().for_each(|x| *x *= self.scale);
        let d_inner = View::new(&d_inner, rows, width);
        let a = View::new(&values[self.at..self.at + width * inputs], width, inputs);
        let d_a = &mut gradient[self.at..self.at + width * inputs];
        product(cpu, self.dtype, d_inner.t(), x, Mode::Add, d_a, (inputs, 0));
        product(cpu, self.dtype, d_inner, a, Mode::Add, dx, (inputs, 0));
    }
}

/// A product of the backward pass, in the dtype of the forward one: out (=, +=) a b, from column `col` on of rows that are
/// `stride` apart.
pub(crate) fn product(
    cpu: &Cpu,
    dtype: Dtype,
    a: View<'_>,
    b: View<'_>,
    mode: Mode,
    out: &mut [f32],
    (stride, col): (usize, usize),
) {
    let packed = Matrix::pack(cpu, dtype, b.t());
    gemm(cpu, out, stride, mode, &[Job { a, b: Operand::Packed(&packed), row: 0, col }]);
}
