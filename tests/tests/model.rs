//! Does the protocol hold in the smallest chains, whatever the order of events?
//!
//! The small models run with every test run. The full ones take some minutes, and need the profile `sim`:
//!
//! ```text
//! cargo test -p craq-tests --profile sim --features planted --test model -- --ignored --nocapture
//! MODEL="links break twice" cargo test .. runs one alone
//! ```

use std::time::Duration;

use craq_tests::model::{FULL, Report, SMALL, Search, Setup, Sight, explore};

/// Depth first: the least memory.
const TO_THE_END: Search =
    Search { threads: 2, breadth_first: false, bug: None, at_most: Duration::from_secs(3_600) };

#[expect(clippy::print_stdout, reason = "what a model found is for whoever runs it")]
fn show(what: &str, report: &Report) {
    let Report { steps, states, depth, took, seen, .. } = report;
    println!("{what}: {states} states, {steps} steps, depth {depth}, {took:.1?}; {seen}");
    for line in report.broken.iter().flat_map(|broken| &broken.trace) {
        println!("{line}");
    }
}

/// Explores them all, and demands that what they are for was reached.
fn hold(setups: &[Setup], sights: &[Sight]) {
    let only = std::env::var("MODEL").ok();
    let mut unseen = sights.to_vec();
    for setup in setups.iter().filter(|setup| only.as_ref().is_none_or(|only| only == setup.name)) {
        let report = explore(setup, TO_THE_END);
        show(setup.name, &report);
        let rule = report.broken.map(|broken| broken.rule);
        assert!(
            report.is_complete,
            "{}: {}",
            setup.name,
            rule.unwrap_or_else(|| "too many states".to_owned())
        );
        assert!(report.seen.count(Sight::AtRest) > 0, "{}: no write was ever answered", setup.name);
        unseen.retain(|sight| report.seen.count(*sight) == 0);
    }
    assert!(unseen.is_empty() || only.is_some(), "never reached: {unseen:?}");
}

#[test]
fn small_chains_hold_under_every_schedule() {
    hold(SMALL, &Sight::ALL);
}

#[test]
#[ignore = "minutes, in the profile `sim`"]
fn full_chains_hold_under_every_schedule() {
    hold(FULL, &Sight::ALL);
}

/// A check that cannot fail is a defect: each bug must be found, by the shortest way.
#[cfg(feature = "planted")]
mod planted {
    use craq_proto::planted::Bug;
    use craq_tests::model::{Report, Search, Setup, explore};

    use super::{Duration, show};

    fn hunt(bug: Bug, model: &str) -> Report {
        let setup = Setup::named(model).expect("a model of this name");
        let at_most = Duration::from_secs(600);
        let report = explore(setup, Search { threads: 1, breadth_first: true, bug: Some(bug), at_most });
        show(&format!("{bug:?} in {model:?}"), &report);
        report
    }

    #[test]
    fn planted_bugs_break_a_rule() {
        let reads = "reads that follow each other";
        let order = "a new order";
        let crash = "the head crashes, and is left out or comes back";
        let left_out = "the tail is left out while it pauses";
        let new_head = "the tail becomes the head";
        let hunts = [
            (Bug::AckBeforeCommit, reads, 1),
            (Bug::TailIgnoresUpstream, reads, 4),
            (Bug::DirtyServed, reads, 3),
            (Bug::DirtyNotAsked, reads, 12),
            (Bug::NewTailDropsSuffix, order, 7),
            (Bug::TruncationSkipped, order, 13),
            (Bug::PrefixBySeqAlone, order, 13),
            (Bug::RepeatExecuted, crash, 12),
            (Bug::NoGate, left_out, 12),
            (Bug::ReadsWithoutLease, left_out, 13),
            (Bug::OlderEpochAccepted, new_head, 5),
            (Bug::UnsettledTailAnswers, new_head, 14),
        ];
        let mut wrong = Vec::new();
        for (bug, model, events) in hunts {
            let found = hunt(bug, model).broken.map(|broken| broken.events);
            if found != Some(events) {
                wrong.push(format!("{bug:?} in {model:?}: {found:?}, not {events}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
