//! Shows two replies at one pace, that of the slower, in pieces of one size: how fast a model writes and how it cuts words
//! into tokens would say which it is.

use std::collections::VecDeque;

/// Characters of a piece.
const PIECE: usize = 8;

/// Where text stands in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A step of the thought.
    Step(usize),
    Answer,
}

/// Text of one side that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub side: usize,
    pub place: Place,
    pub text: String,
}

/// What both have written and is not shown yet.
#[derive(Debug, Default)]
pub struct Pace {
    sides: [Waiting; 2],
}

#[derive(Debug, Default)]
struct Waiting {
    letters: VecDeque<(Place, char)>,
    ended: bool,
}

impl Pace {
    /// Takes text of a side.
    pub fn push(&mut self, side: usize, place: Place, text: &str) {
        self.sides[side].letters.extend(text.chars().map(|letter| (place, letter)));
    }

    /// Takes note that nothing more comes from a side.
    pub fn end(&mut self, side: usize) {
        self.sides[side].ended = true;
    }

    /// What may be shown now: as much of one side as of the other, until one has ended.
    pub fn release(&mut self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        while self.sides.iter().all(|side| side.ended || side.letters.len() >= PIECE)
            && self.sides.iter().any(|side| !side.letters.is_empty())
        {
            for (side, waiting) in self.sides.iter_mut().enumerate() {
                let letters = waiting.letters.len().min(PIECE);
                for (at, (place, letter)) in waiting.letters.drain(..letters).enumerate() {
                    match pieces.last_mut().filter(|piece| at > 0 && piece.place == place) {
                        Some(piece) => piece.text.push(letter),
                        None => pieces.push(Piece { side, place, text: letter.into() }),
                    }
                }
            }
        }
        pieces
    }

    /// Whether all of a side has been shown.
    pub fn is_over(&self, side: usize) -> bool {
        self.sides[side].ended && self.sides[side].letters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[Piece], side: usize) -> String {
        pieces.iter().filter(|piece| piece.side == side).map(|piece| piece.text.as_str()).collect()
    }

    #[test]
    fn neither_is_shown_ahead_of_the_other_however_they_write() {
        let texts = ["a thought of some length; and an answer", "so"].map(|text| text.repeat(3));
        // Pieces that each side writes in, and how many of the left one's come for one of the right one's.
        for (left, right, rate) in [(1, 1, 1), (3, 1, 5), (7, 2, 1), (40, 1, 9)] {
            let mut pace = Pace::default();
            let mut chunks = [(0, left), (1, right)].map(|(side, size): (usize, usize)| {
                let letters: Vec<char> = texts[side].chars().collect();
                letters.chunks(size).map(|chunk| chunk.iter().collect::<String>()).collect::<Vec<_>>().into_iter()
            });
            let mut all = Vec::new();
            while !(pace.is_over(0) && pace.is_over(1)) {
                for side in [0, 1] {
                    for _ in 0..if side == 0 { rate } else { 1 } {
                        match chunks[side].next() {
                            Some(chunk) => pace.push(side, Place::Answer, &chunk),
                            None => pace.end(side),
                        }
                    }
                    all.extend(pace.release());
                    let [left, right] = [0, 1].map(|side| shown(&all, side).chars().count());
                    assert!(left == right || pace.sides.iter().any(|side| side.ended), "{left} {right}");
                }
            }
            assert_eq!([0, 1].map(|side| shown(&all, side)), texts);
            let sizes = all.iter().filter(|piece| piece.side == 0).map(|piece| piece.text.len());
            assert!(sizes.clone().rev().skip(1).all(|size| size == PIECE), "{:?}", sizes.collect::<Vec<_>>());
        }
    }

    #[test]
    fn places_are_kept_apart() {
        let mut pace = Pace::default();
        pace.push(0, Place::Step(0), "1+1=2;");
        pace.push(0, Place::Step(1), "2+2=4");
        pace.push(0, Place::Answer, "4");
        assert_eq!(pace.release(), []);
        pace.end(1);
        pace.end(0);
        let piece = |place, text: &str| Piece { side: 0, place, text: text.into() };
        let expected = [
            piece(Place::Step(0), "1+1=2;"),
            piece(Place::Step(1), "2+"),
            piece(Place::Step(1), "2=4"),
            piece(Place::Answer, "4"),
        ];
        assert_eq!(pace.release(), expected);
        assert!(pace.is_over(0) && pace.is_over(1));
    }
}
