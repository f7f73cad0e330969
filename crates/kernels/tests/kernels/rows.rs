//! The two rules, bit for bit: in a forward pass a row depends on itself alone, and a sum over rows goes in their order;
//! neither knows of threads.

use minke_kernels::attention::attention_backward;
use minke_kernels::divergence::{Divergence, Output, divergence};
use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::head_norm::rms_norm_heads;
use minke_kernels::heads::Heads;
use minke_kernels::kv::{KvDtype, Span};
use minke_kernels::log_prob::{LogProb, log_prob, log_prob_backward};
use minke_kernels::optimizer::{self, AdamW};
use minke_kernels::rope::{Direction, RopeTable};
use minke_kernels::router::{Router, Scoring, route, route_backward};
use minke_kernels::{Cpu, Dtype, Matrix, View, elementwise, embedding, norm};

use crate::Check;
use crate::attention::{Batch, LAYER, SHAPES};
use crate::data::{Data, assert_same};

pub const CHECKS: [Check; 4] = [
    ("rows alone, together and in any number of threads", forward),
    ("sums over rows, in one call, in two and in any number of threads", sums),
    ("sequences alone and together, whole and in parts", sequences),
    ("whole buffers in any number of threads", buffers),
];

/// The same instruction set with 1, 2 and 5 threads.
fn machines(cpu: &Cpu) -> [Cpu; 3] {
    [1, 2, 5].map(|threads| Cpu::new(cpu.isa(), threads))
}

/// What an operation makes of a number of rows, their numbers and their ids.
type Run<'a> = Box<dyn Fn(&Cpu, usize, &[f32], &[u32]) -> Vec<f32> + 'a>;

/// An operation on rows: from (rows, their numbers, their ids) to one buffer, with as many numbers for each row.
struct Forward<'a> {
    name: String,
    /// Numbers of a row that go in.
    inputs: usize,
    /// Ids of a row are below this.
    ids_below: usize,
    run: Run<'a>,
}

struct Operations<'a>(Vec<Forward<'a>>);

impl<'a> Operations<'a> {
    fn add(&mut self, name: &str, inputs: usize, ids_below: usize, run: Run<'a>) {
        self.0.push(Forward { name: name.to_owned(), inputs, ids_below, run });
    }
}

impl Forward<'_> {
    /// All rows at once on each machine, then some rows alone and some neighbours together.
    fn check(&self, cpus: &[Cpu; 3], data: &mut Data, rows: usize) {
        let (x, ids) = (data.normal(rows * self.inputs, 1.0), data.ids(rows, self.ids_below));
        let together = (self.run)(&cpus[0], rows, &x, &ids);
        for cpu in &cpus[1..] {
            assert_same(
                &format!("{} in {} threads", self.name, cpu.pool().threads()),
                &(self.run)(cpu, rows, &x, &ids),
                &together,
            );
        }
        let width = together.len() / rows;
        for _ in 0..12 {
            let first = data.size(0, rows - 1);
            let count = data.pick(&[1, 1, 1, 2, 13, 60]).min(rows - first);
            let (x, ids) = (&x[first * self.inputs..][..count * self.inputs], &ids[first..][..count]);
            let apart = (self.run)(data.pick(&[&cpus[0], &cpus[2]]), count, x, ids);
            let what = format!("{}, rows {first}..{} of {rows}", self.name, first + count);
            assert_same(&what, &apart, &together[first * width..][..count * width]);
        }
    }
}

