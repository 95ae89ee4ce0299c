//! Do whole clusters stay right under every fault, in virtual time, and is every run the same again?

use std::{process::Command, time::Duration};

use craq_tests::sim::{self, Campaign, Setup};

/// Seeds in which something was once wrong, in the product or in the simulation, and how long they ran. What they draw
/// changes with the generator; so each real bug has a test of its own besides.
const PINNED: [(u64, u64); 6] = [(17, 30), (73, 30), (91, 100), (110, 30), (209, 20), (216, 100)];

fn duration(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn two_hundred_seeds_are_right_and_every_fault_happens_under_traffic() {
    let jobs = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let campaign = Campaign { first: 0, seeds: 200, duration: duration(25), jobs };
    let sum = campaign.run(|_| ());
    println!("{sum}");
    assert_eq!(sum.failed, [], "`simulate --first SEED --seeds 1 --seconds 25 --trace` shows what happened");
    assert_eq!(sum.missing(), []);
    assert!(sum.is_good());
}

#[test]
fn seeds_that_were_once_wrong_are_right() {
    for (seed, seconds) in PINNED {
        let report = sim::run(&Setup::draw(seed, duration(seconds)));
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

#[test]
fn a_seed_is_the_same_in_another_process_byte_for_byte() {
    let simulate = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let digests = ["--digest", "--seeds", "30", "--seconds", "10"];
    let first = simulate(&digests);
    assert_eq!(first.lines().count(), 30);
    assert_eq!(first, simulate(&digests));
    let trace = ["--trace", "--first", "3", "--seeds", "1", "--seconds", "6"];
    let lines = simulate(&trace);
    assert!(lines.lines().count() > 500, "a trace tells all that happens");
    assert!(lines == simulate(&trace), "two traces of one seed differ");
}

#[test]
fn a_run_without_faults_is_rejected_for_what_it_does_not_show() {
    let mut setup = Setup::draw(0, duration(5));
    setup.faults.clear();
    let report = sim::run(&setup);
    assert_eq!(report.violation, None);
    let missing = report.faults.missing(1);
    assert_eq!(missing.len(), sim::Fault::ALL.len(), "{missing:?}");
}
