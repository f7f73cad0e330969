//! The engine over the tiny golden models: company changes nothing, and what was sampled is what training sees.

use std::path::{Path, PathBuf};

use minke_engine::{
    Decoder, DraftModel, Engine, Limits, Lookup, Request, RequestId, Sampling, Seed, Speculative, TransformerDecoder,
};
use minke_kernels::kv::{KvDtype, KvPages, PAGE_POSITIONS};
use minke_kernels::log_prob::{LogProb, log_prob};
use minke_kernels::random::Random;
use minke_kernels::{Cpu, Dtype, Isa};
use minke_model::{Activations, Batch, Checkpoint, Source, Transformer};

use crate::alone::{alone, check, random_limits, random_requests};
use crate::speculation::Guesser;

const MODELS: [&str; 4] = ["deepseek_v3", "deepseek_v3-qlora", "llama", "qwen2"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(name)
}

fn open(cpu: &Cpu, name: &str, dtype: Dtype) -> Transformer {
    let checkpoint = Checkpoint::open(&golden(name)).unwrap();
    Transformer::new(cpu, checkpoint.config(), dtype.into(), Source::Checkpoint(&checkpoint)).unwrap()
}

#[test]
fn company_and_threads_change_nothing() {
    let isa = Isa::choose(None).unwrap();
    let (one, two) = (Cpu::new(isa, 1), Cpu::new(isa, 2));
    for (seed, name) in MODELS.into_iter().enumerate() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let random = &mut Random::new(seed as u64, [4, 0, 0]);
            let transformer = open(&one, name, dtype);
            let (vocab, context) = (transformer.config().vocab_size as u32, transformer.context());
            let requests = random_requests(random, 16, vocab, context);
            for kv in KvDtype::ALL {
                let alone = alone(&mut TransformerDecoder::new(&one, &transformer).with_kv(kv), &requests);
                let limits = random_limits(random, context);
                let decoder = &mut TransformerDecoder::new(&two, &transformer).with_kv(kv);
                check(random, decoder, limits, &requests, &alone);
            }
            let alone = alone(&mut TransformerDecoder::new(&one, &transformer), &requests);
            let limits = random_limits(random, context);
            let decoder = TransformerDecoder::new(&two, &transformer);
            let mut looking = Speculative { decoder, drafter: Some(Box::new(Lookup { row: 0.0 })) };
            let looked_up = check(random, &mut looking, limits, &requests, &alone);
            let decoder = TransformerDecoder::new(&two, &transformer);
            let guesser = Guesser::new(name.len() as u64, vocab, 0.0, &requests, &alone);
            let mut guessing = Speculative { decoder, drafter: Some(Box::new(guesser)) };
            let guessed = check(random, &mut guessing, limits, &requests, &alone);
            let decoder = TransformerDecoder::new(&two, &transformer);
            let twin = DraftModel::new(TransformerDecoder::new(&one, &transformer), 200, 0.0, 0.0);
            let mut guessing = Speculative { decoder, drafter: Some(Box::new(twin)) };
            let twin = check(random, &mut guessing, limits, &requests, &alone);
            assert!(twin.accepted > 100 && 10 * twin.accepted > 7 * twin.drafted, "{twin:?}: it is the same model");
            assert!(guessed.accepted > 100 && looked_up.drafted > 0, "{guessed:?}, {looked_up:?}");
        }
    }
}

#[test]
fn what_was_sampled_is_what_is_trained() {
    let cpu = Cpu::detect().unwrap();
    for name in MODELS {
        let transformer = open(&cpu, name, Dtype::F32);
        let mut decoder = TransformerDecoder::new(&cpu, &transformer);
        let limits = Limits::within(1 << 26, decoder.kv_layout());
        for temperature in [1.0, 0.7] {
            let request = |id| Request {
                id: RequestId(id),
                prompt: (0..40).map(|i| 2 + (i * (id as u32 % 3 + 3)) % 60).collect(),
                sampling: Sampling {
                    temperature,
                    seed: Seed { seed: 1, stream: [0, 0, id as u32] },
                    ..Sampling::default()
                },
                limit: 50,
                stop: vec![1],
                thought: None,
            };
            let requests: Vec<Request> = (0..12).map(request).collect();
            let outcomes = Engine::new(&decoder, limits).generate(&mut decoder, requests.clone()).unwrap();
            // As the trainer does it: whole sequences side by side in one batch.
            let mut batch = Batch::default();
            let mut targets = Vec::new();
            let mut pages = 0;
            for (request, outcome) in requests.iter().zip(&outcomes) {
                let mut tokens = request.prompt.clone();
                tokens.extend(outcome.tokens.iter().map(|token| token.id));
                targets.extend_from_slice(&tokens[1..]);
                let held = (tokens.len() - 1).div_ceil(PAGE_POSITIONS) as u32;
                batch.push(&tokens[..tokens.len() - 1], 0, (pages..pages + held).collect());
                pages += held;
            }
            let mut kv = KvPages::new(transformer.kv_layout(), pages as usize);
            let mut activations = Activations::training();
            transformer.forward(&cpu, &batch, &mut kv, &mut activations);
            let mut trained = vec![LogProb::default(); targets.len()];
            let inverse_temperature = requests[0].sampling.inverse_temperature();
            let hidden = activations.hidden(transformer.config());
            log_prob(&cpu, transformer.head(), hidden, &targets, inverse_temperature, &mut trained);
            let mut compared = 0;
            for (span, outcome) in batch.spans.iter().zip(&outcomes) {
                for token in &outcome.tokens {
                    let trained = trained[span.rows.start + token.position - 1];
                    assert_eq!(trained.log_prob.to_bits(), token.log_prob.to_bits(), "{name} at {}", token.position);
                    assert_eq!(trained.entropy.to_bits(), token.entropy.to_bits());
                    compared += 1;
                }
            }
            assert!(compared > 100, "{name}: {compared} tokens");
        }
    }
}
