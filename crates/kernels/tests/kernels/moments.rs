//! Moments in bf16: against naive `f64` code within what one rounding may do, and over many steps against moments in f32.

use std::ops::Range;

use minke_kernels::optimizer::AdamW;
use minke_kernels::{Cpu, Dtype, Moments, moments};

use crate::data::{Data, EPSILON, assert_near, assert_same, widen};

/// Moments in f32.
fn shown(moments: &Moments) -> Vec<f32> {
    let Moments::F32(values) = moments.clone().cast(Dtype::F32) else { panic!("moments in f32") };
    values
}

pub fn adamw(cpu: &Cpu) {
    single_steps(cpu);
    many_steps(cpu);
    parts_and_threads(cpu);
}

/// Each step begins with what was kept, and ends with what is kept of the exact moments: one of the two neighbours.
fn single_steps(cpu: &Cpu) {
    let mut data = Data::new(19);
    let settings = AdamW { learning_rate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let scale = 0.25;
    for n in [0, 1, 5, 33, 1000, 1025, 16_500] {
        // They lie within those of more parameters, which stay as they are.
        let (from, to, len) = (3, 3 + n, n + 7);
        let (mut m, mut v) = (Moments::zeros(Dtype::Bf16, len), Moments::zeros(Dtype::Bf16, len));
        let mut parameters = data.normal(n, 1.0);
        for step in 1..=12 {
            let gradient: Vec<f32> = data.normal(n, 1.0).iter().map(|g| g * [1.0, 1e-12, 1e6, 0.0][step % 4]).collect();
            let (m64, v64, mut p64) = (widen(&shown(&m)), widen(&shown(&v)), widen(&parameters));
            let (m64, v64) = (&m64[from..to], &v64[from..to]);
            let both = (&mut m, &mut v);
            moments::adamw(cpu, &settings, step as u64, scale, &gradient, both, from..to, &mut parameters);
            let corrections = [settings.beta1, settings.beta2].map(|beta| 1.0 - beta.powi(step as i32));
            let (mut first, mut second) = (Vec::new(), Vec::new());
            // A unit in the last place of a bf16 is at most 2^-7 of it.
            let unit = 2.0_f64.powi(-7);
            for i in 0..n {
                let g = f64::from(gradient[i]) * f64::from(scale);
                let (m, v) = (settings.beta1 * m64[i] + 0.1 * g, settings.beta2 * v64[i] + 0.05 * g * g);
                let size = settings.beta1 * m64[i].abs() + 0.1 * g.abs();
                first.push((m, unit * m.abs() + 4.0 * EPSILON * size));
                second.push((v, (unit + 4.0 * EPSILON) * v));
                p64[i] *= 1.0 - settings.learning_rate * settings.weight_decay;
                p64[i] -= settings.learning_rate * m / corrections[0] / ((v / corrections[1]).sqrt() + settings.eps);
            }
            assert_near("parameters of moments in bf16", &parameters, p64.iter().map(|&x| (x, 1e-6 * (x.abs() + 1.0))));
            assert_near("first moments in bf16", &shown(&m)[from..to], first);
            assert_near("second moments in bf16", &shown(&v)[from..to], second);
        }
        for moments in [shown(&m), shown(&v)] {
            assert!(
                moments[..from].iter().chain(&moments[to..]).all(|x| *x == 0.0),
                "moments of other parameters moved"
            );
        }
    }
}

/// What rounding takes and gives is nothing on average: a mean that moves by a thousandth of itself at a step gets there too.
fn many_steps(cpu: &Cpu) {
    const LEN: usize = 2053;
    let settings = AdamW { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let gradient: Vec<f32> = (0..LEN).map(|i| 0.1 + (i % 7) as f32 * 0.01).collect();
    let run = |dtype| {
        let (mut m, mut v) = (Moments::zeros(dtype, LEN), Moments::zeros(dtype, LEN));
        let mut parameters = vec![1.0; LEN];
        for step in 1..=400 {
            moments::adamw(cpu, &settings, step, 1.0, &gradient, (&mut m, &mut v), 0..LEN, &mut parameters);
        }
        (parameters, shown(&m), shown(&v))
    };
    let (exact, rounded) = (run(Dtype::F32), run(Dtype::Bf16));
    let mean = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / LEN as f64;
    for (exact, rounded) in [(&exact.1, &rounded.1), (&exact.2, &rounded.2)] {
        // Rounded to nearest, a second moment would stop at half of it or below.
        let ratio = mean(rounded) / mean(exact);
        assert!((ratio - 1.0).abs() < 2e-3, "moments are {ratio} of what they should be");
    }
    let moved = 1.0 - mean(&exact.0);
    let off = (mean(&exact.0) - mean(&rounded.0)).abs();
    assert!(off < 2e-3 * moved, "off by {off} of {moved} on average");
    let off = exact.0.iter().zip(&rounded.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(f64::from(off) < 0.05 * moved, "one is off by {off} of {moved}");
}

/// Rounded by chance, which neither the threads nor the other parameters decide.
fn parts_and_threads(cpu: &Cpu) {
    const N: usize = 40_000;
    let mut data = Data::new(20);
    let (gradient, start) = (data.normal(N, 1.0), data.normal(N, 1.0));
    let settings = AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    let run = |cpu: &Cpu, ranges: &[Range<usize>]| {
        let (mut m, mut v) = (Moments::zeros(Dtype::Bf16, N), Moments::zeros(Dtype::Bf16, N));
        let mut parameters = start.clone();
        for step in 1..4 {
            for range in ranges {
                let (gradient, parameters) = (&gradient[range.clone()], &mut parameters[range.clone()]);
                let both = (&mut m, &mut v);
                moments::adamw(cpu, &settings, step, 0.5, gradient, both, range.clone(), parameters);
                let grown = |m: &mut [f32]| m.iter_mut().zip(gradient).for_each(|(m, g)| *m += 0.003 * g);
                m.change(cpu, step, range.clone(), grown);
            }
        }
        (m, v, parameters)
    };
    let (m, v, parameters) = run(cpu, std::slice::from_ref(&(0..N)));
    let (third, half) = (N / 3, N / 2);
    for threads in [1, 2, 5] {
        let cpu = Cpu::new(cpu.isa(), threads);
        for ranges in [&[0..half, half..N][..], &[half..N, 0..third, third..half]] {
            let (other_m, other_v, other) = run(&cpu, ranges);
            assert_same("parameters of moments in bf16", &other, &parameters);
            assert!(other_m == m && other_v == v, "{ranges:?} in {threads} threads");
        }
    }
}
