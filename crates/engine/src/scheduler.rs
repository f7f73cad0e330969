//! Who runs in the next batch: tokens of those that generate first, then prompts in order of arrival.

use std::collections::VecDeque;

use minke_kernels::kv::{KvLayout, PAGE_POSITIONS};
use minke_model::Batch;

use crate::drafter::{Ask, Drafter, Ran};
use crate::limits::Limits;
use crate::pages::{Pages, common_len};
use crate::request::RequestId;
use crate::sequence::Sequence;

/// Most rows of a batch that are guesses: their logits take memory.
const DRAFTED_ROWS: usize = 64;

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

    /// Decides which tokens are in the next batch; the rows that it has left.
    pub fn schedule(&mut self) -> usize {
        let budget = self.generate(self.limits.batch_tokens);
        let budget = self.read(budget);
        self.admit(budget)
    }

    /// Adds guesses for those that generate, in `budget` rows that nobody else wants and pages that nobody will miss.
    pub fn draft(&mut self, drafter: &mut dyn Drafter, budget: usize, context: usize, vocab_size: usize) {
        let Scheduler { pages, running, .. } = self;
        let generating = running.iter().filter(|sequence| sequence.generates()).count();
        let price = drafter.costs().price(generating);
        let share = budget.min(DRAFTED_ROWS) / generating.max(1);
        let mut asks = Vec::new();
        for sequence in running.iter().filter(|sequence| sequence.generates()) {
            // The last token is not run.
            let most = share.min(sequence.room(context) - 1).min(sequence.account.reaches(price));
            if most > 0 {
                let Sequence { request, tokens, pages, .. } = sequence;
                let (request, sampling) = (request.id, &request.sampling);
                asks.push(Ask { request, tokens, pages, sampling, most, draft: Vec::new(), cost: 0.0 });
            }
        }
        drafter.draft(&mut asks, pages.kv());
        let drafts: Vec<_> = asks.into_iter().map(|ask| (ask.request, ask.most, ask.draft, ask.cost)).collect();
        let mut drafts = drafts.into_iter().peekable();
        let others = running.len();
        for sequence in running {
            let asked = |(request, ..): &(RequestId, usize, Vec<u32>, f64)| *request == sequence.request.id;
            let Some((_, most, mut draft, cost)) = drafts.next_if(asked) else { continue };
            let known = draft.iter().take(most).take_while(|&&token| (token as usize) < vocab_size).count();
            let wanted = (sequence.tokens.len() + known).div_ceil(PAGE_POSITIONS);
            while sequence.pages.len() < wanted
                && pages.spare() > others
                && let Some(page) = pages.take()
            {
                sequence.pages.push(page);
            }
            draft.truncate(known.min(sequence.pages.len() * PAGE_POSITIONS - sequence.tokens.len()));
            sequence.cost = cost + price * draft.len() as f64;
            sequence.draft = draft;
        }
    }

    /// Fills the next batch, and `rows` with those of its rows whose logits are wanted, in the order of `running`.
    pub fn fill(&mut self, batch: &mut Batch, rows: &mut Vec<u32>) {
        batch.tokens.clear();
        batch.spans.clear();
        rows.clear();
        for sequence in &mut self.running {
            sequence.ran = None;
            if sequence.scheduled == 0 {
                continue;
            }
            sequence.ran = Some((sequence.computed, batch.tokens.len(), !sequence.generates()));
            let Sequence { tokens, draft, computed, scheduled, pages, .. } = &*sequence;
            let run = [&tokens[*computed..][..*scheduled], draft].concat();
            batch.push(&run, *computed, pages.clone());
            if sequence.wants_logits() {
                let end = batch.tokens.len();
                rows.extend((end - draft.len() - 1..end).map(|row| row as u32));
            }
        }
    }

    /// Takes note that the batch has been run.
    pub fn computed(&mut self) {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.scheduled > 0) {
            let (from, to) = (sequence.computed, sequence.computed + sequence.scheduled);
            if sequence.draft.is_empty() {
                self.pages.computed(&mut sequence.pages, &sequence.tokens, from, to);
            }
            if sequence.scheduled > 1 && sequence.wants_logits() {
                // A whole prompt has been read: whoever has the same one goes on from here.
                self.pages.share_rest(&sequence.pages, &sequence.tokens, to);
            }
            sequence.computed = to;
            sequence.scheduled = 0;
        }
    }

    /// Takes note of what has been run of sequences with guesses: those that came true count, the others do not.
    pub fn accepted(&mut self) {
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.draft.is_empty()) {
            // It ran its last token and the guesses. Whatever came true, all tokens but the last have been run now.
            let (from, to) = (sequence.computed - 1, sequence.tokens.len() - 1);
            self.pages.computed(&mut sequence.pages, &sequence.tokens, from, to);
            sequence.computed = to;
            sequence.draft.clear();
        }
    }

    /// Tells a drafter what has been run and counts.
    pub fn tell(&mut self, drafter: &mut dyn Drafter) {
        let Scheduler { pages, running, .. } = self;
        let ran = running.iter().filter_map(|sequence| {
            let Sequence { request, tokens, pages, finished, .. } = sequence;
            let (start, row, read) = sequence.ran?;
            // Where logits were no numbers, no token follows the last.
            let count = sequence.computed.min(tokens.len() - 1).checked_sub(start).filter(|&count| count > 0)?;
            Some(Ran { request: request.id, tokens, pages, start, row, count, read, ends: finished.is_some() })
        });
        drafter.ran(&ran.collect::<Vec<_>>(), pages.kv());
    }

    /// Lets go of the sequences that finished.
    pub fn retire(&mut self) -> Vec<Sequence> {
        let mut finished: Vec<Sequence> = self.running.extract_if(.., |sequence| sequence.finished.is_some()).collect();
        for sequence in &mut finished {
            self.pages.give_back(&mut sequence.pages, &sequence.tokens, sequence.computed);
        }
        finished
    }

    /// Takes out a sequence wherever it is, if it is there.
    pub fn remove(&mut self, id: RequestId) -> Option<Sequence> {
        let named = |sequence: &Sequence| sequence.request.id == id;
        if let Some(i) = self.running.iter().position(named) {
            let mut sequence = self.running.remove(i);
            self.pages.give_back(&mut sequence.pages, &sequence.tokens, sequence.computed);
            return Some(sequence);
        }
        let i = self.waiting.iter().position(named)?;
        self.waiting.remove(i)
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
    /// is left for every other, so that it does not have to go again straight away. The rows that are left.
    fn admit(&mut self, mut budget: usize) -> usize {
        let mut i = 0;
        while budget > 0 && self.running.len() < self.limits.sequences && i < self.waiting.len() {
            if self.running.iter().any(|other| worth_waiting(&self.waiting[i].tokens, other)) {
                i += 1;
                continue;
            }
            let Some((pages, computed)) = self.pages.start(&self.waiting[i].tokens, self.running.len()) else {
                break;
            };
            let Some(mut sequence) = self.waiting.remove(i) else { break };
            (sequence.pages, sequence.computed) = (pages, computed);
            sequence.scheduled = sequence.left().min(budget);
            budget -= sequence.scheduled;
            self.running.push(sequence);
        }
        budget
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
