//! Attention over pages, forward against naive `f64` code and backward against its central differences.

use std::ops::Range;

use minke_kernels::attention::{attention, attention_backward};
use minke_kernels::elementwise::round_to_bf16;
use minke_kernels::kv::{KvDtype, KvLayout, KvPages, PAGE_POSITIONS, Span};
use minke_kernels::{Cpu, View};

use crate::data::{Data, assert_gradient, assert_near, dot, widen};

/// Some sequences, all of whose keys and values have been seen.
pub struct Batch {
    pub heads: usize,
    pub layout: KvLayout,
    pub spans: Vec<Span>,
    pub q: Vec<f32>,
    /// For every position of every sequence: kv_heads * key_width and kv_heads * value_width.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    pub kv: KvPages,
    pub scale: f32,
}

/// The layer that is used, of two.
pub const LAYER: usize = 1;

/// (heads, kv_heads, key_width, value_width): grouped, latent, and groups larger than a block of queries.
pub const SHAPES: [(usize, usize, usize, usize); 7] =
    [(1, 1, 1, 1), (4, 2, 8, 8), (6, 2, 5, 3), (3, 3, 64, 64), (5, 1, 33, 17), (8, 1, 40, 32), (40, 1, 9, 4)];

impl Batch {
    /// Sequences of `lengths` (positions before the batch, positions in it), queries and keys of size `size`.
    pub fn new(
        cpu: &Cpu,
        data: &mut Data,
        (heads, kv_heads, key_width, value_width): (usize, usize, usize, usize),
        lengths: &[(usize, usize)],
        size: f32,
        dtype: KvDtype,
    ) -> Batch {
        let layout = KvLayout { layers: 2, kv_heads, key_width, value_width, dtype };
        let pages_of = |&(past, now): &(usize, usize)| (past + now).div_ceil(PAGE_POSITIONS);
        let total = lengths.iter().map(pages_of).sum::<usize>() + 1;
        let mut free = data.permutation(total);
        let (mut spans, mut row) = (Vec::new(), 0);
        for length in lengths {
            let pages = free.split_off(free.len() - pages_of(length));
            spans.push(Span { rows: row..row + length.1, start: length.0, pages, past: None });
            row += length.1;
        }
        let rows_of = |data: &mut Data, width: usize, size: f32| -> Vec<Vec<f32>> {
            lengths.iter().map(|&(past, now)| data.normal((past + now) * kv_heads * width, size)).collect()
        };
        let keys = rows_of(data, key_width, size);
        let values = rows_of(data, value_width, 1.0);
        let mut batch = Batch {
            heads,
            layout,
            q: data.normal(row * heads * key_width, size),
            spans,
            keys,
            values,
            kv: KvPages::new(layout, total),
            scale: 1.0 / (key_width as f32).sqrt(),
        };
        for (i, &(past, now)) in lengths.iter().enumerate() {
            // In two parts, as a past and a present come.
            for (start, count) in [(0, past), (past, now)] {
                batch.write(cpu, i, start, count);
            }
        }
        batch
    }

    fn write(&mut self, cpu: &Cpu, sequence: usize, start: usize, count: usize) {
        let (kw, vw) = (self.layout.kv_heads * self.layout.key_width, self.layout.kv_heads * self.layout.value_width);
        let keys = View::new(&self.keys[sequence][start * kw..(start + count) * kw], count, kw);
        let values = View::new(&self.values[sequence][start * vw..(start + count) * vw], count, vw);
        let span = Span { rows: 0..count, start, pages: self.spans[sequence].pages.clone(), past: None };
        self.kv.write(cpu, LAYER, &[span], keys, values);
    }

    pub fn rows(&self) -> usize {
        self.spans.last().map_or(0, |span| span.rows.end)
    }

