//! What the engine promises beyond exactness: shared prefixes, order, limits, ends, refusals.

use minke_engine::{
    Engine, Event, EventKind, Limits, Reason, Refused, Request, RequestId, Sampling, ThoughtBudget, Token,
};
use minke_kernels::random::Random;

use crate::scripted::{POISON, START, STOP, Scripted, VOCAB, next, prompt, request, script};

const LIMITS: Limits = Limits { sequences: 8, batch_tokens: 32, pages: 100, queue: 16 };

fn run(engine: &mut Engine, decoder: &mut Scripted) -> Vec<Event> {
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.append(&mut engine.step(decoder));
    }
    events
}

fn tokens(events: &[Event], id: u64) -> Vec<Token> {
    let of = events.iter().filter(|event| event.request == RequestId(id));
    of.filter_map(|event| match event.kind {
        EventKind::Token(token) => Some(token),
        EventKind::Finished(_) => None,
    })
    .collect()
}

fn reason(events: &[Event], id: u64) -> Reason {
    let last = events.iter().rfind(|event| event.request == RequestId(id)).unwrap();
    match last.kind {
        EventKind::Finished(reason) => reason,
        EventKind::Token(_) => panic!("no end"),
    }
}

#[test]
fn samples_of_one_prompt_read_it_once() {
    for len in [2, 20, 32, 33, 100] {
        let mut decoder = Scripted::new(400);
        let mut engine = Engine::new(&decoder, LIMITS);
        let prompt = prompt(&mut Random::new(1, [0; 3]), len);
        for id in 0..8 {
            engine.submit(request(id, prompt.clone(), 10)).unwrap();
        }
        let events = run(&mut engine, &mut decoder);
        // The others run the prompt's last token, for its logits, and what they generate except its last token.
        assert_eq!(decoder.rows, len + 7 + 8 * 9, "a prompt of {len}");
        let answers: Vec<Vec<u32>> = (0..8).map(|id| tokens(&events, id).iter().map(|t| t.id).collect()).collect();
        assert!(answers.iter().any(|answer| *answer != answers[0]), "samples differ");
    }
}

#[test]
fn a_conversation_goes_on_from_its_pages() {
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, LIMITS);
    let mut text = prompt(&mut Random::new(2, [0; 3]), 50);
    for turn in 0..5 {
        decoder.rows = 0;
        let outcome = engine.generate(&mut decoder, vec![request(turn, text.clone(), 20)]).unwrap().remove(0);
        // After the first turn: the answer's last token, and the three new ones.
        assert_eq!(decoder.rows, if turn == 0 { 50 } else { 4 } + 19);
        text.extend(outcome.tokens.iter().map(|token| token.id));
        text.extend([2, 3, 4]);
    }
    // Another continuation of the first turn shares its whole pages and copies the start of the next.
    decoder.rows = 0;
    engine.generate(&mut decoder, vec![request(9, [&text[..60], &[21, 21]].concat(), 1)]).unwrap();
    assert_eq!(decoder.rows, 2);
    engine.reset();
    decoder.rows = 0;
    engine.generate(&mut decoder, vec![request(9, text[..60].to_vec(), 1)]).unwrap();
    assert_eq!(decoder.rows, 60, "nothing is remembered after a reset");
}

#[test]
fn equal_pages_are_kept_once() {
    // Greedy sequences of one prompt that arrive together hold the same full pages in the end.
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, LIMITS);
    let prompt = prompt(&mut Random::new(3, [0; 3]), 32);
    for id in 0..4 {
        engine.submit(Request { sampling: Sampling::greedy(), ..request(id, prompt.clone(), 100) }).unwrap();
    }
    let mut most = 0;
    while !engine.is_idle() {
        engine.step(&mut decoder);
        most = most.max(engine.usage().pages_held);
    }
    assert!(most <= 4 + 4, "{most} pages for four equal sequences of 131 positions");
    assert_eq!(engine.usage().pages_held, 0);
}

#[test]
fn pages_are_made_when_needed_and_the_oldest_are_given_up() {
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, Limits { pages: 6, ..LIMITS });
    let random = &mut Random::new(4, [0; 3]);
    let prompts: Vec<Vec<u32>> = (0..4).map(|_| prompt(random, 64)).collect();
    for (id, prompt) in prompts.iter().enumerate() {
        engine.generate(&mut decoder, vec![request(id as u64, prompt.clone(), 1)]).unwrap();
        assert_eq!(engine.usage().pages_cached, (2 * (id + 1)).min(6));
    }
    let mut rows = |prompt: &Vec<u32>| {
        decoder.rows = 0;
        engine.generate(&mut decoder, vec![request(0, prompt.clone(), 1)]).unwrap();
        decoder.rows
    };
    assert_eq!(rows(&prompts[3]), 1, "the youngest is still there");
    assert_eq!(rows(&prompts[2]), 1);
    assert_eq!(rows(&prompts[0]), 64, "the oldest went");
}

