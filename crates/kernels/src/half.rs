//! IEEE half precision, as scales of quantised weights are stored.

/// IEEE half precision to single, exactly.
pub fn f32_from_f16(half: u16) -> f32 {
    let sign = (half as u32 & 0x8000) << 16;
    let exponent = (half >> 10) as u32 & 31;
    let fraction = half as u32 & 0x3ff;
    let magnitude = match exponent {
        // Subnormal: the fraction counts units of 2^-24, which single precision has as a normal number.
        0 => (fraction as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_its_arithmetic_value() {
        for half in 0..=u16::MAX {
            let (exponent, fraction) = ((half >> 10 & 31) as i32, (half & 0x3ff) as f64);
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                e => (1024.0 + fraction) * 2f64.powi(e - 25),
            };
            let expected = if half & 0x8000 == 0 { magnitude } else { -magnitude };
            let actual = f32_from_f16(half) as f64;
            assert!(actual == expected || actual.is_nan() && expected.is_nan(), "{half:#x}");
            assert_eq!(actual.is_sign_negative(), half & 0x8000 != 0);
        }
    }
}
