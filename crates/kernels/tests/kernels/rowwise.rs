//! Operations on rows: norms, rotation, sums, SwiGLU, embeddings, the optimiser.

use minke_kernels::gemm::Operand;
use minke_kernels::rope::{Direction, RopeTable};
use minke_kernels::{Cpu, View, elementwise, embedding, norm, optimizer};

use crate::data::{Data, EPSILON, Exact, WIDTHS, assert_near, assert_same, widen};

/// Rows of each check: one, a few, and enough for several tasks at the larger widths.
const ROWS: [usize; 3] = [1, 6, 170];

pub fn rms_norm(cpu: &Cpu) {
    let mut data = Data::new(10);
    for dim in WIDTHS {
        for rows in ROWS {
            for (scale, eps) in [(1.0, 1e-6), (1e-20, 1e-6), (1e12, 1e-5), (1e-3, 0.0)] {
                let (col, stride) = (data.size(0, 3), dim + 5);
                let x = data.normal(rows * stride, scale);
                let x = View::columns(&x, rows, stride, col, dim);
                let weight = data.normal(dim, 1.0);
                let (mut y, mut inv_rms) = (vec![f32::NAN; rows * dim], vec![f32::NAN; rows]);
                norm::rms_norm(cpu, x, &weight, eps, &mut y, &mut inv_rms);
                for r in 0..rows {
                    let mean = widen(x.row(r)).iter().map(|x| x * x).sum::<f64>() / dim as f64;
                    let inverse = 1.0 / (mean + f64::from(eps)).sqrt();
                    let off = (dim as f64 / 2.0 + 4.0) * EPSILON;
                    let what = format!("RMSNorm of {dim} at {scale}");
                    assert_near(&what, &inv_rms[r..=r], [(inverse, off * inverse)]);
                    let exact = x.row(r).iter().zip(&weight).map(|(&x, &w)| {
                        let y = f64::from(x) * inverse * f64::from(w);
                        (y, off * y.abs())
                    });
                    assert_near(&what, &y[r * dim..][..dim], exact);
                }
            }
        }
    }
}

pub fn rope(cpu: &Cpu) {
    let mut data = Data::new(11);
    for half in [1, 2, 3, 4, 7, 8, 9, 16, 17, 32, 33] {
        for interleaved in [false, true] {
            let inv_freq: Vec<f64> = (0..half).map(|i| 10_000_f64.powf(-(i as f64) / half as f64)).collect();
            let table = RopeTable::new(&inv_freq, 5000, interleaved, 1.0);
            assert_eq!((table.positions(), table.width()), (5000, 2 * half));
            let (heads, offset) = (data.size(1, 5), data.size(0, 4));
            let head_stride = 2 * half + offset + data.size(0, 3);
            let row_stride = heads * head_stride + data.size(0, 3);
            for rows in [1, 6, 170] {
                let positions = data.ids(rows, 5000);
                let before = data.normal(rows * row_stride, 1.0);
                let mut x = before.clone();
                // The last row may end where its last head's rotated part does.
                x.truncate((rows - 1) * row_stride + (heads - 1) * head_stride + offset + 2 * half);
                let len = x.len();
                minke_kernels::rope::rope(
                    cpu,
                    &table,
                    &mut x,
                    row_stride,
                    heads,
                    head_stride,
                    offset,
                    &positions,
                    Direction::Forward,
                );
                let mut exact: Vec<Exact> = widen(&before[..len]).into_iter().map(|x| (x, 0.0)).collect();
                for r in 0..rows {
                    for h in 0..heads {
                        for i in 0..half {
                            let first = r * row_stride + h * head_stride + offset;
                            let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                            let angle = positions[r] as f32 * inv_freq[i] as f32;
                            let (sin, cos) = f64::from(angle).sin_cos();
                            let (x, y) = (f64::from(before[first + a]), f64::from(before[first + b]));
                            let off = 4.0 * EPSILON * (x.abs() + y.abs());
                            exact[first + a] = (x * cos - y * sin, off);
                            exact[first + b] = (x * sin + y * cos, off);
                        }
                    }
                }
                let what = format!("RoPE, {half} pairs, interleaved {interleaved}");
                // What is not rotated has no tolerance at all.
                assert_near(&what, &x, exact);
                minke_kernels::rope::rope(
                    cpu,
                    &table,
                    &mut x,
                    row_stride,
                    heads,
                    head_stride,
                    offset,
                    &positions,
                    Direction::Backward,
                );
                assert_near(&format!("{what}, and back"), &x, before[..len].iter().map(|&x| (f64::from(x), 2e-6)));
            }
        }
    }
}

