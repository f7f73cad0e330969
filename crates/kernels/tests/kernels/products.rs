//! Matrix products: every form of both operands, odd shapes, several at once.

use minke_kernels::gemm::{Job, Mode, Operand, gemm};
use minke_kernels::{Cpu, Dtype, Matrix, View};

use crate::data::{Data, Exact, assert_near, assert_same, sum};

/// A matrix as it may lie in memory: amid other numbers, or transposed. What is not its own is NaN.
pub struct Stored {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
    first: usize,
    transposed: bool,
}

impl Stored {
    pub fn new(data: &mut Data, rows: usize, cols: usize) -> Stored {
        let transposed = data.flip();
        let (outer, inner) = if transposed { (cols, rows) } else { (rows, cols) };
        let first = data.pick(&[0, 0, 5]);
        let stride = first + inner + data.pick(&[0, 0, 3]);
        let mut stored = Stored { data: vec![f32::NAN; outer * stride], rows, cols, stride, first, transposed };
        for i in 0..outer {
            stored.data[i * stride + first..][..inner].copy_from_slice(&data.normal(inner, 1.0));
        }
        stored
    }

    pub fn view(&self) -> View<'_> {
        let (outer, inner) = if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) };
        let view = View::columns(&self.data, outer, self.stride, self.first, inner);
        if self.transposed { view.t() } else { view }
    }
}

/// Element (i, j) of a times b, plus what was there.
fn exact(a: View<'_>, b: View<'_>, i: usize, j: usize, before: f32) -> Exact {
    let products = (0..a.cols()).map(|p| f64::from(a.at(i, p)) * f64::from(b.at(p, j)));
    sum(products.chain([f64::from(before)]), 1)
}

/// An output with room around the product, filled with numbers that must stay or be added to.
struct Output {
    before: Vec<f32>,
    after: Vec<f32>,
    stride: usize,
}

impl Output {
    fn new(data: &mut Data, rows: usize, stride: usize) -> Output {
        let before = data.normal(rows * stride, 1.0);
        Output { after: before.clone(), before, stride }
    }

    /// Checks the product of `job` against `exact`, and marks its place as seen by giving it back its old numbers.
    fn check(&mut self, what: &str, mode: Mode, job: &Job<'_>, n: usize, exact: impl Fn(usize, usize, f32) -> Exact) {
        for i in 0..job.a.rows() {
            let place = (job.row + i) * self.stride + job.col..(job.row + i) * self.stride + job.col + n;
            let before = &self.before[place.clone()];
            let old = |j: usize| if mode == Mode::Add { before[j] } else { 0.0 };
            assert_near(what, &self.after[place.clone()], (0..n).map(|j| exact(i, j, old(j))));
            self.after[place].copy_from_slice(before);
        }
    }

    fn assert_rest_untouched(&self, what: &str) {
        assert_same(what, &self.after, &self.before);
    }
}

const MODES: [Mode; 2] = [Mode::Set, Mode::Add];

/// Shapes (m, n, k): edges of tiles, panels and blocks, and some at random.
fn shapes(data: &mut Data) -> Vec<(usize, usize, usize)> {
    let mut shapes =
        vec![(1, 1, 1), (1, 1, 0), (3, 5, 0), (1, 32, 16), (1, 100, 300), (2, 31, 7), (3, 33, 2), (5, 65, 9)];
    shapes.extend([
        (6, 16, 3),
        (7, 17, 257),
        (8, 7, 33),
        (12, 64, 256),
        (13, 3, 512),
        (96, 32, 31),
        (97, 40, 513),
        (241, 33, 270),
    ]);
    shapes.extend((0..40).map(|_| (data.size(1, 110), data.size(1, 110), data.size(1, 280))));
    shapes
}