    pub fn q_view(&self) -> View<'_> {
        View::new(&self.q, self.rows(), self.heads * self.layout.key_width)
    }

    /// (out, lse)
    pub fn run(&self, cpu: &Cpu) -> (Vec<f32>, Vec<f32>) {
        let (rows, heads) = (self.rows(), self.heads);
        let (mut out, mut lse) = (vec![f32::NAN; rows * heads * self.layout.value_width], vec![f32::NAN; rows * heads]);
        attention(cpu, &self.kv, LAYER, &self.spans, heads, self.scale, self.q_view(), &mut out, Some(&mut lse));
        (out, lse)
    }

    /// What the pages hold of a sequence, after checking that it is what was written, as near as the dtype comes to it.
    fn remembered(&self, sequence: usize) -> (Vec<f32>, Vec<f32>) {
        let KvLayout { kv_heads, key_width, value_width, dtype, .. } = self.layout;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for position in 0..self.keys[sequence].len() / (kv_heads * key_width) {
            let page = self.spans[sequence].pages[position / PAGE_POSITIONS];
            for head in 0..kv_heads {
                keys.extend(self.kv.key(LAYER, page, head, position % PAGE_POSITIONS));
                values.extend(self.kv.value(LAYER, page, head, position % PAGE_POSITIONS));
            }
        }
        for (got, want, width) in
            [(&keys, &self.keys[sequence], key_width), (&values, &self.values[sequence], value_width)]
        {
            for (got, want) in got.chunks(width).zip(want.chunks(width)) {
                let largest = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                let near = want.iter().map(|&x| {
                    let allowed = match dtype {
                        KvDtype::F32 => 0.0,
                        KvDtype::Bf16 => x.abs() / 256.0,
                        KvDtype::Int8 => largest / 253.9,
                    };
                    (f64::from(x), f64::from(allowed))
                });
                assert_near(&format!("what is kept in {}", dtype.name()), got, near);
            }
        }
        (keys, values)
    }

    /// The queries of a span as they meet keys of the dtype.
    fn queries(&self, cpu: &Cpu, span: &Span) -> Vec<f32> {
        let width = self.heads * self.layout.key_width;
        let q = &self.q[span.rows.start * width..span.rows.end * width];
        if self.layout.dtype == KvDtype::F32 {
            return q.to_vec();
        }
        let mut rounded = vec![0; q.len()];
        round_to_bf16(cpu, q, &mut rounded);
        rounded.into_iter().map(|x| f32::from_bits(u32::from(x) << 16)).collect()
    }

    /// One sequence, naively: out and lse for its rows.
    fn naive(&self, span: &Span, q: &[f64], keys: &[f64], values: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let KvLayout { kv_heads, key_width, value_width, .. } = self.layout;
        let (mut out, mut lse) = (Vec::new(), Vec::new());
        for (i, q) in q.chunks(self.heads * key_width).enumerate() {
            for (h, q) in q.chunks(key_width).enumerate() {
                let head = h * kv_heads / self.heads;
                let scores: Vec<f64> = (0..=span.start + i)
                    .map(|j| {
                        let key = &keys[(j * kv_heads + head) * key_width..][..key_width];
                        f64::from(self.scale) * q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                    })
                    .collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                lse.push(max + sum.ln());
                out.extend((0..value_width).map(|d| {
                    let values = scores
                        .iter()
                        .enumerate()
                        .map(|(j, s)| (s - max).exp() / sum * values[(j * kv_heads + head) * value_width + d]);
                    values.sum::<f64>()
                }));
            }
        }
        (out, lse)
    }
}

