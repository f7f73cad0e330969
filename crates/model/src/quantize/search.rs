//! Scales by search: of the candidates around the one that fits the largest value, the one whose weighted squared error
//! is least.

/// Groups whose values are all below this are stored as zeros: their inverse scale would not be a number.
const NOTHING: f32 = 1e-15;

/// How far candidates give the farthest value another level than the last one, which are one apart.
fn steps() -> impl Iterator<Item = f32> {
    (-18_i8..=18).map(|twentieths| f32::from(twentieths) * 0.05)
}

/// The integer nearest to `x` that is from `low` to `high`, ties to even; these lie within ±2^22.
pub(super) fn nearest(x: f32, low: f32, high: f32) -> f32 {
    // Adding 1.5 · 2^23 leaves no bits behind the point. `round_ties_even` is a call on targets without SSE 4.1.
    const SHIFT: f32 = 12_582_912.0;
    (x.clamp(low, high) + SHIFT) - SHIFT
}

/// The value that is farthest from zero.
pub(super) fn farthest(x: &[f32]) -> f32 {
    x.iter().copied().fold(0.0, |far: f32, x| if x.abs() > far.abs() { x } else { far })
}

/// How much each element's error counts: by its column's importance, and more where the element itself is large beside
/// `spread` times the block's mean square; or, where nothing is known of the columns, as `alone` says of the element and
/// the block's root mean square.
pub(super) fn weights<const N: usize>(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    spread: f32,
    alone: impl Fn(f32, f32) -> f32,
) -> [f32; N] {
    let mean_square = x.iter().map(|x| x * x).sum::<f32>() / N as f32;
    match importance {
        Some(importance) => std::array::from_fn(|i| importance[i] * (spread * mean_square + x[i] * x[i]).sqrt()),
        None => {
            let rms = mean_square.sqrt();
            x.map(|x| alone(x, rms))
        }
    }
}

/// `d` of `x ≈ d·q` with integers `q` from `-n` to `n - 1`: the side with one more goes to the farthest value.
pub(super) fn signed(x: &[f32], weights: &[f32], n: f32) -> f32 {
    scale(x, weights, steps().map(|step| step - n), |x| nearest(x, -n, n - 1.0))
}

/// `d` of `x ≈ d·q` with integers `q` from 0 to `n`, for `x` that are not negative.
pub(super) fn positive(x: &[f32], weights: &[f32], n: f32) -> f32 {
    scale(x, weights, steps().map(|step| step + n), |x| nearest(x, 0.0, n))
}

/// `d` of `x ≈ d·q`, where `level` is the `q` nearest to `x/d`. A candidate is given by what it makes of the farthest
/// value: one of `ends`.
///
/// For the `q` of each candidate, `d = Σ w·x·q / Σ w·q²` leaves the least error, `Σ w·x² − (Σ w·x·q)² / Σ w·q²`.
pub(super) fn scale(x: &[f32], weights: &[f32], ends: impl Iterator<Item = f32>, level: impl Fn(f32) -> f32) -> f32 {
    let far = farthest(x);
    if far.abs() < NOTHING {
        return 0.0;
    }
    let (mut best, mut explained) = (0.0, 0.0);
    for end in ends {
        let inverse = end / far;
        let (mut xq, mut qq) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(weights) {
            let q = level(x * inverse);
            xq += w * x * q;
            qq += w * q * q;
        }
        if qq > 0.0 && xq / qq * xq > explained {
            (best, explained) = (xq / qq, xq / qq * xq);
        }
    }
    best
}

/// `(d, m)` of `x ≈ d·q − m` with integers `q` from 0 to `n` and neither negative; a group has up to 32 values.
///
/// For the `q` of each candidate, `d` and `m` solve the weighted least squares.
pub(super) fn affine(x: &[f32], weights: &[f32], n: f32) -> (f32, f32) {
    let low = x.iter().copied().fold(0.0, f32::min);
    let range = x.iter().copied().fold(f32::MIN, f32::max) - low;
    if range < NOTHING {
        return (0.0, -low);
    }
    let (mut sum_w, mut sum_x) = (0.0, 0.0);
    for (&x, &w) in x.iter().zip(weights) {
        sum_w += w;
        sum_x += w * x;
    }
    let (mut best, mut least) = ((range / n, -low), f32::INFINITY);
    let mut levels = [0.0; 32];
    for step in steps() {
        let inverse = (n + step) / range;
        let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0, 0.0, 0.0);
        for ((&x, &w), level) in x.iter().zip(weights).zip(&mut levels) {
            let q = nearest((x - low) * inverse, 0.0, n);
            *level = q;
            sum_q += w * q;
            sum_qq += w * q * q;
            sum_xq += w * x * q;
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let mut d = (sum_w * sum_xq - sum_x * sum_q) / determinant;
        let mut m = (sum_q * sum_xq - sum_qq * sum_x) / determinant;
        if m < 0.0 {
            (d, m) = (sum_xq / sum_qq, 0.0);
        }
        let mut error = 0.0;
        for ((&x, &w), &q) in x.iter().zip(weights).zip(&levels) {
            let off = d * q - m - x;
            error += w * off * off;
        }
        if error < least && d > 0.0 {
            (best, least) = ((d, m), error);
        }
    }
    best
}

/// The `m` of `x ≈ d·q − m` that leaves the least error with the `q` that `d` and a first `m` make.
pub(super) fn minimum(x: &[f32], weights: &[f32], d: f32, m: f32, n: f32) -> f32 {
    if d <= 0.0 {
        return m;
    }
    let (mut sum_w, mut sum_off) = (0.0, 0.0);
    for (&x, &w) in x.iter().zip(weights) {
        sum_w += w;
        sum_off += w * (d * nearest((x + m) / d, 0.0, n) - x);
    }
    if sum_w > 0.0 { (sum_off / sum_w).max(0.0) } else { m }
}
