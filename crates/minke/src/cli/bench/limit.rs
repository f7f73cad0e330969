//! This machine's limit for a test: reading at the pace of a bare read, or reckoning at that of bare products, measured
//! between the tests.

use minke_kernels::Cpu;
use minke_kernels::kv::KvDtype;
use serde::Serialize;

use super::{Kind, Test};
use crate::probe::{Memory, Product};
use crate::roofline::{Costs, Pass};

/// What bare loops reach in the same run.
pub struct Bare {
    memory: Memory,
    /// With what each has reached.
    products: Vec<(Product, Vec<f64>)>,
    read: Vec<f64>,
}

/// What a test could reach at most.
#[derive(Debug, PartialEq, Serialize)]
pub struct AtBest {
    pub limit_tok_s: f64,
    /// The part of it that was reached.
    pub of_limit: f64,
    /// `bandwidth` or `products`.
    pub limited_by: &'static str,
}

impl Bare {
    pub fn new(cpu: &Cpu, costs: &Costs) -> Bare {
        let products = costs.kept().into_iter().map(|kept| (Product::new(cpu, kept), Vec::new())).collect();
        Bare { memory: Memory::new(), products, read: Vec::new() }
    }

    /// Once more.
    pub fn measure(&mut self, cpu: &Cpu) {
        self.read.push(self.memory.read(cpu));
        self.products.iter_mut().for_each(|(product, rates)| rates.push(product.measure(cpu)));
    }

    /// The limit of a test that has reached `tok_s`.
    pub fn limit(&self, costs: &Costs, kv: KvDtype, test: Test, tok_s: f64) -> AtBest {
        let Test { kind, length, depth, sequences } = test;
        let (pass, tokens) = match kind {
            Kind::Prefill => (Pass::prefill(length, depth), length),
            Kind::Decode => (Pass::decode(sequences, depth as f64 + length as f64 / 2.0), sequences),
        };
        let load = costs.load(pass);
        // Costs are of keys and values in bf16.
        let kv_bytes = load.kv_bytes
            * if kv == KvDtype::F32 {
                2.0
            } else if kv == KvDtype::Int8 {
                0.5
            } else {
                1.0
            };
        let read_s = (load.bytes() - load.kv_bytes + kv_bytes) / median(&self.read);
        let rates: Vec<f64> = self.products.iter().map(|(_, rates)| median(rates)).collect();
        let best = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let products: f64 = load.products.iter().zip(&rates).map(|(&(_, _, flop), rate)| flop / rate).sum();
        let reckon_s = products + load.attention_flop / best;
        let limit_tok_s = tokens as f64 / read_s.max(reckon_s);
        let limited_by = if read_s > reckon_s { "bandwidth" } else { "products" };
        AtBest { limit_tok_s, of_limit: tok_s / limit_tok_s, limited_by }
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::MIN_POSITIVE)
}
