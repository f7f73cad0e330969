//! Causal attention over pages of keys and values: grouped heads, or one latent head that all queries share.
//!
//! Every query walks the keys from position 0 in segments of 256. Within a segment it has a maximum, a sum of exponentials
//! and a weighted sum of values; those of its segments are merged in their order (as in FlashAttention's split over keys,
//! arXiv 2307.08691). So its result is the same whether it was computed alone, in a chunk of a prompt, or in a training
//! batch, and whether one thread walked all segments or several shared them.

mod backward;
mod block;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

pub use self::backward::attention_backward;
use self::block::{BLOCK, Block, blocks, check_spans, group, product, row_major};
use crate::arch::{PAGE, PANEL};
use crate::cpu::Cpu;
use crate::kv::{Head, KvDtype, KvLayout, KvPages, Side, Span};
use crate::math;
use crate::pool::Shareable;
use crate::view::View;

/// Positions of a segment.
const SEGMENT: usize = 256;

/// Tasks for each thread that a call is cut into, if it has as many segments.
const TASKS: usize = 8;

/// Keys or values of so many pages are asked for before they are read.
const AHEAD: usize = 2;

/// Some segments of a block of queries, which one task walks.
struct Task<'a> {
    span: &'a Span,
    head: usize,
    block: Block,
    segments: Range<usize>,
    /// Where the block is walked by several tasks: which of those blocks it is.
    shared: Option<usize>,
}

/// A block that several tasks walk.
struct Shared {
    /// Where its segments' sums begin, one behind the other.
    at: usize,
    segments: usize,
    /// Tasks that are not done.
    left: AtomicUsize,
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
    let KvLayout { key_width, value_width, .. } = kv.layout();
    let (rows, group) = (check_spans(spans), group(heads, kv));
    assert_eq!((q.rows(), q.cols()), (rows, heads * key_width), "shape of q");
    assert!(out.len() >= rows * heads * value_width, "size of out");
    if let Some(lse) = &lse {
        assert!(lse.len() >= rows * heads, "size of lse");
    }
    let call = Call { cpu, kv, layer, group, scale, q };
    let stride = kv.layout().value_stride();
    let (tasks, shared, sums) = call.cut(spans);
    let mut sums = cpu.scratch(sums);
    let sums = Shareable(sums.as_mut_ptr());
    let out = Shareable(out.as_mut_ptr());
    let lse = lse.map(|lse| Shareable(lse.as_mut_ptr()));

    // Divides a block's sums and puts them where they belong.
    let finish = |task: &Task<'_>, total: &mut Partial<'_>| {
        for (r, values) in total.values.chunks_exact_mut(stride).enumerate() {
            let (row, h) = task.block.query(r, task.span, task.head * group);
            let query = row * heads + h;
            // SAFETY: query < rows * heads, and no other task finishes this block.
            unsafe {
                (cpu.kernels.scale)(value_width, 1.0 / total.sum[r], values.as_mut_ptr());
                let out = out.get().add(query * value_width);
                std::ptr::copy_nonoverlapping(values.as_ptr(), out, value_width);
                if let Some(lse) = &lse {
                    *lse.get().add(query) = total.max[r] + math::ln(f64::from(total.sum[r])) as f32;
                }
            }
        }
    };
    cpu.pool().run(tasks.len(), &|i| {
        let task = &tasks[i];
        let len = task.block.rows * (stride + 2);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.begin(&call, task);
            let Some(shared) = task.shared.map(|i| &shared[i]) else {
                let mut memory = std::mem::take(&mut scratch.sums);
                memory.resize(2 * len, 0.0);
                let (total, next) = memory.split_at_mut(len);
                let mut total = Partial::new(total, task.block.rows);
                call.segment(task, 0, scratch, &mut total);
                for segment in 1..task.segments.end {
                    let mut next = Partial::new(next, task.block.rows);
                    let first = call.segment(task, segment, scratch, &mut next);
                    total.merge(cpu, first, &next);
                }
                finish(task, &mut total);
                scratch.sums = memory;
                return;
            };
            let partial = |segment: usize| {
                // SAFETY: `cut` made room for `len` numbers for each of the block's segments, and a segment's are written by
                // the one task that walks it, before that task's end is counted, and read by the last one, after it.
                let memory = unsafe { std::slice::from_raw_parts_mut(sums.get().add(shared.at + segment * len), len) };
                Partial::new(memory, task.block.rows)
            };
            for segment in task.segments.clone() {
                call.segment(task, segment, scratch, &mut partial(segment));
            }
            if shared.left.fetch_sub(1, AcqRel) == 1 {
                let mut total = partial(0);
                for segment in 1..shared.segments {
                    let first = task.block.seen_from(segment * SEGMENT, task.span).0;
                    total.merge(cpu, first, &partial(segment));
                }
                finish(task, &mut total);
            }
        });
    });
}

