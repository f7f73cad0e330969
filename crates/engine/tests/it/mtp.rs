//! A model's own block for multi-token prediction as its drafter.

use std::path::Path;

use minke_engine::{
    Ask, Costs, Decoder, Drafter, Engine, EventKind, Limits, Outcome, Ran, Request, RequestId, Sampling, Seed,
    Speculated, TransformerDecoder,
};
use minke_kernels::kv::{KvDtype, KvLayout, KvPages, PAGE_POSITIONS};
use minke_kernels::random::Random;
use minke_kernels::{Buffer, Cpu, Dtype, Isa, View};
use minke_model::{Activations, Batch, Checkpoint, Config, Parameters, Predictions, Predictor, Source, Transformer};

use crate::alone::{alone, bits, check, random_limits, random_requests};

fn golden() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/mtp")).unwrap()
}

fn open(cpu: &Cpu, dtype: Dtype) -> (Transformer, Predictor) {
    let checkpoint = golden();
    let (config, source) = (checkpoint.config(), Source::Checkpoint(&checkpoint));
    let model = Transformer::new(cpu, config, dtype.into(), source).unwrap();
    (model, Predictor::new(cpu, config, dtype.into(), source).unwrap())
}

/// Guesses more often than would pay, and may hold each draft to what the block says when all is run anew, in pages of
/// their own.
struct Eager<'a> {
    decoder: TransformerDecoder<'a>,
    cpu: &'a Cpu,
    model: &'a Transformer,
    predictor: &'a Predictor,
    compared: Option<Compared>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    guesses: usize,
    longest: usize,
    different: usize,
}

impl Eager<'_> {
    /// The likeliest next tokens by the block.
    fn anew(&self, tokens: &[u32], count: usize) -> Vec<u32> {
        let Eager { cpu, model, predictor, .. } = self;
        let (width, rows) = (model.config().hidden_size, tokens.len() - 1);
        let pages: Vec<u32> = (0..(rows + count).div_ceil(PAGE_POSITIONS) as u32).collect();
        let mut kv = KvPages::new(self.decoder.kv_layout(), pages.len());
        let (mut batch, mut a) = (Batch::default(), Activations::inference());
        batch.push(&tokens[..rows], 0, pages.clone());
        model.forward(cpu, &batch, &mut kv, &mut a);
        let (mut hidden, mut at, mut run) = (a.hidden.to_vec(), 0, tokens[1..].to_vec());
        let (mut predictions, mut logits) = (Predictions::default(), vec![0.0; model.config().vocab_size]);
        let mut said = Vec::new();
        while said.len() < count {
            let mut batch = Batch::default();
            batch.push(&run, at, pages.clone());
            predictor.forward(cpu, model, &batch, View::new(&hidden, run.len(), width), &mut kv, &mut predictions);
            hidden = predictions.hidden[(run.len() - 1) * width..].to_vec();
            model.logits(cpu, View::new(&hidden, 1, width), &mut logits);
            let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            (at, run) = (at + run.len(), vec![best as u32]);
            said.push(best as u32);
        }
        said
    }
}

impl Decoder for Eager<'_> {
    fn cpu(&self) -> &Cpu {
        self.cpu
    }
    fn kv_layout(&self) -> KvLayout {
        self.decoder.kv_layout()
    }
    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }
    fn context(&self) -> usize {
        self.decoder.context()
    }
    fn version(&self) -> u64 {
        self.decoder.version()
    }
    fn forward(&mut self, batch: &Batch, kv: &mut KvPages, rows: &[u32], logits: &mut Buffer) {
        self.decoder.forward(batch, kv, rows, logits);
    }
    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        Some(self)
    }
}

