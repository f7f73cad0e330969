//! Whatever else is under way, a request comes to what it comes to alone: random arrivals, cancels, limits and settings.

use std::collections::BTreeMap;

use minke_engine::{
    Decoder, Engine, EventKind, Limits, Outcome, Reason, Request, RequestId, Sampling, Seed, Speculated, ThoughtBudget,
    Token,
};
use minke_kernels::kv::PAGE_POSITIONS;
use minke_kernels::random::Random;

use crate::scripted::{STOP, Scripted, VOCAB, prompt, request};

/// Room for one request of any size, all at once.
const AMPLE: Limits = Limits { sequences: 4, batch_tokens: 1024, pages: 64, queue: 4 };

/// A token bit for bit, which `==` on floats is not.
pub fn bits(token: &Token) -> (u32, usize, u32, u32, bool) {
    (token.id, token.position, token.log_prob.to_bits(), token.entropy.to_bits(), token.forced)
}

fn random_sampling(random: &mut Random, sample: u32) -> Sampling {
    let mut some = |n: u32| random.below(n) == 0;
    let filters = (some(4), some(4), some(4), some(5));
    Sampling {
        temperature: if filters.3 { 0.0 } else { 0.5 + random.below(10) as f32 / 5.0 },
        top_k: filters.0.then(|| 1 + random.below(30) as usize),
        top_p: filters.1.then(|| 0.1 + random.below(10) as f32 / 11.0),
        min_p: filters.2.then(|| random.below(10) as f32 / 20.0),
        seed: Seed { seed: 3, stream: [1, 2, sample] },
    }
}

/// Requests whose prompts often begin alike, from one token to several pages long.
pub fn random_requests(random: &mut Random, count: usize, vocab: u32, context: usize) -> Vec<Request> {
    // Pages of the same tokens stand after different ones.
    let blocks: Vec<Vec<u32>> =
        (0..3).map(|_| (0..PAGE_POSITIONS).map(|_| 2 + random.below(vocab - 3)).collect()).collect();
    let bases: Vec<Vec<u32>> =
        (0..6).map(|_| (0..context / 32).flat_map(|_| blocks[random.below(3) as usize].clone()).collect()).collect();
    (0..count as u64)
        .map(|id| {
            let base = &bases[random.below(6) as usize];
            let len =
                [1, 31, 32, 33, 64, 65, 3 + random.below(100) as usize][random.below(7) as usize].min(context / 2);
            let mut prompt = base[..len].to_vec();
            for _ in 0..random.below(4) {
                prompt.push(2 + random.below(vocab - 3));
            }
            Request {
                id: RequestId(id),
                prompt,
                sampling: random_sampling(random, id as u32),
                limit: 1 + random.below(context as u32 * 3 / 4) as usize,
                stop: if random.below(2) == 0 { vec![STOP] } else { Vec::new() },
                thought: (random.below(4) == 0).then(|| ThoughtBudget {
                    open: 4,
                    close: 5,
                    tokens: random.below(9) as usize,
                }),
            }
        })
        .collect()
}

/// Limits that a request of `context` tokens just fits in, or somewhat more, so that the engine has to preempt.
pub fn random_limits(random: &mut Random, context: usize) -> Limits {
    let sequences = 1 + random.below(12) as usize;
    Limits {
        sequences,
        batch_tokens: sequences + random.below(64) as usize,
        pages: context.div_ceil(PAGE_POSITIONS) + random.below(20) as usize,
        queue: 1 + random.below(8) as usize,
    }
}

/// What each request comes to on an engine of its own.
pub fn alone(decoder: &mut impl Decoder, requests: &[Request]) -> Vec<Outcome> {
    let alone =
        |request: &Request| Engine::new(decoder, AMPLE).generate(decoder, vec![request.clone()]).unwrap().remove(0);
    requests.iter().map(alone).collect()
}

