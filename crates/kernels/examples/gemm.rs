use minke_kernels::{Cpu, Isa, Matrix, Dtype, View, gemm::{gemm, Job, Mode, Operand}};
use std::time::Instant;
fn main() {
    let isa = Isa::choose(std::env::var("MINKE_ISA").ok().as_deref()).unwrap();
    for threads in [1, 2] {
        let cpu = Cpu::new(isa, threads);
        for (m, k, n) in [(1024, 576, 1536), (1024, 128, 512), (8192, 128, 128), (512, 8192, 128), (32, 576, 576), (1, 576, 1536), (1,576,49152), (16, 128,512)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut c = vec![0.0; m * n];
            let w = Matrix::pack(&cpu, Dtype::F32, View::new(&b, n, k));
            let w16 = Matrix::pack(&cpu, Dtype::Bf16, View::new(&b, n, k));
            let av = View::new(&a, m, k); let bv = View::new(&b, k, n);
            let at = View::new(&a, k, m).t();
            for (name, a, b) in [("packed", av, Operand::Packed(&w)), ("bf16", av, Operand::Packed(&w16)), ("view", av, Operand::View(bv)), ("a.t view", at, Operand::View(bv))] {
                let job = [Job { a, b, row: 0, col: 0 }];
                let reps = (2e9 / (2.0 * (m * n * k) as f64)).ceil().min(20000.0) as usize;
                let mut best = f64::MAX;
                for _ in 0..3 { let t = Instant::now();
                for _ in 0..reps { gemm(&cpu, &mut c, n, Mode::Set, &job); }
                best = best.min(t.elapsed().as_secs_f64() / reps as f64); }
                println!("{threads}T {m}x{k}x{n} {name:10} {:8.1} us {:7.1} GFLOP/s", best * 1e6, 2.0 * (m * n * k) as f64 / best / 1e9);
            }
        }
    }
}