fn forward(cpu: &Cpu) {
    let cpus = machines(cpu);
    let mut data = Data::new(60);
    for round in 0..12 {
        // Of several tasks in some rounds, and of one in others.
        let rows = if round % 3 == 0 { data.size(200, 600) } else { data.size(1, 80) };
        let (dim, n) = (data.size(1, 300), data.size(1, 130));
        let (weight, w) = (data.normal(dim, 1.0), data.normal(n * dim, 0.2));
        let b = data.normal(dim * n, 1.0);
        let (b_view, w_view) = (View::new(&b, dim, n), View::new(&w, n, dim));
        let matrices = [Dtype::F32, Dtype::Bf16].map(|dtype| Matrix::pack(cpu, dtype, w_view));
        let interleaved = data.flip();
        let half = data.size(1, 20);
        let heads = data.size(1, 6);
        let head_weight = data.normal(2 * half, 1.0);
        let table =
            RopeTable::new(&(0..half).map(|i| 0.5_f64.powi(i as i32)).collect::<Vec<_>>(), 700, interleaved, 1.5);
        let experts = 4 * data.size(1, 8);
        let scoring = data.pick(&[Scoring::Sigmoid, Scoring::Softmax]);
        let router =
            Router { experts, per_token: 2, scoring, groups: 4, groups_per_token: 2, normalize: true, scaling: 2.5 };
        let bias = data.normal(experts, 0.5);
        let inverse_temperature = data.pick(&[0.7, 1.0]);

        let mut operations: Operations<'_> = Operations(Vec::new());
        operations.add(
            "RMSNorm",
            dim,
            1,
            Box::new(|cpu, rows, x, _| {
                let (mut y, mut inv_rms) = (vec![0.0; rows * dim], vec![0.0; rows]);
                norm::rms_norm(cpu, View::new(x, rows, dim), &weight, 1e-6, &mut y, &mut inv_rms);
                beside(rows, &[&y, &inv_rms])
            }),
        );
        operations.add(
            "RMSNorm of heads",
            heads * 2 * half,
            1,
            Box::new(|cpu, rows, x, _| {
                let at = Heads { row: heads * 2 * half, head: 2 * half, offset: 0 };
                let (mut y, mut inv_rms) = (vec![0.0; x.len()], vec![0.0; rows * heads]);
                rms_norm_heads(cpu, (rows, heads), (x, at), &head_weight, 1e-6, (&mut y, at), &mut inv_rms);
                beside(rows, &[&y, &inv_rms])
            }),
        );
        operations.add(
            "RoPE",
            heads * 2 * half,
            700,
            Box::new(|cpu, _, x, positions| {
                let mut x = x.to_vec();
                let (row, head) = (heads * 2 * half, 2 * half);
                minke_kernels::rope::rope(cpu, &table, &mut x, row, heads, head, 0, positions, Direction::Forward);
                x
            }),
        );
        operations.add(
            "SwiGLU",
            2 * dim,
            1,
            Box::new(|cpu, rows, x, _| {
                let mut out = vec![0.0; rows * dim];
                elementwise::swiglu(cpu, x, dim, &mut out);
                out
            }),
        );
        operations.add(
            "a bias",
            dim,
            1,
            Box::new(|cpu, _, x, _| {
                let mut y = x.to_vec();
                elementwise::add_bias(cpu, &weight, &mut y);
                y
            }),
        );
        operations.add(
            "embeddings",
            1,
            n,
            Box::new(|cpu, rows, _, ids| {
                let mut out = vec![0.0; rows * dim];
                embedding::gather(cpu, Operand::View(w_view), ids, &mut out);
                out
            }),
        );
        operations.add(
            "combined experts",
            dim,
            n,
            Box::new(|cpu, rows, x, ids| {
                let mut y = x.to_vec();
                let slots: Vec<u32> = ids.iter().flat_map(|&id| [id, 0]).collect();
                elementwise::combine(cpu, &mut y, dim, &w, &slots, &[0.3, -1.7].repeat(rows));
                y
            }),
        );
        operations.add(
            "routing",
            experts,
            1,
            Box::new(|cpu, rows, x, _| {
                let (mut scores, mut chosen, mut weights) =
                    (vec![0.0; rows * experts], vec![0; rows * 2], vec![0.0; rows * 2]);
                route(cpu, &router, x, &bias, &mut scores, &mut chosen, &mut weights);
                let mut d_logits = vec![0.0; rows * experts];
                route_backward(cpu, &router, &scores, &chosen, &weights, &weights, &mut d_logits);
                let chosen: Vec<f32> = chosen.iter().map(|&c| c as f32).collect();
                beside(rows, &[&scores, &chosen, &weights, &d_logits])
            }),
        );
        for matrix in &matrices {
            operations.add(
                &format!("a product with a {} matrix", matrix.format()),
                dim,
                1,
                Box::new(move |cpu, rows, x, _| {
                    let mut y = vec![0.0; rows * n];
                    minke_kernels::gemm::linear(cpu, matrix, View::new(x, rows, dim), &mut y);
                    y
                }),
            );
            operations.add(
                &format!("log-probabilities, {}", matrix.format()),
                dim,
                n,
                Box::new(move |cpu, rows, x, targets| {
                    let mut out = vec![LogProb::default(); rows];
                    log_prob(cpu, matrix, View::new(x, rows, dim), targets, inverse_temperature, &mut out);
                    out.iter().flat_map(|o| [o.log_prob, o.lse, o.entropy]).collect()
                }),
            );
            let own = &matrices[0];
            operations.add(
                &format!("divergences, {}", matrix.format()),
                dim,
                n,
                Box::new(move |cpu, rows, x, targets| {
                    let hidden = View::new(x, rows, dim);
                    let (student, teacher) = (Output { head: matrix, hidden }, Output { head: own, hidden });
                    let mut out = vec![Divergence::default(); rows];
                    divergence(cpu, student, teacher, targets, &mut out);
                    out.iter().flat_map(|o| [o.log_prob, o.kl, o.lse, o.teacher_lse]).collect()
                }),
            );
        }
        for (form, b) in [("", b_view), (" transposed", w_view.t())] {
            operations.add(
                &format!("a product with a{form} view"),
                dim,
                1,
                Box::new(move |cpu, rows, x, _| {
                    let mut y = vec![1.0; rows * n];
                    let job = Job { a: View::new(x, rows, dim), b: Operand::View(b), row: 0, col: 0 };
                    gemm(cpu, &mut y, n, Mode::Add, &[job]);
                    y
                }),
            );
        }
        for operation in operations.0 {
            operation.check(&cpus, &mut data, rows);
        }
    }
}

