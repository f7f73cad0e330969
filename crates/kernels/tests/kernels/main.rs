//! Every kernel on every instruction set of this machine, against naive `f64` code, with odd sizes and hostile numbers.
//!
//! A check states how far a result may be from the exact one, in roundings of the terms that it is made of; two
//! instruction sets are therefore at most twice as far from each other. [`rows`] holds them to the two rules of the
//! crate, bit for bit.

mod attention;
mod data;
mod divergence;
mod experts;
mod golden;
mod gradients;
mod log_prob;
mod moments;
mod muon;
mod packed;
mod products;
mod quantized;
mod rows;
mod rowwise;

use std::io::Write;

use minke_kernels::{Cpu, Isa};

/// One check of some kernels.
type Check = (&'static str, fn(&Cpu));

const CHECKS: [Check; 28] = [
    ("products in f32", products::f32_products),
    ("products in bf16", products::bf16_products),
    ("products of quantised weights", quantized::products),
    ("quantised products of experts", quantized::experts),
    ("quantised products of no numbers", quantized::not_finite),
    ("several products at once", products::several_jobs),
    ("attention", attention::forward),
    ("attention backward", attention::backward),
    ("attention that goes on from a shared past", attention::shared_past),
    ("RMSNorm", rowwise::rms_norm),
    ("RoPE", rowwise::rope),
    ("sums and biases", rowwise::sums),
    ("SwiGLU", rowwise::swiglu),
    ("rounding to bf16", rowwise::round_to_bf16),
    ("embeddings", rowwise::embeddings),
    ("AdamW", rowwise::adamw),
    ("AdamW on moments in bf16", moments::adamw),
    ("Muon", muon::steps),
    ("sum of squares", rowwise::sum_of_squares),
    ("moving rows to experts and back", experts::moves),
    ("routing", experts::routing),
    ("balance", experts::balance),
    ("log-probabilities", log_prob::forward),
    ("log-probabilities of whole rows", log_prob::whole_rows),
    ("divergences from a teacher", divergence::forward),
    ("gradients of divergences", divergence::backward),
    ("gradients", gradients::all),
    ("golden numbers of torch", golden::all),
];

/// Runs `checks` on every instruction set that this CPU has, and says which; past the harness, so that a log shows it.
fn on_every_isa(title: &str, checks: &[Check]) {
    let (run, skip): (Vec<Isa>, Vec<Isa>) = Isa::ALL.into_iter().partition(|isa| isa.is_available());
    for &isa in &run {
        let cpu = Cpu::new(isa, 2);
        for (name, check) in checks {
            eprintln!("{}: {name}", isa.name());
            check(&cpu);
        }
    }
    let names = |isas: &[Isa]| isas.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    let skipped =
        if skip.is_empty() { String::new() } else { format!("; skipped: {} (this CPU lacks it)", names(&skip)) };
    writeln!(std::io::stderr(), "{title} ran: {}{skipped}", names(&run)).expect("stderr is open");
}

#[test]
fn kernels_agree_with_naive_code() {
    on_every_isa("kernels", &CHECKS);
}

#[test]
fn rows_depend_on_themselves_alone() {
    on_every_isa("rows", &rows::CHECKS);
}
