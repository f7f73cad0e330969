//! Where async meets the engine, and nowhere else: one thread for each loaded model. Requests come in through a bounded
//! channel; each takes a channel for its events with it, which has room for all that its limit allows, so that the
//! engine never waits for a client. A client that has gone away has dropped its end, and its request is cancelled before
//! the next step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::{Context, Result};
use minke_engine::{Engine, EventKind, Limits, Refused, Request, RequestId, Speculative, TransformerDecoder};
use tokio::sync::mpsc;

use crate::talker::Talker;

/// Requests that may wait for a model, beside those that run.
const QUEUE: usize = 64;

/// What a request hears of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happened {
    /// It was not taken, and nothing else follows.
    Refused(Refused),
    /// The engine's event.
    Event(EventKind),
}

/// Why a request did not reach the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// Too many wait already.
    QueueFull,
    /// The thread is gone, which is a fault of ours.
    Stopped,
}

/// A request, and where its events go.
struct Submission {
    request: Request,
    events: mpsc::Sender<Happened>,
}

/// How many requests a thread has.
#[derive(Debug, Default)]
struct Load {
    /// Submitted and not ended.
    all: AtomicUsize,
    running: AtomicUsize,
}

/// A loaded model and the thread that runs it; the thread ends when this is dropped.
pub struct EngineThread {
    model: Arc<Talker>,
    submissions: SyncSender<Submission>,
    load: Arc<Load>,
}

impl EngineThread {
    /// Starts the thread, whose engine keeps within these limits; as many requests as `limits.queue` wait inside it.
    pub fn start(model: Arc<Talker>, limits: Limits) -> Result<EngineThread> {
        let (submissions, receiver) = sync_channel(QUEUE);
        let load = Arc::new(Load::default());
        let (its_model, its_load) = (Arc::clone(&model), Arc::clone(&load));
        std::thread::Builder::new()
            .name("minke-engine".into())
            .spawn(move || run(&its_model, limits, &receiver, &its_load))
            .context("the system refuses a thread for the model")?;
        Ok(EngineThread { model, submissions, load })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Talker> {
        &self.model
    }

    /// Requests that wait, and that run.
    pub fn load(&self) -> (usize, usize) {
        let running = self.load.running.load(Ordering::Relaxed);
        (self.load.all.load(Ordering::Relaxed).saturating_sub(running), running)
    }

    /// Hands a request over; its id is chosen here. Dropping what is returned cancels it.
    pub fn submit(&self, request: Request) -> Result<mpsc::Receiver<Happened>, NotSent> {
        // A token is one event, the end another.
        let (events, receiver) = mpsc::channel(request.limit.saturating_add(1).min(mpsc_limit()));
        self.load.all.fetch_add(1, Ordering::Relaxed);
        self.submissions.try_send(Submission { request, events }).map(|()| receiver).map_err(|error| {
            self.load.all.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => NotSent::QueueFull,
                TrySendError::Disconnected(_) => NotSent::Stopped,
            }
        })
    }
}

/// The most that a channel of tokio's can hold.
fn mpsc_limit() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}

/// The thread: take requests on, step, until nobody can ask for anything any more, which is when the model is unloaded.
fn run(model: &Talker, limits: Limits, submissions: &Receiver<Submission>, load: &Load) {
    let mut desk = Desk::new(model, limits, load);
    loop {
        if desk.engine.is_idle() {
            match submissions.recv() {
                Ok(submission) => desk.take(submission),
                Err(_) => return,
            }
        }
        while desk.engine.usage().waiting < limits.queue
            && let Ok(submission) = submissions.try_recv()
        {
            desk.take(submission);
        }
        desk.step();
    }
}

/// The engine, and where its events go.
struct Desk<'a> {
    decoder: Speculative<'a, TransformerDecoder<'a>>,
    engine: Engine,
    under_way: BTreeMap<RequestId, mpsc::Sender<Happened>>,
    /// Requests taken so far.
    taken: u64,
    load: &'a Load,
}