/// Runs `requests` with arrivals and cancels at random steps, and holds each to what `alone` says; what was guessed.
pub fn check(
    random: &mut Random,
    decoder: &mut impl Decoder,
    limits: Limits,
    requests: &[Request],
    alone: &[Outcome],
) -> Speculated {
    let mut engine = Engine::new(decoder, limits);
    let mut outcomes: BTreeMap<RequestId, (Vec<Token>, Option<Reason>)> = BTreeMap::new();
    let mut arriving = requests.iter();
    let mut idle_steps = 0;
    while outcomes.len() < requests.len() || !engine.is_idle() {
        for _ in 0..random.below(1 + limits.queue as u32) {
            // Those that made room may have filled it beyond the limit.
            if engine.usage().waiting >= limits.queue {
                break;
            }
            if let Some(request) = arriving.next() {
                engine.submit(request.clone()).unwrap();
                outcomes.insert(request.id, (Vec::new(), None));
            }
        }
        if random.below(12) == 0 {
            engine.cancel(RequestId(random.below(requests.len() as u32).into()));
        }
        let events = engine.step(decoder);
        for event in &events {
            let (tokens, reason) = outcomes.get_mut(&event.request).unwrap();
            assert_eq!(*reason, None, "an event after the end");
            match event.kind {
                EventKind::Token(token) => tokens.push(token),
                EventKind::Finished(why) => *reason = Some(why),
            }
        }
        let usage = engine.usage();
        assert!(usage.running <= limits.sequences && usage.waiting <= limits.queue + limits.sequences);
        assert!(usage.pages_held + usage.pages_cached <= limits.pages);
        // Reading the longest prompt takes many steps without an event when batches are small.
        idle_steps = if events.is_empty() { idle_steps + 1 } else { 0 };
        assert!(idle_steps < 2000, "the engine makes no progress");
    }
    for (request, alone) in requests.iter().zip(alone) {
        let (tokens, reason) = &outcomes[&request.id];
        let reason = reason.expect("every request ends");
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (tokens.iter().map(bits).collect(), alone.tokens.iter().map(bits).collect());
        if reason == Reason::Cancelled {
            assert_eq!(ours, theirs[..ours.len()], "{:?}", request.id);
        } else {
            assert_eq!((ours, reason), (theirs, alone.reason), "{:?}", request.id);
        }
    }
    assert_eq!(engine.usage().pages_held, 0, "pages were lost");
    engine.reset();
    assert_eq!(engine.usage().pages_cached, 0);
    engine.speculated()
}

#[test]
fn any_company_any_order() {
    let mut reasons = BTreeMap::new();
    for seed in 0..60 {
        let random = &mut Random::new(seed, [1, 0, 0]);
        let mut decoder = Scripted::new(200);
        let requests = random_requests(random, 24, VOCAB as u32, 200);
        let alone = alone(&mut decoder, &requests);
        for outcome in &alone {
            *reasons.entry(format!("{:?}", outcome.reason)).or_insert(0) += 1;
        }
        let limits = random_limits(random, 200);
        decoder.most_rows = 0;
        check(random, &mut decoder, limits, &requests, &alone);
        assert!(decoder.most_rows <= limits.batch_tokens);
    }
    assert!(["Stop", "Limit", "Context"].iter().all(|reason| reasons.contains_key(*reason)), "{reasons:?}");
}

#[test]
fn generate_gives_what_submitting_gives() {
    let random = &mut Random::new(1, [2, 0, 0]);
    let mut decoder = Scripted::new(120);
    let requests = random_requests(random, 30, VOCAB as u32, 120);
    let limits = Limits { sequences: 5, batch_tokens: 9, pages: 12, queue: 2 };
    let together = Engine::new(&decoder, limits).generate(&mut decoder, requests.clone()).unwrap();
    assert_eq!(together, alone(&mut decoder, &requests));
}

#[test]
fn making_room_changes_nothing() {
    // Eight sequences that need five pages each in the end, in a pool of nine.
    let random = &mut Random::new(2, [3, 0, 0]);
    let mut decoder = Scripted::new(300);
    let requests: Vec<Request> =
        (0..8).map(|id| request(id, [&[2 + id as u32], &prompt(random, 20)[..]].concat(), 130)).collect();
    let rows_alone: usize = requests.iter().map(|request| request.prompt.len() + request.limit - 1).sum();
    let roomy = Limits { sequences: 8, batch_tokens: 64, pages: 64, queue: 8 };
    let free = Engine::new(&decoder, roomy).generate(&mut decoder, requests.clone()).unwrap();
    assert_eq!(decoder.rows, rows_alone);
    decoder.rows = 0;
    let tight = Limits { pages: 9, ..roomy };
    let pressed = Engine::new(&decoder, tight).generate(&mut decoder, requests).unwrap();
    assert!(decoder.rows > rows_alone, "nobody had to make room, so nothing was tested");
    assert_eq!(free, pressed);
}
