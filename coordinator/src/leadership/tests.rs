//! Does a coordinator claim only when the leader is gone, lead only while it can write, and give up when it is asked to?

use std::time::Duration;

use craq_log::{Holder, Seen, Written};
use craq_proto::{HolderId, Term, Time};
use uuid::Uuid;

use super::{Input, Job, Leadership, Output, Timing};

const LEASE: Duration = Duration::from_secs(2);
const ME: u128 = 1;
const OTHER: u128 = 2;

/// A coordinator, and the log as it would be read.
struct Scene {
    leadership: Leadership,
    records: u64,
    term: u64,
    holder: Option<u128>,
    lease: Duration,
}

impl Scene {
    fn new(holder: Option<u128>) -> Self {
        let me = HolderId(Uuid::from_u128(ME));
        let leadership = Leadership::new(me, Timing::of_lease(LEASE), 0.5);
        Self { leadership, records: 7, term: 3, holder, lease: LEASE }
    }

    fn step(&mut self, at: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.leadership.step(Time::from_millis(at), input, &mut out);
        out
    }

    fn tick(&mut self, at: u64) -> Vec<Output> {
        self.step(at, Input::Tick)
    }

    /// A job that was sent at a time is done at another.
    fn done(&mut self, job: Job, sent: u64, at: u64, written: Written) -> Vec<Output> {
        if written == Written::Won && !matches!(job, Job::Look | Job::Prune) {
            self.records += 1;
        }
        let holder = |id| Holder { id: HolderId(Uuid::from_u128(id)), address: format!("localhost:{id}") };
        let seen = Seen {
            records: self.records,
            term: Term(self.term),
            holder: self.holder.map(holder),
            lease: self.lease,
            since: String::new(),
        };
        self.step(at, Input::Done { job, sent: Time::from_millis(sent), written, seen })
    }

    /// Claims term 4 at this time, and wins.
    fn leads(at: u64) -> Self {
        let mut scene = Self::new(None);
        assert_eq!(scene.tick(at), [Output::Look]);
        let claim = [Output::Claim { records: scene.records, until: Time::from_millis(at + 1_300) }];
        assert_eq!(scene.done(Job::Look, at, at, Written::Won), claim);
        (scene.term, scene.holder) = (4, Some(ME));
        assert_eq!(scene.done(Job::Claim, at, at, Written::Won), [Output::Lead { term: Term(4) }]);
        scene
    }
}

fn follows(out: &[Output]) -> bool {
    matches!(out, [Output::Follow { .. }, ..])
}

#[test]
fn a_leader_that_renews_is_left_alone_and_one_that_does_not_is_replaced_after_its_lease() {
    let mut scene = Scene::new(Some(OTHER));
    assert_eq!(scene.tick(1_000), [Output::Look]);
    let mut at = 1_000;
    // It renews for a minute.
    while at < 60_000 {
        assert_eq!(scene.done(Job::Look, at, at, Written::Won), []);
        at += 250;
        scene.records += u64::from(at % 500 == 0);
        assert_eq!(scene.tick(at), [Output::Look]);
    }
    // What is last seen to change counts from when it is seen.
    scene.records += 1;
    let last = at;
    assert_eq!(scene.done(Job::Look, at, at, Written::Won), []);
    loop {
        at = scene.leadership.next_deadline().0.as_millis() as u64 + 1;
        match scene.tick(at)[..] {
            [Output::Look] => assert_eq!(scene.done(Job::Look, at, at, Written::Won), []),
            [Output::Claim { .. }] => break,
            ref out => panic!("{out:?}"),
        }
    }
    // A hundredth for clocks, and half a poll interval of its own.
    assert!((2_020 + 125..2_020 + 130).contains(&(at - last)), "claimed after {}ms", at - last);
}

