//! Held-out results of models behind a chat API: the same problems and verifiers as for those that run here.

use minke_kernels::random::Random;
use minke_model::Result;

use crate::evaluation::{Evaluation, Outcome};
use crate::format::{Settings, is_right_leniently};
use crate::generate::Drawing;
use crate::remote::{Chat, Question, Remote, Reply};
use crate::tasks::{Item, Task};

/// First word of the random streams of replies.
const REPLIES: u32 = u32::MAX - 2;
/// Problems that are asked at a time, so that progress shows.
const CHUNK: usize = 32;

/// A model behind a chat API, and how it is asked for completions of a task's problems.
pub struct Elsewhere<'a> {
    /// Where it is,
    pub remote: &'a Remote,
    /// and who asks it.
    pub chat: &'a Chat<'a>,
    /// What it is asked for.
    pub task: &'a dyn Task,
    /// In what words, and what counts as an answer.
    pub settings: &'a Settings,
}

impl Elsewhere<'_> {
    /// Its results on `items` of one level: one reply to each at temperature 0, and `samples` as `drawing` says. `heed` hears now
    /// and then how many items are done; where it says no, there is no result. The length of thoughts is not a number, for their
    /// tokens are the model's own.
    ///
    /// # Errors
    /// Why the model can't be asked, or the task can't be worked with any more.
    pub fn evaluate(
        &self,
        items: &[Item],
        samples: u32,
        drawing: Drawing,
        mut heed: impl FnMut(usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let Elsewhere { remote, chat, task, settings, .. } = *self;
        let level = items.first().map_or(0, |item| item.level);
        let question = |problem: usize, sample: u32, temperature: f32| {
            let messages = settings.messages(task.question(&items[problem]));
            let seed = Random::new(u64::from(drawing.seed), [REPLIES, problem as u32, sample]).next_u32() >> 1;
            Question { messages, temperature, max_tokens: drawing.limit as u32, seed }
        };
        let mut outcomes = Vec::with_capacity(items.len());
        for (chunk, items) in items.chunks(CHUNK).enumerate() {
            if !heed(outcomes.len()) {
                return Ok(None);
            }
            let problems = (chunk * CHUNK..).take(items.len());
            let questions = problems.flat_map(|problem| {
                let drawn = (0..samples).map(move |sample| (sample, drawing.temperature));
                [(0, 0.0)].into_iter().chain(drawn).map(move |(sample, temperature)| (problem, sample, temperature))
            });
            let questions: Vec<Question> = questions.map(|(problem, sample, t)| question(problem, sample, t)).collect();
            let replies = chat(remote, &questions)?;
            for (item, replies) in items.iter().zip(replies.chunks(1 + samples as usize)) {
                let is_right = |reply: &Reply| settings.score(task, item, &reply.text(), reply.finished).reward > 0.0;
                outcomes.push(Outcome {
                    greedy: is_right(&replies[0]),
                    finished: replies[0].finished,
                    lenient: is_right_leniently(task, item, &replies[0].text()),
                    thought_tokens: 0,
                    samples: samples as usize,
                    right: replies[1..].iter().filter(|reply| is_right(reply)).count(),
                });
            }
            task.health()?;
        }
        Ok(Some(Evaluation { thought_tokens: f64::NAN, ..Evaluation::of(level, &outcomes) }))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::tasks::chain_sum::{ChainSum, Scratchpad};
    use crate::tasks::{Style, held_out_items};

    #[test]
    fn replies_are_judged() {
        let task = ChainSum { digits: 1..=1, scratchpad: Scratchpad::Plain };
        let items = held_out_items(&task, 2, 10);
        let remote = Remote { url: "http://localhost/v1".into(), model: "m".into(), key_env: None };
        let asked = RefCell::new(Vec::new());
        // Knows the sum; writes it in the right form at temperature 0 alone.
        let chat = |_: &Remote, questions: &[Question]| {
            let reply = |question: &Question| {
                asked.borrow_mut().push(question.clone());
                let last = &question.messages[question.messages.len() - 1].content;
                let item = items.iter().find(|item| last.contains(&task.question(item))).unwrap();
                let sum = task.demonstration(item, Style::Direct, &mut Random::new(1, [0; 3])).answer;
                match question.temperature == 0.0 {
                    true => Reply { thought: Some("easy".into()), answer: sum, finished: true },
                    false => Reply { thought: None, answer: format!("The sum is {sum}"), finished: true },
                }
            };
            Ok(questions.iter().map(reply).collect())
        };
        let drawing = Drawing { seed: 3, temperature: 1.0, limit: 20 };
        let settings = Settings::default().showing(&task, 2, 1, 3);
        let measure = |samples, heed: &mut dyn FnMut(usize) -> bool| {
            let there = Elsewhere { remote: &remote, chat: &chat, task: &task, settings: &settings };
            there.evaluate(&items, samples, drawing, heed).unwrap()
        };
        assert_eq!(measure(0, &mut |_| false), None);
        let measured = measure(3, &mut |_| true).unwrap();
        assert_eq!((measured.level, measured.items, measured.accuracy, measured.lenient), (2, 10, 1.0, Some(1.0)));
        assert_eq!(measured.sampled.unwrap().pass_at_1, 0.0);
        let asked = asked.into_inner();
        assert_eq!(asked.len(), 40);
        assert!(asked.iter().all(|question| question.messages.len() == 3));
    }
}
