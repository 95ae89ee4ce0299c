//! Bugs that can be planted, each at the very rule that it breaks, to prove that the tests find them.
//!
//! A check that cannot fail is a defect. So a simulation plants one bug, runs, and demands to be told that something is
//! wrong. The switch is the feature `planted`, which only tests turn on and which no build without debug assertions
//! takes; without it [`is`] is the constant `false`, and the branch is not there.
//! The switch is per thread: several simulations with several bugs may run at once, each on a thread of its own.
//!
//! # What is not planted, and why
//!
//! *M* numbers name the project's list of bugs that a harness must find, sections those of the protocol page.
//!
//! Bugs that this design has no place for:
//! - M2, no lock around read-increment-write: one `step` at a time owns the head's versions; there is nothing to lock.
//! - M3, a commit of an unknown version cuts the wrong one: commits are cumulative sequences and name no version;
//!   `Log::commit_to` asserts that it holds what it commits.
//! - M21, a lease by wall clock: the replica is given its time and can ask for none; clippy refuses the wall clock.
//! - M22 and M23, locks and watches: there are none yet.
//! - M26, a checker that takes a timeout for "not applied": a bug of the checker, found by the checker's own tests.
//!
//! Bugs that no client can ever see, since another rule stands behind the broken one:
//! - M6, a node is promoted before it has caught up: a member that is not in sync is brought up on its new link, reads
//!   nothing and counts for nothing until it says `Active`. What is visible is [`Bug::InSyncWithoutActive`].
//! - M11, what is brought up gets no dirty entries; or what was committed during a walk is left out; and M13, an entry
//!   is taken without the one before: links are ordered streams, the gap closes the link, and the next `Hello` begins
//!   with what is held. The chain is slower, never wrong. (`Log::push` asserts that there is no gap.)
//! - M18 as it is written, an ambiguous put counts as failed: records are only ever created, so that the next try meets
//!   the own record under its number, reads on, and goes on from it. What is visible is the contrary,
//!   [`Bug::AmbiguousAppendDone`].
//! - M7 as it is written, [`Bug::LeaseCheckedBeforeRead`]: the version that will be answered is chosen after the call came
//!   and while the lease held, and a version that is chosen never changes. So the read took place at that moment. What is
//!   visible is a judgement from before the call came, [`Bug::LeaseJudgedAtStep`].
//! - [`Bug::LinkBeforeLevel`]: what is passed on too early is no harm. It becomes durable for nobody, since a replica that
//!   is not level says nothing of durability upstream; and when the right entries follow, the successor meets another
//!   entry at a sequence that it holds, closes the link, and is levelled. (A golden script notices the order of links.)
//! - The epoch of a message alone is not compared: all links of an epoch end with it, on both sides. What is visible is
//!   to keep them, [`Bug::OlderEpochAccepted`], and to promise in an older epoch, [`Bug::OlderEpochPromised`].
//! - The epoch of a question is not compared, or the tail answers *questions* without a lease: who asks answers only
//!   under its own lease and epoch, and while it has that lease no later epoch has committed anything. What is visible
//!   is the tail's own dirty read, [`Bug::TailAnswersWithoutLease`].
//! - The incarnation of a message's sender alone is not compared: its connections end with its process. What is visible
//!   is a process that goes on in the epoch of the one before it, [`Bug::IncarnationIgnored`].
//! - A duplicate entry is skipped by its sequence alone: after `Level` the logs are equal above the commit. What is
//!   visible is the same mistake when the link opens, [`Bug::PrefixBySeqAlone`].
//! - An answer of the tail wins over an own newer commit: the read began before either was committed.
//! - The view is acted upon before it is stored: a process that has forgotten it has another incarnation, which takes
//!   part in nothing before a newer view names it.
//! - An `Active` of an older epoch counts: a node becomes a member only after it has said, as a learner of a later epoch,
//!   that it has caught up, and this took the place of what it had said before. (Of one that stays a member, it is true.)
//! - [`Bug::StepDownFromAnswer`]: whoever leads a little too long loses the next number of the log. (Two leaders at once is
//!   what the simulation would see, but the next slow answer ends the first one. `coordinator/tests/planted.rs` notices.)
//! - [`Bug::RetryNotFlagged`]: a head judges first attempts as it judges repeats, and a client knows by itself whether an
//!   attempt was uncertain. The flag spares others than this client that knowledge.
//! - A client's floor above what it may still repeat: the head refuses such a number, and the client says "unknown".
//! - A dirty suffix dropped by a new tail that has a predecessor (half of M8): the predecessor sends it again.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!(
    "the feature `planted` compiles bugs in and is for tests alone: it is refused without debug assertions \
     (simulations that must be fast have the profile `sim`)"
);

