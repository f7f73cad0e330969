//! Guesses change how fast tokens come, and nothing else.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use minke_engine::{
    Ask, Costs, Decoder, DraftModel, Drafter, Engine, EventKind, Limits, Lookup, Outcome, Request, RequestId, Sampling,
    Seed, Speculated, Speculative,
};
use minke_kernels::kv::{KvPages, PAGE_POSITIONS};
use minke_kernels::random::Random;

use crate::alone::{alone, bits, check, random_limits, random_requests};
use crate::scripted::{POISON, START, Scripted, VOCAB, next, prompt, request, script};

/// Knows what each request comes to, and says it with mistakes, among them tokens that do not exist and drafts that are too
/// long.
pub struct Guesser {
    random: Random,
    vocab: u32,
    row: f64,
    /// Prompt and outcome.
    known: BTreeMap<RequestId, Vec<u32>>,
    under_way: Vec<RequestId>,
}

impl Guesser {
    pub fn new(seed: u64, vocab: u32, row: f64, requests: &[Request], alone: &[Outcome]) -> Guesser {
        let whole = |(request, outcome): (&Request, &Outcome)| {
            let tokens = request.prompt.iter().copied().chain(outcome.tokens.iter().map(|token| token.id));
            (request.id, tokens.collect())
        };
        let known = requests.iter().zip(alone).map(whole).collect();
        Guesser { random: Random::new(seed, [9, 0, 0]), vocab, row, known, under_way: Vec::new() }
    }
}

impl Drop for Guesser {
    fn drop(&mut self) {
        assert!(self.under_way.is_empty() || std::thread::panicking(), "it was not told of an end");
    }
}

impl Drafter for Guesser {
    fn costs(&self) -> Costs {
        Costs { row: self.row, token: 0.0 }
    }

