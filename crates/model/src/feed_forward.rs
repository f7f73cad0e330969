//! A block's feed-forward: gated (SwiGLU, arXiv 2002.05202), or a mixture of such experts (DeepSeekMoE, arXiv 2412.19437).

use std::ops::Range;

use minke_kernels::cpu::Scratch;
use minke_kernels::elementwise::{combine, combine_backward, gather_rows, scatter_rows_add, swiglu, swiglu_backward};
use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::router::{Router, Scoring, balance, route, route_backward};
use minke_kernels::{Buffer, Cpu, Dtype, Matrix, Packed, View};

use crate::config::{Config, Experts};
use crate::error::Result;
use crate::stored::Precision;
use crate::weight::{Reader, Vector, Weight};

/// What a block's feed-forward is made of.
#[derive(Clone)]
pub(crate) enum FeedForwardWeights {
    Gated(Gated),
    Experts(Mixture),
}

#[derive(Clone)]
pub(crate) struct Gated {
    /// gate | up
    gate_up: Weight,
    down: Weight,
}

#[derive(Clone)]
pub(crate) struct Mixture {
    gate: Weight,
    /// Added to sigmoid scores for the choice alone; moved by the load, not by a gradient. Softmax scores have none.
    bias: Vector,
    experts: Vec<Gated>,
    shared: Option<Gated>,
    router: Router,
}

/// What backward needs of a feed-forward's forward pass.
#[derive(Default)]
pub(crate) struct FeedForwardActivations {
    /// gate | up of the dense or the shared feed-forward, rows of the batch.
    gate_up: Buffer,
    /// Rows by experts: the router's scores. Rows by experts per token: which were chosen, and their weights.
    logits: Buffer,
    scores: Buffer,
    chosen: Vec<u32>,
    weights: Buffer,
    sorted: Sorted,
    /// gate | up of the experts, and their outputs: a row for each (token, chosen expert), sorted by expert.
    routed: Buffer,
    routed_out: Buffer,
}

/// Tokens sorted by expert; within an expert they keep their order.
#[derive(Default)]
struct Sorted {
    /// Of each place, the row that it came from.
    source: Vec<u32>,
    /// Of each expert, its places.
    places: Vec<Range<usize>>,
    /// Of each (row, choice), its place.
    slots: Vec<u32>,
}

impl Sorted {
    fn sort(&mut self, chosen: &[u32], experts: usize, per_token: usize) {
        let mut counts = vec![0; experts];
        chosen.iter().for_each(|&expert| counts[expert as usize] += 1);
        self.places.clear();
        let mut next = 0;
        for count in &mut counts {
            self.places.push(next..next + *count);
            next += std::mem::replace(count, next);
        }
        // `counts` now holds the next free place of each expert.
        self.source.resize(chosen.len(), 0);
        self.slots.resize(chosen.len(), 0);
        for (i, &expert) in chosen.iter().enumerate() {
            let place = &mut counts[expert as usize];
            self.source[*place] = (i / per_token) as u32;
            self.slots[i] = *place as u32;
            *place += 1;
        }
    }

    /// The rows of the batch as the experts take them.
    fn gather<'a>(&self, cpu: &'a Cpu, rows: View<'_>) -> Scratch<'a> {
        let mut gathered = cpu.scratch(self.source.len() * rows.cols());
        gather_rows(cpu, rows.contiguous(), rows.cols(), &self.source, &mut gathered);
        gathered
    }
}

/// What goes into a down projection: quicker to compute again going backward than to keep.
fn inner<'a>(cpu: &'a Cpu, gate_up: &[f32], width: usize) -> Scratch<'a> {
    let mut inner = cpu.scratch(gate_up.len() / 2);
    swiglu(cpu, gate_up, width, &mut inner);
    inner
}

impl FeedForwardActivations {
    /// How many tokens of the pass each expert was chosen by; empty for a dense feed-forward.
    pub fn loads(&self) -> impl Iterator<Item = u64> + '_ {
        self.sorted.places.iter().map(|places| places.len() as u64)
    }

    /// Memory that it takes, also where an earlier pass was longer; what the router keeps of a token is too little to count.
    pub fn bytes(&self) -> usize {
        let buffers = [&self.gate_up, &self.logits, &self.scores, &self.weights, &self.routed, &self.routed_out];
        buffers.iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum()
    }
}

