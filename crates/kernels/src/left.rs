//! Left operands of products, made what their right operands are multiplied in, once a call: rounded, or put into tiles.

use std::cell::RefCell;
use std::ops::Range;

use crate::arch::{Left, PANEL, QuantizedLeft, QuantizedRow, TILE, prefetch, size_in_tiles};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::gemm::{BLOCK, Job};
use crate::matrix::{AHEAD, Panels};
use crate::pool::Shareable;
use crate::quantized::{self, Layout};
use crate::view::View;

/// Rows of whole tiles of every kind.
pub(crate) const TILES: usize = 24;
/// Numbers below which rounding them does not wake the other threads.
const SMALL: usize = 1 << 14;
/// Rows that are worth being put into tiles, which the columns that they are multiplied with are copied for.
const MANY: usize = 12;

/// What a left operand is made.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Tiles of f32, in bf16's precision where `round`.
    Tiles {
        round: bool,
    },
    Bf16,
    Quantized(Layout),
}

impl Form {
    /// What the left operand of `job` is multiplied in, unless that is f32 as it lies there.
    fn of(cpu: &Cpu, job: &Job<'_>) -> Option<Form> {
        let tiles = cpu.kernels.tiles.is_some() && job.a.rows() >= MANY;
        match job.b.matrix().map(|(w, _)| &w.panels) {
            Some(Panels::Quantized(strips)) => Some(Form::Quantized(strips.format.layout())),
            Some(Panels::Bf16(_)) if tiles => Some(Form::Tiles { round: true }),
            Some(Panels::Bf16(_)) => Some(Form::Bf16),
            Some(Panels::F32(_)) | None => tiles.then_some(Form::Tiles { round: false }),
        }
    }
}

/// One operand's place in the storage.
struct Rounded<'a> {
    view: View<'a>,
    form: Form,
    /// Of its first number in tiles, its first bf16 or its first code.
    at: usize,
    /// Of its first scale, of the first input that is listed and of that list's end; its sums begin at twice that, and its
    /// outliers at [`TILE`] times.
    scale: usize,
}

/// Memory that is used again from call to call.
#[derive(Default)]
struct Storage {
    tiles: Buffer,
    bf16: Buffer<u16>,
    codes: Buffer<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    ends: Vec<u32>,
    inputs: Vec<u32>,
    outliers: Vec<f32>,
}

thread_local! {
    static STORAGE: RefCell<Storage> = RefCell::default();
}

/// The rounded left operands of a call's jobs.
pub(crate) struct Lefts<'a> {
    rounded: Vec<Rounded<'a>>,
    /// Of each job, its place among them.
    places: Vec<Option<usize>>,
    storage: Storage,
}

/// Pointers to the storage, of which every task writes rows of its own.
struct Places {
    tiles: Shareable<f32>,
    bf16: Shareable<u16>,
    codes: Shareable<i8>,
    scales: Shareable<f32>,
    sums: Shareable<i32>,
    ends: Shareable<u32>,
    inputs: Shareable<u32>,
    outliers: Shareable<f32>,
}