/// The softmax and weighted values of a block's queries over some of the keys.
struct Partial<'a> {
    /// Rows of value_stride: weighted sums of values, relative to the maximum, as the sum is.
    values: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl<'a> Partial<'a> {
    fn new(memory: &'a mut [f32], rows: usize) -> Partial<'a> {
        let (max, rest) = memory.split_at_mut(rows);
        let (sum, values) = rest.split_at_mut(rows);
        Partial { values, max, sum }
    }

    /// Takes in the keys that follow, which queries from `first` on see.
    fn merge(&mut self, cpu: &Cpu, first: usize, next: &Partial<'_>) {
        let rows = self.max.len();
        let stride = self.values.len() / rows;
        for r in first..rows {
            let rise = next.max[r] - self.max[r];
            let factor = math::exp(-f64::from(rise.abs())) as f32;
            let (ours, theirs) = if rise > 0.0 { (factor, 1.0) } else { (1.0, factor) };
            let values = &mut self.values[r * stride..][..stride];
            // SAFETY: both rows are `stride` long.
            unsafe {
                (cpu.kernels.scale)(stride, ours, values.as_mut_ptr());
                (cpu.kernels.axpy)(stride, theirs, next.values[r * stride..][..stride].as_ptr(), values.as_mut_ptr());
            }
            self.sum[r] = self.sum[r] * ours + next.sum[r] * theirs;
            self.max[r] = self.max[r].max(next.max[r]);
        }
    }
}

/// What all tasks of a call share.
struct Call<'a> {
    cpu: &'a Cpu,
    kv: &'a KvPages,
    layer: usize,
    group: usize,
    scale: f32,
    q: View<'a>,
}

