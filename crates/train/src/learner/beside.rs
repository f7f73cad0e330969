//! A pass beside a teacher, whose next-token distributions on the same examples are learnt from.

use minke_kernels::View;
use minke_kernels::divergence::{Divergence, Output, divergence, divergence_backward};
use minke_kernels::kv::KvPages;
use minke_model::{Activations, Transformer};

use super::pass::Pass;
use super::{Example, Learner};

impl Learner<'_> {
    /// As [`Learner::pass`] at temperature 1, beside `teacher`, which has the same vocabulary and learns nothing: of what both
    /// say of the learnt tokens, `weigh` makes the derivatives of the loss by each log-probability, and by each divergence.
    ///
    /// # Errors
    /// Those of `weigh`; nothing is learnt then.
    pub fn pass_beside<E>(
        &mut self,
        teacher: &Transformer,
        examples: &[Example],
        alpha: f32,
        weigh: impl FnOnce(&[Divergence]) -> Result<[Vec<f32>; 2], E>,
    ) -> Result<(), E> {
        let cpu = self.cpu;
        let (mut kv, mut activations) = (KvPages::new(teacher.kv_layout(), 0), Activations::inference());
        let beside = Pass::states(cpu, teacher, &mut kv, &mut activations, examples);
        let Learner { transformer, values, kv, activations: a, open, tree, .. } = self;
        let pass = Pass::states(cpu, transformer, kv, a, examples);
        let Pass { rows, targets, .. } = &pass;
        let (hidden_size, vocab_size) = (transformer.config().hidden_size, transformer.config().vocab_size);
        let student = Output { head: transformer.head(), hidden: View::new(&pass.hidden, rows.len(), hidden_size) };
        let states = View::new(&beside.hidden, rows.len(), teacher.config().hidden_size);
        let taught = Output { head: teacher.head(), hidden: states };
        let mut divergences = vec![Divergence::default(); rows.len()];
        divergence(cpu, student, taught, targets, &mut divergences);

        let [d_log_prob, d_kl] = weigh(&divergences)?;
        let (mut gradient, passes) = open.take().unwrap_or_else(|| (tree.leaf(), 0));
        let head = transformer.head_range();
        let head_rows = View::new(&values[head.clone()], vocab_size, hidden_size);
        let mut d_rows = cpu.scratch(rows.len() * hidden_size);
        d_rows.fill(0.0);
        let d_head = &mut gradient[head];
        let known = &divergences;
        divergence_backward(cpu, student, head_rows, taught, targets, known, &d_log_prob, &d_kl, &mut d_rows, d_head);
        self.back(&pass.batch, &pass.rows, &d_rows, alpha, None, gradient, passes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use minke_kernels::{Cpu, Dtype, Isa};

    use super::super::tests::mixture;
    use super::super::{Learner, initial_values};
    use super::*;

    fn examples() -> Vec<Example> {
        let tokens = |first: u32, n: u32| (0..n).map(|i| (first + 7 * i * i) % 40).collect::<Vec<u32>>();
        [(3, 9, 4), (3, 12, 4), (8, 5, 1), (1, 20, 18)]
            .map(|(first, n, prompt)| Example { tokens: tokens(first, n), prompt })
            .to_vec()
    }

    /// The gradient of a pass with these derivatives of each token, beside a teacher.
    fn gradient(cpu: &Cpu, teacher: &Transformer, d_log_prob: f32, d_kl: f32) -> (Vec<Divergence>, Vec<f32>) {
        let config = mixture();
        let mut learner =
            Learner::new(cpu, &config, Dtype::F32, Activations::training(), initial_values(&config, 3, 0.2));
        let mut seen = Vec::new();
        let done: Result<(), Infallible> = learner.pass_beside(teacher, &examples(), 0.0, |rows| {
            seen = rows.to_vec();
            Ok([d_log_prob, d_kl].map(|d| vec![d; rows.len()]))
        });
        done.unwrap();
        (seen, learner.take_gradient().unwrap())
    }

    #[test]
    fn without_a_divergence_in_its_loss_a_pass_beside_a_teacher_is_a_pass_alone() {
        let (cpu, config) = (Cpu::new(Isa::choose(None).unwrap(), 2), mixture());
        let mut alone =
            Learner::new(&cpu, &config, Dtype::F32, Activations::training(), initial_values(&config, 3, 0.2));
        let teacher = alone.with(&initial_values(&config, 4, 0.2));
        let mut log_probs = Vec::new();
        let done: Result<(), Infallible> = alone.pass(&examples(), 1.0, 0.0, |rows| {
            log_probs = rows.iter().map(|row| row.log_prob.to_bits()).collect();
            Ok(vec![-0.1; rows.len()])
        });
        done.unwrap();
        let (seen, beside) = gradient(&cpu, &teacher, -0.1, 0.0);
        assert_eq!(seen.iter().map(|row| row.log_prob.to_bits()).collect::<Vec<u32>>(), log_probs);
        assert!(seen.iter().all(|row| row.kl > 0.0));
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert!(bits(&beside) == bits(&alone.take_gradient().unwrap()));
    }

    #[test]
    fn following_the_gradient_of_the_divergence_makes_it_smaller() {
        let (cpu, config) = (Cpu::new(Isa::choose(None).unwrap(), 2), mixture());
        let values = initial_values(&config, 3, 0.2);
        let mut learner = Learner::new(&cpu, &config, Dtype::F32, Activations::training(), values.clone());
        let teacher = learner.with(&initial_values(&config, 4, 0.2));
        let sum = |rows: &[Divergence]| rows.iter().map(|row| f64::from(row.kl)).sum::<f64>();
        let (before, d) = gradient(&cpu, &teacher, 0.0, 1.0);
        let square: f64 = d.iter().map(|d| f64::from(*d).powi(2)).sum();
        let step = 1e-3 / square.sqrt();
        let moved: Vec<f32> =
            values.iter().zip(&d).map(|(x, d)| (f64::from(*x) - step * f64::from(*d)) as f32).collect();
        learner.move_to(moved);
        let mut after = 0.0;
        let done: Result<(), Infallible> = learner.pass_beside(&teacher, &examples(), 0.0, |rows| {
            after = sum(rows);
            Ok([vec![0.0; rows.len()], vec![0.0; rows.len()]])
        });
        done.unwrap();
        // To first order it falls by the step times the gradient's norm.
        let (fell, expected) = (sum(&before) - after, step * square);
        assert!((fell - expected).abs() < 0.1 * expected, "{fell}, not {expected}");
    }
}
