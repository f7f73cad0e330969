//! Quantised weights: rows come back as they went in, and products are those of the numbers that both sides stand for.

use minke_kernels::gemm::{Job, Mode, Operand, gemm, linear};
use minke_kernels::quantized::{Format, Row, Scales};
use minke_kernels::{Cpu, Matrix, View};

use crate::data::{Data, assert_near, assert_same, sum};

/// What makes an outlier; see `Kernels::quantize`.
const OUTLIER: f32 = 8.0;

/// A row of random codes with scales of about 1 / the largest code.
fn row(data: &mut Data, format: Format, inputs: usize) -> Row {
    let layout = format.layout();
    let mut row = Row::new(format, inputs);
    let largest = (1 << layout.bits) - 1;
    row.codes.iter_mut().for_each(|code| *code = data.size(0, largest) as u8);
    // Halves of either sign between 2^-9 and 2^-4, and now and then a zero or a subnormal one.
    let mut half = || {
        [0, 0x0003][data.size(0, 1)]
            | ((data.size(6, 10) << 10 | data.size(0, 1023) | data.size(0, 1) << 15) as u16
                * (data.size(0, 9) > 0) as u16)
    };
    row.halves.iter_mut().for_each(|halves| *halves = [half(), if layout.minima { half() } else { 0 }]);
    let bound = if layout.scales == Scales::Nibbles { 15 } else { 255 };
    let minimum = if layout.minima { bound } else { 0 };
    row.groups.iter_mut().for_each(|group| *group = [data.size(0, bound) as u8, data.size(0, minimum) as u8]);
    row
}

/// What numbers of a row are outliers from: OUTLIER times its mean size, or twice that and so on until there are no more of
/// them than blocks.
fn limit(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 32];
    x.iter().enumerate().for_each(|(i, x)| lanes[i % 32] += x.abs());
    for half in [16, 8, 4, 2, 1] {
        (0..half).for_each(|i| lanes[i] += lanes[i + half]);
    }
    let mut limit = (lanes[0] / x.len() as f32 * OUTLIER).max(f32::MIN_POSITIVE);
    while x.iter().filter(|x| x.abs() > limit).count() > x.len() / 32 {
        limit *= 2.0;
    }
    limit
}

/// A row of activations as products take it: outliers as they are, and of the rest each block's scale and whole numbers.
fn rounded(x: &[f32]) -> Vec<f64> {
    let limit = limit(x);
    let blocks = x.chunks(32).map(|x| {
        let usual = |x: f32| if x.abs() > limit { 0.0 } else { x };
        let largest = x.iter().fold(0.0_f32, |largest, &x| largest.max(usual(x).abs()));
        let (scale, inverse) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        let whole = move |x: f32| f64::from((x * inverse).round_ties_even()) * f64::from(scale);
        x.iter().map(|&x| if x.abs() > limit { f64::from(x) } else { whole(x) }).collect::<Vec<f64>>()
    });
    blocks.flatten().collect()
}

/// Rows of `k` with outliers of many kinds, beside each other.
fn peaky(data: &mut Data, m: usize, k: usize) -> Vec<f32> {
    let mut x = data.normal(m * k, 1.0);
    for (i, x) in x.chunks_mut(k.max(1)).enumerate() {
        match i % 8 {
            // None, a few, one that is huge, and a block full of them.
            0 => {}
            1 => x.iter_mut().step_by(41).for_each(|x| *x *= 100.0),
            2 => x[data.size(0, k - 1)] = 1e30,
            3 => x[..32].iter_mut().for_each(|x| *x *= 300.0),
            // So many that only the larger ones can be some.
            4 => x.iter_mut().step_by(9).enumerate().for_each(|(i, x)| *x *= [40.0, 4000.0][i % 8 / 7]),
            // One number beside zeros, and so small ones that their mean is zero.
            5 => x.iter_mut().skip(1).for_each(|x| *x = 0.0),
            6 => x.iter_mut().enumerate().for_each(|(i, x)| *x = f32::from_bits(u32::from(i % 7 == 0))),
            // Just as large as is no outlier yet, since the mean is a half; and in the last block the next larger number.
            _ => {
                for (i, x) in x.iter_mut().enumerate() {
                    *x = [1.0, OUTLIER / 2.0, 0.0][usize::from(i % 32 >= 12) + usize::from(i % 32 > 12)];
                }
                x[k - 20] = (OUTLIER / 2.0).next_up();
                assert_eq!(limit(x), OUTLIER / 2.0);
            }
        }
    }
    x
}