#[test]
fn a_dead_leader_is_replaced_within_two_seconds_after_its_lease_however_long_that_is() {
    for lease in [LEASE, LEASE * 5] {
        let mut scene = Scene::new(Some(OTHER));
        let timing = Timing::of_lease(lease);
        scene.leadership = Leadership::new(HolderId(Uuid::from_u128(ME)), timing, 1.0);
        scene.lease = lease;
        scene.tick(1_000);
        scene.done(Job::Look, 1_000, 1_000, Written::Won);
        // The leader writes just after that, and dies: it is seen with the next look.
        let died = 1_001;
        scene.records += 1;
        let mut at = died;
        loop {
            at = at.max(scene.leadership.next_deadline().0.as_millis() as u64 + 1);
            match scene.tick(at)[..] {
                [Output::Look] => assert_eq!(scene.done(Job::Look, at, at, Written::Won), []),
                [Output::Claim { .. }] => break,
                ref out => panic!("{out:?}"),
            }
        }
        let after = Duration::from_millis(at - died);
        assert!(after > lease && after < lease + Duration::from_millis(1_700), "{lease:?}: {after:?}");
    }
}

#[test]
fn the_records_own_lease_counts_if_it_is_longer() {
    let mut scene = Scene::new(Some(OTHER));
    scene.leadership = Leadership::new(HolderId(Uuid::from_u128(ME)), Timing::of_lease(LEASE / 4), 0.0);
    scene.tick(1_000);
    assert_eq!(scene.done(Job::Look, 1_000, 1_000, Written::Won), []);
    assert_eq!(scene.tick(3_000), [Output::Look], "the other one's lease is not over");
}

#[test]
fn a_leader_counts_from_before_it_sent_and_ends_before_anybody_may_claim() {
    let mut scene = Scene::leads(1_000);
    assert_eq!(scene.leadership.next_deadline(), Time::from_millis(1_500));
    assert_eq!(scene.tick(1_500), [Output::Renew { until: Time::from_millis(2_300) }]);
    // The answer took a second: what counts is when it was asked.
    assert_eq!(
        scene.done(Job::Renew, 1_500, 2_200, Written::Won),
        [Output::Renew { until: Time::from_millis(2_800) }]
    );
    assert_eq!(scene.leadership.until(), Time::from_millis(2_800));
    assert_eq!(scene.tick(2_799), []);
    assert!(follows(&scene.tick(2_800)));
    assert_eq!((scene.leadership.term(), scene.leadership.until()), (None, Time::ZERO));
    assert!(scene.leadership.until() < Time::from_millis(1_500) + LEASE);
}

#[test]
fn whoever_wakes_after_its_time_follows_before_anything_else() {
    let mut scene = Scene::leads(1_000);
    let out = scene.done(Job::View, 1_100, 9_000, Written::Won);
    assert!(follows(&out), "{out:?}");
    // Its own term is the newest one still: it need not wait to claim the next.
    assert!(matches!(out[1..], [Output::Claim { .. }]), "{out:?}");
}

#[test]
fn a_claim_whose_answer_is_too_late_leads_nobody() {
    let mut scene = Scene::new(None);
    scene.tick(1_000);
    scene.done(Job::Look, 1_000, 1_000, Written::Won);
    (scene.term, scene.holder) = (4, Some(ME));
    let out = scene.done(Job::Claim, 1_000, 2_300, Written::Won);
    assert!(matches!(out[..], [Output::Claim { .. }]), "{out:?}");
    assert_eq!(scene.leadership.term(), None);
}

#[test]
fn views_renew_the_term_and_what_is_lost_or_unknown_ends_it() {
    let mut scene = Scene::leads(1_000);
    assert_eq!(scene.done(Job::View, 1_400, 1_450, Written::Won), []);
    assert_eq!(scene.leadership.until(), Time::from_millis(2_700));
    assert_eq!(scene.tick(1_500), [], "the view has renewed it");
    for written in [Written::Lost, Written::Unknown] {
        for job in [Job::Renew, Job::View] {
            let mut scene = Scene::leads(1_000);
            scene.holder = if written == Written::Lost { Some(OTHER) } else { Some(ME) };
            assert!(follows(&scene.done(job, 1_500, 1_500, written)), "{written:?} {job:?}");
        }
    }
}

