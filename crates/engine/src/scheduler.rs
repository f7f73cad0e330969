//! Who runs in the next batch: tokens of those that generate first, then prompts in order of arrival.

use std::collections::VecDeque;

use minke_kernels::kv::{KvLayout, PAGE_POSITIONS};
use minke_model::Batch;

use crate::limits::Limits;
use crate::pages::{Pages, common_len};
use crate::request::RequestId;
use crate::sequence::Sequence;

/// All sequences, and the pages they share.
pub(crate) struct Scheduler {
    limits: Limits,
    pub pages: Pages,
    /// In order of arrival, those that had to make room in front.
    pub waiting: VecDeque<Sequence>,
    /// In the order in which they were let in.
    pub running: Vec<Sequence>,
}

impl Scheduler {
    pub fn new(layout: KvLayout, limits: Limits) -> Scheduler {
        let pages = Pages::new(layout, limits.pages);
        Scheduler { limits, pages, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Fills the next batch, and `rows` with those of its rows whose logits are wanted, in the order of `running`.
    pub fn schedule(&mut self, batch: &mut Batch, rows: &mut Vec<u32>) {
        let budget = self.generate(self.limits.batch_tokens);
        let budget = self.read(budget);
        self.admit(budget);
        batch.tokens.clear();
        batch.spans.clear();
        rows.clear();
        for sequence in self.running.iter().filter(|sequence| sequence.scheduled > 0) {
            let tokens = &sequence.tokens[sequence.computed..][..sequence.scheduled];
            batch.push(tokens, sequence.computed, sequence.pages.clone());
            if sequence.wants_logits() {
                rows.push(batch.tokens.len() as u32 - 1);
            }
        }
    }

    /// Takes note that the batch has been run.
    pub fn computed(&mut self) {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.scheduled > 0) {
            let (from, to) = (sequence.computed, sequence.computed + sequence.scheduled);
            self.pages.computed(&mut sequence.pages, &sequence.tokens, from, to);
            if sequence.scheduled > 1 && sequence.wants_logits() {
                // A whole prompt has been read: whoever has the same one goes on from here.
                self.pages.share_rest(&sequence.pages, &sequence.tokens, to);
            }
            sequence.computed = to;
            sequence.scheduled = 0;
        }
    }

    /// Lets go of the sequences that finished.
    pub fn retire(&mut self) {
        let Scheduler { running, pages, .. } = self;
        running.retain_mut(|sequence| {
            let goes_on = sequence.finished.is_none();
            if !goes_on {
                pages.give_back(&mut sequence.pages, &sequence.tokens, sequence.computed);
            }
            goes_on
        });
    }

    /// Drops a sequence wherever it is; says whether it was there.
    pub fn remove(&mut self, id: RequestId) -> bool {
        let named = |sequence: &Sequence| sequence.request.id == id;
        if let Some(i) = self.running.iter().position(named) {
            let mut sequence = self.running.remove(i);
            self.pages.give_back(&mut sequence.pages, &sequence.tokens, sequence.computed);
            true
        } else if let Some(i) = self.waiting.iter().position(named) {
            self.waiting.remove(i);
            true
        } else {
            false
        }
    }

    /// A row for each sequence that generates. One that finds no page for its next token takes them from those that were let
    /// in last, itself perhaps; the first can always go on, since a request that needs more than all pages is refused.
    fn generate(&mut self, mut budget: usize) -> usize {
        let mut i = 0;
        while i < self.running.len() {
            if self.running[i].left() == 1 {
                if self.running[i].computed == self.running[i].pages.len() * PAGE_POSITIONS {
                    match self.pages.take() {
                        Some(page) => self.running[i].pages.push(page),
                        None => {
                            self.preempt();
                            continue;
                        }
                    }
                }
                self.running[i].scheduled = 1;
                budget -= 1;
            }
            i += 1;
        }
        budget
    }

    /// Puts the sequence that was let in last back in front of the queue. What it has generated stays; its keys and values
    /// will be made again, and will be the same.
    fn preempt(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.pages.give_back(&mut sequence.pages, &sequence.tokens, sequence.computed);
            sequence.computed = 0;
            self.waiting.push_front(sequence);
        }
    }

    /// The next pieces of prompts that are being read. A batch has more rows than there are sequences that generate, so the
    /// first of them always advances.
    fn read(&mut self, mut budget: usize) -> usize {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.left() > 1) {
            sequence.scheduled = sequence.left().min(budget);
            budget -= sequence.scheduled;
        }
        budget
    }

    /// Lets in those that wait, as far as rows and pages reach. Each gets the pages for all its tokens at once, and one page
    /// is left for every other, so that it does not have to go again straight away.
    fn admit(&mut self, mut budget: usize) {
        let mut i = 0;
        while budget > 0 && self.running.len() < self.limits.sequences && i < self.waiting.len() {
            if self.running.iter().any(|other| worth_waiting(&self.waiting[i].tokens, other)) {
                i += 1;
                continue;
            }
            let Some((pages, computed)) = self.pages.start(&self.waiting[i].tokens, self.running.len()) else {
                return;
            };
            let Some(mut sequence) = self.waiting.remove(i) else { return };
            (sequence.pages, sequence.computed) = (pages, computed);
            sequence.scheduled = sequence.left().min(budget);
            budget -= sequence.scheduled;
            self.running.push(sequence);
        }
    }
}

/// Whether a sequence that is reading its prompt will soon have read at least a page, or half, of what `tokens` still needs:
/// samples of one prompt wait for the first of them.
fn worth_waiting(tokens: &[u32], other: &Sequence) -> bool {
    if other.left() == 1 {
        return false;
    }
    let found = other.computed - other.computed % PAGE_POSITIONS;
    let gain = common_len(&tokens[..tokens.len() - 1], &other.tokens).saturating_sub(found);
    gain >= PAGE_POSITIONS || (gain > 0 && 2 * gain >= tokens.len() - found)
}
