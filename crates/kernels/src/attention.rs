//! Causal attention over pages of keys and values: grouped heads, or one latent head that all queries share.
//!
//! Every query walks the keys from position 0 in blocks of one page, with a running maximum and sum (online softmax,
//! arXiv 1805.02867; blocks as in FlashAttention, arXiv 2205.14135), so its result is the same whether it was computed
//! alone, in a chunk of a prompt, or in a training batch.

use std::cell::RefCell;

use crate::arch::{Left, PAGE};
use crate::cpu::Cpu;
use crate::kv::{KvLayout, KvPages, Span};
use crate::math;
use crate::pool::Shareable;
use crate::view::View;

/// Queries of a block, which read a page of keys and values once.
const BLOCK: usize = 32;

/// Queries that go together: all heads of a group at some positions, or some heads at one.
struct Block {
    /// Index in the span of the first position.
    position: usize,
    /// First head in the group.
    head: usize,
    rows: usize,
    rows_per_position: usize,
}

/// The blocks of `positions` positions with `group` heads each.
fn blocks(positions: usize, group: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    if group <= BLOCK {
        let step = BLOCK / group;
        for position in (0..positions).step_by(step) {
            let rows = step.min(positions - position) * group;
            blocks.push(Block { position, head: 0, rows, rows_per_position: group });
        }
    } else {
        for position in 0..positions {
            for head in (0..group).step_by(BLOCK) {
                let rows = BLOCK.min(group - head);
                blocks.push(Block { position, head, rows, rows_per_position: rows });
            }
        }
    }
    blocks
}

impl Block {
    /// For query r of the block: its row in the batch, and its head.
    fn query(&self, r: usize, span: &Span, first_head: usize) -> (usize, usize) {
        let row = span.rows.start + self.position + r / self.rows_per_position;
        (row, first_head + self.head + r % self.rows_per_position)
    }

    /// Keys that the block's first and last query see.
    fn seen(&self, span: &Span) -> (usize, usize) {
        let first = span.start + self.position + 1;
        (first, first + (self.rows - 1) / self.rows_per_position)
    }
}

/// c (=, +=) a b for any n: the kernel takes 32 columns at a time.
///
/// # Safety
/// As for [`crate::arch::Kernels::gemm_f32`].
unsafe fn product(
    cpu: &Cpu,
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    for j in (0..n).step_by(PAGE) {
        // SAFETY: columns j..j + min(32, n - j) of the caller's b and c.
        unsafe { (cpu.kernels.gemm_f32)(m, PAGE.min(n - j), k, a, b.add(j), b_stride, c.add(j), c_stride, add) }
    }
}

fn row_major(data: &[f32], stride: usize) -> Left {
    Left { data: data.as_ptr(), row: stride, column: 1 }
}

fn transposed(data: &[f32], stride: usize) -> Left {
    Left { data: data.as_ptr(), row: 1, column: stride }
}

/// `out[row][h] = softmax(scale * q[row][h] · keys) values`, over the keys up to the row's own position.
///
/// q is rows by heads * key_width, out rows by heads * value_width, contiguous; the rows' own keys and values are in the pages already.
/// `lse`, where given, is rows by heads: the logarithm of the sum of exponentials, which backward needs.
pub fn attention(
    cpu: &Cpu,
    kv: &KvPages,
    layer: usize,
    spans: &[Span],
    heads: usize,
    scale: f32,
    q: View<'_>,
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let KvLayout { kv_heads, key_width, value_width, .. } = kv.layout();
    let rows = check_spans(kv, spans);
    let group = heads / kv_heads;
    assert_eq!(group * kv_heads, heads, "{heads} heads share {kv_heads} key-value heads");
    assert_eq!((q.rows(), q.cols()), (rows, heads * key_width), "shape of q");
    assert!(out.len() >= rows * heads * value_width, "size of out");
    if let Some(lse) = &lse {
        assert!(lse.len() >= rows * heads, "size of lse");
    }
    let tasks: Vec<(&Span, usize, Block)> = spans
        .iter()
        .flat_map(|span| (0..kv_heads).map(move |head| (span, head)))
        .flat_map(|(span, head)| blocks(span.rows.len(), group).into_iter().map(move |block| (span, head, block)))
        .collect();
    let out = Shareable(out.as_mut_ptr());
    let lse = lse.map(|lse| Shareable(lse.as_mut_ptr()));
    let stride = kv.layout().value_stride();
    cpu.pool().run(tasks.len(), &|task| {
        let (span, head, block) = &tasks[task];
        SCRATCH.with_borrow_mut(|scratch| {
            let (first, last) = block.seen(span);
            scratch.gather(&[(q, key_width, Side::Query)], block, span, head * group);
            scratch.sums.clear();
            scratch.sums.resize(block.rows * stride, 0.0);
            let mut max = [f32::NEG_INFINITY; BLOCK];
            let mut sum = [0.0; BLOCK];
            let mut correction = [0.0; BLOCK];
            for (index, &page) in span.pages[..last.div_ceil(PAGE)].iter().enumerate() {
                let (keys, values) = kv.head(layer, page, *head);
                let before = index * PAGE;
                // The first queries of a block may end before its last page begins.
                let skip = if first > before { 0 } else { (before + 1 - first) * block.rows_per_position };
                let rows = block.rows - skip;
                let visible = (first + skip / block.rows_per_position) - before;
                let seen = (last - before).min(PAGE);
                let query = row_major(&scratch.query[skip * key_width..], key_width);
                let scores = &mut scratch.scores[..rows * PAGE];
                let sums = &mut scratch.sums[skip * stride..];
                // SAFETY: scores is rows by PAGE, sums rows by stride (a multiple of 16), max, sum and correction are at
                // least `rows` long; keys is key_width by PAGE, and values PAGE by stride: checked slices.
                unsafe {
                    let kernels = cpu.kernels;
                    product(cpu, (rows, PAGE, key_width), query, keys.as_ptr(), PAGE, scores.as_mut_ptr(), PAGE, false);
                    (kernels.softmax_page)(
                        rows,
                        scores.as_mut_ptr(),
                        visible,
                        block.rows_per_position,
                        scale,
                        max[skip..].as_mut_ptr(),
                        sum[skip..].as_mut_ptr(),
                        correction[skip..].as_mut_ptr(),
                    );
                    for (r, sums) in sums.chunks_exact_mut(stride).enumerate() {
                        (kernels.scale)(value_width, correction[skip + r], sums.as_mut_ptr());
                    }
                    let weights = row_major(scores, PAGE);
                    let shape = (rows, value_width, seen);
                    product(cpu, shape, weights, values.as_ptr(), stride, sums.as_mut_ptr(), stride, true);
                }
            }
            for (r, sums) in scratch.sums.chunks_exact_mut(stride).enumerate() {
                let (row, h) = block.query(r, span, head * group);
                let query = row * heads + h;
                // SAFETY: query < rows * heads, and no other task has this query.
                unsafe {
                    (cpu.kernels.scale)(value_width, 1.0 / sum[r], sums.as_mut_ptr());
                    let out = out.get().add(query * value_width);
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), out, value_width);
                    if let Some(lse) = &lse {
                        *lse.get().add(query) = max[r] + math::ln(f64::from(sum[r])) as f32;
                    }
                }
            }
        });
    });
}