pub fn sums(cpu: &Cpu) {
    let mut data = Data::new(12);
    for n in [0, 1, 7, 33, 1000, 16_383, 16_385, 50_001] {
        let (x, y) = (data.hostile(n), data.hostile(n));
        let mut out = y.clone();
        elementwise::add(cpu, &x, &mut out);
        let exact: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        assert_same("a sum", &out, &exact);
    }
    for n in WIDTHS {
        for rows in ROWS {
            let (bias, y) = (data.hostile(n), data.hostile(rows * n));
            let mut out = y.clone();
            elementwise::add_bias(cpu, &bias, &mut out);
            let exact: Vec<f32> = y.iter().enumerate().map(|(i, y)| y + bias[i % n]).collect();
            assert_same("a bias", &out, &exact);

            let mut d_bias = bias.clone();
            elementwise::bias_backward(cpu, &y, &mut d_bias);
            let mut exact = bias;
            for row in y.chunks(n) {
                exact.iter_mut().zip(row).for_each(|(d, y)| *d += y);
            }
            assert_same("a bias's gradient", &d_bias, &exact);
        }
    }
}

pub fn swiglu(cpu: &Cpu) {
    let mut data = Data::new(13);
    for f in WIDTHS {
        for rows in ROWS {
            let mut gate_up = data.normal(rows * 2 * f, 3.0);
            for (x, hostile) in gate_up.iter_mut().zip([88.0, -88.0, 104.0, -104.0, 1e4, -1e4, 1e-30, -0.0]) {
                *x = hostile;
            }
            let mut out = vec![f32::NAN; rows * f];
            elementwise::swiglu(cpu, &gate_up, f, &mut out);
            let exact = (0..rows * f).map(|i| {
                let gate = f64::from(gate_up[i / f * 2 * f + i % f]);
                let up = f64::from(gate_up[i / f * 2 * f + f + i % f]);
                let y = gate / (1.0 + (-gate).exp()) * up;
                // Far below zero the exponential is held at 1e38 instead of growing on.
                (y, 10.0 * EPSILON * y.abs() + 1e-33 * up.abs())
            });
            assert_near(&format!("SwiGLU of {f}"), &out, exact);
        }
    }
}