pub fn products(cpu: &Cpu) {
    let mut data = Data::new(31);
    for format in Format::ALL {
        // The last but one are cut into parts where there are many rows, and not where there are few; the last fill a task
        // with less than a row.
        for (m, n, k) in [
            (1, 1, 1),
            (2, 17, 2),
            (13, 32, 1),
            (25, 50, 3),
            (7, 100, 5),
            (100, 33, 2),
            (3, 16, 0),
            (50, 16, 6),
            (2, 1, 65),
        ] {
            let k = k * 256;
            let k = if format.block() == 32 && k < 1280 { k / 256 * 96 } else { k };
            let rows: Vec<Row> = (0..n).map(|_| row(&mut data, format, k)).collect();
            let matrix = Matrix::quantized(cpu, format, n, k, &|i, row| row.clone_from(&rows[i]));
            let mut weights = vec![0.0; n * k];
            for (i, row) in rows.iter().enumerate() {
                let (weights, mut back) = (&mut weights[i * k..][..k], vec![f32::NAN; k]);
                row.to_f32(format, weights);
                matrix.row(i, &mut back);
                assert_same(&format!("row {i} of {}", format.name()), &back, weights);
            }
            let mut some = vec![f32::NAN; (n - n / 3) * k];
            matrix.rows(cpu, n / 3..n, &mut some);
            assert_same("some rows", &some, &weights[n / 3 * k..]);
            let x = match data.size(0, 3) {
                0 => data.normal(m * k, 1.0),
                1 => data.hostile(m * k),
                _ if k > 0 => peaky(&mut data, m, k),
                _ => Vec::new(),
            };
            let what = format!("{m} by {n} by {k} of {}", format.name());
            let before = data.normal(m * n, 1.0);
            for mode in [Mode::Set, Mode::Add] {
                let mut y = before.clone();
                let job = |a, row| Job { a, b: Operand::Packed(&matrix), row, col: 0 };
                gemm(cpu, &mut y, n, mode, &[job(View::new(&x, m, k), 0)]);
                for i in 0..m {
                    let x = rounded(&x[i * k..][..k]);
                    let old = if mode == Mode::Add { &before[i * n..][..n] } else { &vec![0.0; n] };
                    let exact = (0..n).map(|j| {
                        // A product of a code and one of its offset, or of a minimum, stand for each.
                        let terms = (0..k).flat_map(|p| {
                            let (w, x) = (f64::from(weights[j * k + p]), x[p]);
                            [w * x, x * 0.25, -x * 0.25]
                        });
                        sum(terms.chain([f64::from(old[j])]), 8)
                    });
                    assert_near(&what, &y[i * n..][..n], exact);
                }
                // A row alone comes to what it came to beside the others, and without others' columns too.
                for i in [0, m / 2, m - 1] {
                    let mut alone = before[i * n..][..n].to_vec();
                    gemm(cpu, &mut alone, n, mode, &[job(View::new(&x[i * k..][..k], 1, k), 0)]);
                    assert_same(&what, &alone, &y[i * n..][..n]);
                    if n > 32 && mode == Mode::Set {
                        let columns = Operand::columns(&matrix, 32..n);
                        let mut part = vec![0.0; n - 32];
                        let job = Job { a: View::new(&x[i * k..][..k], 1, k), b: columns, row: 0, col: 0 };
                        gemm(cpu, &mut part, n - 32, mode, &[job]);
                        assert_same(&what, &part, &y[i * n + 32..][..n - 32]);
                    }
                }
            }
        }
    }
}

/// Experts of two tensors each: every expert has its rows of the result, and every tensor its columns.
pub fn experts(cpu: &Cpu) {
    let mut data = Data::new(33);
    let (k, widths, rows) = (64, [40, 24], [3, 5]);
    let matrices: Vec<Matrix> = [Format::Q4_0, Format::Q8_0, Format::Q5_1, Format::Q4_0]
        .into_iter()
        .zip(widths.into_iter().cycle())
        .map(|(format, n)| {
            let stored: Vec<Row> = (0..n).map(|_| row(&mut data, format, k)).collect();
            Matrix::quantized(cpu, format, n, k, &|i, row| row.clone_from(&stored[i]))
        })
        .collect();
    let x = data.normal(8 * k, 1.0);
    let x = View::new(&x, 8, k);
    let mut y = vec![0.0; 8 * 64];
    let place = |i: usize| (i / 2 * rows[0], i % 2 * widths[0], x.rows_from(i / 2 * rows[0], rows[i / 2]));
    let jobs: Vec<Job<'_>> = (0..4)
        .map(|i| {
            let (row, col, a) = place(i);
            Job { a, b: Operand::Packed(&matrices[i]), row, col }
        })
        .collect();
    gemm(cpu, &mut y, 64, Mode::Set, &jobs);
    for (i, matrix) in matrices.iter().enumerate() {
        let (row, col, a) = place(i);
        let mut alone = vec![0.0; a.rows() * matrix.outputs()];
        linear(cpu, matrix, a, &mut alone);
        for (r, alone) in alone.chunks(matrix.outputs()).enumerate() {
            assert_same("experts", &y[(row + r) * 64 + col..][..matrix.outputs()], alone);
        }
    }
}

/// A number that is none, or infinite, shows in the results of its row and in no other.
pub fn not_finite(cpu: &Cpu) {
    let mut data = Data::new(32);
    for format in [Format::Q8_0, Format::Q4_1, Format::Q6K] {
        let k = 256;
        let rows: Vec<Row> = (0..20).map(|_| row(&mut data, format, k)).collect();
        let matrix = Matrix::quantized(cpu, format, 20, k, &|i, row| row.clone_from(&rows[i]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = data.normal(3 * k, 1.0);
            let at = data.size(k, 2 * k - 1);
            x[at] = bad;
            let mut y = vec![0.0; 3 * 20];
            linear(cpu, &matrix, View::new(&x, 3, k), &mut y);
            assert!(
                y.iter().enumerate().all(|(i, y)| y.is_finite() != (i / 20 == 1)),
                "{bad} in {}: {y:?}",
                format.name()
            );
        }
    }
}
