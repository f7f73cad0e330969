//! Splits what a model writes into its thought and its answer, as it arrives.
//!
//! A thought stands at the very beginning, between `<think>` and `</think>`; tags that come later are part of the answer.
//! White space around the thought belongs to neither.

/// Opens a thought.
pub const OPEN: &str = "<think>";
/// Closes a thought.
pub const CLOSE: &str = "</think>";

/// What a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Thought,
    Answer,
}

/// Takes text in pieces of any size, and gives it out by parts as soon as it is certain.
#[derive(Debug)]
pub struct Splitter {
    state: State,
    /// Text that may still turn out to be (part of) a tag, or white space before one.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far, and perhaps a part of `<think>`.
    Start,
    /// In the thought, nothing of it given out yet.
    ThoughtStart,
    Thought,
    /// After the thought, nothing of the answer given out yet.
    AnswerStart,
    Answer,
}

impl Splitter {
    /// `inside` says that the prompt has opened the thought already.
    pub fn new(inside: bool) -> Splitter {
        Splitter { state: if inside { State::ThoughtStart } else { State::Start }, held: String::new() }
    }

    /// Whether the text is in its thought now.
    pub fn in_thought(&self) -> bool {
        matches!(self.state, State::ThoughtStart | State::Thought)
    }

    /// Takes the next text; returns what has become certain.
    pub fn push(&mut self, text: &str) -> Vec<(Part, String)> {
        let mut given = Vec::new();
        self.held.push_str(text);
        loop {
            let trimmed = self.held.trim_start();
            match self.state {
                State::Start if trimmed.starts_with(OPEN) => {
                    self.held = trimmed[OPEN.len()..].to_string();
                    self.state = State::ThoughtStart;
                }
                State::Start if OPEN.starts_with(trimmed) => return given,
                State::Start => self.state = State::Answer,
                State::ThoughtStart | State::Thought => {
                    if self.state == State::ThoughtStart {
                        self.held = trimmed.to_string();
                    }
                    let close = self.held.find(CLOSE);
                    let certain = close.unwrap_or_else(|| self.held.len() - open_end(&self.held));
                    let certain = self.held[..certain].trim_end().len();
                    if certain > 0 {
                        given.push((Part::Thought, self.held[..certain].to_string()));
                        self.state = State::Thought;
                    }
                    match close {
                        None => {
                            self.held.drain(..certain);
                            return given;
                        }
                        Some(close) => {
                            self.held.drain(..close + CLOSE.len());
                            self.state = State::AnswerStart;
                        }
                    }
                }
                State::AnswerStart if trimmed.is_empty() => return given,
                State::AnswerStart => {
                    self.held = trimmed.to_string();
                    self.state = State::Answer;
                }
                State::Answer => {
                    if !self.held.is_empty() {
                        given.push((Part::Answer, std::mem::take(&mut self.held)));
                    }
                    return given;
                }
            }
        }
    }

    /// Ends the text: returns what was held back, for no tag came of it.
    pub fn finish(&mut self) -> Option<(Part, String)> {
        let held = std::mem::take(&mut self.held);
        let (part, rest) = match self.state {
            State::Start => (Part::Answer, held.as_str()),
            State::ThoughtStart | State::Thought => (Part::Thought, held.trim_end()),
            State::AnswerStart | State::Answer => (Part::Answer, ""),
        };
        (!rest.is_empty()).then(|| (part, rest.to_string()))
    }
}

/// Length of the longest end of `text` that `</think>` may begin with.
fn open_end(text: &str) -> usize {
    (1..CLOSE.len()).rev().find(|&n| text.ends_with(&CLOSE[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (thought, answer), with the text cut in pieces of `size` characters.
    fn split(text: &str, inside: bool, size: usize) -> (String, String) {
        let mut splitter = Splitter::new(inside);
        let letters: Vec<char> = text.chars().collect();
        let pieces = letters.chunks(size).flat_map(|piece| splitter.push(&piece.iter().collect::<String>()));
        let mut given: Vec<(Part, String)> = pieces.collect();
        given.extend(splitter.finish());
        let of = |wanted| given.iter().filter(|(part, _)| *part == wanted).map(|(_, text)| text.as_str()).collect();
        (of(Part::Thought), of(Part::Answer))
    }

    #[test]
    fn thoughts_are_told_from_answers_however_the_text_is_cut() {
        for (text, inside, thought, answer) in [
            ("<think>1+1=2</think>2", false, "1+1=2", "2"),
            ("<think></think>2", false, "", "2"),
            ("<think>\n\n</think>\n\nTwo.\n", false, "", "Two.\n"),
            ("\n<think>\nLet me see:\n\n a < b </ c\n</think>\n\nTwo ", false, "Let me see:\n\n a < b </ c", "Two "),
            ("Let me see.\n</think>\nTwo.", true, "Let me see.", "Two."),
            ("</think>Two.", true, "", "Two."),
            ("<think>never done", false, "never done", ""),
            ("<think>never done </thi", false, "never done </thi", ""),
            (" a tag <think>is</think> text", false, "", " a tag <think>is</think> text"),
            ("<think>a</think>b<think>c</think>", false, "a", "b<think>c</think>"),
            ("<thin", false, "", "<thin"),
            ("<thinking>", false, "", "<thinking>"),
            ("<think>é🐋</think>é🐋", false, "é🐋", "é🐋"),
            ("", false, "", ""),
            ("", true, "", ""),
        ] {
            for size in [1, 2, 3, 7, 100] {
                let expected = (thought.to_string(), answer.to_string());
                assert_eq!(split(text, inside, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn text_is_given_as_soon_as_it_is_certain() {
        let mut splitter = Splitter::new(false);
        let pieces = ["<think>", "ab", " <", "c", " ", "</think", ">", " d", " "];
        let given: Vec<_> = pieces.into_iter().flat_map(|text| splitter.push(text)).collect();
        let texts: Vec<&str> = given.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["ab", " <c", "d", " "]);
        assert_eq!(given[2].0, Part::Answer);
    }
}