pub fn round_to_bf16(cpu: &Cpu) {
    let mut data = Data::new(14);
    let ties = [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0xbf80_8000, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000];
    let nan = [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff];
    for n in WIDTHS.into_iter().chain([20_000]) {
        let mut x = data.hostile(n);
        x.iter_mut().zip(ties.iter().chain(&nan)).for_each(|(x, &bits)| *x = f32::from_bits(bits));
        let mut y = vec![0; n];
        elementwise::round_to_bf16(cpu, &x, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            let near = f32::from_bits(u32::from(y) << 16);
            if x.is_nan() {
                assert!(near.is_nan(), "{:x} became {y:x}", x.to_bits());
                continue;
            }
            // The two neighbours in bf16, of which the nearer counts, and of two equally near the even one.
            let below = f32::from_bits(x.to_bits() & 0xffff_0000);
            let above = f32::from_bits((x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
            let distance = |z: f32| {
                // One step past the largest number stands for infinity here.
                let z = if z.is_infinite() { f64::from(z.signum()) * 2_f64.powi(128) } else { f64::from(z) };
                (z - f64::from(x)).abs()
            };
            let even = if below.to_bits() >> 16 & 1 == 0 { below } else { above };
            let want = match distance(below).total_cmp(&distance(above)) {
                _ if x.is_infinite() => x,
                std::cmp::Ordering::Less => below,
                std::cmp::Ordering::Greater => above,
                std::cmp::Ordering::Equal => even,
            };
            assert_eq!(near.to_bits(), want.to_bits(), "{x:e} became {near:e}, not {want:e}");
        }
    }
}

pub fn embeddings(cpu: &Cpu) {
    let mut data = Data::new(15);
    for d in WIDTHS {
        for rows in ROWS {
            let vocabulary = data.size(1, 40);
            let (table, ids) = (data.hostile(vocabulary * d), data.ids(rows, vocabulary));
            let mut out = vec![f32::NAN; rows * d];
            embedding::gather(cpu, Operand::View(View::new(&table, vocabulary, d)), &ids, &mut out);
            let exact: Vec<f32> = ids.iter().flat_map(|&id| table[id as usize * d..][..d].iter().copied()).collect();
            assert_same("embeddings", &out, &exact);

            let d_out = data.hostile(rows * d);
            let (mut d_table, mut exact) = (table.clone(), table);
            embedding::scatter_add(cpu, &ids, &d_out, &mut d_table);
            for (&id, row) in ids.iter().zip(d_out.chunks(d)) {
                exact[id as usize * d..][..d].iter_mut().zip(row).for_each(|(t, g)| *t += g);
            }
            assert_same("gradients of embeddings", &d_table, &exact);
        }
    }
    embedding::scatter_add(cpu, &[], &[], &mut [1.0]);
}

pub fn adamw(cpu: &Cpu) {
    let mut data = Data::new(16);
    let settings = optimizer::AdamW { learning_rate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let scale = 0.25;
    for n in [0, 1, 5, 16, 33, 1000, 16_500] {
        let mut parameters = data.normal(n, 1.0);
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        let (mut p64, mut m64, mut v64) = (widen(&parameters), vec![0.0; n], vec![0.0; n]);
        let mut size = vec![0.0; n];
        for step in 1..=30 {
            let gradient: Vec<f32> = data.normal(n, 1.0).iter().map(|g| g * [1.0, 1e-12, 1e6, 0.0][step % 4]).collect();
            optimizer::adamw(cpu, &settings, step as u64, scale, &gradient, &mut m, &mut v, &mut parameters);
            let corrections = [settings.beta1, settings.beta2].map(|b| 1.0 - b.powi(step as i32));
            for i in 0..n {
                let g = f64::from(gradient[i]) * f64::from(scale);
                p64[i] *= 1.0 - settings.learning_rate * settings.weight_decay;
                m64[i] = settings.beta1 * m64[i] + (1.0 - settings.beta1) * g;
                size[i] = settings.beta1 * size[i] + (1.0 - settings.beta1) * g.abs();
                v64[i] = settings.beta2 * v64[i] + (1.0 - settings.beta2) * g * g;
                let root = (v64[i] / corrections[1]).sqrt() + settings.eps;
                p64[i] -= settings.learning_rate * m64[i] / corrections[0] / root;
            }
        }
        assert_near("AdamW's parameters", &parameters, p64.iter().map(|&x| (x, 1e-6 * (x.abs() + 1.0))));
        // Three roundings a step, of terms that may cancel in the first mean and may not in the second.
        assert_near("AdamW's first mean", &m, m64.iter().zip(size).map(|(&x, size)| (x, 90.0 * EPSILON * size)));
        assert_near("AdamW's second mean", &v, v64.iter().map(|&x| (x, 90.0 * EPSILON * x)));
    }
}

pub fn sum_of_squares(cpu: &Cpu) {
    let mut data = Data::new(17);
    for n in [0, 1, 7, 8, 9, 4095, 4096, 4097, 20_000, 70_001] {
        let x: Vec<f32> = data.hostile(n).iter().map(|x| x * 1e25).collect();
        let exact = widen(&x).iter().map(|x| x * x).sum::<f64>();
        let got = optimizer::sum_of_squares(cpu, &x);
        assert!((got - exact).abs() <= 1e-13 * exact, "{n} squares: {got}, not {exact}");
    }
}
