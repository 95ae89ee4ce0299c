//! Which planted bugs the golden scripts notice. A bug that changes no script is left to the random schedules.

use craq_proto::planted::{self, Bug};

use super::script::first_changed;

/// Bugs of others than a replica: the coordinator, the client, and what simulations have in place of a store.
pub(super) const ELSEWHERE: &[Bug] = &[
    Bug::StorageErrorIgnored,
    Bug::MetaBeforeData,
    Bug::HeadNotInSync,
    Bug::EpochWithoutInSync,
    Bug::InSyncWithoutActive,
    Bug::PublishedBeforePersisted,
    Bug::UnconditionalPut,
    Bug::AmbiguousAppendDone,
    Bug::ExistingTakenForOwn,
    Bug::NeededRecordRemoved,
    Bug::LostTermGoesOn,
    Bug::ClaimWithoutWaiting,
    Bug::StepDownSkipped,
    Bug::RetryUnderNewId,
    Bug::UnknownCalledRefused,
    Bug::LastAttemptDecides,
];

/// Bugs of a replica that change no script: they take a schedule that nobody thinks of.
const UNNOTICED: &[Bug] = &[
    Bug::OutcomesNotRolledBack,
    Bug::UpstreamNotPassedOn,
    Bug::UpstreamKept,
    Bug::StaleBatchCounts,
    Bug::ReadsWhenNotLevel,
    Bug::AnyCommitAnswers,
    Bug::UnsettledTailAnswers,
    Bug::TailAnswersWithoutLease,
    Bug::PageMixesDirty,
    Bug::LeaseFromAnswer,
    Bug::DriftIgnored,
    Bug::OldReleaseBelieved,
    Bug::LevelDropsSuffix,
];

#[test]
fn golden_scripts_notice_the_bugs_of_a_replica() {
    let simulated = Bug::ALL.iter().chain(Bug::RARE).chain(Bug::SCHEDULED).chain([&Bug::LinkBeforeLevel]);
    let of_replica = simulated.copied().filter(|bug| !ELSEWHERE.contains(bug));
    let mut unnoticed = Vec::new();
    for bug in of_replica {
        planted::set(Some(bug));
        match first_changed() {
            Some(script) => println!("{:30} {script}", bug.name()),
            None => unnoticed.push(bug),
        }
    }
    planted::set(None);
    assert_eq!(unnoticed, UNNOTICED);
}