#[test]
fn who_has_lost_a_claim_waits_for_the_winners_whole_lease() {
    let mut scene = Scene::new(None);
    scene.tick(1_000);
    scene.done(Job::Look, 1_000, 1_000, Written::Won);
    (scene.term, scene.holder, scene.records) = (4, Some(OTHER), 8);
    assert_eq!(scene.done(Job::Claim, 1_000, 1_100, Written::Lost), []);
    assert!(scene.leadership.next_deadline() <= Time::from_millis(1_250));
    assert_eq!(scene.tick(3_200), [Output::Look], "2.02 s and its own wait have not passed since 1.1 s");
}

#[test]
fn whoever_gives_up_leads_no_longer_before_it_says_so_and_rests() {
    let mut scene = Scene::leads(1_000);
    let out = scene.step(1_100, Input::Resign { rest: LEASE * 2 });
    assert!(follows(&out) && matches!(out[1..], [Output::Resign { .. }]), "{out:?}");
    assert_eq!(scene.leadership.term(), None);
    scene.holder = None;
    assert_eq!(scene.done(Job::Resign, 1_100, 1_150, Written::Won), []);
    assert_eq!(scene.tick(5_000), [Output::Look], "others have the first word");
    scene.done(Job::Look, 5_000, 5_000, Written::Won);
    assert!(matches!(scene.tick(5_100)[..], [Output::Claim { .. }]));
}

#[test]
fn nothing_is_claimed_while_the_store_is_still_told_that_the_term_is_given_up() {
    let mut scene = Scene::leads(1_000);
    scene.step(1_100, Input::Resign { rest: Duration::ZERO });
    assert_eq!(scene.tick(10_000), [], "the store takes longer than there was time for");
    let out = scene.done(Job::Resign, 1_100, 10_010, Written::Unknown);
    assert!(matches!(out[..], [Output::Claim { .. }]), "{out:?}");
    assert_eq!(scene.tick(10_020), [], "one claim is under way");
}

#[test]
fn who_is_asked_for_a_leader_looks_at_once_and_not_again_and_again() {
    let mut scene = Scene::new(Some(OTHER));
    scene.tick(1_000);
    scene.done(Job::Look, 1_000, 1_000, Written::Won);
    assert_eq!(scene.step(1_010, Input::Asked), []);
    assert_eq!(scene.step(1_040, Input::Asked), [Output::Look]);
    assert_eq!(scene.step(1_100, Input::Asked), [], "one is under way");
    // The leader has given up: the next one begins with the answer.
    scene.holder = None;
    scene.records += 1;
    assert!(matches!(scene.done(Job::Look, 1_040, 1_060, Written::Won)[..], [Output::Claim { .. }]));
}

#[test]
fn old_records_are_removed_after_ten_leases_and_not_at_every_renewal() {
    let mut scene = Scene::leads(1_000);
    let (mut at, mut pruned) = (1_000, Vec::new());
    let mut out = Vec::new();
    while at < 60_000 {
        match out.pop() {
            Some(Output::Prune { below }) => {
                pruned.push((at, below));
                out = scene.done(Job::Prune, at, at, Written::Won);
            }
            Some(Output::Renew { .. }) => out = scene.done(Job::Renew, at, at, Written::Won),
            Some(other) => panic!("{other:?}"),
            None => {
                at += 100;
                out = scene.tick(at);
            }
        }
    }
    assert!((15..=20).contains(&pruned.len()), "{pruned:?}");
    for (at, below) in pruned {
        // Two records a second; those of the last 20 s stay.
        assert!(below <= 8 + (at - 20_000) / 500 && below + 8 >= (at - 20_000) / 500, "{below} at {at}");
    }
}

#[test]
fn impossible_times_are_refused() {
    assert_eq!(Timing::of_lease(LEASE).check(), Ok(()));
    for (renew, step_down) in [(0, 1_300), (900, 1_300), (500, 1_600), (500, 2_000)] {
        let timing = Timing {
            lease: LEASE,
            renew_interval: Duration::from_millis(renew),
            step_down: Duration::from_millis(step_down),
        };
        assert!(timing.check().is_err(), "{timing:?}");
    }
}