pub fn forward(cpu: &Cpu) {
    let mut data = Data::new(50);
    for (shape, dtype) in SHAPES.into_iter().flat_map(|shape| KvDtype::ALL.map(|dtype| (shape, dtype))) {
        for (lengths, size) in [
            (vec![(0, 1)], 1.0),
            (vec![(0, 33), (5, 1), (31, 1), (32, 1), (0, 32), (40, 70)], 1.0),
            (vec![(3, 40), (64, 2)], 8.0),
            (vec![(90, 7)], 1e-3),
            // Segments of 256: before, at and after their ends, some of a block's queries in the next one.
            (vec![(255, 1), (256, 1), (240, 40), (600, 3)], 1.0),
            (vec![(1400, 1)], 2.0),
        ] {
            let batch = Batch::new(cpu, &mut data, shape, &lengths, size, dtype);
            let (out, lse) = batch.run(cpu);
            let value_width = batch.layout.value_width;
            for (i, span) in batch.spans.iter().enumerate() {
                let (q, (keys, values)) = (batch.queries(cpu, span), batch.remembered(i));
                let (want, want_lse) = batch.naive(span, &widen(&q), &widen(&keys), &widen(&values));
                let what = format!("attention {shape:?} of {lengths:?} in {}, sequence {i}", dtype.name());
                // Scores as large as size² times a few widths have errors of as many roundings, which exp passes on.
                let largest = want_lse.iter().fold(1.0_f64, |m, l| m.max(l.abs()));
                let off = 1e-6 * (largest + 4.0);
                // Weights in bf16 are off by up to a 256th of themselves, and so then is the sum, of the largest value.
                let largest = values.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
                let off_value = 3.0 * off + if dtype == KvDtype::F32 { 0.0 } else { largest / 256.0 };
                let heads = span.rows.start * batch.heads..span.rows.end * batch.heads;
                let near = |x: Vec<f64>, off: f64| x.into_iter().map(move |x| (x, off));
                assert_near(&what, &lse[heads.clone()], near(want_lse, off));
                let place = heads.start * value_width..heads.end * value_width;
                assert_near(&what, &out[place], near(want, off_value));
            }
        }
    }
}

pub fn backward(cpu: &Cpu) {
    let mut data = Data::new(51);
    for shape in SHAPES {
        for (lengths, size) in [(vec![(0, 1)], 1.0), (vec![(0, 37), (0, 5), (0, 32)], 1.0), (vec![(0, 35)], 3.0)] {
            let batch = Batch::new(cpu, &mut data, shape, &lengths, size, KvDtype::F32);
            let (out, lse) = batch.run(cpu);
            let (heads, KvLayout { kv_heads, key_width, value_width, .. }) = (batch.heads, batch.layout);
            let d_out = data.normal(out.len(), 1.0);
            let widths = [heads * key_width, kv_heads * key_width, kv_heads * value_width];
            let stride = widths.iter().sum::<usize>();
            let mut d_qkv = vec![f32::NAN; batch.rows() * stride];
            let (kv, spans, scale) = (&batch.kv, &batch.spans, batch.scale);
            attention_backward(cpu, kv, LAYER, spans, heads, scale, batch.q_view(), &out, &lse, &d_out, &mut d_qkv);
            for (i, span) in batch.spans.iter().enumerate() {
                let d_out = &d_out[span.rows.start * heads * value_width..span.rows.end * heads * value_width];
                let part = |first: usize, width: usize| -> Vec<f32> {
                    let rows = d_qkv[span.rows.start * stride..span.rows.end * stride].chunks(stride);
                    rows.flat_map(|row| row[first..first + width].iter().copied()).collect()
                };
                let q = &batch.q[span.rows.start * widths[0]..span.rows.end * widths[0]];
                let (q64, k64, v64) = (widen(q), widen(&batch.keys[i]), widen(&batch.values[i]));
                let what = format!("attention {shape:?} of {lengths:?}, sequence {i}");
                let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&batch.naive(span, q, k, v).0, d_out);
                let d_q = part(0, widths[0]);
                assert_gradient(&format!("{what}, queries"), &mut data, q, &d_q, |q| loss(q, &k64, &v64));
                let d_k = part(widths[0], widths[1]);
                assert_gradient(&format!("{what}, keys"), &mut data, &batch.keys[i], &d_k, |k| loss(&q64, k, &v64));
                let d_v = part(widths[0] + widths[1], widths[2]);
                assert_gradient(&format!("{what}, values"), &mut data, &batch.values[i], &d_v, |v| loss(&q64, &k64, v));
            }
        }
    }
}

