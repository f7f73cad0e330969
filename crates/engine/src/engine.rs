//! The engine: schedule, run, sample, say what happened.

use std::collections::BTreeMap;

use minke_kernels::{Buffer, Cpu};
use minke_model::Batch;

use crate::decoder::Decoder;
use crate::event::{Event, EventKind, Outcome, Reason, Token};
use crate::limits::{Limits, Speculated, Usage};
use crate::request::{Refused, Request, RequestId};
use crate::sampler::{Sampler, score};
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;

/// Runs many requests as one batch.
pub struct Engine {
    limits: Limits,
    context: usize,
    vocab_size: usize,
    scheduler: Scheduler,
    cancelled: Vec<RequestId>,
    /// The weights that made the keys and values, once there are any.
    version: Option<u64>,
    batch: Batch,
    rows: Vec<u32>,
    logits: Buffer,
    sampler: Sampler,
    speculated: Speculated,
}

impl Engine {
    /// An engine for `decoder`, or another with the same sizes.
    ///
    /// # Panics
    /// Where `limits` leave no sequence, fewer rows than sequences, or no queue.
    pub fn new(decoder: &impl Decoder, limits: Limits) -> Engine {
        assert!(
            0 < limits.sequences && limits.sequences <= limits.batch_tokens && 0 < limits.queue,
            "an engine cannot run within {limits:?}"
        );
        Engine {
            limits,
            context: decoder.context(),
            vocab_size: decoder.vocab_size(),
            scheduler: Scheduler::new(decoder.kv_layout(), limits),
            cancelled: Vec::new(),
            version: None,
            batch: Batch::default(),
            rows: Vec::new(),
            logits: Buffer::default(),
            sampler: Sampler::default(),
            speculated: Speculated::default(),
        }
    }

    /// Takes a request on; its events follow from [`Engine::step`].
    ///
    /// # Errors
    /// When it is refused; nothing has changed then.
    pub fn submit(&mut self, request: Request) -> Result<(), Refused> {
        request.check(self.context, self.vocab_size, self.scheduler.pages.limit())?;
        let Scheduler { waiting, running, .. } = &self.scheduler;
        if waiting.len() >= self.limits.queue {
            return Err(Refused::QueueFull { limit: self.limits.queue });
        }
        if running.iter().chain(waiting).any(|sequence| sequence.request.id == request.id) {
            return Err(Refused::IdInUse);
        }
        self.scheduler.waiting.push_back(Sequence::new(request));
        Ok(())
    }

    /// Ends a request at the next step, if it is still under way by then. Tokens already given stay given.
    pub fn cancel(&mut self, id: RequestId) {
        self.cancelled.push(id);
    }

    /// Runs one batch, and says what came of it.
    ///
    /// # Panics
    /// When the decoder's weights are not those of the last step, and there was no [`Engine::reset`] in between.
    pub fn step(&mut self, decoder: &mut impl Decoder) -> Vec<Event> {
        let version = *self.version.get_or_insert(decoder.version());
        assert_eq!(version, decoder.version(), "the weights changed without a reset");
        let mut events = Vec::new();
        let mut ended = self.cancel_now(&mut events);
        let rows_left = self.scheduler.schedule();
        if let Some(drafter) = decoder.drafter() {
            self.scheduler.draft(drafter, rows_left, self.context, self.vocab_size);
        }
        self.scheduler.fill(&mut self.batch, &mut self.rows);
        if !self.batch.tokens.is_empty() {
            decoder.forward(&self.batch, self.scheduler.pages.kv(), &self.rows, &mut self.logits);
            self.scheduler.computed();
            self.sample(decoder.cpu(), &mut events);
            self.scheduler.accepted();
            if let Some(drafter) = decoder.drafter() {
                self.scheduler.tell(drafter);
            }
            ended.append(&mut self.scheduler.retire());
        }
        if let Some(drafter) = decoder.drafter() {
            ended.iter().for_each(|sequence| drafter.finished(sequence.request.id, &sequence.tokens));
        }
        events
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.scheduler.running.is_empty() && self.scheduler.waiting.is_empty() && self.cancelled.is_empty()
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let Scheduler { pages, waiting, running, .. } = &self.scheduler;
        Usage { running: running.len(), waiting: waiting.len(), pages_held: pages.held(), pages_cached: pages.idle() }
    }

