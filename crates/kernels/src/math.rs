//! Exponential, logarithm, sine, cosine and power in `f64` by polynomials of our own, so that no libm decides a result.
//!
//! For what is computed once or seldom (tables, corrections, normalisers); the vector kernels have their own `exp`.

/// ln 2 in two parts; the first has 32 bits, so its product with an exponent is exact.
const LN2: [f64; 2] = [f64::from_bits(0x3fe6_2e42_fee0_0000), f64::from_bits(0x3dea_39ef_3579_3c76)];

/// π/2 in four parts (Cody and Waite, 1980); the first three have 33 bits, so their products with a whole number below
/// 2^20 are exact.
const HALF_PI: [f64; 4] = [
    f64::from_bits(0x3ff9_21fb_5440_0000),
    f64::from_bits(0x3dd0_b461_1a60_0000),
    f64::from_bits(0x3ba3_198a_2e00_0000),
    f64::from_bits(0x397b_839a_2520_49c1),
];

/// 1 / k!
const INVERSE_FACTORIAL: [f64; 18] = {
    let mut table = [1.0; 18];
    let mut factorial = 1.0;
    let mut k = 1;
    while k < 18 {
        factorial *= k as f64;
        table[k] = 1.0 / factorial;
        k += 1;
    }
    table
};

/// e^x, relative error below 1e-15; infinite above 709.78.
pub fn exp(x: f64) -> f64 {
    exp_of_sum(x, 0.0)
}

/// e^(x + tail), for a tail that is small beside x.
fn exp_of_sum(x: f64, tail: f64) -> f64 {
    if x > 709.783 {
        return f64::INFINITY;
    }
    if x < -745.14 {
        return 0.0;
    }
    let n = nearest(x * std::f64::consts::LOG2_E);
    let r = (x - n * LN2[0]) - (n * LN2[1] - tail);
    let p = horner(r, &INVERSE_FACTORIAL[2..14]);
    // In two steps, since 2^n alone may be out of range where the result is not.
    let n = n as i64;
    (1.0 + (r + r * r * p)) * power_of_two(n / 2) * power_of_two(n - n / 2)
}

/// Natural logarithm, relative error below 1e-15; -inf at 0, NaN below.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 || x == f64::INFINITY {
        return match x {
            0.0 => f64::NEG_INFINITY,
            f64::INFINITY => x,
            _ => f64::NAN,
        };
    }
    let (hi, lo) = ln_in_parts(x);
    hi + lo
}

/// ln x of a positive finite x as a sum whose error is some 2^-60 of it.
fn ln_in_parts(x: f64) -> (f64, f64) {
    const TINY: f64 = f64::MIN_POSITIVE;
    let (x, lifted) = if x < TINY { (x * power_of_two(54), -54) } else { (x, 0) };
    let mut exponent = (x.to_bits() >> 52) as i64 - 1023 + lifted;
    let mut m = f64::from_bits(x.to_bits() & ((1 << 52) - 1) | 1023 << 52);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh(s), s = f / (2 + f), with s to twice the precision.
    let f = m - 1.0;
    let (d, d_tail) = quick_sum(2.0, f);
    let s = f / d;
    let (product, product_tail) = exact_product(s, d);
    let s_tail = (f - product - product_tail - s * d_tail) / d;
    let z = s * s;
    const ODD: [f64; 11] = {
        let mut table = [0.0; 11];
        let mut k = 0;
        while k < 11 {
            table[k] = 2.0 / (2 * k + 3) as f64;
            k += 1;
        }
        table
    };
    let n = exponent as f64;
    let (hi, lo) = quick_sum(n * LN2[0], 2.0 * s);
    quick_sum(hi, lo + (2.0 * s_tail + s * z * horner(z, &ODD) + n * LN2[1]))
}

