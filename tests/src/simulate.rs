//! stub runner
#![allow(missing_docs, clippy::print_stdout)]
use std::time::Duration;
use craq_tests::sim::{self, Setup};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let first: u64 = a[1].parse().unwrap(); let n: u64 = a[2].parse().unwrap(); let secs: u64 = a[3].parse().unwrap();
    let show = a.len() > 4;
    let t0 = std::time::Instant::now();
    let mut faults = sim::Faults::default(); let (mut ops, mut steps, mut views, mut time) = (0, 0, 0, Duration::ZERO);
    for seed in first..first + n {
        let setup = Setup::draw(seed, Duration::from_secs(secs));
        let t = std::time::Instant::now();
        let r = if show { let (r, lines) = sim::trace(&setup); for l in lines { println!("{l}"); } r } else { sim::run(&setup) };
        if let Some(v) = &r.violation { println!("seed {seed}: {} : {}", v.check, v.what.chars().take(1500).collect::<String>()); }
        if n <= 20 { println!("seed {seed} time {:?} ops {} unknown {} views {} steps {} healing {:?} wall {:?}", r.time, r.operations, r.unknown, r.views, r.steps, r.healing, t.elapsed()); }
        faults.add(&r.faults); ops += r.operations; steps += r.steps; views += r.views; time += r.time;
    }
    println!("{faults}\n{n} seeds, {time:?} virtual, {ops} ops, {views} views, {steps} steps, wall {:?}", t0.elapsed());
}