impl Call<'_> {
    /// Tasks of about equal size, enough of them for the threads; the blocks that several of them share; and how many
    /// numbers the sums of those take.
    fn cut<'s>(&self, spans: &'s [Span]) -> (Vec<Task<'s>>, Vec<Shared>, usize) {
        let layout = self.kv.layout();
        let walks = || {
            let each = |span: &'s Span| blocks(span.rows.len(), self.group).map(move |block| (span, block));
            spans.iter().flat_map(each).map(|(span, block)| (span, block, block.seen(span).1.div_ceil(SEGMENT)))
        };
        let total = layout.kv_heads * walks().map(|(_, _, segments)| segments).sum::<usize>();
        let threads = self.cpu.pool().threads();
        let most = if threads == 1 { usize::MAX } else { (total / (TASKS * threads)).max(1) };
        let (mut tasks, mut shared, mut sums) = (Vec::new(), Vec::new(), 0);
        for (span, block, segments) in walks() {
            for head in 0..layout.kv_heads {
                let task = |segments, shared| Task { span, head, block, segments, shared };
                if segments <= most {
                    tasks.push(task(0..segments, None));
                    continue;
                }
                for first in (0..segments).step_by(most) {
                    tasks.push(task(first..segments.min(first + most), Some(shared.len())));
                }
                shared.push(Shared { at: sums, segments, left: AtomicUsize::new(segments.div_ceil(most)) });
                sums += segments * block.rows * (layout.value_stride() + 2);
            }
        }
        (tasks, shared, sums)
    }

    /// One segment of a task's block; says how many queries at its front see none of it, whose results are not set.
    fn segment(&self, task: &Task<'_>, segment: usize, scratch: &mut Scratch, into: &mut Partial<'_>) -> usize {
        let &Call { cpu, kv, layer, scale, .. } = self;
        let KvLayout { key_width, value_width, dtype, .. } = kv.layout();
        let (key_stride, stride) = (kv.layout().key_stride(), kv.layout().value_stride());
        let &Task { span, head, block, .. } = task;
        let before = segment * SEGMENT;
        let (first, visible, seen) = block.seen_from(before, span);
        let (rows, seen) = (block.rows - first, seen.min(SEGMENT));
        let columns = seen.next_multiple_of(PAGE);
        let pages = &span.pages[before / PAGE..][..columns / PAGE];
        let Scratch { query, query_bf16, scores, weights_bf16, widened, scales, .. } = scratch;
        let values = &mut into.values[first * stride..];

        // What is read next but one, unless it follows on what is read before it: then the processor has guessed.
        let ahead = |i: usize, side: Side| {
            let (pages, i, side) = match (i.checked_sub(pages.len()), side) {
                (None, side) => (pages, i, side),
                (Some(i), Side::Keys) => (pages, i, Side::Values),
                (Some(i), Side::Values) => (&span.pages[before / PAGE + pages.len()..], i, Side::Keys),
            };
            if i < pages.len() && !(i >= AHEAD && pages[i] == pages[i - 1] + 1) {
                kv.head(layer, pages[i], head).prefetch(side);
            }
        };
        for (i, &page) in pages.iter().enumerate() {
            ahead(i + AHEAD, Side::Keys);
            let c = scores[i * PAGE..].as_mut_ptr();
            let pairs = |keys: &[u16]| {
                let q = query_bf16[first * key_stride..].as_ptr();
                // SAFETY: q has rows of key_stride (even), keys that many by PAGE, and scores rows of SEGMENT.
                unsafe {
                    (cpu.kernels.gemm_bf16)(rows, PAGE, key_stride, q, key_stride, keys.as_ptr(), c, SEGMENT, false)
                }
            };
            match kv.head(layer, page, head) {
                Head::F32 { keys, .. } => {
                    let q = row_major(&query[first * key_stride..], key_stride);
                    // SAFETY: as above, in f32.
                    unsafe { product(cpu, (rows, PAGE, key_width), q, keys.as_ptr(), PAGE, c, SEGMENT, false) }
                }
                Head::Bf16 { keys, .. } => pairs(keys),
                Head::Int8 { keys, key_scales, value_scales, .. } => {
                    pairs(widen(cpu, keys, widened));
                    scales[0][i * PAGE..][..PAGE].copy_from_slice(key_scales);
                    scales[1][i * PAGE..][..PAGE].copy_from_slice(value_scales);
                }
            }
        }
        let scale_columns = |scores: &mut [f32], scales: &[f32; SEGMENT]| {
            for row in scores.chunks_exact_mut(SEGMENT).take(rows) {
                // SAFETY: rows and scales are SEGMENT long; the kernel reads a number before it writes it.
                unsafe { (cpu.kernels.scale_by)(columns, 1.0, row.as_ptr(), scales.as_ptr(), row.as_mut_ptr()) };
            }
        };
        if dtype == KvDtype::Int8 {
            scale_columns(scores, &scales[0]);
        }
        let (max, sum) = (&mut into.max[first..], &mut into.sum[first..]);
        let (per_position, p) = (block.rows_per_position, scores.as_mut_ptr());
        // SAFETY: scores has rows of SEGMENT, of which `columns`, whole pages, are used; max and sum are `rows` long.
        unsafe {
            let (max, sum) = (max.as_mut_ptr(), sum.as_mut_ptr());
            (cpu.kernels.softmax)(rows, columns, p, SEGMENT, visible, per_position, scale, max, sum);
        }
        if dtype == KvDtype::Int8 {
            scale_columns(scores, &scales[1]);
        }
        if dtype != KvDtype::F32 {
            for (row, rounded) in scores.chunks_exact(SEGMENT).zip(weights_bf16.chunks_exact_mut(SEGMENT)).take(rows) {
                // SAFETY: both rows are SEGMENT long.
                unsafe { (cpu.kernels.to_bf16)(columns, row.as_ptr(), rounded.as_mut_ptr()) };
            }
        }
        for (i, &page) in pages.iter().enumerate() {
            ahead(i + AHEAD, Side::Values);
            let depth = PAGE.min(seen - i * PAGE);
            let mut pairs = |page_values: &[u16]| {
                let p = weights_bf16[i * PAGE..].as_ptr();
                for (panel, b) in page_values.chunks_exact(PAGE * PANEL).enumerate() {
                    let c = values[panel * PANEL..].as_mut_ptr();
                    let depth = depth.next_multiple_of(2);
                    // SAFETY: weights are rows of SEGMENT, b is PAGE by PANEL, and c rows of stride, a multiple of PANEL.
                    unsafe { (cpu.kernels.gemm_bf16)(rows, PANEL, depth, p, SEGMENT, b.as_ptr(), c, stride, i > 0) }
                }
            };
            match kv.head(layer, page, head) {
                Head::F32 { values: b, .. } => {
                    let p = row_major(&scores[i * PAGE..], SEGMENT);
                    let (shape, c) = ((rows, value_width, depth), values.as_mut_ptr());
                    // SAFETY: as above; b is PAGE by stride, a multiple of 16.
                    unsafe { product(cpu, shape, p, b.as_ptr(), stride, c, stride, i > 0) }
                }
                Head::Bf16 { values, .. } => pairs(values),
                Head::Int8 { values, .. } => pairs(widen(cpu, values, widened)),
            }
        }
        first
    }
}

