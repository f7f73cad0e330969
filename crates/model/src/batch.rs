//! Tokens of several sequences that go through the model together.

use minke_kernels::kv::{PAGE_POSITIONS, Span};

/// Rows of tokens; each span is a run of one sequence.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids, a row each.
    pub tokens: Vec<u32>,
    /// The sequences' parts, in order of their rows.
    pub spans: Vec<Span>,
}

impl Batch {
    /// Adds tokens of a sequence from position `start` on; `pages` are the sequence's, from position 0.
    pub fn push(&mut self, tokens: &[u32], start: usize, pages: Vec<u32>) {
        let row = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.spans.push(Span { rows: row..self.tokens.len(), start, pages, past: None });
    }

    /// Adds tokens that go on from the end of span `past`, a whole sequence of this batch. `pages` are for what does not
    /// fit the whole pages of the past: as many as hold the rest of it and the tokens.
    pub fn go_on(&mut self, past: usize, tokens: &[u32], pages: impl IntoIterator<Item = u32>) {
        let before = &self.spans[past];
        let start = before.rows.len();
        let shared = &before.pages[..start / PAGE_POSITIONS];
        let pages = shared.iter().copied().chain(pages).collect();
        let row = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.spans.push(Span { rows: row..self.tokens.len(), start, pages, past: Some(past) });
    }

    /// Position in its sequence, for each row.
    pub fn positions(&self) -> Vec<u32> {
        self.spans.iter().flat_map(|span| span.start..span.start + span.rows.len()).map(|p| p as u32).collect()
    }
}