/// Several sequences that go on from one, computed together, against each of them alone and whole: the same results to the
/// bit, and gradients whose sum is the same.
pub fn shared_past(cpu: &Cpu) {
    let mut data = Data::new(52);
    for shape in SHAPES {
        for (past, own) in [(1, vec![3, 1]), (32, vec![40, 1, 7]), (37, vec![5, 27, 30]), (90, vec![70, 6])] {
            let (heads, kv_heads, key_width, value_width) = shape;
            let layout = KvLayout { layers: 2, kv_heads, key_width, value_width, dtype: KvDtype::F32 };
            let widths = [heads * key_width, kv_heads * key_width, kv_heads * value_width, heads * value_width];
            let rows = past + own.iter().sum::<usize>();
            // q, keys, values and the output's gradient.
            let all: Vec<Vec<f32>> = widths.iter().map(|width| data.normal(rows * width, 1.0)).collect();
            let run = |spans: &[Span], rows: &[Range<usize>], given: bool| {
                let pick = |i: usize| -> Vec<f32> {
                    let width = widths[i];
                    rows.iter().flat_map(|rows| all[i][rows.start * width..rows.end * width].iter().copied()).collect()
                };
                let [q, keys, values, mut d_out] = [0, 1, 2, 3].map(pick);
                if !given {
                    d_out[..past * widths[3]].fill(0.0);
                }
                let (count, pages) = (rows.iter().map(Range::len).sum::<usize>(), spans.iter().flat_map(|s| &s.pages));
                let mut kv = KvPages::new(layout, 1 + *pages.max().unwrap() as usize);
                kv.write(cpu, LAYER, spans, View::new(&keys, count, widths[1]), View::new(&values, count, widths[2]));
                let (mut out, mut lse) = (vec![f32::NAN; count * widths[3]], vec![f32::NAN; count * heads]);
                let (q, scale) = (View::new(&q, count, widths[0]), 1.0 / (key_width as f32).sqrt());
                attention(cpu, &kv, LAYER, spans, heads, scale, q, &mut out, Some(&mut lse));
                let mut d_qkv = vec![f32::NAN; count * (widths[0] + widths[1] + widths[2])];
                attention_backward(cpu, &kv, LAYER, spans, heads, scale, q, &out, &lse, &d_out, &mut d_qkv);
                (out, d_qkv)
            };
            let mut free = data.permutation(100);
            let mut pages = |count: usize| free.split_off(free.len() - count);
            let mut spans =
                vec![Span { rows: 0..past, start: 0, pages: pages(past.div_ceil(PAGE_POSITIONS)), past: None }];
            let whole = past / PAGE_POSITIONS;
            for own in &own {
                let own_pages = pages((past + own).div_ceil(PAGE_POSITIONS) - whole);
                let shared = spans[0].pages[..whole].iter().copied();
                let row = spans.last().unwrap().rows.end;
                let pages = shared.chain(own_pages).collect();
                spans.push(Span { rows: row..row + own, start: past, pages, past: Some(0) });
            }
            let (out, d_qkv) = run(&spans, &[0..past, past..rows], true);
            let stride = d_qkv.len() / rows;
            let mut sum = vec![0.0; past * stride];
            for (i, span) in spans[1..].iter().enumerate() {
                let pages = (0..(past + span.rows.len()).div_ceil(PAGE_POSITIONS) as u32).collect();
                let alone = Span { rows: 0..past + span.rows.len(), start: 0, pages, past: None };
                let (out_alone, d_alone) = run(&[alone], &[0..past, span.rows.clone()], i == 0);
                let own = span.rows.start * widths[3]..span.rows.end * widths[3];
                assert!(out[..past * widths[3]] == out_alone[..past * widths[3]], "{shape:?}: the past");
                assert!(out[own] == out_alone[past * widths[3]..], "{shape:?}: what goes on from it");
                let near = |x: &[f32]| x.iter().map(|&x| (f64::from(x), 1e-5)).collect::<Vec<_>>();
                let own = &d_qkv[span.rows.start * stride..span.rows.end * stride];
                assert_near(&format!("gradients of {shape:?}, its own"), own, near(&d_alone[past * stride..]));
                sum.iter_mut().zip(&d_alone).for_each(|(sum, d)| *sum += d);
            }
            let what = format!("gradients of {shape:?}, the past's {past}");
            assert_near(&what, &d_qkv[..past * stride], sum.iter().map(|&x| (f64::from(x), 1e-4)));
        }
    }
}
