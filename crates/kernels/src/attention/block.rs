//! Queries that walk the keys together.

use crate::arch::Left;
use crate::cpu::Cpu;
use crate::kv::{KvPages, PAGE_POSITIONS, Span};
use crate::view::View;

/// Most queries of a block, which read a page of keys and values once: a multiple of every register tile.
pub(super) const BLOCK: usize = 48;

/// Queries that go together: all heads of a group at some positions, or some heads at one.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Index in the span of the first position.
    position: usize,
    /// First head in the group.
    head: usize,
    pub rows: usize,
    pub rows_per_position: usize,
}

/// The blocks of `positions` positions with `group` heads each.
pub(super) fn blocks(positions: usize, group: usize) -> impl Iterator<Item = Block> {
    // Whole groups at several positions, or parts of a group at one.
    let (step, part) = ((BLOCK / group).max(1), group.min(BLOCK));
    (0..positions).step_by(step).flat_map(move |position| {
        (0..group).step_by(part).map(move |head| {
            let rows_per_position = part.min(group - head);
            let rows = step.min(positions - position) * rows_per_position;
            Block { position, head, rows, rows_per_position }
        })
    })
}

impl Block {
    /// For query r of the block: its row in the batch, and its head.
    pub fn query(&self, r: usize, span: &Span, first_head: usize) -> (usize, usize) {
        let row = span.rows.start + self.position + r / self.rows_per_position;
        (row, first_head + self.head + r % self.rows_per_position)
    }

    /// Keys that the block's first and last query see.
    pub fn seen(&self, span: &Span) -> (usize, usize) {
        let first = span.start + self.position + 1;
        (first, first + (self.rows - 1) / self.rows_per_position)
    }

    /// Of the keys from `before` on: queries at the block's front that see none of them, and how many the one after those
    /// sees, and the last one. Later positions see one more each.
    pub fn seen_from(&self, before: usize, span: &Span) -> (usize, usize, usize) {
        let (first, last) = self.seen(span);
        let blind = (before + 1).saturating_sub(first);
        (blind * self.rows_per_position, first + blind - before, last - before)
    }

    /// Copies the block's heads from rows of heads * width together, `stride` apart, zeros between.
    pub fn gather(
        &self,
        source: View<'_>,
        (width, stride): (usize, usize),
        span: &Span,
        first_head: usize,
        into: &mut Vec<f32>,
    ) {
        into.clear();
        into.resize(self.rows * stride, 0.0);
        for (r, out) in into.chunks_exact_mut(stride).enumerate() {
            let (row, head) = self.query(r, span, first_head);
            out[..width].copy_from_slice(&source.row(row)[head * width..][..width]);
        }
    }
}

/// Panics unless every span's pages suffice and its rows follow those of the span before; returns the rows in all.
pub(super) fn check_spans(spans: &[Span]) -> usize {
    let mut rows = 0;
    for span in spans {
        assert_eq!(span.rows.start, rows, "a span's rows follow those of the span before");
        rows = span.rows.end.max(rows);
        assert!(span.pages.len() * PAGE_POSITIONS >= span.start + span.rows.len(), "a span has too few pages");
    }
    rows
}

/// Heads that share a key-value head.
pub(super) fn group(heads: usize, kv: &KvPages) -> usize {
    let kv_heads = kv.layout().kv_heads;
    assert!(heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads} key-value heads");
    heads / kv_heads
}

/// c (=, +=) a b for any n: the kernel takes 32 columns at a time.
///
/// # Safety
/// As for [`crate::arch::Kernels::gemm_f32`].
pub(super) unsafe fn product(
    cpu: &Cpu,
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    const COLUMNS: usize = crate::arch::PANEL;
    for j in (0..n).step_by(COLUMNS) {
        // SAFETY: columns j..j + min(32, n - j) of the caller's b and c.
        unsafe { (cpu.kernels.gemm_f32)(m, COLUMNS.min(n - j), k, a, b.add(j), b_stride, c.add(j), c_stride, add) }
    }
}

pub(super) fn row_major(data: &[f32], stride: usize) -> Left {
    Left { data: data.as_ptr(), row: stride, column: 1 }
}