/// x^y for x >= 0, relative error below 1e-14 (below 1e-15 where |y ln x| < 50); NaN for negative x.
pub fn powf(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    let estimate = y * ln(x);
    if estimate.is_nan() || estimate.abs() > 746.0 {
        return exp(estimate);
    }
    let (hi, lo) = ln_in_parts(x);
    let (product, tail) = exact_product(y, hi);
    let (product, tail) = quick_sum(product, tail + y * lo);
    exp_of_sum(product, tail)
}

/// (sin x, cos x), relative errors below 1e-15 for |x| up to 1e6; larger arguments lose digits gradually.
pub fn sin_cos(x: f64) -> (f64, f64) {
    let n = nearest(x * std::f64::consts::FRAC_2_PI);
    // x - n π/2 = r + tail
    let first = x - n * HALF_PI[0];
    let step = n * HALF_PI[1];
    let second = first - step;
    let lost = (first - second) - step;
    let (r, tail) = quick_sum(second, lost - n * HALF_PI[2] - n * HALF_PI[3]);

    let z = r * r;
    let sin = r + (r * z * sin_tail(z) + tail * (1.0 - 0.5 * z));
    let (whole, part) = quick_sum(1.0, -0.5 * z);
    let cos = whole + (part + z * z * cos_tail(z) - r * tail);
    match n as i64 & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// (sin r - r) / r³ as a polynomial in z = r²
fn sin_tail(z: f64) -> f64 {
    -[17, 15, 13, 11, 9, 7, 5, 3].iter().fold(0.0, |p, &k| INVERSE_FACTORIAL[k] - z * p)
}

/// (cos r - 1 + r²/2) / r⁴ as a polynomial in z = r²
fn cos_tail(z: f64) -> f64 {
    [16, 14, 12, 10, 8, 6, 4].iter().fold(0.0, |p, &k| INVERSE_FACTORIAL[k] - z * p)
}

/// 1 / (1 + e^-x), rounded once from `f64`.
pub fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + exp(-f64::from(x)))) as f32
}

/// The nearest whole number, ties to even, for |x| < 2^51.
fn nearest(x: f64) -> f64 {
    const SHIFT: f64 = 1.5 * (1_u64 << 52) as f64;
    (x + SHIFT) - SHIFT
}

/// 2^n for n in -1022..=1023.
fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// c[0] + c[1] x + c[2] x² + …
fn horner(x: f64, c: &[f64]) -> f64 {
    c.iter().rev().fold(0.0, |p, &c| p * x + c)
}

/// a + b and what its rounding lost, for |a| >= |b| or a = 0 (Dekker, 1971).
fn quick_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, (a - sum) + b)
}