impl Drafter for Eager<'_> {
    fn costs(&self) -> Costs {
        Costs { row: 0.0, token: 0.01 }
    }
    fn draft(&mut self, asks: &mut [Ask<'_>], kv: &mut KvPages) {
        self.decoder.drafter().unwrap().draft(asks, kv);
        let Some(mut compared) = self.compared else { return };
        for Ask { tokens, most, draft, .. } in asks.iter().filter(|ask| !ask.draft.is_empty()) {
            assert!(draft.len() <= *most);
            compared.longest = compared.longest.max(draft.len());
            compared.guesses += draft.len();
            let anew = self.anew(tokens, draft.len());
            compared.different += draft.iter().zip(&anew).filter(|(a, b)| a != b).count();
        }
        self.compared = Some(compared);
    }
    fn ran(&mut self, ran: &[Ran<'_>], kv: &mut KvPages) {
        self.decoder.drafter().unwrap().ran(ran, kv);
    }
    fn finished(&mut self, request: RequestId, tokens: &[u32]) {
        self.decoder.drafter().unwrap().finished(request, tokens);
    }
}

#[test]
fn guesses_of_its_own_change_nothing() {
    let isa = Isa::choose(None).unwrap();
    let (one, two) = (Cpu::new(isa, 1), Cpu::new(isa, 2));
    for (seed, dtype) in [Dtype::F32, Dtype::Bf16].into_iter().enumerate() {
        let (model, predictor) = open(&one, dtype);
        let (vocab, context) = (model.config().vocab_size as u32, model.context());
        for kv in KvDtype::ALL {
            let random = &mut Random::new(seed as u64, [11, 0, 0]);
            let requests = random_requests(random, 24, vocab, context);
            let alone = alone(&mut TransformerDecoder::new(&one, &model).with_kv(kv), &requests);
            let limits = random_limits(random, context);
            let decoder = TransformerDecoder::new(&two, &model).with_kv(kv).predicting(&predictor, 0.0);
            let mut eager = Eager { decoder, cpu: &two, model: &model, predictor: &predictor, compared: None };
            let guessed = check(random, &mut eager, limits, &requests, &alone);
            assert!(guessed.accepted > 20 && guessed.accepted < guessed.drafted, "{dtype:?}, {kv:?}: {guessed:?}");
        }
    }
}

/// However prompts were cut, whatever was guessed before and wherever pages end, a guess is what it is when everything is run
/// anew: no row is missing or another's.
#[test]
fn a_guess_is_what_the_block_says_of_all_that_came_before() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 1);
    let (model, predictor) = open(&cpu, Dtype::F32);
    let random = &mut Random::new(4, [12, 0, 0]);
    let vocab = model.config().vocab_size as u32;
    let requests: Vec<Request> = [1, 2, 31, 32, 33, 64, 70, 100]
        .into_iter()
        .enumerate()
        .map(|(id, len)| Request {
            id: RequestId(id as u64),
            prompt: (0..len).map(|_| random.below(vocab)).collect(),
            sampling: Sampling::greedy(),
            limit: 90,
            stop: Vec::new(),
            thought: None,
        })
        .collect();
    for (sequences, batch_tokens) in [(8, 200), (3, 12), (1, 512)] {
        let decoder = TransformerDecoder::new(&cpu, &model).predicting(&predictor, 0.0);
        let (cpu, model, predictor) = (&cpu, &model, &predictor);
        let mut checked = Eager { decoder, cpu, model, predictor, compared: Some(Compared::default()) };
        let mut engine = Engine::new(&checked, Limits { sequences, batch_tokens, pages: 64, queue: 8 });
        let outcomes = engine.generate(&mut checked, requests.clone()).unwrap();
        let compared = checked.compared.replace(Compared::default()).unwrap();
        assert!(compared.guesses > 100 && compared.longest > 1 && compared.different == 0, "{compared:?}");
        // A second turn finds the pages of the first, and the block's rows in them.
        let next = |(request, outcome): (&Request, &Outcome)| {
            let said = outcome.tokens.iter().map(|token| token.id).take(40);
            let prompt = request.prompt.iter().copied().chain(said).collect();
            Request { id: RequestId(100 + request.id.0), prompt, limit: 20, ..request.clone() }
        };
        let again = requests.iter().zip(&outcomes).map(next).collect();
        engine.generate(&mut checked, again).unwrap();
        let compared = checked.compared.unwrap();
        assert!(compared.guesses > 20 && compared.different == 0, "{compared:?}");
    }
}