impl<'a> Lefts<'a> {
    /// Rounds what `jobs` need. Jobs side by side that share an operand and what it is multiplied in share it rounded.
    pub fn new(cpu: &Cpu, jobs: &[Job<'a>], threads: usize) -> Lefts<'a> {
        let mut lefts = Lefts { rounded: Vec::new(), places: Vec::new(), storage: STORAGE.take() };
        let height = cpu.kernels.tiles.map_or(1, |tiles| tiles.rows);
        let (mut tiles, mut bf16, mut codes, mut numbers) = (0, 0, 0, 0);
        for job in jobs {
            let Some(form) = Form::of(cpu, job) else {
                lefts.places.push(None);
                continue;
            };
            if !lefts.rounded.last().is_some_and(|last| last.form == form && last.view.is(&job.a)) {
                let (rows, cols) = (job.a.rows(), job.a.cols());
                let at = match form {
                    Form::Tiles { .. } => {
                        tiles += size_in_tiles(rows, cols, height);
                        tiles - size_in_tiles(rows, cols, height)
                    }
                    Form::Bf16 => {
                        bf16 += rows * bf16_stride(cols);
                        bf16 - rows * bf16_stride(cols)
                    }
                    Form::Quantized(_) => {
                        // The last tile may be padded.
                        let rows = rows / TILE * TILE + padded(rows % TILE);
                        codes += rows * cols;
                        codes - rows * cols
                    }
                };
                lefts.rounded.push(Rounded { view: job.a, form, at, scale: at / quantized::BLOCK });
                numbers += rows * cols;
            }
            lefts.places.push(Some(lefts.rounded.len() - 1));
        }
        let Storage {
            tiles: tile_storage,
            bf16: bf16_storage,
            codes: code_storage,
            scales,
            sums,
            ends,
            inputs,
            outliers,
        } = &mut lefts.storage;
        if tile_storage.len() < tiles {
            tile_storage.resize(tiles);
        }
        if bf16_storage.len() < bf16 {
            bf16_storage.resize(bf16);
        }
        if code_storage.len() < codes {
            code_storage.resize(codes);
        }
        grow(scales, codes / quantized::BLOCK);
        grow(sums, codes / quantized::BLOCK * 2);
        grow(ends, codes / quantized::BLOCK);
        grow(inputs, codes / quantized::BLOCK);
        grow(outliers, codes / quantized::BLOCK * TILE);
        let places = Places {
            tiles: Shareable(tile_storage.as_mut_ptr()),
            bf16: Shareable(bf16_storage.as_mut_ptr()),
            codes: Shareable(code_storage.as_mut_ptr()),
            scales: Shareable(scales.as_mut_ptr()),
            sums: Shareable(sums.as_mut_ptr()),
            ends: Shareable(ends.as_mut_ptr()),
            inputs: Shareable(inputs.as_mut_ptr()),
            outliers: Shareable(outliers.as_mut_ptr()),
        };
        let rounded = &lefts.rounded;
        if threads == 1 || numbers < SMALL {
            rounded.iter().for_each(|left| left.fill(cpu, &places, 0..left.view.rows()));
        } else {
            let tasks: Vec<(&Rounded<'_>, Range<usize>)> = rounded
                .iter()
                .flat_map(|left| {
                    let rows = left.view.rows();
                    // Rows of a tile share lines of memory, which two threads had better not write.
                    let step = (SMALL / left.view.cols().max(1)).max(1).next_multiple_of(TILES).min(BLOCK);
                    (0..rows).step_by(step).map(move |row| (left, row..rows.min(row + step)))
                })
                .collect();
            cpu.pool().run(tasks.len(), &|i| tasks[i].0.fill(cpu, &places, tasks[i].1.clone()));
        }
        lefts
    }

    /// Whether job `job`'s operand lies in tiles; it has rows then.
    pub fn are_tiles(&self, job: usize) -> bool {
        self.places[job].is_some_and(|place| matches!(self.rounded[place].form, Form::Tiles { .. }))
    }

    /// Tiles from `row` on of job `job`'s operand, from column `start` on; and the distance between tiles.
    pub fn tiles(&self, job: usize, row: usize, start: usize, height: usize) -> Option<(*const f32, usize)> {
        let left = &self.rounded[self.places[job]?];
        let Form::Tiles { .. } = left.form else { return None };
        assert!(row.is_multiple_of(height), "a tile that begins at row {row}");
        let cols = left.view.cols();
        Some((self.storage.tiles[left.at + row * cols + start * height..].as_ptr(), height * cols))
    }

    /// Rows from `row` on of job `job`'s bf16 operand, from column `start` on; and the distance between rows.
    pub fn bf16(&self, job: usize, row: usize, start: usize) -> Option<(*const u16, usize)> {
        let left = &self.rounded[self.places[job]?];
        let stride = bf16_stride(left.view.cols());
        (left.form == Form::Bf16).then(|| (self.storage.bf16[left.at + row * stride + start..].as_ptr(), stride))
    }

    /// Rows from `row` on of job `job`'s quantised operand, from column `start` on.
    pub fn quantized(&self, job: usize, row: usize, start: usize) -> Option<QuantizedLeft> {
        let left = &self.rounded[self.places[job]?];
        let Form::Quantized(layout) = left.form else { return None };
        assert!(row.is_multiple_of(TILE), "a tile that begins at row {row}");
        let blocks = left.view.cols() / quantized::BLOCK;
        let Storage { codes, scales, sums, ends, inputs, outliers, .. } = &self.storage;
        let groups = quantized::BLOCK / layout.group;
        Some(QuantizedLeft {
            codes: codes[left.at + row * blocks * quantized::BLOCK..].as_ptr(),
            scales: scales[left.scale + row * blocks..].as_ptr(),
            sums: sums[2 * left.scale + row * blocks * groups..].as_ptr(),
            ends: ends[left.scale + row / TILE * blocks..].as_ptr(),
            inputs: inputs[left.scale + row * blocks..].as_ptr(),
            outliers: outliers[(left.scale + row * blocks) * TILE..].as_ptr(),
            blocks,
            start: start / quantized::BLOCK,
        })
    }
}

impl Drop for Lefts<'_> {
    fn drop(&mut self) {
        STORAGE.set(std::mem::take(&mut self.storage));
    }
}

fn grow<T: Clone + Default>(storage: &mut Vec<T>, len: usize) {
    if storage.len() < len {
        storage.resize(len, T::default());
    }
}

impl Rounded<'_> {
    /// Rounds some rows.
    fn fill(&self, cpu: &Cpu, places: &Places, rows: Range<usize>) {
        let view = self.view.rows_from(rows.start, rows.len());
        let cols = view.cols();
        match self.form {
            Form::Tiles { round } => {
                let tiles = cpu.kernels.tiles.unwrap_or_else(|| unreachable!("only where there are products of tiles"));
                let a = Left { data: view.as_ptr(), row: view.row_stride(), column: view.col_stride() };
                // SAFETY: the view has these rows, `Lefts::new` made room for the tiles of all at `at`, and tasks begin with tiles.
                unsafe { (tiles.pack)(rows.len(), cols, a, round, places.tiles.get().add(self.at + rows.start * cols)) }
            }
            Form::Bf16 => {
                let stride = bf16_stride(cols);
                // SAFETY: `Lefts::new` made room for all rows of this operand at `at`, and these rows are this task's.
                let out = unsafe {
                    let first = places.bf16.get().add(self.at + rows.start * stride);
                    std::slice::from_raw_parts_mut(first, rows.len() * stride)
                };
                if view.row_stride() == 1 && view.rows() > 1 {
                    return round_transposed(cpu, view, stride, out);
                }
                for (i, out) in out.chunks_exact_mut(stride).enumerate() {
                    // SAFETY: a row's `cols` elements, into at least as many.
                    with_row(view, i, |row| unsafe { (cpu.kernels.to_bf16)(cols, row.as_ptr(), out.as_mut_ptr()) });
                    out[cols..].fill(0);
                }
            }
            Form::Quantized(layout) => {
                // Tasks are of whole tiles.
                let tiles = rows.clone().step_by(TILE).map(|tile| tile..rows.end.min(tile + TILE));
                let mut outliers = vec![0; rows.len().min(TILE) * (cols / quantized::BLOCK)];
                tiles.for_each(|tile| self.fill_tile(cpu, layout, places, tile, &mut outliers));
            }
        }
    }

    /// Rounds the rows of one tile; `bits` has room for a number for each block of each.
    fn fill_tile(&self, cpu: &Cpu, layout: Layout, places: &Places, rows: Range<usize>, bits: &mut [u32]) {
        let blocks = self.view.cols() / quantized::BLOCK;
        let groups = quantized::BLOCK / layout.group;
        let height = QuantizedLeft::height(rows.len());
        let first = self.scale + rows.start * blocks;
        let view = self.view.rows_from(rows.start, rows.len());
        let bits = &mut bits[..rows.len() * blocks];
        for (row, bits) in bits.chunks_exact_mut(blocks.max(1)).enumerate() {
            // SAFETY: `Lefts::new` made room for all rows of this operand, and this tile's are this task's.
            let out = unsafe {
                QuantizedRow {
                    codes: places.codes.get().add(self.at + (rows.start * blocks + row) * quantized::BLOCK),
                    scales: places.scales.get().add(first + row),
                    sums: places.sums.get().add(2 * self.scale + rows.start * blocks * groups + row),
                    outliers: bits.as_mut_ptr(),
                }
            };
            with_row(view, row, |x| {
                // SAFETY: the row has `blocks` blocks, and its tile has room for as many.
                unsafe { (cpu.kernels.quantize)(blocks, groups, height, x.as_ptr(), out) }
            });
            for block in 0..blocks {
                for group in 0..groups {
                    // SAFETY: a scale and a sum that were just written.
                    unsafe {
                        let sum = out.sums.add((block * groups + group) * height);
                        *sum = match layout.minima {
                            true => (*sum as f32 * *out.scales.add(block * height)).to_bits() as i32,
                            false => (*sum).wrapping_mul(-layout.offset),
                        };
                    }
                }
            }
        }
        // SAFETY: as above; a tile has an end for each block, and room for as many inputs as it has blocks of all rows.
        let list = unsafe {
            use std::slice::from_raw_parts_mut;
            List {
                ends: from_raw_parts_mut(places.ends.get().add(self.scale + rows.start / TILE * blocks), blocks),
                inputs: from_raw_parts_mut(places.inputs.get().add(first), height * blocks),
                outliers: from_raw_parts_mut(places.outliers.get().add(first * TILE), height * blocks * height),
            }
        };
        list.fill(bits, height, |row, input| view.at(row, input));
    }
}

/// The outliers of one tile, as [`QuantizedLeft`] has them.
pub(crate) struct List<'a> {
    pub ends: &'a mut [u32],
    pub inputs: &'a mut [u32],
    pub outliers: &'a mut [f32],
}