pub fn f32_products(cpu: &Cpu) {
    let mut data = Data::new(1);
    for (m, n, k) in shapes(&mut data) {
        let (a, b) = (Stored::new(&mut data, m, k), Stored::new(&mut data, k, n));
        let (a, b) = (a.view(), b.view());
        let packed = Matrix::pack(cpu, Dtype::F32, b.t());
        let first = data.size(0, n - 1) / 32 * 32;
        let count = data.size(1, n - first);
        let operands = [
            ("a view", Operand::View(b), 0, n),
            ("a packed matrix", Operand::Packed(&packed), 0, n),
            ("columns of a packed matrix", Operand::columns(&packed, first..first + count), first, count),
        ];
        for (form, operand, first, n) in operands {
            for mode in MODES {
                let what = format!("{m} by {k} times {k} by {n}, {form}, {mode:?}");
                let (row, col) = (data.size(0, 2), data.size(0, 3));
                let mut out = Output::new(&mut data, row + m + 1, col + n + 2);
                let job = Job { a, b: operand, row, col };
                gemm(cpu, &mut out.after, out.stride, mode, &[job]);
                out.check(&what, mode, &job, n, |i, j, old| exact(a, b, i, first + j, old));
                out.assert_rest_untouched(&what);
            }
        }
    }
}

/// The nearest bf16, ties to even.
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

pub fn bf16_products(cpu: &Cpu) {
    let mut data = Data::new(2);
    for (m, n, k) in shapes(&mut data) {
        let (a, w) = (Stored::new(&mut data, m, k), Stored::new(&mut data, n, k));
        let (a, w) = (a.view(), w.view());
        let packed = Matrix::pack(cpu, Dtype::Bf16, w);
        let (a16, w16): (Vec<f32>, Vec<f32>) = (
            (0..m * k).map(|i| rounded(a.at(i / k, i % k))).collect(),
            (0..n * k).map(|i| rounded(w.at(i / k, i % k))).collect(),
        );
        let (a16, b16) = (View::new(&a16, m, k), View::new(&w16, n, k).t());
        let first = data.size(0, n - 1) / 32 * 32;
        let operands = [
            ("a packed matrix", Operand::Packed(&packed), 0),
            ("columns of a packed matrix", Operand::columns(&packed, first..n), first),
        ];
        for (form, operand, first) in operands {
            for mode in MODES {
                let what = format!("bf16 {m} by {k} times {k} by {}, {form}, {mode:?}", n - first);
                let mut out = Output::new(&mut data, m + 1, n + 2);
                let job = Job { a, b: operand, row: 1, col: 0 };
                gemm(cpu, &mut out.after, out.stride, mode, &[job]);
                out.check(&what, mode, &job, n - first, |i, j, old| exact(a16, b16, i, first + j, old));
                out.assert_rest_untouched(&what);
            }
        }
    }
}

pub fn several_jobs(cpu: &Cpu) {
    let mut data = Data::new(3);
    for down in [true, false] {
        for mode in MODES {
            // Experts lie below each other, heads beside each other; one job is empty.
            let shapes: Vec<(usize, usize, usize)> = (0..7)
                .map(|i| {
                    let (m, n) = (data.size(1, 120), data.size(1, 70));
                    if i == 3 { (0, n, 5) } else { (m, n, data.size(1, 150)) }
                })
                .collect();
            let stored: Vec<(Stored, Stored)> =
                shapes.iter().map(|&(m, n, k)| (Stored::new(&mut data, m, k), Stored::new(&mut data, k, n))).collect();
            let (mut row, mut col) = (0, 0);
            let mut jobs = Vec::new();
            for (a, b) in &stored {
                jobs.push(Job { a: a.view(), b: Operand::View(b.view()), row, col });
                if down { row += a.rows } else { col += b.cols }
            }
            let rows = if down { row } else { shapes.iter().map(|s| s.0).max().unwrap_or(0) };
            let stride = if down { shapes.iter().map(|s| s.1).max().unwrap_or(0) } else { col };
            let mut out = Output::new(&mut data, rows, stride);
            gemm(cpu, &mut out.after, stride, mode, &jobs);
            for (job, (a, b)) in jobs.iter().zip(&stored) {
                out.check("one of several", mode, job, b.cols, |i, j, old| exact(a.view(), b.view(), i, j, old));
            }
            out.assert_rest_untouched("around several");
        }
    }
    let x = [1.0; 4];
    let job = Job { a: View::new(&x, 2, 2), b: Operand::View(View::new(&x, 2, 2)), row: 0, col: 0 };
    let overlapping = std::panic::AssertUnwindSafe(|| {
        gemm(cpu, &mut [0.0; 9], 3, Mode::Set, &[job, Job { row: 1, col: 1, ..job }]);
    });
    assert!(std::panic::catch_unwind(overlapping).is_err(), "overlapping results must be refused");
}
