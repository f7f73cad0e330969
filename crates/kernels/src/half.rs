//! Numbers in 16 bits: IEEE half precision, as scales of quantised weights are stored, and bf16.

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

/// Single precision to half, to nearest even; what is too large becomes infinite, and what is not a number stays so.
pub fn f16_from_f32(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let half = match magnitude {
        // Subnormal: units of 2^-24, whose 1024 are the first normal number's bits.
        ..0x3880_0000 => (x.abs() * 16_777_216.0).round_ties_even() as u16,
        // From halfway between the largest number and the one there isn't.
        0x7f80_0001.. => 0x7e00,
        0x477f_f000.. => 0x7c00,
        _ => ((magnitude + 0xfff + (magnitude >> 13 & 1) - (112 << 23)) >> 13) as u16,
    };
    sign | half
}

/// bf16 to single precision, of which it is the upper half, exactly.
#[inline(always)]
pub fn f32_from_bf16(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Single precision to bf16, to nearest even; what is too large becomes infinite, and what is not a number stays so.
#[inline(always)]
pub fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    // The carry could turn what is no number into one.
    let kept = if x.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
    (kept >> 16) as u16
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

    #[test]
    fn rounding_to_bf16_goes_to_the_nearest_and_ties_to_even() {
        for (bits, expected) in [
            (0x3f80_0000, 0x3f80),
            (0x3f80_8000, 0x3f80),
            (0x3f80_8001, 0x3f81),
            (0x3f81_8000, 0x3f82),
            (0x7f7f_ffff, 0x7f80),
            (0xff80_0000, 0xff80),
        ] {
            assert_eq!(bf16_from_f32(f32::from_bits(bits)), expected, "{bits:#x}");
        }
        assert!(
            [0x7f80_0001, 0xffff_ffff].iter().all(|&bits| f32_from_bf16(bf16_from_f32(f32::from_bits(bits))).is_nan())
        );
    }

    #[test]
    fn halves_come_back_and_what_lies_between_goes_to_the_nearest_and_ties_to_even() {
        for half in 0..0x7c00_u16 {
            let (x, next) = (f32_from_f16(half), f32_from_f16(half + 1));
            for (sign, negative) in [(1.0, 0), (-1.0, 0x8000)] {
                assert_eq!(f16_from_f32(sign * x), half | negative);
                // Beyond the largest, as if there were one more.
                let middle = if next.is_finite() { (x + next) / 2.0 } else { 65520.0 };
                let even = half + half % 2;
                assert_eq!(f16_from_f32(sign * middle), even | negative, "{half:#x}");
                assert_eq!(f16_from_f32(sign * middle.next_down()), half | negative, "{half:#x}");
                assert_eq!(f16_from_f32(sign * middle.next_up()), (half + 1) | negative, "{half:#x}");
            }
        }
        assert_eq!(f16_from_f32(f32::NEG_INFINITY), 0xfc00);
        assert!(f32_from_f16(f16_from_f32(f32::NAN)).is_nan());
    }
}