impl<'a> Desk<'a> {
    fn new(model: &'a Talker, limits: Limits, load: &'a Load) -> Desk<'a> {
        let decoder = model.decoder(limits.pages);
        let engine = Engine::new(&decoder, limits);
        Desk { decoder, engine, under_way: BTreeMap::new(), taken: 0, load }
    }

    fn take(&mut self, Submission { request, events }: Submission) {
        let id = RequestId(self.taken);
        self.taken += 1;
        match self.engine.submit(Request { id, ..request }) {
            Ok(()) => {
                self.under_way.insert(id, events);
            }
            Err(refused) => {
                self.load.all.fetch_sub(1, Ordering::Relaxed);
                let _ = events.try_send(Happened::Refused(refused));
            }
        }
    }

    /// Drops requests whose clients are gone, runs a batch, and tells what came of it.
    fn step(&mut self) {
        let gone = self.under_way.iter().filter(|(_, events)| events.is_closed());
        gone.for_each(|(&id, _)| self.engine.cancel(id));
        for event in self.engine.step(&mut self.decoder) {
            // Whoever is gone does not listen any more.
            let _ = self.under_way.get(&event.request).map(|events| events.try_send(Happened::Event(event.kind)));
            if matches!(event.kind, EventKind::Finished(_)) {
                self.under_way.remove(&event.request);
                self.load.all.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.load.running.store(self.engine.usage().running, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use minke_engine::Sampling;
    use minke_kernels::{Cpu, Dtype};
    use minke_model::Checkpoint;

    use super::*;

    /// One sequence at a time, and prompts in pieces of eight tokens.
    const LIMITS: Limits = Limits { sequences: 1, batch_tokens: 8, pages: 64, queue: 4 };

    fn model() -> Arc<Talker> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/llama-chat");
        let cpu = || Ok(Arc::new(Cpu::detect().unwrap()));
        Arc::new(Talker::load(&Checkpoint::open(path.as_ref()).unwrap(), Dtype::F32.into(), cpu).unwrap())
    }

    fn thread() -> EngineThread {
        EngineThread::start(model(), LIMITS).unwrap()
    }

    fn request(prompt: usize, limit: usize) -> Request {
        Request {
            id: RequestId(0),
            prompt: vec![5; prompt],
            sampling: Sampling::greedy(),
            limit,
            stop: Vec::new(),
            thought: None,
        }
    }

    fn idle(thread: &EngineThread) -> bool {
        let begin = Instant::now();
        while thread.load() != (0, 0) && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.load() == (0, 0)
    }

    #[test]
    fn a_request_hears_of_each_of_its_tokens_and_of_its_end() {
        let thread = thread();
        let mut events = thread.submit(request(3, 5)).unwrap();
        let heard: Vec<Happened> = std::iter::from_fn(|| events.blocking_recv()).collect();
        assert_eq!(heard.len(), 6, "{heard:?}");
        assert_eq!(heard[5], Happened::Event(EventKind::Finished(minke_engine::Reason::Limit)));
        let mut refused = thread.submit(request(0, 5)).unwrap();
        assert_eq!(refused.blocking_recv(), Some(Happened::Refused(Refused::PromptEmpty)));
        assert_eq!(refused.blocking_recv(), None);
        assert!(idle(&thread));
    }

    #[test]
    fn a_request_whose_client_is_gone_ends_with_the_next_step_whatever_it_does() {
        let (model, load) = (model(), Load::default());
        let mut desk = Desk::new(&model, LIMITS, &load);
        let submit = |desk: &mut Desk<'_>, request| {
            let (events, receiver) = mpsc::channel(500);
            load.all.fetch_add(1, Ordering::Relaxed);
            desk.take(Submission { request, events });
            receiver
        };
        // A prompt of 250 tokens is read in 32 steps.
        let mut reading = submit(&mut desk, request(250, 5));
        let waiting = submit(&mut desk, request(3, 5));
        for _ in 0..5 {
            desk.step();
        }
        assert!(reading.try_recv().is_err(), "it reads its prompt");
        let (usage, under_way) = (desk.engine.usage(), load.all.load(Ordering::Relaxed));
        assert_eq!((usage.running, usage.waiting, under_way), (1, 1, 2));
        drop((reading, waiting));
        desk.step();
        assert!(desk.engine.is_idle() && desk.under_way.is_empty() && load.all.load(Ordering::Relaxed) == 0);

        let mut writing = submit(&mut desk, request(3, 200));
        while writing.try_recv().is_err() {
            desk.step();
        }
        // As after a stop string, where the receiver lives on.
        writing.close();
        desk.step();
        assert!(desk.engine.is_idle() && desk.engine.usage().pages_held == 0);
    }

    #[test]
    fn more_than_the_queue_takes_are_turned_away() {
        let thread = thread();
        let mut kept = Vec::new();
        let full = (0..QUEUE + 10).find_map(|_| match thread.submit(request(100, 150)) {
            Ok(events) => {
                kept.push(events);
                None
            }
            Err(error) => Some(error),
        });
        assert_eq!(full, Some(NotSent::QueueFull));
        assert!(kept.len() >= QUEUE);
        drop(kept);
        assert!(idle(&thread));
    }
}
