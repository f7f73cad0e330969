//! Whole-number arithmetic written as text: `+ - *`, parentheses, the usual precedence, and nothing else.

/// What an expression is worth, and the numbers it is made of in the order written.
#[derive(Debug, PartialEq, Eq)]
pub struct Evaluated {
    pub value: i64,
    pub numbers: Vec<u32>,
}

/// Longest text that is looked at; it bounds the parser's recursion too.
const LONGEST: usize = 64;
/// Most digits of a number.
const DIGITS: usize = 6;

/// Evaluates `text`, all of it.
///
/// # Errors
/// What can't be read, in a few words.
pub fn evaluate(text: &str) -> Result<Evaluated, String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} characters"));
    }
    let mut parser = Parser { text: text.as_bytes(), at: 0, numbers: Vec::new() };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(Evaluated { value, numbers: parser.numbers }),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    numbers: Vec<u32>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        loop {
            value = if self.take(b'+') {
                value.checked_add(self.product()?)
            } else if self.take(b'-') {
                value.checked_sub(self.product()?)
            } else {
                return Ok(value);
            }
            .ok_or("too large")?;
        }
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.factor()?;
        while self.take(b'*') {
            value = value.checked_mul(self.factor()?).ok_or("too large")?;
        }
        Ok(value)
    }

    fn factor(&mut self) -> Result<i64, String> {
        if !self.take(b'(') {
            return self.number();
        }
        let value = self.sum()?;
        if self.take(b')') { Ok(value) } else { Err(self.unexpected()) }
    }

    fn number(&mut self) -> Result<i64, String> {
        let rest = &self.text[self.at..];
        let digits = &rest[..rest.iter().take_while(|b| b.is_ascii_digit()).count()];
        if digits.is_empty() {
            return Err(self.unexpected());
        }
        if digits.len() > DIGITS {
            return Err(format!("a number of more than {DIGITS} digits"));
        }
        if digits.len() > 1 && digits[0] == b'0' {
            return Err("a number with a leading zero".into());
        }
        self.at += digits.len();
        let number = digits.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
        self.numbers.push(number);
        Ok(i64::from(number))
    }

    fn unexpected(&self) -> String {
        match self.peek() {
            None => "it breaks off".into(),
            Some(byte) if byte.is_ascii_graphic() => format!("unexpected {} at {}", byte as char, self.at + 1),
            Some(_) => format!("unexpected character at {}", self.at + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_numbers() {
        for (text, value, numbers) in [
            ("0", 0, vec![0]),
            ("3*7+12", 33, vec![3, 7, 12]),
            ("12+3*7", 33, vec![12, 3, 7]),
            ("(12+3)*7", 105, vec![12, 3, 7]),
            ("12-3-7", 2, vec![12, 3, 7]),
            ("12-(3-7)", 16, vec![12, 3, 7]),
            ("3-7*2", -11, vec![3, 7, 2]),
            ("((3))*(7)", 21, vec![3, 7]),
            ("999999*999999*999999", 999_997_000_002_999_999, vec![999_999; 3]),
        ] {
            assert_eq!(evaluate(text), Ok(Evaluated { value, numbers }), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (text, reason) in [
            ("", "it breaks off"),
            ("3+", "it breaks off"),
            ("(3+7", "it breaks off"),
            ("()", "unexpected ) at 2"),
            ("3)", "unexpected ) at 2"),
            ("-3", "unexpected - at 1"),
            ("+3", "unexpected + at 1"),
            ("3--7", "unexpected - at 3"),
            ("3**7", "unexpected * at 3"),
            ("3 + 7", "unexpected character at 2"),
            ("3/7", "unexpected / at 2"),
            ("3=3", "unexpected = at 2"),
            ("3(7)", "unexpected ( at 2"),
            ("03+7", "a number with a leading zero"),
            ("1234567", "a number of more than 6 digits"),
            ("３+7", "unexpected character at 1"),
            ("3×7", "unexpected character at 2"),
            ("999999*999999*999999*999999", "too large"),
        ] {
            assert_eq!(evaluate(text), Err(reason.to_string()), "{text}");
        }
        assert_eq!(evaluate(&"(".repeat(100_000)), Err("longer than 64 characters".into()));
    }
}
