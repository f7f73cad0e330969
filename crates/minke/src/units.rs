//! Numbers as people read them.

/// Bytes in decimal units: `98.4 MB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &[" B", " kB", " MB", " GB", " TB"])
}

/// A count: `134.5M`.
pub fn count(n: f64) -> String {
    scaled(n, &["", "k", "M", "B", "T"])
}

/// A whole number, all of it: `26,919`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let groups = (0..digits.len() / 3).map(|i| &digits[first + 3 * i..first + 3 * i + 3]);
    let groups: Vec<&str> = (first > 0).then_some(&digits[..first]).into_iter().chain(groups).collect();
    groups.join(",")
}

/// Seconds as `0:07`, `12:34` or `1:02:03`.
pub fn duration(seconds: f64) -> String {
    // Also for NaN and infinities, which become 0 and the largest number.
    let s = seconds.round().max(0.0) as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// Bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// At least two digits that mean something, in steps of a thousand.
fn scaled(mut x: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.95 would be written as 1000.0.
    while x >= 999.95 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    if unit == 0 || x >= 99.95 { format!("{x:.0}{}", units[unit]) } else { format!("{x:.1}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (n, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (98_362_432, "98.4 MB"),
            (999_960_000, "1.0 GB"),
            (150_000, "150 kB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
        assert_eq!(count(134_515_008.0), "135M");
        assert_eq!(count(1_234.0), "1.2k");
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (26_919, "26,919"), (123_456, "123,456")] {
            assert_eq!(grouped(n), expected);
        }
        for (s, expected) in [(0.4, "0:00"), (7.0, "0:07"), (59.7, "1:00"), (754.0, "12:34"), (3723.0, "1:02:03")] {
            assert_eq!(duration(s), expected);
        }
        assert_eq!(duration(f64::NAN), "0:00");
    }
}
