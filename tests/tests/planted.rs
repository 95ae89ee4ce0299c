//! Does the simulation find bugs? Only with the feature `planted`; `tests/PLANTED.md` has all of them.
#![cfg(feature = "planted")]

use std::time::Duration;

use craq_proto::planted::Bug;
use craq_tests::sim::hunt::hunt;

/// Some that are found soon, of each part of the protocol.
const SOON: [Bug; 12] = [
    Bug::AckBeforeCommit,
    Bug::DirtyServed,
    Bug::DurableAtAppend,
    Bug::MetaBeforeData,
    Bug::NoGate,
    Bug::OutcomesNotTransferred,
    Bug::ReadsWithoutLease,
    Bug::RepeatExecuted,
    Bug::SweepRemovesNewest,
    Bug::TailIgnoresUpstream,
    Bug::UnconditionalPut,
    Bug::VersionOfClean,
];

#[test]
fn planted_bugs_are_found() {
    let found = hunt(&SOON, Duration::from_secs(30), 2, |_| ());
    let survivors: Vec<Bug> =
        found.iter().filter(|found| found.by.is_none()).map(|found| found.bug).collect();
    assert_eq!(survivors, []);
}
