//! Where async meets the engine, and nowhere else: one thread for each loaded model. Requests come in through a bounded
//! channel; each takes a channel for its events with it, which has room for all that its limit allows, so that the
//! engine never waits for a client. A client that has gone away has dropped its end, and its request is cancelled before
//! the next step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::{Context, Result};
use minke_engine::{Engine, EventKind, Limits, Refused, Request, RequestId, TransformerDecoder};
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

/// The thread: take requests on, drop those whose clients are gone, step, tell.
fn run(model: &Talker, limits: Limits, submissions: &Receiver<Submission>, load: &Load) {
    let mut decoder = TransformerDecoder::new(model.cpu(), model.transformer());
    let mut engine = Engine::new(&decoder, limits);
    let mut under_way: BTreeMap<RequestId, mpsc::Sender<Happened>> = BTreeMap::new();
    let mut ids = 0..;
    let mut take = |submission, engine: &mut Engine, under_way: &mut BTreeMap<_, _>| {
        let Submission { request, events }: Submission = submission;
        let id = RequestId(ids.next().unwrap_or_default());
        match engine.submit(Request { id, ..request }) {
            Ok(()) => {
                under_way.insert(id, events);
            }
            Err(refused) => {
                load.all.fetch_sub(1, Ordering::Relaxed);
                let _ = events.try_send(Happened::Refused(refused));
            }
        }
    };
    loop {
        if engine.is_idle() {
            match submissions.recv() {
                Ok(submission) => take(submission, &mut engine, &mut under_way),
                // Nobody can ask for anything any more: the model is unloaded.
                Err(_) => return,
            }
        }
        while engine.usage().waiting < limits.queue
            && let Ok(submission) = submissions.try_recv()
        {
            take(submission, &mut engine, &mut under_way);
        }
        let gone = under_way.iter().filter(|(_, events)| events.is_closed());
        gone.for_each(|(&id, _)| engine.cancel(id));
        for event in engine.step(&mut decoder) {
            // Whoever has cancelled a request does not listen any more.
            let _ = under_way.get(&event.request).map(|events| events.try_send(Happened::Event(event.kind)));
            if matches!(event.kind, EventKind::Finished(_)) {
                under_way.remove(&event.request);
                load.all.fetch_sub(1, Ordering::Relaxed);
            }
        }
        load.running.store(engine.usage().running, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use minke_engine::Sampling;
    use minke_kernels::{Cpu, Dtype};
    use minke_model::Checkpoint;

    use super::*;

    fn thread() -> EngineThread {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/llama-chat");
        let cpu = || Ok(Arc::new(Cpu::detect().unwrap()));
        let model = Talker::load(&Checkpoint::open(path.as_ref()).unwrap(), Dtype::F32, cpu).unwrap();
        let limits = Limits { sequences: 1, batch_tokens: 8, pages: 64, queue: 1 };
        EngineThread::start(Arc::new(model), limits).unwrap()
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
    fn a_request_whose_client_is_gone_ends_also_while_its_prompt_is_read_or_it_waits() {
        let thread = thread();
        // Steps of eight rows: the first reads its prompt for 31 steps, and the others wait behind it.
        let mut reading = thread.submit(request(250, 5)).unwrap();
        let waiting: Vec<_> = (0..3).map(|_| thread.submit(request(240, 10)).unwrap()).collect();
        assert!(reading.try_recv().is_err(), "it is still reading");
        drop((reading, waiting));
        assert!(idle(&thread), "{:?}", thread.load());
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