impl List<'_> {
    /// Lists them by their bits, [rows][blocks]; `x` is a row's number at an input.
    pub fn fill(self, bits: &[u32], height: usize, x: impl Fn(usize, usize) -> f32) {
        let blocks = self.ends.len();
        let mut listed = 0;
        for (block, end) in self.ends.iter_mut().enumerate() {
            let mut any = bits[block..].iter().step_by(blocks).fold(0, |any, bits| any | bits);
            while any != 0 {
                let bit = any.trailing_zeros();
                let input = block * quantized::BLOCK + bit as usize;
                self.inputs[listed] = input as u32;
                for (row, outlier) in self.outliers[listed * height..][..height].iter_mut().enumerate() {
                    let is_outlier = bits.get(row * blocks + block).is_some_and(|bits| bits >> bit & 1 == 1);
                    *outlier = if is_outlier { x(row, input) } else { 0.0 };
                }
                listed += 1;
                any &= any - 1;
            }
            *end = listed as u32;
        }
    }
}

/// Rows that a last tile of `rows`, fewer than [`TILE`], takes.
fn padded(rows: usize) -> usize {
    if rows == 0 { 0 } else { QuantizedLeft::height(rows) }
}

/// From one row of bf16 to the next: an even number; and not a multiple of a KiB, since the rows of a register tile, which are
/// read side by side, would then share a few places of the first cache.
fn bf16_stride(cols: usize) -> usize {
    let even = cols.next_multiple_of(2);
    if even.is_multiple_of(512) { even + 2 * PAIRS } else { even }
}