/// Numbers of a model each of whose blocks adds nothing, so that the next token hangs on the last alone, and of a block for
/// prediction that hands the next token on: it says what the model will say. Or, `wrong`, anything else.
fn bigram(config: &Config, wrong: bool) -> (Vec<f32>, Vec<f32>) {
    let random = &mut Random::new(5, [13, 0, 0]);
    let mut fill = |parameters: &Parameters| {
        let mut values = vec![0.0; parameters.len()];
        for parameter in parameters {
            let silent = ["o_proj.weight", "down_proj.weight"].iter().any(|name| parameter.name.ends_with(name));
            let own = parameter.name.ends_with("eh_proj.weight") && !wrong;
            for (i, value) in values[parameter.range()].iter_mut().enumerate() {
                let [_, columns] = parameter.shape[..] else {
                    *value = if parameter.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
                    continue;
                };
                let drawn = (random.below(2001) as f32 - 1000.0) / 1000.0;
                *value = if silent {
                    0.0
                } else if own {
                    if i / columns == i % columns { 1.0 } else { 0.0 }
                } else {
                    drawn
                };
            }
        }
        values
    };
    (fill(&Parameters::of(config)), fill(&Parameters::of_prediction(config)))
}

#[test]
fn right_guesses_pay_and_wrong_ones_end() {
    let cpu = Cpu::new(Isa::choose(None).unwrap(), 1);
    // Deep enough that a guess costs little beside a step.
    let config = &Config { layers: 24, ..golden().config().clone() };
    let requests: Vec<Request> = (0..4)
        .map(|id| Request {
            id: RequestId(id),
            prompt: vec![3 + id as u32, 7],
            sampling: Sampling { seed: Seed { seed: 1, stream: [0, 0, id as u32] }, ..Sampling::default() },
            limit: 200,
            stop: Vec::new(),
            thought: None,
        })
        .collect();
    let run = |wrong| {
        let (values, block) = bigram(config, wrong);
        let model = Transformer::new(&cpu, config, Dtype::F32.into(), Source::Arena(&values)).unwrap();
        let predictor = Predictor::new(&cpu, config, Dtype::F32.into(), Source::Arena(&block)).unwrap();
        let plain = alone(&mut TransformerDecoder::new(&cpu, &model), &requests);
        let mut decoder = TransformerDecoder::new(&cpu, &model).predicting(&predictor, 0.05);
        let mut engine = Engine::new(&decoder, Limits { sequences: 1, batch_tokens: 32, pages: 16, queue: 4 });
        requests.iter().for_each(|request| engine.submit(request.clone()).unwrap());
        let (mut steps, mut tokens) = (0_u64, Vec::new());
        while !engine.is_idle() {
            let events = engine.step(&mut decoder);
            tokens.extend(events.into_iter().filter_map(|event| match event.kind {
                EventKind::Token(token) => Some(bits(&token)),
                EventKind::Finished(_) => None,
            }));
            steps += 1;
        }
        assert!(tokens.iter().copied().eq(plain.iter().flat_map(|outcome| outcome.tokens.iter().map(bits))));
        (steps, engine.speculated())
    };
    let (steps, Speculated { drafted, accepted }) = run(false);
    assert!(accepted * 100 >= drafted * 99, "{accepted} of {drafted}");
    assert!(steps < 800 / 4, "{steps} steps for 800 tokens");
    let (steps, Speculated { drafted, accepted }) = run(true);
    // A token costs 0.1 to guess, and what it brings without a right guess is 0.01.
    assert!((20..100).contains(&drafted) && accepted < drafted / 4, "{accepted} of {drafted}");
    assert_eq!(steps, 800 - accepted);
}
