//! A thought's steps: where one ends and the next begins, when it began, and how many tokens it took.

use serde::{Deserialize, Serialize};

/// A step of a thought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds from the beginning of the thought.
    pub ms: u64,
    pub tokens: usize,
    pub text: String,
}

/// A thought as it grows. The steps' texts together are the thought.
#[derive(Debug, Default)]
pub struct Steps {
    steps: Vec<Step>,
    /// Tokens whose text is still held back somewhere.
    waiting: usize,
}

impl Steps {
    /// The steps so far.
    pub fn as_slice(&self) -> &[Step] {
        &self.steps
    }

    /// Takes note of a token of the thought; its text follows, now or later.
    pub fn token(&mut self) {
        self.waiting += 1;
    }

    /// Takes text that came at `ms`; says which steps it went to, the first of them perhaps begun before.
    pub fn push(&mut self, text: &str, ms: u64) -> std::ops::Range<usize> {
        let first = self.steps.len().saturating_sub(usize::from(!self.ends()));
        for c in text.chars() {
            if self.steps.is_empty() || (self.ends() && !c.is_whitespace()) || self.is_new_sentence(c) {
                self.steps.push(Step { ms, ..Step::default() });
            }
            if let Some(step) = self.steps.last_mut() {
                step.text.push(c);
            }
        }
        if let Some(step) = self.steps.last_mut() {
            step.tokens += std::mem::take(&mut self.waiting);
        }
        first.min(self.steps.len())..self.steps.len()
    }

    /// As [`Steps::push`]; the text that went to each step.
    pub fn added(&mut self, text: &str, ms: u64) -> Vec<(usize, String)> {
        if text.is_empty() {
            return Vec::new();
        }
        let (count, length) = (self.steps.len(), self.steps.last().map_or(0, |step| step.text.len()));
        // Only the step that was the last before can have had text already.
        let from = |at: usize| if at + 1 == count { length } else { 0 };
        self.push(text, ms).map(|at| (at, self.steps[at].text[from(at)..].to_string())).collect()
    }

    /// Whether the last step has come to its end whatever follows: a line, or one of our sums.
    fn ends(&self) -> bool {
        let last = self.steps.last().map_or("", |step| step.text.as_str());
        let (text, space) = last.split_at(last.trim_end().len());
        space.contains('\n') || text.ends_with(';')
    }

    /// Whether a sentence ended before `c`: a full stop, but not that of "1." at the beginning, and a space.
    fn is_new_sentence(&self, c: char) -> bool {
        let last = self.steps.last().map_or("", |step| step.text.as_str());
        let text = last.trim_end();
        let before = text.trim_end_matches(['.', '!', '?']);
        let is_number = before.trim_start().bytes().all(|b| b.is_ascii_digit());
        let ended = before.len() < text.len() && !is_number;
        !c.is_whitespace() && text.len() < last.len() && ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, size: usize) -> Vec<String> {
        let mut steps = Steps::default();
        let letters: Vec<char> = text.chars().collect();
        for piece in letters.chunks(size) {
            steps.push(&piece.iter().collect::<String>(), 0);
        }
        steps.as_slice().iter().map(|step| step.text.clone()).collect()
    }

    #[test]
    fn steps_end_with_lines_sums_and_sentences_however_they_arrive() {
        for (text, expected) in [
            ("37+85=122;122+46=168;168+9=177", &["37+85=122;", "122+46=168;", "168+9=177"][..]),
            ("First this. Then that! Why? So.", &["First this. ", "Then that! ", "Why? ", "So."]),
            ("one\ntwo\n\n\nthree", &["one\n", "two\n\n\n", "three"]),
            ("1. Take 3.5 and e.g.this", &["1. Take 3.5 and e.g.this"]),
            ("It is 12. So it is.", &["It is 12. ", "So it is."]),
            ("a line\n  indented", &["a line\n  ", "indented"]),
            ("wait... no; yes", &["wait... ", "no; ", "yes"]),
            ("", &[]),
        ] {
            for size in [1, 2, 3, 50] {
                assert_eq!(cut(text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_step_has_its_tokens_and_the_time_of_its_first_letter() {
        let mut steps = Steps::default();
        for (text, ms) in [("1+1", 5), ("=2", 6), (";", 7), ("", 8), ("2+2", 9)] {
            steps.token();
            if !text.is_empty() {
                steps.push(text, ms);
            }
        }
        let step = |ms, tokens, text: &str| Step { ms, tokens, text: text.into() };
        assert_eq!(steps.as_slice(), [step(5, 3, "1+1=2;"), step(9, 2, "2+2")]);
        assert_eq!(steps.push("=4;x", 10), 1..3);
    }
}
