//! scratch
use minke_lab::simulate::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let chips: u32 = a[1].parse().unwrap();
    for f in &a[2..] {
        let t = Trace::parse(&std::fs::read_to_string(f).unwrap(), chips).unwrap();
        println!("{f}");
        for r in [Rule::Fifo, Rule::Fairshare, Rule::Tiresias, Rule::Minke] {
            let b = std::time::Instant::now();
            let n = simulate(&t, chips, r).numbers;
            println!(
                "{:10} wait p50 {:7.0}s p95 {:8.1}m max {:6.1}h | sd mean {:7.2} p95 {:7.2} | jain {:.3} rho {:.2} busy {:.3} lost {:.0}s pre/job {:.2}  [{:.1}s]",
                format!("{r:?}"),
                n.wait_p50_s,
                n.wait_p95_s / 60.,
                n.wait_max_s / 3600.,
                n.slowdown_mean,
                n.slowdown_p95,
                n.jain.unwrap_or(0.),
                n.rho_max,
                n.busy,
                n.switch_lost_s,
                n.preemptions as f64 / n.jobs as f64,
                b.elapsed().as_secs_f64()
            );
        }
    }
}
