//! Are long histories judged, in time, and those that went wrong refused with the few calls that show it?

use std::time::{Duration, Instant};

use super::toy::{self, Shape};
use crate::check::{
    history::{Found, Op, Outcome},
    linearizability::{Settings, Tombstones, Verdict, Violation, check},
    random::Random,
};

const LARGE: Shape = Shape {
    ops: 5_000,
    clients: 8,
    keys: 10,
    span: 5_000,
    longest: 12,
    unknown: 5,
    joined: 0,
    collected: false,
};

fn timed(ops: &[Op], settings: &Settings) -> (Verdict, Duration) {
    let began = Instant::now();
    (check(ops, settings), began.elapsed())
}

#[test]
fn five_thousand_calls_are_judged_in_time() {
    for (what, shape) in [
        ("single keys", LARGE),
        ("pages", Shape { joined: 5, unknown: 0, ..LARGE }),
        ("pages and writes of several keys", Shape { joined: 5, ..LARGE }),
        ("many of several keys", Shape { joined: 20, unknown: 8, keys: 6, ops: 1_000, span: 1_500, ..LARGE }),
        ("deleted keys begin again", Shape { collected: true, ..LARGE }),
    ] {
        let tombstones = if shape.collected { Tombstones::Collected } else { Tombstones::Kept };
        let settings = Settings { tombstones, ..Settings::default() };
        for seed in 0..3 {
            let ops = toy::legal(&mut Random::new(seed), shape);
            let (verdict, time) = timed(&ops, &settings);
            println!("figure: {what}, {} calls: {time:?}", ops.len());
            assert!(verdict.is_linearizable(), "{what}, seed {seed}: {verdict:?}");
        }
    }
}

/// One of the reads of a long history is told what was true long before.
fn stale(seed: u64) -> Vec<Op> {
    let mut ops = toy::legal(&mut Random::new(seed), LARGE);
    let is_read = |op: &Op, key: &str| op.found().any(|(k, found)| k == key && found.value.is_some());
    let early = ops.iter().position(|op| is_read(op, "k3")).unwrap();
    let late = ops.iter().rposition(|op| is_read(op, "k3")).unwrap();
    ops[late].outcome = ops[early].outcome.clone();
    ops
}

fn refused(ops: &[Op], settings: &Settings) -> Box<Violation> {
    let (verdict, time) = timed(ops, settings);
    println!("figure: refused in {time:?}");
    let Verdict::Violation(violation) = verdict else { panic!("{verdict:?}") };
    violation
}

#[test]
fn a_stale_read_is_shown_by_a_few_calls() {
    for seed in 0..3 {
        let violation = refused(&stale(seed), &Settings::default());
        println!("{violation}");
        assert!(violation.ops.len() <= 4, "{violation}");
        assert!(matches!(violation.culprit().outcome, Outcome::Found(_)), "{violation}");
        assert_eq!(violation.keys, ["k3"]);
    }
}

#[test]
fn a_lost_write_is_shown_by_a_few_calls() {
    let mut ops = toy::legal(&mut Random::new(1), LARGE);
    // From some time on the key is as it was before that write: versions tell.
    let lost = ops.iter().position(|op| op.is_applied() && op.keys().any(|key| key == "k4")).unwrap();
    let at = ops[lost].returned;
    for op in ops.iter_mut().filter(|op| op.invoked > at && op.keys().any(|key| key == "k4")) {
        match &mut op.outcome {
            Outcome::Applied { versions, .. } => versions[0] -= 1,
            Outcome::Found(found) => found[0].version -= 1,
            _ => {}
        }
    }
    let violation = refused(&ops, &Settings::default());
    println!("{violation}");
    assert!(violation.ops.len() <= 5, "{violation}");
}

#[test]
fn a_search_that_takes_too_much_is_unknown_and_never_a_pass() {
    let ops = toy::legal(&mut Random::new(1), LARGE);
    for settings in [
        Settings { steps_max: 100, ..Settings::default() },
        Settings { memo_bytes_max: 1_000, ..Settings::default() },
    ] {
        let verdict = check(&ops, &settings);
        assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
        // Nor does it hide a violation of a key that can be judged.
        let mut torn = ops.clone();
        torn.push(Op {
            outcome: Outcome::Found(vec![Found { version: 7, ..Found::nothing() }]),
            ..a_read("other")
        });
        assert!(check(&torn, &settings).is_violation());
    }
}

fn a_read(key: &str) -> Op {
    use crate::check::history::Call;
    let at = Duration::ZERO;
    Op { client: 1, call: Call::read(key), invoked: at, returned: at, outcome: Outcome::Found(vec![]) }
}
