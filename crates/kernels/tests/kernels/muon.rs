//! Muon, against naive `f64` code.

use minke_kernels::Cpu;
use minke_kernels::muon::{self, Muon};

use crate::data::{Data, assert_near, widen};

/// x yᵀ of matrices with `inner` columns.
fn product(x: &[f64], y: &[f64], inner: usize) -> Vec<f64> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum();
    x.chunks(inner).flat_map(|x| y.chunks(inner).map(move |y| dot(x, y))).collect()
}

fn transposed(x: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|j| x.iter().skip(j).step_by(cols).copied()).collect()
}

/// Five rounds of the quintic on a matrix of norm one, always by the smaller of the two products.
fn orthogonalised(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    if rows > cols {
        return transposed(&orthogonalised(&transposed(x, cols), cols, rows), rows);
    }
    let mut x = x.to_vec();
    for _ in 0..5 {
        let squared = product(&x, &x, cols);
        let mixed: Vec<f64> =
            product(&squared, &squared, rows).iter().zip(&squared).map(|(s, q)| 2.0315 * s - 4.775 * q).collect();
        let added = product(&mixed, &transposed(&x, cols), rows);
        x.iter_mut().zip(added).for_each(|(x, more)| *x = 3.4445 * *x + more);
    }
    x
}

pub fn steps(cpu: &Cpu) {
    let mut data = Data::new(18);
    let settings = Muon { learning_rate: 0.02, momentum: 0.95, weight_decay: 0.1 };
    let scale = 0.5;
    for (rows, cols) in [(1, 1), (3, 40), (40, 3), (16, 16), (37, 65), (130, 70)] {
        let n = rows * cols;
        let (mut parameters, mut sum) = (data.normal(n, 1.0), vec![0.0; n]);
        let (mut p64, mut sum64) = (widen(&parameters), vec![0.0; n]);
        for step in 0..4 {
            let gradient = data.normal(n, [1.0, 1e-6, 1e6, 0.0][step]);
            let before = parameters.clone();
            muon::muon(cpu, &settings, scale, (rows, cols), &gradient, &mut sum, &mut parameters);
            let g: Vec<f64> = widen(&gradient).iter().map(|g| g * f64::from(scale)).collect();
            sum64.iter_mut().zip(&g).for_each(|(sum, g)| *sum = settings.momentum * *sum + g);
            let look: Vec<f64> = sum64.iter().zip(&g).map(|(sum, g)| settings.momentum * sum + g).collect();
            let norm = look.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
            let even = orthogonalised(&look.iter().map(|x| x / norm).collect::<Vec<f64>>(), rows, cols);
            let rate = settings.learning_rate * 0.2 * (rows.max(cols) as f64).sqrt();
            let keep = 1.0 - settings.learning_rate * settings.weight_decay;
            p64.iter_mut().zip(&even).for_each(|(p, x)| *p = keep * *p - rate * x);
            let what = format!("Muon on {rows} by {cols}, step {step}");
            assert_near(&what, &parameters, p64.iter().map(|&p| (p, 2e-4 * (1.0 + p.abs()))));
            // However large the gradient, a step is as long as if all singular values were about one.
            let moved = before
                .iter()
                .zip(&parameters)
                .map(|(a, b)| (f64::from(a * keep as f32 - b) / rate).powi(2))
                .sum::<f64>();
            let size = (moved / rows.min(cols) as f64).sqrt();
            assert!((0.6..1.3).contains(&size), "{what}: singular values of about {size}");
        }
    }
}