/// a * b and what its rounding lost (Dekker, 1971), for factors below 2^970.
fn exact_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let scaled = x * 134_217_729.0; // 2^27 + 1
        let hi = scaled - (scaled - x);
        (hi, x - hi)
    };
    let product = a * b;
    let ((a_hi, a_lo), (b_hi, b_lo)) = (split(a), split(b));
    (product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Largest relative difference from the standard library over `count` arguments.
    fn worst(count: u32, mut pair: impl FnMut(f64) -> (f64, f64)) -> f64 {
        let mut random = Random::new(1, [0; 3]);
        let mut worst = 0.0_f64;
        for _ in 0..count {
            let at = f64::from(random.next_u32()) / 4_294_967_296.0;
            let (ours, std) = pair(at);
            worst = worst.max(((ours - std) / std).abs());
        }
        worst
    }

    #[test]
    fn exp_is_accurate() {
        assert!(
            worst(200_000, |u| {
                let x = (u - 0.5) * 1400.0;
                (exp(x), x.exp())
            }) < 6e-16
        );
        assert!(
            worst(200_000, |u| {
                let x = (u - 0.5) * 2.0;
                (exp(x), x.exp())
            }) < 6e-16
        );
        assert_eq!((exp(0.0), exp(-0.0), exp(f64::NEG_INFINITY), exp(-800.0)), (1.0, 1.0, 0.0, 0.0));
        assert_eq!((exp(f64::INFINITY), exp(710.0)), (f64::INFINITY, f64::INFINITY));
        assert!(exp(f64::NAN).is_nan());
        assert!((exp(-744.0) / (-744.0_f64).exp() - 1.0).abs() < 0.5, "subnormal results");
        assert!(exp(709.7).is_finite());
    }

    #[test]
    fn ln_is_accurate() {
        assert!(
            worst(200_000, |u| {
                let x = u * 4.0 + 1e-9;
                (ln(x), x.ln())
            }) < 6e-16
        );
        assert!(
            worst(200_000, |u| {
                let x = 1.0 + (u - 0.5) * 1e-3;
                (ln(x), x.ln())
            }) < 6e-16
        );
        for x in [f64::MIN_POSITIVE, 5e-324, 1e-310, 1e300, f64::MAX, 0.5, 2.0, 3.0] {
            assert!((ln(x) / x.ln() - 1.0).abs() < 6e-16, "ln {x}");
        }
        assert_eq!((ln(1.0), ln(0.0), ln(f64::INFINITY)), (0.0, f64::NEG_INFINITY, f64::INFINITY));
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan() && ln(f64::NEG_INFINITY).is_nan());
    }

    #[test]
    fn powers_are_accurate() {
        assert!(
            worst(200_000, |u| {
                let y = -2.0 * u;
                (powf(10_000.0, y), 10_000_f64.powf(y))
            }) < 1e-15
        );
        assert!(
            worst(200_000, |u| {
                let y = (u * 100_000.0).floor();
                (powf(0.999, y), 0.999_f64.powf(y))
            }) < 1e-15
        );
        assert!(
            worst(200_000, |u| {
                let x = u * 50.0 + 0.1;
                (powf(x, 37.5), x.powf(37.5))
            }) < 1e-15
        );
        for (x, y) in [(2.0, 10.0), (9.0, 0.5), (1e300, 1.01), (1e-300, 1.01), (0.0, 2.0), (0.0, 0.0), (1.0, 1e300)] {
            let (ours, std) = (powf(x, y), f64::powf(x, y));
            assert!((ours - std).abs() <= 1e-15 * std, "{x}^{y}: {ours}, not {std}");
        }
        assert_eq!((powf(0.0, -1.0), powf(2.0, 2000.0), powf(2.0, -2000.0)), (f64::INFINITY, f64::INFINITY, 0.0));
        assert!(powf(-1.0, 0.5).is_nan());
    }

    #[test]
    fn sines_are_accurate() {
        for scale in [1.0, 10.0, 1e3, 1e6] {
            assert!(
                worst(200_000, |u| {
                    let x = (u - 0.5) * 2.0 * scale;
                    (sin_cos(x).0, x.sin())
                }) < 6e-16
            );
            assert!(
                worst(200_000, |u| {
                    let x = (u - 0.5) * 2.0 * scale;
                    (sin_cos(x).1, x.cos())
                }) < 6e-16
            );
        }
        // Multiples of π/2 as near as they come: what is left is the rounding of the multiple.
        for n in 1..500_000 {
            let x = f64::from(n) * std::f64::consts::FRAC_PI_2;
            let ((sin, cos), (s, c)) = (sin_cos(x), x.sin_cos());
            assert!(((sin - s) / s).abs() < 6e-16 && ((cos - c) / c).abs() < 6e-16, "{n} π/2");
        }
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
        assert!(sin_cos(f64::INFINITY).0.is_nan() && sin_cos(f64::NAN).1.is_nan());
    }

    #[test]
    fn sigmoid_saturates() {
        assert_eq!((sigmoid(0.0), sigmoid(200.0), sigmoid(f32::NEG_INFINITY)), (0.5, 1.0, 0.0));
        assert!((sigmoid(-3.0) - 0.047_425_873).abs() < 1e-8);
    }
}
