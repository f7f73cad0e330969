//! Times attention over pages at several depths, beside a bare read of as many bytes.
//!
//! `cargo run --release -p minke-kernels --example attention [latent] [shuffled]`: decode at depths of 128 to 4096, 1 and 32
//! sequences, and a prompt of 512, with pages that follow each other or do not. A token passes through all layers, so that
//! nothing stays in a cache that would not.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use minke_kernels::attention::attention;
use minke_kernels::kv::{KvDtype, KvLayout, KvPages, PAGE_POSITIONS, Span};
use minke_kernels::random::Random;
use minke_kernels::{Cpu, View};

const REPETITIONS: usize = 9;

/// Sequences of one length in a batch, one row each or all their rows.
struct Case {
    heads: usize,
    layout: KvLayout,
    kv: KvPages,
    spans: Vec<Span>,
    q: Vec<f32>,
    out: Vec<f32>,
}

impl Case {
    /// `sequences` of `start` positions before the batch and `rows` in it.
    fn new(cpu: &Cpu, heads: usize, layout: KvLayout, sequences: usize, start: usize, rows: usize) -> Case {
        let KvLayout { kv_heads, key_width, value_width, .. } = layout;
        let mut random = Random::new(1, [0; 3]);
        let positions = start + rows;
        let each = positions.div_ceil(PAGE_POSITIONS);
        let mut free: Vec<u32> = (0..(sequences * each) as u32).collect();
        if argument("shuffled") {
            random.shuffle(&mut free);
        }
        let mut kv = KvPages::new(layout, free.len());
        let keys: Vec<f32> = (0..positions * kv_heads * key_width).map(|_| random.normal()).collect();
        let values: Vec<f32> = (0..positions * kv_heads * value_width).map(|_| random.normal()).collect();
        let mut spans = Vec::new();
        for s in 0..sequences {
            let pages = free.split_off(free.len() - each);
            let past = Span { rows: 0..positions, start: 0, pages: pages.clone(), past: None };
            for layer in 0..layout.layers {
                let keys = View::new(&keys, positions, kv_heads * key_width);
                let values = View::new(&values, positions, kv_heads * value_width);
                kv.write(cpu, layer, std::slice::from_ref(&past), keys, values);
            }
            spans.push(Span { rows: s * rows..(s + 1) * rows, start, pages, past: None });
        }
        let q = (0..sequences * rows * heads * key_width).map(|_| random.normal()).collect();
        let out = vec![0.0; sequences * rows * heads * value_width];
        Case { heads, layout, kv, spans, q, out }
    }

    /// Seconds that all layers take, at the fastest of some times, since whatever else runs here only adds to them.
    fn time(&mut self, cpu: &Cpu) -> f64 {
        let KvLayout { layers, key_width, .. } = self.layout;
        let scale = 1.0 / (key_width as f32).sqrt();
        let q = View::new(&self.q, self.q.len() / (self.heads * key_width), self.heads * key_width);
        fastest(|| {
            for layer in 0..layers {
                attention(cpu, &self.kv, layer, &self.spans, self.heads, scale, q, &mut self.out, None);
            }
        })
    }

    /// Bytes of the pages that a decode step reads.
    fn bytes(&self) -> f64 {
        let pages: usize = self.spans.iter().map(|span| span.pages.len()).sum();
        (pages * self.layout.page_bytes()) as f64
    }

    /// Floating-point operations of all layers: two products, over the keys that each row sees.
    fn operations(&self) -> f64 {
        let KvLayout { layers, key_width, value_width, .. } = self.layout;
        let keys: usize = self.spans.iter().flat_map(|s| (0..s.rows.len()).map(|i| s.start + i + 1)).sum();
        (2 * keys * self.heads * (key_width + value_width) * layers) as f64
    }
}

fn fastest(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[0]
}

fn argument(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

/// Bytes a second of a sum over `bytes` by all threads.
fn streaming(cpu: &Cpu, bytes: f64) -> f64 {
    const CHUNK: usize = 1 << 14;
    let data = vec![1_u64; bytes as usize / 8 / CHUNK * CHUNK + CHUNK];
    let seconds = fastest(|| {
        cpu.pool().run(data.len() / CHUNK, &|i| {
            let mut sums = [0_u64; 32];
            for x in data[i * CHUNK..][..CHUNK].chunks_exact(32) {
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum ^= x;
                }
            }
            black_box(sums);
        });
    });
    (data.len() * 8) as f64 / seconds
}

fn main() {
    let cpu = Cpu::detect().expect("MINKE_ISA and MINKE_THREADS are in order");
    let latent = argument("latent");
    let (heads, kv_heads, key_width, value_width, layers) =
        if latent { (16, 1, 576, 512, 8) } else { (9, 3, 64, 64, 30) };
    println!("{} on {} threads, {heads} heads", cpu.isa().name(), cpu.pool().threads());
    for dtype in KvDtype::ALL {
        println!("{}", dtype.name());
        let layout = KvLayout { layers, kv_heads, key_width, value_width, dtype };
        for (sequences, depth) in [(1, 128), (1, 1024), (1, 4096), (32, 128), (32, 1024)] {
            let mut case = Case::new(&cpu, heads, layout, sequences, depth - 1, 1);
            let (seconds, bytes) = (case.time(&cpu), case.bytes());
            let (rate, bare) = (bytes / seconds, streaming(&cpu, bytes));
            println!(
                "decode x{sequences} at {depth}: {:.3} ms, {:.1} GB/s of {:.1} ({:.0} %), {:.0} GFLOP/s",
                seconds * 1e3,
                rate / 1e9,
                bare / 1e9,
                100.0 * rate / bare,
                case.operations() / seconds / 1e9
            );
        }
        let mut case = Case::new(&cpu, heads, layout, 1, 0, 512);
        let seconds = case.time(&cpu);
        println!("prefill 512: {:.2} ms, {:.0} GFLOP/s", seconds * 1e3, case.operations() / seconds / 1e9);
    }
}