#[test]
fn a_page_is_given_up_before_the_page_before_it() {
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, Limits { pages: 3, ..LIMITS });
    let random = &mut Random::new(9, [0; 3]);
    let [first, second, other] = [(); 3].map(|()| prompt(random, 32));
    engine.generate(&mut decoder, vec![request(0, [&first[..], &second, &[3]].concat(), 1)]).unwrap();
    // This takes one of the three pages. Were it the first, the second would be found behind the other, which it never saw;
    // the decoder would notice.
    engine.generate(&mut decoder, vec![request(1, other.clone(), 1)]).unwrap();
    decoder.rows = 0;
    engine.generate(&mut decoder, vec![request(2, [&other[..], &second, &[3]].concat(), 1)]).unwrap();
    assert_eq!(decoder.rows, 33);
}

#[test]
fn whoever_made_room_goes_on_first() {
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, Limits { pages: 6, sequences: 2, ..LIMITS });
    let random = &mut Random::new(8, [0; 3]);
    for id in 0..3 {
        // The first two start with two pages each, and want five in the end.
        let prompt = [&[2 + id as u32], &prompt(random, 39)[..]].concat();
        engine.submit(request(id, prompt, if id == 2 { 1 } else { 100 })).unwrap();
    }
    let events = run(&mut engine, &mut decoder);
    let end = |id| {
        let finished = |event: &Event| matches!(event.kind, EventKind::Finished(_)) && event.request == RequestId(id);
        events.iter().position(finished).unwrap()
    };
    let between = events[..end(0)].iter().filter(|event| event.request == RequestId(1)).count();
    assert!((50..70).contains(&between), "the second gave way at its fourth page, after {between} tokens");
    assert!(end(0) < end(1) && end(1) < end(2), "it came back before the third");
}

#[test]
fn generation_goes_before_reading_and_batches_keep_their_size() {
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, LIMITS);
    let random = &mut Random::new(5, [0; 3]);
    engine.submit(request(0, prompt(random, 3), 50)).unwrap();
    assert_eq!(engine.step(&mut decoder).len(), 1);
    engine.submit(request(1, prompt(random, 300), 5)).unwrap();
    // The long prompt takes ten steps of at most 31 rows; the first request gets a token in each.
    for _ in 0..9 {
        let events = engine.step(&mut decoder);
        assert!(events.len() == 1 && events[0].request == RequestId(0));
    }
    assert_eq!(engine.step(&mut decoder).len(), 2);
    assert_eq!(decoder.most_rows, 32);
    run(&mut engine, &mut decoder);
    for id in 0..12 {
        engine.submit(request(id, prompt(random, 1), 5)).unwrap();
    }
    run(&mut engine, &mut decoder);
    assert_eq!(decoder.most_spans, 8);
}

#[test]
fn requests_end_for_the_reason_given() {
    let mut decoder = Scripted::new(64);
    let mut engine = Engine::new(&decoder, LIMITS);
    let random = &mut Random::new(6, [0; 3]);
    let start = prompt(random, 10);
    let greedy = |id| Request { sampling: Sampling::greedy(), ..request(id, start.clone(), 20) };
    engine.submit(greedy(0)).unwrap();
    let free = tokens(&run(&mut engine, &mut decoder), 0);
    assert_eq!((free.len(), free[0].position, free[19].position), (20, 10, 29));
    let stop = free[7].id;
    let first = free.iter().position(|token| token.id == stop).unwrap();

    engine.submit(Request { stop: vec![STOP, stop], ..greedy(1) }).unwrap();
    engine.submit(Request { limit: 1000, ..greedy(2) }).unwrap();
    engine.submit(greedy(3)).unwrap();
    engine.submit(Request { prompt: vec![3, POISON], ..greedy(4) }).unwrap();
    for sampling in [Sampling::default(), Sampling { min_p: Some(0.1), ..Sampling::default() }] {
        engine.submit(Request { prompt: vec![3, POISON], sampling, ..greedy(5) }).unwrap();
        let events = run(&mut engine, &mut decoder);
        assert_eq!((tokens(&events, 5).len(), reason(&events, 5)), (0, Reason::NotFinite));
        if sampling.min_p.is_none() {
            assert_eq!((tokens(&events, 1), reason(&events, 1)), (free[..=first].to_vec(), Reason::Stop));
            assert_eq!((tokens(&events, 2).len(), reason(&events, 2)), (54, Reason::Context));
            assert_eq!((tokens(&events, 3), reason(&events, 3)), (free.clone(), Reason::Limit));
            assert_eq!((tokens(&events, 4).len(), reason(&events, 4)), (0, Reason::NotFinite));
        }
    }
}

#[test]
fn a_cancel_takes_effect_at_the_next_step() {
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, Limits { sequences: 2, ..LIMITS });
    let random = &mut Random::new(7, [0; 3]);
    for id in 0..3 {
        engine.submit(request(id, prompt(random, 5), 50)).unwrap();
    }
    engine.step(&mut decoder);
    // One that runs, one that waits, and one that does not exist.
    [0, 2, 77].into_iter().for_each(|id| engine.cancel(RequestId(id)));
    let events = engine.step(&mut decoder);
    let cancelled = |id| Event { request: RequestId(id), kind: EventKind::Finished(Reason::Cancelled) };
    assert_eq!(events[..2], [cancelled(0), cancelled(2)]);
    assert_eq!((events.len(), events[2].request), (3, RequestId(1)));
    assert_eq!(engine.usage().running, 1);
    engine.submit(request(0, vec![3], 1)).unwrap();
    let events = run(&mut engine, &mut decoder);
    assert_eq!((reason(&events, 0), reason(&events, 1)), (Reason::Limit, Reason::Limit));
}