/// Whether bugs can be planted at all: what only they need is not done otherwise.
pub const POSSIBLE: bool = cfg!(feature = "planted");

macro_rules! bugs {
    ($($doc:literal $list:ident { $($bug:ident [$rule:literal] $what:literal)* })*) => {
        /// A bug that can be planted. Each says what it breaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $what] #[doc = concat!("(", $rule, ")")] $bug,)*)*
        }

        #[cfg(feature = "planted")]
        impl Bug {
            $(#[doc = $doc] pub const $list: &[Self] = &[$(Self::$bug),*];)*

            const LISTS: &[&[Self]] = &[$(Self::$list),*];

            /// The rule that it breaks.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self { $($(Self::$bug => $rule,)*)* }
            }

            /// What it breaks, in a sentence.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $($(Self::$bug => $what,)*)* }
            }
        }
    };
}

bugs! {
"All that a simulation of a whole cluster has to find." ALL {
    // The head: conditions, versions, requests.
    NoFirstEntry ["protocol.md 3.1 ⚑"]
        "A head begins its epoch without a first entry, and everyone counts as level and settled at once."
    VersionOfClean ["M1, protocol.md 3.2"]
        "A write to a dirty key gets the version after the committed one, so that two writes share it."
    ConditionOfClean ["M20, protocol.md 3.2"]
        "A condition is judged by the newest committed version, though a newer dirty one is there."
    RefusedWithoutLease ["protocol.md 3.2 ⚑"]
        "A refused condition on a clean key is answered without a lease."
    RefusedOnDirty ["M20, protocol.md 3.2 ⚑"]
        "A refused condition that rests on a dirty version is answered before that version is committed."
    WritesAtEveryMember ["M4, protocol.md 3.2"]
        "Every level member takes writes, not the head alone."
    AckBeforeCommit ["M9, protocol.md 3.7"]
        "The head answers a write as soon as it has appended it."
    LostWaiterRefused ["protocol.md 3.7"]
        "A head that leaves tells its waiting clients that their writes were certainly not applied."
    WaiterBySeqAlone ["protocol.md 3.7"]
        "A client is answered when anything commits at its entry's sequence, be it another entry."
    RepeatExecuted ["M14, protocol.md 3.3"]
        "A repeated request is executed once more."
    RepeatAnsweredDirty ["protocol.md 3.3"]
        "A repeated request is answered with its known outcome before its entry is committed."
    GivenUpExecuted ["protocol.md 3.3"]
        "A request below the floor of its client is executed when it comes late."
    ForgottenExecuted ["protocol.md 3.3"]
        "A repeat that can no longer be judged is executed instead of refused."
    LateFirstExecuted ["protocol.md 3.3"]
        "A first attempt that can no longer be judged is executed, since it is no repeat."
    OutcomesNotTransferred ["protocol.md 3.3 ⚑"]
        "A replica that is brought up gets no outcomes of requests."
    OutcomesNotRolledBack ["protocol.md 4"]
        "The outcome of an entry that is thrown away stays."
    OutcomesNotRescued ["protocol.md 3.3"]
        "A sweep removes rows without keeping the outcomes that they alone hold."

    // Durable and committed.
    DurableAtAppend ["M10, protocol.md 3.5"]
        "An entry counts as durable as soon as the store's writer has it."
    UpstreamNotPassedOn ["protocol.md 3.5"]
        "A replica tells its successor how far its own log is durable, not that of all before it."
    UpstreamKept ["protocol.md 4"]
        "What a replica knows of durability upstream outlives its link and its epoch."
    TailIgnoresUpstream ["protocol.md 3.6 ⚑"]
        "The tail commits what is durable at itself."
    CommitSavedAhead ["protocol.md 3.7"]
        "The end of the log is stored as the commit."
    StaleBatchCounts ["protocol.md 4"]
        "A batch begun before a truncation still counts as durable when it completes."

    // Links.
    OlderEpochAccepted ["M4, protocol.md 3 ⚑"]
        "The link from above survives a new view, and nobody compares the epochs of messages."
    TruncationSkipped ["protocol.md 4 ⚑"]
        "A replica keeps what its predecessor lacks, and takes what it is sent at these sequences for known."
    TruncationNotStored ["protocol.md 4"]
        "What is thrown away stays in the store."
    PrefixBySeqAlone ["M12, protocol.md 4"]
        "Entries of equal sequence count as equal when a link opens, whatever their epochs."
    NewTailDropsSuffix ["M8, protocol.md 4"]
        "A replica that becomes head or tail drops its dirty suffix."
    IncarnationIgnored ["protocol.md 4 ⚑"]
        "A process goes on in the epoch that its store has, though that names the process before it."

    // Bringing up.
    WalkClaimsTooMuch ["M11, protocol.md 4"]
        "A piece of a walk claims to be complete up to where reading was to go, not where it ended."
    WalkSkipsTombstones ["M15, protocol.md 4"]
        "A walk leaves tombstones out."
    TombstoneFloorNotRaised ["M15, protocol.md 2"]
        "Tombstones are collected without a mark that they are missing."
    TombstoneFloorNotInherited ["protocol.md 2"]
        "A replica that is brought up does not take over from where its source's tombstones are missing."
    TombstoneUnderWalk ["protocol.md 2"]
        "A tombstone is collected that a walk under way has not sent yet."
    SweepRemovesNewest ["protocol.md 2"]
        "A sweep removes the row that overwrites, with the one that is overwritten."

    // Reading.
    ReadsWhenNotLevel ["protocol.md 5 ⚑"]
        "A member answers strong reads though it is neither in sync nor level."
    ReadsWithoutLease ["M5, protocol.md 5"]
        "Strong reads are answered without a lease."
    NotFoundWithoutLease ["protocol.md 5"]
        "\"Not found\" is answered without a lease."
    LeaseJudgedAtStep ["M7, protocol.md 5"]
        "Whether a lease holds is judged when the replica takes a step, not with a clock read after the value."
    DirtyNotAsked ["protocol.md 5"]
        "A dirty key is answered with the own newest committed version without asking the tail."
    DirtyServed ["protocol.md 5"]
        "A dirty key is answered with its dirty version."
    QuestionJoined ["protocol.md 5 ⚑"]
        "A read joins a question that was already sent."
    AnyCommitAnswers ["protocol.md 5"]
        "A read of a dirty key that waits is answered at the next commit, whatever that commits."
    UnsettledTailAnswers ["protocol.md 5 ⚑"]
        "The tail says what is committed before it is settled."
    TailAnswersWithoutLease ["protocol.md 5 ⚑"]
        "The tail answers questions, and reads of its own dirty keys, without a lease."
    PageMixesDirty ["M24, protocol.md 5"]
        "A page is answered at once with the newest versions, dirty ones among them."

    // Leases and the gate.
    LeaseFromAnswer ["protocol.md 6 ⚑"]
        "The pinger counts a promise from when the answer came."
    LeaseOfAnyMember ["protocol.md 6"]
        "The promise of one other member suffices for a lease."
    DriftIgnored ["protocol.md 6"]
        "The promiser counts no longer than the pinger, though clocks run at different rates."
    OlderEpochPromised ["M4, protocol.md 3 ⚑"]
        "A ping is answered with a promise whatever its epoch, to members and others."
    NoGate ["M16, protocol.md 6 ⚑"]
        "A new epoch moves at once, while promises to those that it leaves out still bind."
    BoundForgotten ["protocol.md 6 ⚑"]
        "A restarted process forgets what was promised to nodes that the stored view had left out."
    PromisesForgotten ["protocol.md 6 ⚑"]
        "A restarted process forgets what was promised to the members of the stored view."

    // The store.
    StorageErrorIgnored ["M19"]
        "A batch that failed is reported as done. The hook is in the simulator's disk."
    MetaBeforeData ["M25"]
        "A write's commit, floors and view go to the disk in a batch before its rows. The hook is in the simulator's disk."

    // The coordinator.
    HeadNotInSync ["protocol.md 7 ⚑"]
        "The successor of a lost head becomes head though it is not in sync."
    EpochWithoutInSync ["protocol.md 7 ⚑"]
        "A chain goes on without any of its in-sync members."
    InSyncWithoutActive ["M6, protocol.md 7 ⚑"]
        "A member is called in sync as soon as the chain is quiet, without having said `Active`."
    PublishedBeforePersisted ["protocol.md 7"]
        "The coordinator publishes a view before it is in the log."
    UnconditionalPut ["M17, protocol.md 7"]
        "The coordinator writes a record over one that another coordinator has written."
    AmbiguousAppendDone ["M18"]
        "A record whose writing ended without a clear answer counts as written."
    ExistingTakenForOwn ["the log"]
        "A record that exists already counts as one's own, without a look at whose it is."
    NeededRecordRemoved ["the log"]
        "Old records are removed without regard to which of them are needed: a chain's newest view, the claim of the term."
    LostTermGoesOn ["leadership"]
        "A leader that has lost a number to another one tries the next, in its own term."
    ClaimWithoutWaiting ["leadership"]
        "A coordinator claims whenever it looks, though the leader renews."
    StepDownSkipped ["leadership"]
        "A leader that cannot renew goes on."

    // The client.
    RetryUnderNewId ["M14, protocol.md 3.3"]
        "A client repeats a write under another request id."
    UnknownCalledRefused ["protocol.md 3.3"]
        "A client tells its caller that a write of unknown outcome was not applied."
    LastAttemptDecides ["protocol.md 3.3"]
        "A client takes what it knows of a write from its last attempt alone."
}

"Visible only in circumstances that simulations do not make: an operator accepts a loss (a golden script has that), or a \
message is on its way for so long that a node is removed, returns, and is promoted meanwhile."
RARE {
    OldReleaseBelieved ["protocol.md 6"]
        "A node that gave its lease up in an earlier epoch counts as having given up a later one too."
    RebuiltIgnored ["protocol.md 7"]
        "A replica of a history that an operator gave up returns with what it holds."
}

"Visible only with views that no coordinator makes, since it puts nobody behind a member that is not in sync. The random \
schedules of one chain make them, and find the bug within 1,000 seeds (`node/src/replica/tests/random`)."
SCHEDULED {
    LevelDropsSuffix ["protocol.md 4"]
        "A member that is level, but not yet called in sync, drops its dirty suffix when its link opens again."
}

"Visible only when a writer sleeps while ten leases pass and two others lead after it. Tests of the log find it \
(`coordinator/log/tests/planted.rs`)."
SLEPT {
    RecreatedRecordBelieved ["the log"]
        "A record is believed to be the newest because it could be created: nobody looks whether its number had been removed."
}

"Those that no client can ever see, since another rule stands behind the broken one."
REDUNDANT {
    LinkBeforeLevel ["protocol.md 4 ⚑"]
        "A replica opens the link to its successor before it is level itself."
    RetryNotFlagged ["protocol.md 3.3"]
        "A client does not say that a request is a repeat."
    StepDownFromAnswer ["leadership"]
        "A leader counts its time from the answer to its renewal, not from before it was sent."
    LeaseCheckedBeforeRead ["M7, protocol.md 5"]
        "The lease is checked before the value is read, not after. The hook is in the simulator's service."
}
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants the bug on this thread, in place of any other.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the bug is planted on this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    impl Bug {
        /// Its name: the variant's, in kebab case.
        #[must_use]
        pub fn name(self) -> String {
            let mut name = String::new();
            for letter in format!("{self:?}").chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('-');
                }
                name.push(letter.to_ascii_lowercase());
            }
            name
        }

        /// The bug of this name.
        #[must_use]
        pub fn from_name(name: &str) -> Option<Self> {
            Self::LISTS.iter().copied().flatten().copied().find(|bug| bug.name() == name)
        }
    }
}

#[cfg(feature = "planted")]
pub use switch::{is, set};

/// Whether the bug is planted: never.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(all(test, feature = "planted"))]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_by_its_name() {
        for bug in Bug::LISTS.iter().copied().flatten() {
            assert_eq!(Bug::from_name(&bug.name()), Some(*bug));
            assert!(bug.what().ends_with('.') && !bug.rule().is_empty());
        }
        assert_eq!(Bug::NoGate.name(), "no-gate");
        assert_eq!(Bug::from_name("no-bug"), None);
    }

    #[test]
    fn a_bug_is_planted_on_one_thread_alone() {
        set(Some(Bug::NoGate));
        assert!(is(Bug::NoGate) && !is(Bug::AckBeforeCommit));
        assert!(!std::thread::spawn(|| is(Bug::NoGate)).join().unwrap());
        set(None);
        assert!(!is(Bug::NoGate));
    }
}