    fn draft(&mut self, asks: &mut [Ask<'_>], _: &mut KvPages) {
        for Ask { request, tokens, most, draft, .. } in asks {
            let known = &self.known[request];
            assert!(*most > 0 && known.starts_with(tokens), "{tokens:?} of {known:?}");
            if !self.under_way.contains(request) {
                self.under_way.push(*request);
            }
            let length = self.random.below(*most as u32 + 3) as usize;
            for at in tokens.len()..tokens.len() + length {
                let mistaken = self.random.below(8) == 0 || at >= known.len();
                draft.push(if mistaken { self.random.below(self.vocab + 1) } else { known[at] });
            }
        }
    }

    fn finished(&mut self, request: RequestId, tokens: &[u32]) {
        assert!(self.known[&request].starts_with(tokens));
        self.under_way.retain(|other| *other != request);
    }
}

/// Guesses of a script: always the same, from a table of what it said.
struct Fixed(Vec<u32>);

impl Drafter for Fixed {
    fn costs(&self) -> Costs {
        Costs { row: 0.0, token: 0.0 }
    }
    fn draft(&mut self, asks: &mut [Ask<'_>], _: &mut KvPages) {
        asks.iter_mut().for_each(|ask| ask.draft.extend(&self.0[ask.tokens.len()..]));
    }
    fn finished(&mut self, _: RequestId, _: &[u32]) {}
}

#[test]
fn whatever_is_guessed_in_any_company() {
    let mut total = Speculated::default();
    for seed in 0..60 {
        let random = &mut Random::new(seed, [6, 0, 0]);
        let requests = random_requests(random, 24, VOCAB as u32, 200);
        let alone = alone(&mut Scripted::new(200), &requests);
        let limits = random_limits(random, 200);
        let row = [0.0, 0.1][seed as usize % 2];
        let guesser: Box<dyn Drafter> = match seed % 3 {
            0 => Box::new(Lookup { row }),
            1 => {
                // Sometimes with too few positions or pages.
                let mut model = Scripted::new(100 + random.below(120) as usize);
                model.mistakes = Some(5);
                Box::new(DraftModel::new(model, 1 + random.below(40) as usize, row, row))
            }
            _ => Box::new(Guesser::new(seed, VOCAB as u32, row, &requests, &alone)),
        };
        let mut decoder = Speculative { decoder: Scripted::new(200), drafter: Some(guesser) };
        let Speculated { drafted, accepted } = check(random, &mut decoder, limits, &requests, &alone);
        assert!(decoder.decoder.most_rows <= limits.batch_tokens);
        total.drafted += drafted;
        total.accepted += accepted;
    }
    assert!(total.accepted > 5000 && total.accepted < total.drafted, "{total:?}");
}

#[test]
fn right_guesses_save_steps_and_pages_are_found_again() {
    let prompt = prompt(&mut Random::new(1, [0; 3]), 20);
    let plain = alone(&mut Scripted::new(400), &[request(0, prompt.clone(), 100)]);
    let mut known = prompt.clone();
    known.extend(plain[0].tokens.iter().map(|token| token.id));
    let mut decoder = Speculative { decoder: Scripted::new(400), drafter: Some(Box::new(Fixed(known.clone()))) };
    let limits = Limits { sequences: 2, batch_tokens: 32, pages: 20, queue: 2 };
    let mut engine = Engine::new(&decoder, limits);
    engine.submit(request(0, prompt, 100)).unwrap();
    let mut steps = 0;
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.append(&mut engine.step(&mut decoder));
        steps += 1;
    }
    assert_eq!((steps, events.len()), (8, 101), "the prompt, 4, 8, then 16 guesses at a time");
    assert_eq!((decoder.decoder.rows, engine.speculated().accepted), (119, 92));
    // All that was run can be found: the last token and one new one are left.
    decoder.decoder.rows = 0;
    decoder.drafter = None;
    engine.generate(&mut decoder, vec![request(1, [&known[..], &[7]].concat(), 1)]).unwrap();
    assert_eq!(decoder.decoder.rows, 2);
}

#[test]
fn wrong_guesses_are_not_found_again() {
    let prompt = prompt(&mut Random::new(2, [0; 3]), 30);
    let plain = alone(&mut Scripted::new(400), &[request(0, prompt.clone(), 1)]).remove(0);
    // Over the page's end, wrong from the second token on.
    let mut wrong = prompt.clone();
    wrong.push(plain.tokens[0].id);
    wrong.extend([3; 300]);
    let mut decoder = Speculative { decoder: Scripted::new(400), drafter: Some(Box::new(Fixed(wrong[..35].to_vec()))) };
    let limits = Limits { sequences: 2, batch_tokens: 64, pages: 20, queue: 2 };
    let mut engine = Engine::new(&decoder, limits);
    engine.submit(request(0, prompt.clone(), 2)).unwrap();
    engine.submit(request(1, prompt, 60)).unwrap();
    engine.step(&mut decoder);
    engine.step(&mut decoder);
    engine.cancel(RequestId(1));
    engine.step(&mut decoder);
    decoder.drafter = None;
    decoder.decoder.rows = 0;
    engine.generate(&mut decoder, vec![request(2, wrong[..40].to_vec(), 1)]).unwrap();
    assert_eq!(decoder.decoder.rows, 9, "31 positions were right");
}

/// Guesses for request 0 what spoils the last row of its first page, and for request 1, once, what catches it up.
struct Spoiler {
    known: Vec<u32>,
    /// Whether it has been said, while both ran that row.
    said: Rc<Cell<bool>>,
}

impl Drafter for Spoiler {
    fn costs(&self) -> Costs {
        Costs { row: 0.0, token: 0.0 }
    }
    fn draft(&mut self, asks: &mut [Ask<'_>], _: &mut KvPages) {
        let together = asks.len() == 2 && asks.iter().all(|ask| ask.tokens.len() == PAGE_POSITIONS);
        for Ask { request, tokens, draft, .. } in asks {
            match (request.0, tokens.len()) {
                (0, PAGE_POSITIONS) => {
                    draft.push(POISON);
                    self.said.set(together);
                }
                (1, 24) => draft.push(self.known[24]),
                _ => {}
            }
        }
    }
    fn finished(&mut self, _: RequestId, _: &[u32]) {}
}

/// A wrong guess may spoil the row before it, which is run again. Nobody may be given its page until then, be it full.
#[test]
fn a_page_with_a_row_that_a_guess_has_spoilt_is_not_found() {
    let requests: Vec<Request> = (0..2)
        .map(|id| {
            let request = request(id, prompt(&mut Random::new(6, [0; 3]), 20), 60);
            Request { sampling: Sampling::greedy(), ..request }
        })
        .collect();
    let plain = alone(&mut Scripted::new(400), &requests[1..]).remove(0);
    let known = requests[1].prompt.iter().copied().chain(plain.tokens.iter().map(|token| token.id)).collect();
    let said = Rc::new(Cell::new(false));
    let drafter = Spoiler { known, said: Rc::clone(&said) };
    let mut decoder = Speculative { decoder: Scripted::new(400), drafter: Some(Box::new(drafter)) };
    let mut engine = Engine::new(&decoder, Limits { sequences: 2, batch_tokens: 64, pages: 20, queue: 2 });
    requests.iter().for_each(|request| engine.submit(request.clone()).unwrap());
    let mut events = Vec::new();
    while !said.get() && !engine.is_idle() {
        events.append(&mut engine.step(&mut decoder));
    }
    assert!(said.get(), "the two never ran the row together");
    engine.cancel(RequestId(0));
    while !engine.is_idle() {
        events.append(&mut engine.step(&mut decoder));
    }
    let tokens = events.iter().filter_map(|event| match event.kind {
        EventKind::Token(token) if event.request == RequestId(1) => Some(bits(&token)),
        _ => None,
    });
    assert!(tokens.eq(plain.tokens.iter().map(bits)));
}

#[test]
fn guesses_take_only_rows_that_are_left() {
    let random = &mut Random::new(3, [0; 3]);
    let requests: Vec<Request> = (0..4).map(|id| request(id, prompt(random, 3 + 90 * (id as usize % 2)), 60)).collect();
    let alone = alone(&mut Scripted::new(400), &requests);
    let steps = |guessing: bool| {
        let guesser = Guesser::new(1, VOCAB as u32, 0.0, &requests, &alone);
        let drafter: Option<Box<dyn Drafter>> = if guessing { Some(Box::new(guesser)) } else { None };
        let mut decoder = Speculative { decoder: Scripted::new(400), drafter };
        let mut engine = Engine::new(&decoder, Limits { sequences: 4, batch_tokens: 16, pages: 40, queue: 4 });
        requests.iter().for_each(|request| engine.submit(request.clone()).unwrap());
        let mut first = BTreeMap::new();
        let mut step = 0;
        while !engine.is_idle() {
            for event in engine.step(&mut decoder) {
                first.entry(event.request).or_insert(step);
            }
            step += 1;
        }
        (first, step)
    };
    let ((plain, plain_steps), (guessed, guessed_steps)) = (steps(false), steps(true));
    assert_eq!(plain, guessed, "nobody's prompt is read later");
    assert!(guessed_steps < plain_steps, "{guessed_steps} steps, {plain_steps} without guesses");
}

/// Tokens of many seeds, guesses of which are often right and often wrong, against their probabilities by the script.
#[test]
fn accepted_tokens_come_as_often_as_they_should() {
    const SEEDS: u64 = 20_000;
    let likeliest =
        |hash| (0..VOCAB as u32).max_by(|&a, &b| script(hash)[a as usize].total_cmp(&script(hash)[b as usize]));
    let prompt = vec![5, 6, 7];
    let mut known = prompt.clone();
    let mut hash = known.iter().fold(START, |hash, &token| next(hash, token));
    for _ in 0..4 {
        known.push(likeliest(hash).unwrap());
        hash = next(hash, known[known.len() - 1]);
    }
    let sampling = |id| Sampling { temperature: 0.7, seed: Seed { seed: id, stream: [0; 3] }, ..Sampling::default() };
    let requests: Vec<Request> =
        (0..SEEDS).map(|id| Request { sampling: sampling(id), ..request(id, prompt.clone(), 4) }).collect();
    let limits = Limits { sequences: 32, batch_tokens: 512, pages: 64, queue: 64 };
    let run = |drafter: Option<Box<dyn Drafter>>| {
        let mut decoder = Speculative { decoder: Scripted::new(400), drafter };
        let mut engine = Engine::new(&decoder, limits);
        (engine.generate(&mut decoder, requests.clone()).unwrap(), engine.speculated())
    };
    let (guessed, Speculated { drafted, accepted }) = run(Some(Box::new(Fixed(known.clone()))));
    assert!(accepted > SEEDS / 20 && accepted < drafted * 3 / 4, "{accepted} of {drafted}");
    // The token after the first, where the first was the likeliest: that step's guesses began with it. And the second after.
    for guessed_right in [1, 2] {
        let (from, to) = (prompt.len(), prompt.len() + guessed_right);
        let hash = known[..to].iter().fold(START, |hash, &token| next(hash, token));
        let weights = script(hash).map(|logit| (f64::from(logit) / f64::from(0.7_f32)).exp());
        let total: f64 = weights.iter().sum();
        let mut counts = [0_usize; VOCAB];
        let begins_so =
            |outcome: &&Outcome| outcome.tokens.iter().zip(&known[from..to]).all(|(token, id)| token.id == *id);
        guessed.iter().filter(begins_so).for_each(|outcome| counts[outcome.tokens[guessed_right].id as usize] += 1);
        let count: usize = counts.iter().sum();
        assert!(count > 500, "{count} after {guessed_right} guesses");
        let expected = weights.map(|weight| weight / total * count as f64);
        let terms = counts.iter().zip(expected).filter(|(_, expected)| *expected > 0.0);
        let chi_squared: f64 = terms.map(|(&seen, expected)| (seen as f64 - expected).powi(2) / expected).sum();
        // With 21 degrees of freedom, one in a thousand is above 46.8.
        assert!(chi_squared < 46.8, "{counts:?}: {chi_squared}");
    }
    let (plain, _) = run(None);
    let same = |(a, b): (&Outcome, &Outcome)| a.tokens.iter().map(bits).eq(b.tokens.iter().map(bits));
    assert!(guessed.iter().zip(&plain).all(same), "and they are those without guesses");
}

#[test]
fn a_draft_model_reads_a_prompt_once_and_runs_what_was_wrong_again() {
    let prompt = prompt(&mut Random::new(4, [0; 3]), 100);
    let model = Scripted::new(400);
    let counter = Rc::clone(&model.counter);
    let mut kv = KvPages::new(model.kv_layout(), 0);
    let mut twin = DraftModel::new(model, 40, 0.0, 0.0);
    let sampling = Sampling::default();
    let mut ask = |tokens: &[u32], most| {
        let before = counter.get();
        let (request, pages, sampling) = (RequestId(0), &[], &sampling);
        let mut asks = [Ask { request, tokens, pages, sampling, most, draft: Vec::new(), cost: 0.0 }];
        twin.draft(&mut asks, &mut kv);
        let [Ask { draft, .. }] = asks;
        (draft, counter.get() - before)
    };
    let (draft, rows) = ask(&prompt, 5);
    assert_eq!((draft.len(), rows), (5, 100 + 4));
    let right = [&prompt[..], &draft, &[9]].concat();
    assert_eq!(ask(&right, 1).1, 2, "the last guess, which was not run, and the token behind it");
    let wrong = [&right[..], &[3, 4]].concat();
    assert_eq!(ask(&wrong, 3).1, 2 + 2);
    twin.finished(RequestId(0), &wrong);
}
