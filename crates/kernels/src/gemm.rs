//! Matrix products: one function for forward, both backward products, experts and heads.

use std::cell::RefCell;
use std::ops::Range;
use std::ptr::null;

use crate::arch::{Left, PANEL, PART, Panel, PanelRows, Tiles};
use crate::cpu::Cpu;
use crate::left::{Lefts, TILES};
use crate::matrix::{Matrix, Panels, pack_panel};
use crate::pool::Shareable;
use crate::quantized::{self, STRIP};
use crate::view::View;

/// Rows of a task: a multiple of every register tile; with [`INNER`] its left operand fills a fifth of a 512 KiB cache.
pub(crate) const BLOCK: usize = 96;
/// The same of operands in tiles, whose left one comes from the second cache: it fills half of 512 KiB.
const TILED_BLOCK: usize = 240;
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
    let tasks = cut(jobs, threads, &lefts);
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

/// Cuts jobs into tasks: enough for the threads to share evenly, large enough to reuse what they copy.
fn cut<'a>(jobs: &[Job<'a>], threads: usize, lefts: &Lefts<'_>) -> Vec<Task<'a>> {
    // Few rows take as long as their operand takes to be read, best from end to end.
    let per = if jobs.iter().all(|job| job.a.rows() <= FEW) { 1 } else { 6 };
    // Rows of a task. Those in tiles are cut evenly, since the last of them would have as much copied as the others.
    let height = |index: usize, rows: usize| match lefts.are_tiles(index) {
        true => rows.div_ceil(rows.div_ceil(TILED_BLOCK)).next_multiple_of(TILES),
        false => BLOCK,
    };
    let rows = |(index, job): (usize, &Job<'_>)| job.a.rows().div_ceil(height(index, job.a.rows()));
    let blocks: usize = jobs.iter().enumerate().map(rows).sum();
    let pieces = if threads == 1 { 1 } else { (per * threads).div_ceil(blocks.max(1)) };
    let mut tasks = Vec::with_capacity(blocks * pieces);
    for (index, &job) in jobs.iter().enumerate() {
        let (m, panels) = (job.a.rows(), job.b.shape().1.div_ceil(PANEL));
        // The rows of a task in tiles are many, so it may have few columns.
        let group = if lefts.are_tiles(index) { panels / pieces } else { panels.div_ceil(pieces) }.max(1);
        let height = height(index, m);
        for row in (0..m).step_by(height) {
            for panel in (0..panels).step_by(group) {
                tasks.push(Task {
                    job,
                    index,
                    rows: row..m.min(row + height),
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
            let left = LeftBlock::new(cpu, lefts, task, start, depth, &mut scratch.left);
            for panel in panels.clone() {
                let columns = PANEL.min(n - panel * PANEL);
                // Too few rows do not pay for copying whole rows of the panel, and tiles have them copied anyway.
                let stays = (rows.len() < 8 || matches!(left.form, Form::Tiles(..))) && columns == PANEL;
                let right = right_panel(&job.b, start, depth, panel, stays, &mut scratch.right);
                // SAFETY: `panel` starts below n, so its columns are inside the region; the left block is the task's rows by
                // depth, and the panel has as many rows.
                unsafe { left.times(cpu, right, columns, out.add(panel * PANEL), stride, add) }
            }
        }
    });
}

/// Rows `start..start + depth` of one panel of b: as they lie, where they do in panels or `stay` as they are, or else copied to
/// `scratch`.
fn right_panel(b: &Operand<'_>, start: usize, depth: usize, panel: usize, stay: bool, scratch: &mut Vec<f32>) -> Panel {
    let Some((w, first)) = b.matrix() else {
        let &Operand::View(view) = b else { unreachable!("what is no matrix is a view") };
        if stay && view.col_stride() == 1 && depth > 0 {
            let rows = PanelRows::F32(view.row(start)[panel * PANEL..].as_ptr(), view.row_stride());
            return Panel { rows, ahead: null() };
        }
        scratch.resize(INNER * PANEL, 0.0);
        pack_panel(view, start, panel * PANEL, depth, scratch);
        return Panel { rows: PanelRows::F32(scratch.as_ptr(), PANEL), ahead: null() };
    };
    let panel = first + panel;
    match &w.panels {
        Panels::F32(data) => {
            let size = w.inputs() * PANEL;
            let rows = data[panel * size..][start * PANEL..][..depth * PANEL].as_ptr();
            Panel { rows: PanelRows::F32(rows, PANEL), ahead: rows.wrapping_add(size).cast() }
        }
        Panels::Bf16(data) => {
            let (size, depth) = (w.inputs().next_multiple_of(2) * PANEL, depth.next_multiple_of(2));
            let rows = data[panel * size..][start * PANEL..][..depth * PANEL].as_ptr();
            Panel { rows: PanelRows::Bf16(rows), ahead: rows.wrapping_add(size).cast() }
        }
        Panels::Quantized(_) => unreachable!("quantised panels are multiplied elsewhere"),
    }
}

/// Some rows and inner steps of a left operand that meets panels.
struct LeftBlock {
    rows: usize,
    depth: usize,
    form: Form,
}

/// The form that a kernel reads.
enum Form {
    F32(Left),
    Tiles(Tiles, *const f32, usize),
    Bf16(*const u16, usize),
}

impl LeftBlock {
    /// `depth` inner steps from `start` on of a task's rows.
    fn new(
        cpu: &Cpu,
        lefts: &Lefts<'_>,
        task: &Task<'_>,
        start: usize,
        depth: usize,
        scratch: &mut Vec<f32>,
    ) -> LeftBlock {
        let Task { job, index, rows, .. } = task;
        let tiles = cpu.kernels.tiles.and_then(|tiles| {
            let (data, stride) = lefts.tiles(*index, rows.start, start, tiles.rows)?;
            Some(Form::Tiles(tiles, data, stride))
        });
        let bf16 = || lefts.bf16(*index, rows.start, start).map(|(data, stride)| Form::Bf16(data, stride));
        let form = tiles.or_else(bf16).unwrap_or_else(|| {
            let a = job.a.rows_from(rows.start, rows.len());
            if a.row_stride() == 1 && a.rows() > 1 && depth > 1 {
                // A transposed operand strides a whole row at each step, which thrashes the cache: copy it together.
                scratch.clear();
                (start..start + depth).for_each(|p| scratch.extend_from_slice(a.t().row(p)));
                return Form::F32(Left { data: scratch.as_ptr(), row: 1, column: a.rows() });
            }
            let data = a.as_ptr().wrapping_add(start * a.col_stride());
            Form::F32(Left { data, row: a.row_stride(), column: a.col_stride() })
        });
        LeftBlock { rows: rows.len(), depth, form }
    }

    /// c (=, +=) block times `columns` columns of a panel.
    ///
    /// # Safety
    /// The panel has the block's inner steps, and c is valid for its rows, `stride` apart, of `columns`.
    unsafe fn times(&self, cpu: &Cpu, panel: Panel, columns: usize, c: *mut f32, stride: usize, add: bool) {
        let &LeftBlock { rows, depth, .. } = self;
        match (&self.form, panel.rows) {
            // SAFETY: the block is rows by depth; the rest is the caller's.
            (&Form::F32(left), PanelRows::F32(b, b_stride)) => unsafe {
                (cpu.kernels.gemm_f32)(rows, columns, depth, left, b, b_stride, c, stride, add)
            },
            // SAFETY: as above; rows of bf16 have an even number of them.
            (&Form::Bf16(a, a_stride), PanelRows::Bf16(b)) => unsafe {
                let depth = depth.next_multiple_of(2);
                (cpu.kernels.gemm_bf16)(rows, columns, depth, a, a_stride, b, c, stride, add)
            },
            // SAFETY: as above.
            (&Form::Tiles(tiles, a, tile), _) => unsafe {
                (tiles.gemm)(rows, columns, depth, a, tile, panel, c, stride, add)
            },
            (Form::F32(_), PanelRows::Bf16(_)) | (Form::Bf16(..), PanelRows::F32(..)) => {
                unreachable!("the left block was made for this operand")
            }
        }
    }
}