/// Pairs of bf16 in a line of memory.
const PAIRS: usize = 16;

/// Rounds `a`, whose columns are contiguous, into rows `stride` apart: a line of some rows at a time, by way of the first cache.
fn round_transposed(cpu: &Cpu, a: View<'_>, stride: usize, out: &mut [u16]) {
    let (rows, cols) = (a.rows(), a.cols());
    // [pairs][PANEL][2], as the kernel has it.
    let mut lines = [[0_u16; 2]; PAIRS * PANEL];
    for p in (0..cols).step_by(2 * PAIRS) {
        let pairs = PAIRS.min((cols - p).div_ceil(2));
        for row in (0..rows).step_by(PANEL) {
            let height = PANEL.min(rows - row);
            for (pair, line) in lines.chunks_exact_mut(PANEL).take(pairs).enumerate() {
                let mut columns = [[0.0; PANEL]; 2];
                for (p, column) in (p + 2 * pair..cols).zip(&mut columns) {
                    column[..height].copy_from_slice(&a.t().row(p)[row..row + height]);
                    if p + AHEAD < cols {
                        prefetch(&a.t().row(p + AHEAD)[row..row + height]);
                    }
                }
                // SAFETY: all three are of PANEL columns.
                unsafe {
                    (cpu.kernels.to_bf16_pairs)(columns[0].as_ptr(), columns[1].as_ptr(), line.as_mut_ptr().cast());
                }
            }
            for (i, out) in out[row * stride..].chunks_mut(stride).take(height).enumerate() {
                for (out, pairs) in out[p..].chunks_exact_mut(2).zip(lines.chunks_exact(PANEL)).take(pairs) {
                    out.copy_from_slice(&pairs[i]);
                }
            }
        }
    }
}

/// Calls `run` with a row's elements, one behind the other.
fn with_row(a: View<'_>, row: usize, run: impl FnOnce(&[f32])) {
    if a.col_stride() == 1 {
        run(&a.row(row)[..a.cols()]);
    } else {
        run(&(0..a.cols()).map(|p| a.at(row, p)).collect::<Vec<f32>>());
    }
}