#[test]
fn a_spent_thought_is_closed() {
    const OPEN: u32 = 4;
    const CLOSE: u32 = 5;
    let mut decoder = Scripted::new(400);
    let mut engine = Engine::new(&decoder, LIMITS);
    for (id, tokens_allowed) in [(0, 0), (1, 6)] {
        let thought = Some(ThoughtBudget { open: OPEN, close: CLOSE, tokens: tokens_allowed });
        engine.submit(Request { thought, ..request(id, vec![9, OPEN, 8], 60) }).unwrap();
    }
    let events = run(&mut engine, &mut decoder);
    for (id, allowed) in [(0, 0), (1, 6)] {
        let tokens = tokens(&events, id);
        let mut open = Some(1);
        let mut hash = [9, OPEN, 8].into_iter().fold(START, next);
        let mut forced = 0;
        for token in &tokens {
            assert_eq!(token.forced, open.is_some_and(|n| n >= allowed), "a forced token at {}", token.position);
            if token.forced {
                assert_eq!(token.id, CLOSE);
                forced += 1;
            }
            let logits: Vec<f64> = script(hash).iter().map(|&x| f64::from(x)).collect();
            let log_prob = logits[token.id as usize] - logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            assert!((log_prob - f64::from(token.log_prob)).abs() < 1e-5, "of the whole vocabulary");
            hash = next(hash, token.id);
            open = match token.id {
                CLOSE => None,
                OPEN => Some(0),
                _ => open.map(|n| n + 1),
            };
        }
        assert!(forced > 0 && tokens.len() == 60);
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let decoder = Scripted::new(100);
    let mut engine = Engine::new(&decoder, Limits { pages: 2, queue: 3, ..LIMITS });
    let good = request(1, vec![3; 10], 20);
    let mut refused = |request: Request| engine.submit(request).unwrap_err();
    assert_eq!(refused(Request { prompt: vec![], ..good.clone() }), Refused::PromptEmpty);
    let long = Request { prompt: vec![3; 100], ..good.clone() };
    assert_eq!(refused(long), Refused::PromptTooLong { tokens: 100, context: 100 });
    let unknown = Request { prompt: vec![3, VOCAB as u32], ..good.clone() };
    assert_eq!(refused(unknown), Refused::UnknownToken { token: 23, vocab_size: 23 });
    let thought = Some(ThoughtBudget { open: 4, close: 99, tokens: 5 });
    let unknown = Request { thought, ..good.clone() };
    assert_eq!(refused(unknown), Refused::UnknownToken { token: 99, vocab_size: 23 });
    assert_eq!(refused(Request { limit: 0, ..good.clone() }), Refused::LimitZero);
    assert_eq!(refused(Request { limit: 56, ..good.clone() }), Refused::TooManyPages { needed: 3, limit: 2 });
    assert_eq!(refused(Request { limit: usize::MAX, ..good.clone() }), Refused::TooManyPages { needed: 4, limit: 2 });
    let default = Sampling::default();
    for sampling in [
        Sampling { temperature: -1.0, ..default },
        Sampling { temperature: f32::NAN, ..default },
        Sampling { temperature: 1e-30, ..default },
        Sampling { temperature: f32::INFINITY, ..default },
        Sampling { top_k: Some(0), ..default },
        Sampling { top_p: Some(0.0), ..default },
        Sampling { top_p: Some(1.1), ..default },
        Sampling { top_p: Some(f32::NAN), ..default },
        Sampling { min_p: Some(-0.1), ..default },
        Sampling { min_p: Some(1.5), ..default },
    ] {
        assert!(matches!(refused(Request { sampling, ..good.clone() }), Refused::BadSampling { .. }), "{sampling:?}");
    }
    // As many as fit are taken, after all that.
    engine.submit(Request { limit: 55, ..good.clone() }).unwrap();
    assert_eq!(engine.submit(good.clone()), Err(Refused::IdInUse));
    engine.submit(Request { id: RequestId(2), ..good.clone() }).unwrap();
    engine.submit(Request { id: RequestId(3), ..good.clone() }).unwrap();
    assert_eq!(engine.submit(Request { id: RequestId(4), ..good }), Err(Refused::QueueFull { limit: 3 }));
}

#[test]
#[should_panic(expected = "the weights changed without a reset")]
fn other_weights_need_a_reset() {
    let mut decoder = Scripted::new(100);
    let mut engine = Engine::new(&decoder, LIMITS);
    engine.generate(&mut decoder, vec![request(0, vec![3], 2)]).unwrap();
    decoder.version += 1;
    engine.reset();
    engine.generate(&mut decoder, vec![request(0, vec![3], 2)]).unwrap();
    decoder.version += 1;
    let _ = engine.step(&mut decoder);
}
