//! Matrix products: one function for forward, both backward products, experts and heads.

use std::cell::RefCell;
use std::ops::Range;

use crate::arch::{Left, PANEL, PART};
use crate::cpu::Cpu;
use crate::left::Lefts;
use crate::matrix::{Matrix, Panels, pack_panel};
use crate::pool::Shareable;
use crate::quantized::{self, STRIP};
use crate::view::View;

/// Rows of a task: a multiple of every register tile; with [`INNER`] its left operand fills a fifth of a 512 KiB cache.
pub(crate) const BLOCK: usize = 96;
/// Steps of the inner dimension between two visits of the output; even, for pairs of bf16.
const INNER: usize = 256;
/// The same for quantised operands, whose rows take a quarter of the room.
const QUANTIZED_INNER: usize = 1024;
const _: () = assert!(QUANTIZED_INNER.is_multiple_of(PART * quantized::BLOCK), "parts are whole");
/// Rows for which a weight is read rather than worked on.
pub(crate) const FEW: usize = 2;
/// Multiply-adds below which a call does not wake the other threads.
const SMALL: usize = 1 << 15;

/// A right operand, k by n.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    /// Wᵀ of a packed weight: the product is x Wᵀ.
    Packed(&'a Matrix),
    /// Some outputs of a packed weight; `start` is a multiple of 32.
    Columns(&'a Matrix, usize, usize),
    /// A matrix as it lies in memory, packed on the way.
    View(View<'a>),
}

impl<'a> Operand<'a> {
    /// The outputs `range` of a packed weight, whose start is a multiple of 32.
    pub fn columns(matrix: &'a Matrix, range: Range<usize>) -> Operand<'a> {
        assert!(range.start.is_multiple_of(PANEL) && range.end <= matrix.outputs(), "outputs {range:?} of a matrix");
        Operand::Columns(matrix, range.start, range.len())
    }

    /// The packed weight, if it is one, and its first panel.
    pub(crate) fn matrix(&self) -> Option<(&'a Matrix, usize)> {
        match self {
            Operand::Packed(w) => Some((w, 0)),
            Operand::Columns(w, first, _) => Some((w, first / PANEL)),
            Operand::View(_) => None,
        }
    }

    /// (k, n)
    fn shape(&self) -> (usize, usize) {
        match self {
            Operand::Packed(w) => (w.inputs(), w.outputs()),
            Operand::Columns(w, _, n) => (w.inputs(), *n),
            Operand::View(b) => (b.rows(), b.cols()),
        }
    }
}

/// One product and the place of its result: `out[row + i][col + j]` = sum over p of `a[i][p] * b[p][j]`.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// m by k.
    pub a: View<'a>,
    /// k by n.
    pub b: Operand<'a>,
    /// First row of the result.
    pub row: usize,
    /// First column of the result.
    pub col: usize,
}

/// What happens to the numbers that the output held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are replaced.
    Set,
    /// The product is added: each element's chain of sums starts from what it held.
    Add,
}

/// A piece of a job: a block of rows by some panels.
struct Task<'a> {
    job: Job<'a>,
    index: usize,
    rows: Range<usize>,
    panels: Range<usize>,
}