impl FeedForwardWeights {
    pub fn new(config: &Config, layer: usize, precision: Precision) -> FeedForwardWeights {
        let hidden = config.hidden_size;
        match &config.experts {
            Some(experts) if layer >= experts.first_dense => {
                let &Experts { routed, shared, intermediate_size: width, .. } = experts;
                FeedForwardWeights::Experts(Mixture {
                    // The router decides in f32, as published.
                    gate: Weight::new(Precision::In(Dtype::F32), routed, hidden),
                    bias: Vector::default(),
                    experts: (0..routed).map(|_| Gated::new(precision, hidden, width)).collect(),
                    shared: (shared > 0).then(|| Gated::new(precision, hidden, shared * width)),
                    router: Router {
                        experts: routed,
                        per_token: experts.per_token,
                        scoring: experts.scoring,
                        groups: experts.groups,
                        groups_per_token: experts.groups_per_token,
                        normalize: experts.normalize,
                        scaling: experts.scaling,
                    },
                })
            }
            _ => FeedForwardWeights::Gated(Gated::new(precision, hidden, config.intermediate_size)),
        }
    }

    pub fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>) -> Result<()> {
        match self {
            FeedForwardWeights::Gated(w) => w.fill(cpu, reader),
            FeedForwardWeights::Experts(w) => {
                w.gate.fill(cpu, reader, 1)?;
                if w.router.scoring == Scoring::Sigmoid {
                    w.bias.fill(reader, 1)?;
                }
                for expert in w.experts.iter_mut().chain(&mut w.shared) {
                    expert.fill(cpu, reader)?;
                }
                Ok(())
            }
        }
    }

    /// x += feed_forward(normed)
    pub fn forward(&self, cpu: &Cpu, normed: View<'_>, a: &mut FeedForwardActivations, x: &mut [f32]) {
        match self {
            FeedForwardWeights::Gated(w) => w.forward(cpu, normed, &mut a.gate_up, x),
            FeedForwardWeights::Experts(w) => w.forward(cpu, normed, a, x),
        }
    }

    /// Sets `d_normed` from `d_x`, and adds to the tensors' gradients. With `alpha` > 0, adds the gradient of the
    /// sequence balance loss, and returns that loss.
    pub fn backward(
        &self,
        cpu: &Cpu,
        values: &[f32],
        normed: View<'_>,
        a: &FeedForwardActivations,
        sequences: &[Range<usize>],
        alpha: f32,
        d_x: View<'_>,
        d_normed: &mut [f32],
        gradient: &mut [f32],
    ) -> f32 {
        match self {
            FeedForwardWeights::Gated(w) => {
                w.backward(cpu, values, normed, &a.gate_up, d_x, Mode::Set, d_normed, gradient);
                0.0
            }
            FeedForwardWeights::Experts(w) => {
                w.backward(cpu, values, normed, a, sequences, alpha, d_x, d_normed, gradient)
            }
        }
    }
}

impl Gated {
    fn new(precision: Precision, hidden: usize, width: usize) -> Gated {
        Gated { gate_up: Weight::new(precision, 2 * width, hidden), down: Weight::new(precision, hidden, width) }
    }

    fn fill(&mut self, cpu: &Cpu, reader: &mut Reader<'_, '_>) -> Result<()> {
        self.gate_up.fill(cpu, reader, 2)?;
        self.down.fill(cpu, reader, 1)
    }

    fn width(&self) -> usize {
        self.down.inputs()
    }

    fn forward(&self, cpu: &Cpu, normed: View<'_>, gate_up: &mut Buffer, x: &mut [f32]) {
        let (rows, width) = (normed.rows(), self.width());
        gate_up.resize(rows * 2 * width);
        self.gate_up.forward(cpu, normed, Mode::Set, gate_up);
        let inner = inner(cpu, gate_up, width);
        self.down.forward(cpu, View::new(&inner, rows, width), Mode::Add, x);
    }