/// Row-major buffers side by side, so that a row's numbers are together.
fn beside(rows: usize, buffers: &[&[f32]]) -> Vec<f32> {
    (0..rows)
        .flat_map(|r| buffers.iter().flat_map(move |b| b[r * (b.len() / rows)..][..b.len() / rows].iter().copied()))
        .collect()
}

/// Runs a reduction over rows first..last on top of the sums in its last argument.
type Reduction<'a> = Box<dyn Fn(&Cpu, std::ops::Range<usize>, &mut [f32]) + 'a>;

fn sums(cpu: &Cpu) {
    let cpus = machines(cpu);
    let mut data = Data::new(61);
    for round in 0..12 {
        let rows = if round % 3 == 0 { data.size(300, 700) } else { data.size(2, 80) };
        let (dim, n) = (data.size(1, 300), data.size(1, 90));
        let (x, dy) = (data.normal(rows * dim, 1.0), data.normal(rows * dim, 1.0));
        let (weight, inv_rms) = (data.normal(dim, 1.0), data.normal(rows, 1.0));
        let (ids, d_log_prob) = (data.ids(rows, n), data.normal(rows, 1.0));
        let small = data.normal(rows * n, 1.0);
        let w = data.normal(n * dim, 0.1);
        let w_view = View::new(&w, n, dim);
        let head = Matrix::pack(cpu, Dtype::F32, w_view);
        let part = |x: &'_ [f32], range: &std::ops::Range<usize>| -> Vec<f32> {
            let width = x.len() / rows;
            x[range.start * width..range.end * width].to_vec()
        };
        let reductions: Vec<(&str, usize, Reduction<'_>)> = vec![
            (
                "a bias's gradient",
                dim,
                Box::new(|cpu, range, out| elementwise::bias_backward(cpu, &part(&dy, &range), out)),
            ),
            (
                "a norm's weight",
                dim,
                Box::new(|cpu, range, out| {
                    let (x, dy, count) = (part(&x, &range), part(&dy, &range), range.len());
                    let mut dx = vec![0.0; count * dim];
                    let view = View::new(&x, count, dim);
                    norm::rms_norm_backward(cpu, view, &weight, &inv_rms[range], &dy, &mut dx, dim, false, Some(out));
                }),
            ),
            (
                "an embedding's gradient",
                n * dim,
                Box::new(|cpu, range, out| {
                    embedding::scatter_add(cpu, &ids[range.clone()], &part(&dy, &range), out);
                }),
            ),
            (
                "a weight's gradient",
                n * dim,
                Box::new(|cpu, range, out| {
                    let (x, dy) = (part(&x, &range), part(&small, &range));
                    let a = View::new(&dy, range.len(), n).t();
                    let b = Operand::View(View::new(&x, range.len(), dim));
                    gemm(cpu, out, dim, Mode::Add, &[Job { a, b, row: 0, col: 0 }]);
                }),
            ),
            (
                "the head's gradient",
                n * dim,
                Box::new(|cpu, range, out| {
                    let (hidden, count) = (part(&x, &range), range.len());
                    let hidden = View::new(&hidden, count, dim);
                    let mut log_probs = vec![LogProb::default(); count];
                    log_prob(cpu, &head, hidden, &ids[range.clone()], 0.9, &mut log_probs);
                    let lse: Vec<f32> = log_probs.iter().map(|o| o.lse).collect();
                    let (targets, d) = (&ids[range.clone()], &d_log_prob[range]);
                    let mut d_hidden = vec![0.0; count * dim];
                    log_prob_backward(cpu, &head, w_view, hidden, targets, &lse, d, 0.9, &mut d_hidden, out);
                }),
            ),
        ];
        for (name, len, run) in reductions {
            let start = data.normal(len, 1.0);
            let mut whole = start.clone();
            run(&cpus[0], 0..rows, &mut whole);
            let cut = data.size(1, rows - 1);
            for cpu in &cpus {
                let mut again = start.clone();
                run(cpu, 0..rows, &mut again);
                assert_same(&format!("{name} in {} threads", cpu.pool().threads()), &again, &whole);
                let mut parts = start.clone();
                run(cpu, 0..cut, &mut parts);
                run(cpu, cut..rows, &mut parts);
                assert_same(&format!("{name} in two calls"), &parts, &whole);
            }
        }
    }
}