/// Runs all `jobs` on a row-major output with rows `stride` apart.
///
/// Each element is summed in order of p by one chain of fused multiply-adds (by pairs for bf16), however the work is
/// cut: its bits depend on its row of `a` and its column of `b` alone.
///
/// # Panics
/// If shapes disagree, a result does not fit the output, or two overlap.
pub fn gemm(cpu: &Cpu, out: &mut [f32], stride: usize, mode: Mode, jobs: &[Job<'_>]) {
    let mut work = 0;
    for job in jobs {
        let ((m, k), (inner, n)) = ((job.a.rows(), job.a.cols()), job.b.shape());
        assert_eq!(k, inner, "a product of {m} by {k} and {inner} by {n}");
        assert!(job.col + n <= stride, "columns {}..{} of an output of {stride}", job.col, job.col + n);
        let end = if m * n == 0 { 0 } else { (job.row + m - 1) * stride + job.col + n };
        assert!(end <= out.len(), "a product that ends at {end} in an output of {}", out.len());
        work += m * n * k;
    }
    assert_apart(jobs);

    let threads = if work < SMALL { 1 } else { cpu.pool().threads() };
    let lefts = Lefts::new(cpu, jobs, threads);
    let tasks = cut(jobs, threads);
    let start = Shareable(out.as_mut_ptr());
    let run = |i: usize| {
        // SAFETY: the asserts above: every job's region lies inside `out` and apart from the others, and tasks of one
        // job cover different rows or columns of it.
        unsafe { run_task(cpu, &tasks[i], &lefts, start.get(), stride, mode) }
    };
    if threads == 1 { (0..tasks.len()).for_each(run) } else { cpu.pool().run(tasks.len(), &run) }
}

/// y = x Wᵀ, rows of y contiguous.
pub fn linear(cpu: &Cpu, w: &Matrix, x: View<'_>, y: &mut [f32]) {
    gemm(cpu, y, w.outputs(), Mode::Set, &[Job { a: x, b: Operand::Packed(w), row: 0, col: 0 }]);
}

/// Panics where two results overlap: where they share rows, they must not share columns.
fn assert_apart(jobs: &[Job<'_>]) {
    if jobs.len() < 2 {
        return;
    }
    let mut ranges: Vec<_> = jobs
        .iter()
        .map(|job| (job.row..job.row + job.a.rows(), job.col..job.col + job.b.shape().1))
        .filter(|(rows, cols)| !rows.is_empty() && !cols.is_empty())
        .collect();
    // Column by column of the same rows, most often; then a result meets its neighbour first.
    ranges.sort_by_key(|(rows, cols)| (cols.start, rows.start));
    if ranges.windows(2).all(|w| w[0].1.end <= w[1].1.start) {
        return;
    }
    ranges.sort_by_key(|(rows, cols)| (rows.start, cols.start));
    for (i, (rows, cols)) in ranges.iter().enumerate() {
        let beside = ranges[i + 1..].iter().take_while(|other| other.0.start < rows.end);
        for other in beside {
            let apart = cols.end <= other.1.start || other.1.end <= cols.start;
            assert!(apart, "the results of two products overlap");
        }
    }
}

/// Cuts jobs into tasks: enough for the threads to share evenly, large enough to reuse what they pack.
fn cut<'a>(jobs: &[Job<'a>], threads: usize) -> Vec<Task<'a>> {
    // Few rows take as long as their operand takes to be read, best from end to end.
    let per = if jobs.iter().all(|job| job.a.rows() <= FEW) { 1 } else { 6 };
    let blocks: usize = jobs.iter().map(|job| job.a.rows().div_ceil(BLOCK)).sum();
    let pieces = if threads == 1 { 1 } else { (per * threads).div_ceil(blocks.max(1)) };
    let mut tasks = Vec::with_capacity(blocks * pieces);
    for (index, &job) in jobs.iter().enumerate() {
        let (m, panels) = (job.a.rows(), job.b.shape().1.div_ceil(PANEL));
        let group = panels.div_ceil(pieces).max(1);
        for row in (0..m).step_by(BLOCK) {
            for panel in (0..panels).step_by(group) {
                tasks.push(Task {
                    job,
                    index,
                    rows: row..m.min(row + BLOCK),
                    panels: panel..panels.min(panel + group),
                });
            }
        }
    }
    tasks
}

thread_local! {
    /// Operands packed on the way.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    left: Vec<f32>,
    right: Vec<f32>,
}

/// # Safety
/// The task's region of `out` is valid for writes, and nobody else's meanwhile.
unsafe fn run_task(cpu: &Cpu, task: &Task<'_>, lefts: &Lefts<'_>, out: *mut f32, stride: usize, mode: Mode) {
    let Task { job, index, rows, panels } = task;
    let (k, n) = job.b.shape();
    let a = job.a.rows_from(rows.start, rows.len());
    // SAFETY: the first element of the task's rows, inside the region.
    let out = unsafe { out.add((job.row + rows.start) * stride + job.col) };
    let inner = match job.b.matrix() {
        // Read from end to end, as memory likes it, where there is not enough to do with a part of it.
        Some((Matrix { panels: Panels::Quantized(_), .. }, _)) if rows.len() < BLOCK / 2 => k.max(1),
        Some((Matrix { panels: Panels::Quantized(_), .. }, _)) => QUANTIZED_INNER,
        Some((Matrix { panels: Panels::Bf16(_), .. }, _)) => cpu.kernels.bf16_inner,
        _ => INNER,
    };
    SCRATCH.with_borrow_mut(|scratch| {
        // With nothing to sum, one empty visit still sets the output.
        for start in (0..k.max(1)).step_by(inner) {
            let depth = inner.min(k - start);
            let add = mode == Mode::Add || start > 0;
            if let (Some(left), Some((w, first))) = (lefts.quantized(*index, rows.start, start), job.b.matrix())
                && let Panels::Quantized(strips) = &w.panels
            {
                let (rows, blocks) = (rows.len(), depth / quantized::BLOCK);
                let columns = (panels.end * PANEL).min(n) - panels.start * PANEL;
                let strip = strips.strip((first + panels.start) * PANEL / STRIP, start);
                // SAFETY: the strips from `strip` on hold `columns`, and have the `blocks` that the left operand was cut to; the
                // columns from those of `panels` on are inside the region.
                unsafe {
                    let c = out.add(panels.start * PANEL);
                    (cpu.kernels.gemm_quantized)(strips.format, rows, columns, blocks, left, strip, c, stride, add);
                }
                continue;
            }
            let block = match lefts.bf16(*index, rows.start, start) {
                Some((data, stride)) => LeftBlock::Bf16 { rows: rows.len(), depth, data, stride },
                None => LeftBlock::f32(a, start, depth, &mut scratch.left),
            };
            for panel in panels.clone() {
                let columns = PANEL.min(n - panel * PANEL);
                // SAFETY: `panel` starts below n, so this is inside the region, as are its `columns`.
                let c = unsafe { out.add(panel * PANEL) };
                // SAFETY: the block is rows.len() by depth; a panel has `depth` rows of PANEL readable columns;
                // c is the caller's.
                unsafe { block.times_panel(cpu, &job.b, start, panel, columns, c, stride, add, &mut scratch.right) };
            }
        }
    });
}