    /// d_normed (=, +=)
    fn backward(
        &self,
        cpu: &Cpu,
        values: &[f32],
        normed: View<'_>,
        gate_up: &[f32],
        d_x: View<'_>,
        mode: Mode,
        d_normed: &mut [f32],
        gradient: &mut [f32],
    ) {
        let (rows, width) = (normed.rows(), self.width());
        let mut d_inner = cpu.scratch(rows * width);
        let inner = inner(cpu, gate_up, width);
        self.down.backward(cpu, values, d_x, View::new(&inner, rows, width), Mode::Set, &mut d_inner, gradient);
        let mut d_gate_up = cpu.scratch(rows * 2 * width);
        swiglu_backward(cpu, gate_up, width, &d_inner, &mut d_gate_up);
        let d_gate_up = View::new(&d_gate_up, rows, 2 * width);
        self.gate_up.backward(cpu, values, d_gate_up, normed, mode, d_normed, gradient);
    }
}

impl Mixture {
    /// The `products` of each expert with its rows of `input`, whose results begin at the row that is given.
    fn jobs<'a, I: IntoIterator<Item = Job<'a>>>(
        &'a self,
        sorted: &Sorted,
        input: View<'a>,
        products: impl Fn(&'a Gated, View<'a>, usize) -> I,
    ) -> Vec<Job<'a>> {
        let products = |(expert, places): (&'a Gated, &Range<usize>)| {
            products(expert, input.rows_from(places.start, places.len()), places.start)
        };
        self.busy(sorted).flat_map(products).collect()
    }

    /// Experts that were chosen, and their rows.
    fn busy<'a, 's>(&'a self, sorted: &'s Sorted) -> impl Iterator<Item = (&'a Gated, &'s Range<usize>)> + Clone {
        self.experts.iter().zip(&sorted.places).filter(|(_, places)| !places.is_empty())
    }

    fn forward(&self, cpu: &Cpu, normed: View<'_>, a: &mut FeedForwardActivations, x: &mut [f32]) {
        let (rows, hidden) = (normed.rows(), normed.cols());
        let &Router { experts, per_token, .. } = &self.router;
        let FeedForwardActivations { gate_up, logits, scores, chosen, weights, sorted, routed, routed_out } = a;
        logits.resize(rows * experts);
        scores.resize(rows * experts);
        chosen.resize(rows * per_token, 0);
        weights.resize(rows * per_token);
        self.gate.forward(cpu, normed, Mode::Set, logits);
        route(cpu, &self.router, logits, &self.bias.values, scores, chosen, weights);
        sorted.sort(chosen, experts, per_token);

        let (places, width) = (rows * per_token, self.experts[0].width());
        let gathered = sorted.gather(cpu, normed);
        routed.resize(places * 2 * width);
        let jobs = self.jobs(sorted, View::new(&gathered, places, hidden), |e, x, row| e.gate_up.jobs(x, row));
        gemm(cpu, routed, 2 * width, Mode::Set, &jobs);
        let inner = inner(cpu, routed, width);
        routed_out.resize(places * hidden);
        let jobs = self.jobs(sorted, View::new(&inner, places, width), |e, x, row| e.down.jobs(x, row));
        gemm(cpu, routed_out, hidden, Mode::Set, &jobs);
        combine(cpu, x, hidden, routed_out, &sorted.slots, weights);
        if let Some(shared) = &self.shared {
            shared.forward(cpu, normed, gate_up, x);
        }
    }

    fn backward(
        &self,
        cpu: &Cpu,
        values: &[f32],
        normed: View<'_>,
        a: &FeedForwardActivations,
        sequences: &[Range<usize>],
        alpha: f32,
        d_x: View<'_>,
        d_normed: &mut [f32],
        gradient: &mut [f32],
    ) -> f32 {
        let (rows, hidden) = (normed.rows(), normed.cols());
        let &Router { experts, per_token, .. } = &self.router;
        let (places, width) = (rows * per_token, self.experts[0].width());
        let sorted = &a.sorted;

        let mut d_out = cpu.scratch(places * hidden);
        let mut d_weights = cpu.scratch(rows * per_token);
        let d_rows = d_x.contiguous();
        combine_backward(cpu, d_rows, hidden, &a.routed_out, &sorted.slots, &a.weights, &mut d_out, &mut d_weights);
        let d_out = View::new(&d_out, places, hidden);
        let mut d_inner = cpu.scratch(places * width);
        let inner = inner(cpu, &a.routed, width);
        let inner = View::new(&inner, places, width);
        self.backward_experts(cpu, values, sorted, d_out, inner, |e| &e.down, &mut d_inner, gradient);

        let mut d_gate_up = cpu.scratch(places * 2 * width);
        swiglu_backward(cpu, &a.routed, width, &d_inner, &mut d_gate_up);
        let d_gate_up = View::new(&d_gate_up, places, 2 * width);
        let mut d_gathered = cpu.scratch(places * hidden);
        let gathered = sorted.gather(cpu, normed);
        let gathered = View::new(&gathered, places, hidden);
        self.backward_experts(cpu, values, sorted, d_gate_up, gathered, |e| &e.gate_up, &mut d_gathered, gradient);

        let mut d_logits = cpu.scratch(rows * experts);
        route_backward(cpu, &self.router, &a.scores, &a.chosen, &a.weights, &d_weights, &mut d_logits);
        let mut loss = 0.0;
        if alpha > 0.0 {
            loss = balance(&self.router, &a.scores, &a.chosen, sequences, alpha, Some(&mut d_logits));
        }
        let d_logits = View::new(&d_logits, rows, experts);
        self.gate.backward(cpu, values, d_logits, normed, Mode::Set, d_normed, gradient);
        scatter_rows_add(cpu, &d_gathered, hidden, &sorted.slots, d_normed);
        if let Some(shared) = &self.shared {
            shared.backward(cpu, values, normed, &a.gate_up, d_x, Mode::Add, d_normed, gradient);
        }
        loss
    }

    /// dx = dy W, and dW += dyᵀ x unless W is frozen, for one weight of every expert, each over its own rows.
    fn backward_experts(
        &self,
        cpu: &Cpu,
        values: &[f32],
        sorted: &Sorted,
        dy: View<'_>,
        x: View<'_>,
        weight: impl Fn(&Gated) -> &Weight,
        dx: &mut [f32],
        gradient: &mut [f32],
    ) {
        let stride = x.cols();
        if self.gate.is_frozen() {
            for (expert, places) in self.busy(sorted) {
                let (dy, x) = (dy.rows_from(places.start, places.len()), x.rows_from(places.start, places.len()));
                let dx = &mut dx[places.start * stride..places.end * stride];
                weight(expert).backward(cpu, values, dy, x, Mode::Set, dx, gradient);
            }
            return;
        }
        let busy = self.busy(sorted);
        let packed: Vec<Packed<'_>> = busy.clone().map(|(e, _)| weight(e).pack_transposed(cpu, values)).collect();
        let jobs = busy.clone().zip(&packed).map(|((_, places), matrix)| {
            let a = dy.rows_from(places.start, places.len());
            Job { a, b: Operand::Packed(matrix), row: places.start, col: 0 }
        });
        gemm(cpu, dx, stride, Mode::Set, &jobs.collect::<Vec<_>>());
        let first = weight(&self.experts[0]).at();
        let pack = |(expert, places): (&Gated, &Range<usize>)| {
            Matrix::pack(cpu, weight(expert).dtype(), x.rows_from(places.start, places.len()).t())
        };
        let packed: Vec<Packed<'_>> = busy.clone().map(pack).collect();
        let jobs = busy.zip(&packed).map(|((expert, places), matrix)| Job {
            a: dy.rows_from(places.start, places.len()).t(),
            b: Operand::Packed(matrix),
            // Experts lie 3 * hidden * width apart, a whole number of rows.
            row: (weight(expert).at() - first) / stride,
            col: 0,
        });
        gemm(cpu, &mut gradient[first..], stride, Mode::Add, &jobs.collect::<Vec<_>>());
    }
}
