//! Stop strings: an answer ends before the first of them, and no part of one is given out, however it is cut in tokens.

/// Takes an answer in pieces, and gives out what no stop string can begin in.
#[derive(Debug)]
pub struct Stops {
    strings: Vec<String>,
    held: String,
}

impl Stops {
    /// Ends an answer at any of these, none of which may be empty.
    pub fn new(strings: Vec<String>) -> Stops {
        Stops { strings, held: String::new() }
    }

    /// Takes more text; returns what may be given out, and whether the answer ends with it.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.strings.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let longest = self.strings.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - longest);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Ends the answer: returns what was held back, for no stop string came of it.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that `stop` may go on from.
fn begun(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, _)| at).skip(1).filter(|&at| text.ends_with(&stop[..at]));
    ends.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_before_the_first_stop_string_however_they_are_cut() {
        for (text, stops, expected, ends) in [
            ("one two three", &["two"][..], "one ", true),
            ("one two three", &["three", "two"], "one ", true),
            ("one two three", &["four"], "one two three", false),
            ("aaab", &["aab"], "a", true),
            ("abababac", &["ababac"], "ab", true),
            ("caf\u{e9} 🐋 whale", &["🐋"], "caf\u{e9} ", true),
            ("ends with the begi", &["beginning"], "ends with the begi", false),
            ("stop", &["stop"], "", true),
            ("\n\n", &["\n\n", "\n"], "", true),
            ("no stops at all", &[], "no stops at all", false),
        ] {
            let letters: Vec<char> = text.chars().collect();
            for size in 1..=letters.len() {
                let mut matcher = Stops::new(stops.iter().map(|stop| stop.to_string()).collect());
                let (mut given, mut ended) = (String::new(), false);
                for piece in letters.chunks(size) {
                    let (text, end) = matcher.push(&piece.iter().collect::<String>());
                    given += &text;
                    ended = end;
                    if end {
                        break;
                    }
                }
                if !ended {
                    given += &matcher.finish();
                }
                assert_eq!((given.as_str(), ended), (expected, ends), "{text:?}, {stops:?}, in pieces of {size}");
            }
        }
    }

    #[test]
    fn text_is_given_as_soon_as_no_stop_string_can_begin_in_it() {
        let mut stops = Stops::new(vec!["<end>".into()]);
        let given: Vec<String> = ["a", "<e", "n", "x", "<"].iter().map(|text| stops.push(text).0).collect();
        assert_eq!(given, ["a", "", "", "<enx", ""]);
        assert_eq!(stops.finish(), "<");
    }
}
