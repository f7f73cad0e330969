//! Attention's gradients, from its weights computed again.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::block::{BLOCK, blocks, check_spans, group, product, row_major};
use crate::arch::{Left, PAGE};
use crate::cpu::Cpu;
use crate::kv::{KvDtype, KvLayout, KvPages, Span};
use crate::pool::Shareable;
use crate::view::View;

fn transposed(data: &[f32], stride: usize) -> Left {
    Left { data: data.as_ptr(), row: 1, column: stride }
}

/// Gradients of [`super::attention`] for whole sequences: every span starts at position 0, or has its past among the spans.
///
/// `d_qkv` is set: each row holds the gradients of its queries (heads * key_width), keys (kv_heads * key_width) and values
/// (kv_heads * value_width), one behind the other. Weights are computed again from q, the pages and `lse`.
pub fn attention_backward(
    cpu: &Cpu,
    kv: &KvPages,
    layer: usize,
    spans: &[Span],
    heads: usize,
    scale: f32,
    q: View<'_>,
    out: &[f32],
    lse: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    let KvLayout { kv_heads, key_width, value_width, .. } = kv.layout();
    let (rows, group) = (check_spans(spans), group(heads, kv));
    assert!(spans.iter().all(|span| span.start == 0 || span.past.is_some()), "backward takes whole sequences");
    assert_eq!(kv.layout().dtype, KvDtype::F32, "gradients need keys and values in f32");
    let (key_col, value_col) = (heads * key_width, (heads + kv_heads) * key_width);
    let stride = value_col + kv_heads * value_width;
    assert_eq!((q.rows(), q.cols()), (rows, heads * key_width), "shape of q");
    assert!(out.len() >= rows * heads * value_width && lse.len() >= rows * heads, "size of out and lse");
    assert_eq!(d_out.len(), rows * heads * value_width, "size of d_out");
    assert!(d_qkv.len() >= rows * stride, "size of d_qkv");
    let d_out = View::new(d_out, rows, heads * value_width);
    let d_qkv = Shareable(d_qkv.as_mut_ptr());
    let value_stride = kv.layout().value_stride();
    let key_stride = key_width.next_multiple_of(16);
    // What the queries of spans that go on from another ask of its keys and values: for each span and head, a row a
    // position, the key's gradient and then the value's.
    let width = key_width + value_width;
    let ends = spans.iter().scan(0, |end, span| {
        *end += kv_heads * span.start * width;
        Some(*end)
    });
    let ends: Vec<usize> = ends.collect();
    let mut asked = cpu.scratch(ends.last().copied().unwrap_or(0));
    let asked = Shareable(asked.as_mut_ptr());
    let asked_by = |i: usize, head: usize| ends[i] - (kv_heads - head) * spans[i].start * width;
    cpu.pool().run(spans.len() * kv_heads, &|task| {
        let (span, head) = (&spans[task / kv_heads], task % kv_heads);
        let positions = span.start + span.rows.len();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.unfold(kv, layer, span, head);
            let mut lse_block = [0.0; BLOCK];
            let mut delta = [0.0; BLOCK];
            for block in blocks(span.rows.len(), group) {
                let last = block.seen(span).1;
                block.gather(q, (key_width, key_stride), span, head * group, &mut scratch.query);
                block.gather(d_out, (value_width, value_stride), span, head * group, &mut scratch.gradient);
                for r in 0..block.rows {
                    let (row, h) = block.query(r, span, head * group);
                    lse_block[r] = lse[row * heads + h];
                    let out = &out[(row * heads + h) * value_width..][..value_width];
                    let d_out = &d_out.row(row)[h * value_width..][..value_width];
                    // SAFETY: both are value_width long.
                    delta[r] = unsafe { (cpu.kernels.dot)(value_width, out.as_ptr(), d_out.as_ptr()) };
                }
                scratch.sums.clear();
                scratch.sums.resize(block.rows * key_stride, 0.0);
                for (index, &page) in span.pages[..last.div_ceil(PAGE)].iter().enumerate() {
                    let keys = kv.head_f32(layer, page, head).0;
                    let before = index * PAGE;
                    let (skip, visible, seen) = block.seen_from(before, span);
                    let (rows, seen) = (block.rows - skip, seen.min(PAGE));
                    let (query, gradient) =
                        (&scratch.query[skip * key_stride..], &scratch.gradient[skip * value_stride..]);
                    let values_t = &scratch.values_t[before * value_width..];
                    let key_rows = &scratch.key_rows[before * key_stride..];
                    let scores = &mut scratch.scores[..rows * PAGE];
                    let d_scores = &mut scratch.d_scores[..rows * PAGE];
                    let sums = &mut scratch.sums[skip * key_stride..];
                    let d_keys = &mut scratch.d_keys[before * key_stride..];
                    let d_values = &mut scratch.d_values[before * value_stride..];
                    // SAFETY: all are slices of the scratch, padded to whole pages and strides of a multiple of 16;
                    // scores and d_scores are rows by PAGE.
                    unsafe {
                        let q_rows = row_major(query, key_stride);
                        let shape = (rows, PAGE, key_width);
                        product(cpu, shape, q_rows, keys.as_ptr(), PAGE, scores.as_mut_ptr(), PAGE, false);
                        let d_rows = row_major(gradient, value_stride);
                        let shape = (rows, PAGE, value_width);
                        product(cpu, shape, d_rows, values_t.as_ptr(), PAGE, d_scores.as_mut_ptr(), PAGE, false);
                        (cpu.kernels.softmax_page_backward)(
                            rows,
                            scores.as_mut_ptr(),
                            d_scores.as_mut_ptr(),
                            visible,
                            block.rows_per_position,
                            scale,
                            lse_block[skip..].as_ptr(),
                            delta[skip..].as_ptr(),
                        );
                        let (p_t, d_s, d_s_t) =
                            (transposed(scores, PAGE), row_major(d_scores, PAGE), transposed(d_scores, PAGE));
                        let shape = (rows, key_width, seen);
                        product(cpu, shape, d_s, key_rows.as_ptr(), key_stride, sums.as_mut_ptr(), key_stride, true);
                        let shape = (seen, key_width, rows);
                        product(cpu, shape, d_s_t, query.as_ptr(), key_stride, d_keys.as_mut_ptr(), key_stride, true);
                        let shape = (seen, value_width, rows);
                        product(
                            cpu,
                            shape,
                            p_t,
                            gradient.as_ptr(),
                            value_stride,
                            d_values.as_mut_ptr(),
                            value_stride,
                            true,
                        );
                    }
                }
                for (r, sums) in scratch.sums.chunks_exact(key_stride).enumerate() {
                    let (row, h) = block.query(r, span, head * group);
                    // SAFETY: inside row `row` of d_qkv, and no other task has this span and group.
                    unsafe {
                        let d_q = d_qkv.get().add(row * stride + h * key_width);
                        std::ptr::copy_nonoverlapping(sums.as_ptr(), d_q, key_width);
                    }
                }
            }
            for position in 0..positions {
                let (key, value) =
                    (&scratch.d_keys[position * key_stride..], &scratch.d_values[position * value_stride..]);
                // SAFETY: inside the span's row of d_qkv, or the span's and head's part of `asked`, which ends with the row of
                // its last past position; and no other task has this span and head.
                unsafe {
                    let (to_key, to_value) = match position.checked_sub(span.start) {
                        Some(own) => {
                            let row = d_qkv.get().add((span.rows.start + own) * stride);
                            (row.add(key_col + head * key_width), row.add(value_col + head * value_width))
                        }
                        None => {
                            let row = asked.get().add(asked_by(task / kv_heads, head) + position * width);
                            (row, row.add(key_width))
                        }
                    };
                    std::ptr::copy_nonoverlapping(key.as_ptr(), to_key, key_width);
                    std::ptr::copy_nonoverlapping(value.as_ptr(), to_value, value_width);
                }
            }
        });
    });
    // In the order of the spans, so that the sum is the same for any number of threads.
    let pasts: BTreeSet<usize> = spans.iter().filter_map(|span| span.past).collect();
    let pasts: Vec<usize> = pasts.into_iter().collect();
    cpu.pool().run(pasts.len() * kv_heads, &|task| {
        let (past, head) = (pasts[task / kv_heads], task % kv_heads);
        for (i, span) in spans.iter().enumerate().filter(|(_, span)| span.past == Some(past)) {
            for position in 0..span.start {
                // SAFETY: a row of this span's and head's part of `asked`, added to the past's own row, which is this task's
                // as far as the head's key and value go.
                unsafe {
                    let from = asked.get().add(asked_by(i, head) + position * width);
                    let row = d_qkv.get().add((spans[past].rows.start + position) * stride);
                    (cpu.kernels.axpy)(key_width, 1.0, from, row.add(key_col + head * key_width));
                    (cpu.kernels.axpy)(value_width, 1.0, from.add(key_width), row.add(value_col + head * value_width));
                }
            }
        }
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// What a task works on; rows are padded to 16.
#[derive(Default)]
struct Scratch {
    /// Block of queries, and of output gradients.
    query: Vec<f32>,
    gradient: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// The block's query gradients.
    sums: Vec<f32>,
    /// A span's keys by rows, and its values transposed within each page.
    key_rows: Vec<f32>,
    values_t: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
}

impl Scratch {
    /// Lays out a span's keys and values for the products, and clears their gradients.
    fn unfold(&mut self, kv: &KvPages, layer: usize, span: &Span, head: usize) {
        let KvLayout { key_width, value_width, .. } = kv.layout();
        let (key_stride, value_stride) = (key_width.next_multiple_of(16), kv.layout().value_stride());
        let pages = (span.start + span.rows.len()).div_ceil(PAGE);
        self.scores.resize(BLOCK * PAGE, 0.0);
        self.d_scores.resize(BLOCK * PAGE, 0.0);
        for (buffer, len) in [
            (&mut self.key_rows, key_stride),
            (&mut self.values_t, value_width),
            (&mut self.d_keys, key_stride),
            (&mut self.d_values, value_stride),
        ] {
            buffer.clear();
            buffer.resize(pages * PAGE * len, 0.0);
        }
        for (index, &page) in span.pages[..pages].iter().enumerate() {
            let (keys, values) = kv.head_f32(layer, page, head);
            let key_rows = &mut self.key_rows[index * PAGE * key_stride..];
            let values_t = &mut self.values_t[index * PAGE * value_width..];
            for j in 0..PAGE {
                for d in 0..key_width {
                    key_rows[j * key_stride + d] = keys[d * PAGE + j];
                }
                for d in 0..value_width {
                    values_t[d * PAGE + j] = values[j * value_stride + d];
                }
            }
        }
    }
}