/// Gradients of [`attention`] for whole sequences: every span starts at position 0.
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
    let rows = check_spans(kv, spans);
    assert!(spans.iter().all(|span| span.start == 0), "backward takes whole sequences");
    let group = heads / kv_heads;
    assert_eq!(group * kv_heads, heads, "{heads} heads share {kv_heads} key-value heads");
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
    cpu.pool().run(spans.len() * kv_heads, &|task| {
        let (span, head) = (&spans[task / kv_heads], task % kv_heads);
        let positions = span.rows.len();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.unfold(kv, layer, span, head);
            let mut lse_block = [0.0; BLOCK];
            let mut delta = [0.0; BLOCK];
            for block in blocks(positions, group) {
                let (first, last) = block.seen(span);
                let sources = [(q, key_width, Side::Query), (d_out, value_width, Side::Gradient)];
                scratch.gather(&sources, &block, span, head * group);
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
                    let keys = kv.head(layer, page, head).0;
                    let before = index * PAGE;
                    let skip = if first > before { 0 } else { (before + 1 - first) * block.rows_per_position };
                    let rows = block.rows - skip;
                    let visible = (first + skip / block.rows_per_position) - before;
                    let seen = (last - before).min(PAGE);
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
                // SAFETY: inside the span's row of d_qkv, and no other task has this span and head.
                unsafe {
                    let row = d_qkv.get().add((span.rows.start + position) * stride);
                    std::ptr::copy_nonoverlapping(key.as_ptr(), row.add(key_col + head * key_width), key_width);
                    std::ptr::copy_nonoverlapping(value.as_ptr(), row.add(value_col + head * value_width), value_width);
                }
            }
        });
    });
}

/// Panics unless every span's pages exist and suffice and its rows follow those of the span before; returns the rows in all.
fn check_spans(kv: &KvPages, spans: &[Span]) -> usize {
    let mut rows = 0;
    for span in spans {
        assert_eq!(span.rows.start, rows, "a span's rows follow those of the span before");
        rows = span.rows.end.max(rows);
        assert!(span.pages.len() * PAGE >= span.start + span.rows.len(), "a span has too few pages");
        assert!(span.pages.iter().all(|&page| (page as usize) < kv.len()), "a span names a page that does not exist");
    }
    rows
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// What a task works on; rows are padded as its stride says.
#[derive(Default)]
struct Scratch {
    /// Block of queries: tight rows forward, padded to 16 backward (where they are a right operand too).
    query: Vec<f32>,
    /// Block of output gradients, padded.
    gradient: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// Running sums of the block: values forward, query gradients backward.
    sums: Vec<f32>,
    /// A span's keys by rows, and its values transposed within each page.
    key_rows: Vec<f32>,
    values_t: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
}

/// Which operand of a block is gathered.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Query,
    Gradient,
}

impl Scratch {
    /// Copies a block's queries from each source (rows by heads * width) together, padded to 16 where there are two sources.
    fn gather(&mut self, sources: &[(View<'_>, usize, Side)], block: &Block, span: &Span, first_head: usize) {
        self.scores.resize(BLOCK * PAGE, 0.0);
        let pad = sources.len() > 1;
        for &(source, width, side) in sources {
            let stride = if pad { width.next_multiple_of(16) } else { width };
            let into = if side == Side::Query { &mut self.query } else { &mut self.gradient };
            into.clear();
            into.resize(block.rows * stride, 0.0);
            for (r, out) in into.chunks_exact_mut(stride).enumerate() {
                let (row, head) = block.query(r, span, first_head);
                out[..width].copy_from_slice(&source.row(row)[head * width..][..width]);
            }
        }
    }

    /// Lays out a span's keys and values for the backward products, and clears their gradients.
    fn unfold(&mut self, kv: &KvPages, layer: usize, span: &Span, head: usize) {
        let KvLayout { key_width, value_width, .. } = kv.layout();
        let (key_stride, value_stride) = (key_width.next_multiple_of(16), kv.layout().value_stride());
        let pages = span.rows.len().div_ceil(PAGE);
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
            let (keys, values) = kv.head(layer, page, head);
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