fn sequences(cpu: &Cpu) {
    let cpus = machines(cpu);
    let mut data = Data::new(62);
    for (shape, dtype) in SHAPES.into_iter().flat_map(|shape| KvDtype::ALL.map(|dtype| (shape, dtype))) {
        // One that is cut into segments for several tasks where it is alone.
        let mut lengths: Vec<(usize, usize)> = (0..5).map(|_| (data.size(0, 70), data.size(1, 70))).collect();
        lengths.push((data.size(230, 800), data.size(1, 70)));
        let batch = Batch::new(cpu, &mut data, shape, &lengths, 1.0, dtype);
        let (out, lse) = batch.run(&cpus[0]);
        for cpu in &cpus[1..] {
            let again = batch.run(cpu);
            assert_same("attention in threads", &again.0, &out);
            assert_same("attention's lse in threads", &again.1, &lse);
        }
        let (width, heads) = (batch.heads * batch.layout.value_width, batch.heads);
        let q_width = heads * batch.layout.key_width;
        for span in &batch.spans {
            // A part of the sequence's rows, down to one, as a decode step or a chunk of a prompt has them.
            let first = data.size(0, span.rows.len() - 1);
            let count = data.pick(&[1, 3, 33]).min(span.rows.len() - first);
            let rows = span.rows.start + first..span.rows.start + first + count;
            let alone = Span { rows: 0..count, start: span.start + first, pages: span.pages.clone(), past: None };
            let q = View::new(&batch.q[rows.start * q_width..rows.end * q_width], count, q_width);
            let (mut part, mut part_lse) = (vec![0.0; count * width], vec![0.0; count * heads]);
            let scale = batch.scale;
            let cpu = data.pick(&[&cpus[0], &cpus[1]]);
            minke_kernels::attention::attention(
                cpu,
                &batch.kv,
                LAYER,
                &[alone],
                heads,
                scale,
                q,
                &mut part,
                Some(&mut part_lse),
            );
            assert_same("a part of a sequence", &part, &out[rows.start * width..rows.end * width]);
            assert_same("a part's lse", &part_lse, &lse[rows.start * heads..rows.end * heads]);
        }
        if dtype != KvDtype::F32 {
            continue;
        }
        let whole: Vec<(usize, usize)> = (0..3).map(|_| (0, data.size(1, 70))).collect();
        let batch = Batch::new(cpu, &mut data, shape, &whole, 1.0, KvDtype::F32);
        let (out, lse) = batch.run(cpu);
        let d_out = data.normal(out.len(), 1.0);
        let stride = q_width + batch.layout.kv_heads * (batch.layout.key_width + batch.layout.value_width);
        let gradients = cpus.each_ref().map(|cpu| {
            let mut d_qkv = vec![0.0; batch.rows() * stride];
            let (kv, spans, scale) = (&batch.kv, &batch.spans, batch.scale);
            attention_backward(cpu, kv, LAYER, spans, heads, scale, batch.q_view(), &out, &lse, &d_out, &mut d_qkv);
            d_qkv
        });
        assert_same("attention's gradients in 2 threads", &gradients[1], &gradients[0]);
        assert_same("attention's gradients in 5 threads", &gradients[2], &gradients[0]);
    }
}

fn buffers(cpu: &Cpu) {
    let cpus = machines(cpu);
    let mut data = Data::new(63);
    let settings = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    for n in [1, 4097, 100_000] {
        let (gradient, start) = (data.normal(n, 1.0), data.normal(n, 1.0));
        let results = cpus.each_ref().map(|cpu| {
            let (mut m, mut v, mut parameters) = (gradient.clone(), vec![0.5; n], start.clone());
            optimizer::adamw(cpu, &settings, 3, 0.5, &gradient, &mut m, &mut v, &mut parameters);
            let norm = optimizer::sum_of_squares(cpu, &gradient).to_bits();
            ([m, v, parameters].concat(), norm)
        });
        for (result, norm) in &results[1..] {
            assert_same("AdamW in threads", result, &results[0].0);
            assert_eq!(*norm, results[0].1, "the sum of squares in threads");
        }
        // A part of the buffer by itself: each parameter depends on itself alone.
        let (from, to) = (n / 3, n - n / 5);
        let (mut m, mut v, mut parameters) =
            (gradient[from..to].to_vec(), vec![0.5; to - from], start[from..to].to_vec());
        optimizer::adamw(cpu, &settings, 3, 0.5, &gradient[from..to], &mut m, &mut v, &mut parameters);
        assert_same("AdamW on a part", &parameters, &results[0].0[2 * n + from..2 * n + to]);
    }
}