/// Some rows and inner steps of a left operand that meets panels, in the form that the kernel reads.
enum LeftBlock {
    F32 { rows: usize, depth: usize, left: Left },
    Bf16 { rows: usize, depth: usize, data: *const u16, stride: usize },
}

impl LeftBlock {
    fn f32(a: View<'_>, start: usize, depth: usize, scratch: &mut Vec<f32>) -> LeftBlock {
        let rows = a.rows();
        if a.row_stride() == 1 && rows > 1 && depth > 1 {
            // A transposed operand strides a whole row at each step, which thrashes the cache: copy it together.
            scratch.clear();
            for p in 0..depth {
                scratch.extend_from_slice(a.t().row(start + p));
            }
            let left = Left { data: scratch.as_ptr(), row: 1, column: rows };
            return LeftBlock::F32 { rows, depth, left };
        }
        let data = a.as_ptr().wrapping_add(start * a.col_stride());
        LeftBlock::F32 { rows, depth, left: Left { data, row: a.row_stride(), column: a.col_stride() } }
    }

    /// c (=, +=) block times `columns` columns of one panel of b, from its row `start`.
    ///
    /// # Safety
    /// c is valid for the block's rows, `stride` apart, of `columns`.
    unsafe fn times_panel(
        &self,
        cpu: &Cpu,
        b: &Operand<'_>,
        start: usize,
        panel: usize,
        columns: usize,
        c: *mut f32,
        stride: usize,
        add: bool,
        scratch: &mut Vec<f32>,
    ) {
        if let Some((w, first)) = b.matrix() {
            let panel = first + panel;
            match (self, &w.panels) {
                (&LeftBlock::F32 { rows, depth, left }, Panels::F32(data)) => {
                    let b = data[panel * w.inputs() * PANEL..][start * PANEL..][..depth * PANEL].as_ptr();
                    // SAFETY: b was just sliced to depth rows of PANEL; c is the caller's.
                    unsafe { (cpu.kernels.gemm_f32)(rows, columns, depth, left, b, PANEL, c, stride, add) }
                }
                (&LeftBlock::Bf16 { rows, depth, data: a, stride: a_stride }, Panels::Bf16(data)) => {
                    let (inputs, depth) = (w.inputs().next_multiple_of(2), depth.next_multiple_of(2));
                    let b = data[panel * inputs * PANEL..][start * PANEL..][..depth * PANEL].as_ptr();
                    // SAFETY: as above, and a holds rows of depth.
                    unsafe { (cpu.kernels.gemm_bf16)(rows, columns, depth, a, a_stride, b, c, stride, add) }
                }
                _ => unreachable!("the left block was made for this operand"),
            }
            return;
        }
        let (&LeftBlock::F32 { rows, depth, left }, &Operand::View(view)) = (self, b) else {
            unreachable!("the left block was made for this operand")
        };
        let (b, b_stride) = if rows < 8 && columns == PANEL && view.col_stride() == 1 && depth > 0 {
            // Too few rows to pay for packing, and whole rows of the panel to read.
            (view.row(start)[panel * PANEL..].as_ptr(), view.row_stride())
        } else {
            scratch.resize(INNER * PANEL, 0.0);
            pack_panel(view, start, panel * PANEL, depth, scratch);
            (scratch.as_ptr(), PANEL)
        };
        // SAFETY: depth rows of PANEL columns are readable: packed ones, or whole ones of the view.
        unsafe { (cpu.kernels.gemm_f32)(rows, columns, depth, left, b, b_stride, c, stride, add) }
    }
}