    /// How guesses have gone since the engine was made.
    pub fn speculated(&self) -> Speculated {
        self.speculated
    }

    /// Forgets all keys and values, because the weights have changed.
    ///
    /// # Panics
    /// When a request is under way: it would mix the tokens of two models.
    pub fn reset(&mut self) {
        assert!(self.is_idle(), "requests are under way while the weights change");
        self.scheduler.pages.clear();
        self.version = None;
    }

    /// Runs requests to their ends on an idle engine; the outcomes are in their order. There may be more than the queue
    /// takes.
    ///
    /// # Errors
    /// The first refusal of any of them, before one is run.
    pub fn generate(&mut self, decoder: &mut impl Decoder, requests: Vec<Request>) -> Result<Vec<Outcome>, Refused> {
        assert!(self.is_idle(), "requests are under way that would lose their events");
        let mut order = BTreeMap::new();
        for request in &requests {
            request.check(self.context, self.vocab_size, self.scheduler.pages.limit())?;
            if order.insert(request.id, order.len()).is_some() {
                return Err(Refused::IdInUse);
            }
        }
        let mut outcomes = vec![Outcome { tokens: Vec::new(), reason: Reason::Cancelled }; requests.len()];
        let mut requests = requests.into_iter();
        let mut left = outcomes.len();
        while left > 0 {
            let room = self.limits.queue.saturating_sub(self.scheduler.waiting.len());
            self.scheduler.waiting.extend(requests.by_ref().take(room).map(Sequence::new));
            for Event { request, kind } in self.step(decoder) {
                let outcome = &mut outcomes[order[&request]];
                match kind {
                    EventKind::Token(token) => outcome.tokens.push(token),
                    EventKind::Finished(reason) => {
                        outcome.reason = reason;
                        left -= 1;
                    }
                }
            }
        }
        Ok(outcomes)
    }

    fn cancel_now(&mut self, events: &mut Vec<Event>) -> Vec<Sequence> {
        let removed = self.cancelled.drain(..).filter_map(|request| self.scheduler.remove(request));
        let cancelled = |sequence: &Sequence| {
            events.push(Event { request: sequence.request.id, kind: EventKind::Finished(Reason::Cancelled) });
        };
        removed.inspect(cancelled).collect()
    }

    /// Chooses a token for each sequence whose logits were computed, and further ones as long as they were guessed right.
    fn sample(&mut self, cpu: &Cpu, events: &mut Vec<Event>) {
        let mut logits = &self.logits[..];
        for sequence in self.scheduler.running.iter_mut().filter(|sequence| sequence.left() == 0) {
            let (own, rest) = logits.split_at((1 + sequence.draft.len()) * self.vocab_size);
            logits = rest;
            let mut accepted = 0;
            for logits in own.chunks_exact(self.vocab_size) {
                let (request, sampling, position) =
                    (sequence.request.id, &sequence.request.sampling, sequence.tokens.len());
                let forced = sequence.forced();
                let choice = match forced {
                    Some(id) => score(cpu, logits, sampling, id),
                    None => self.sampler.choose(cpu, logits, sampling, position),
                };
                match choice {
                    Some(choice) => {
                        sequence.generate(choice.id, self.context);
                        let token = Token {
                            id: choice.id,
                            position,
                            log_prob: choice.log_prob,
                            entropy: choice.entropy,
                            forced: forced.is_some(),
                        };
                        events.push(Event { request, kind: EventKind::Token(token) });
                    }
                    // Infinities of a wrong guess may have reached the rows before it, as 0 times infinity: this row is run
                    // again without guesses.
                    None if accepted < sequence.draft.len() => {
                        sequence.account.close();
                        break;
                    }
                    None => sequence.finished = Some(Reason::NotFinite),
                }
                if let Some(reason) = sequence.finished {
                    events.push(Event { request, kind: EventKind::Finished(reason) });
                }
                let guessed = sequence.draft.get(accepted).copied();
                if sequence.finished.is_some() || guessed != choice.map(|choice| choice.id) {
                    break;
                }
                accepted += 1;
            }
            let drafted = sequence.draft.len();
            sequence.account.settle(drafted, accepted, std::mem::take(&mut sequence.cost));
            self.speculated.drafted += drafted as u64;
            self.speculated.accepted += accepted as u64;
        }
    }
}
