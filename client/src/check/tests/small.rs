//! Does the search agree with every order tried, on a hundred thousand small histories?

use super::{
    brute,
    toy::{self, Shape},
};
use crate::check::{
    history::{Op, Outcome},
    linearizability::{Settings, Tombstones, Verdict, check},
    random::Random,
    text::line,
    versions::check_with,
};

fn settings(tombstones: Tombstones) -> Settings {
    Settings { tombstones, ..Settings::default() }
}

fn told(ops: &[Op]) -> String {
    ops.iter().map(|op| format!("{}\n", line(op))).collect()
}

/// Judges one history both ways. Whether it is legal.
fn agrees(ops: &[Op], tombstones: Tombstones, seed: u64) -> bool {
    let expected = brute::is_linearizable(ops, tombstones);
    match check(ops, &settings(tombstones)) {
        Verdict::Linearizable => {
            assert!(expected, "{tombstones:?}, seed {seed}: illegal, but accepted\n{}", told(ops))
        }
        Verdict::Violation(violation) => {
            assert!(!expected, "{tombstones:?}, seed {seed}: legal, but refused\n{}{violation}", told(ops));
        }
        Verdict::Unknown { why } => panic!("{tombstones:?}, seed {seed}: {why}\n{}", told(ops)),
    }
    expected
}

fn shape(seed: u64, collected: bool) -> Shape {
    // One key, two, and two that many calls join.
    let (keys, joined) = [(1, 0), (2, 15), (2, 60)][usize::try_from(seed % 3).unwrap()];
    Shape { keys, joined, ops: 3 + seed % 5, unknown: 10 + seed % 30, collected, ..Shape::SMALL }
}

fn run(seeds: std::ops::Range<u64>) -> (usize, usize) {
    let (mut legal, mut illegal) = (0, 0);
    for seed in seeds {
        let mut random = Random::new(seed);
        let tombstones = if seed % 4 == 3 { Tombstones::Collected } else { Tombstones::Kept };
        let shape = shape(seed / 7, tombstones == Tombstones::Collected);
        let is_legal = if seed % 3 == 0 {
            let ops = toy::legal(&mut random, shape);
            assert!(
                agrees(&ops, tombstones, seed),
                "seed {seed}: a legal history is refused\n{}",
                told(&ops)
            );
            let by_versions = check_with(&ops, &[], tombstones);
            assert!(by_versions.is_ok(), "{tombstones:?}, seed {seed}: {by_versions:#?}\n{}", told(&ops));
            let by_versions = check_with(&ops, &[], tombstones);
            assert!(by_versions.is_ok(), "{tombstones:?}, seed {seed}: {by_versions:#?}\n{}", told(&ops));
            true
        } else {
            agrees(&toy::garbled(&mut random, shape), tombstones, seed)
        };
        if is_legal { legal += 1 } else { illegal += 1 }
    }
    (legal, illegal)
}

#[test]
fn the_search_agrees_with_every_order_tried() {
    let (legal, illegal) = run(0..100_000);
    assert!(legal > 20_000 && illegal > 20_000, "{legal} legal, {illegal} illegal: one kind is hardly tried");
}

#[test]
fn a_checker_that_takes_a_timeout_for_not_applied_is_caught() {
    let mut caught = 0;
    for seed in 0..3_000 {
        let ops = toy::legal(&mut Random::new(seed), shape(seed, false));
        let mutated: Vec<Op> = ops
            .into_iter()
            .map(|op| match op.outcome {
                Outcome::Unknown(why) => Op { outcome: Outcome::NotApplied(why), ..op },
                _ => op,
            })
            .collect();
        caught += usize::from(check(&mutated, &Settings::default()).is_violation());
    }
    assert!(caught > 100, "only {caught} legal histories were refused by a checker that errs");
}