/// x as bf16, which holds every whole number up to 256.
fn widen<'a>(cpu: &Cpu, x: &[i8], into: &'a mut Vec<u16>) -> &'a [u16] {
    into.resize(into.len().max(x.len()), 0);
    // SAFETY: `into` is as long as x at least.
    unsafe { (cpu.kernels.widen_i8)(x.len(), x.as_ptr(), into.as_mut_ptr()) };
    &into[..x.len()]
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// What a task works on.
struct Scratch {
    /// Block of queries, in rows of key_stride; rounded where keys are.
    query: Vec<f32>,
    query_bf16: Vec<u16>,
    /// Scores and then weights, in rows of a segment.
    scores: Vec<f32>,
    weights_bf16: Vec<u16>,
    /// A page's keys or values from 8 bits, and a segment's scales of keys and of values.
    widened: Vec<u16>,
    scales: [[f32; SEGMENT]; 2],
    /// Two partial results: of all segments so far, and of one.
    sums: Vec<f32>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            query: Vec::new(),
            query_bf16: Vec::new(),
            scores: vec![0.0; BLOCK * SEGMENT],
            weights_bf16: vec![0; BLOCK * SEGMENT],
            widened: Vec::new(),
            scales: [[0.0; SEGMENT]; 2],
            sums: Vec::new(),
        }
    }
}

impl Scratch {
    /// Takes up the queries of a task.
    fn begin(&mut self, call: &Call<'_>, task: &Task<'_>) {
        let layout = call.kv.layout();
        let (width, stride) = (layout.key_width, layout.key_stride());
        task.block.gather(call.q, (width, stride), task.span, task.head * call.group, &mut self.query);
        if layout.dtype != KvDtype::F32 {
            self.query_bf16.resize(self.query.len(), 0);
            let (from, to) = (self.query.as_ptr(), self.query_bf16.as_mut_ptr());
            // SAFETY: both are as long.
            unsafe { (call.cpu.kernels.to_bf16)(self.query.len(), from, to) };
        }
    }
}
