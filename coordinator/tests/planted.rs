//! Would the tests notice? A bug of the leadership that no client ever sees, since the log stands behind it. Only with the
//! feature `planted`.
#![cfg(feature = "planted")]

use std::time::Duration;

use craq_coordinator::leadership::{Input, Job, Leadership, Output, Timing};
use craq_log::{Holder, Seen, Written};
use craq_proto::{
    HolderId, Term, Time,
    planted::{self, Bug},
};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(2);

/// Until when a coordinator leads whose claim was sent after a second, and answered a second later.
fn leads_until() -> Time {
    let me = HolderId(Uuid::from_u128(1));
    let mut leadership = Leadership::new(me, Timing::of_lease(LEASE), 0.0);
    let mut done = |job, records, holder: Option<Holder>, at| {
        let (term, since) = (Term(records), String::new());
        let seen = Seen { records, term, holder, lease: LEASE, since };
        let input = Input::Done { job, sent: Time::from_millis(1_000), written: Written::Won, seen };
        let mut out = Vec::new();
        leadership.step(Time::from_millis(at), input, &mut out);
        out
    };
    assert!(matches!(done(Job::Look, 0, None, 1_000)[..], [Output::Claim { .. }]));
    let holder = Holder { id: me, address: "localhost:1".to_owned() };
    let out = done(Job::Claim, 1, Some(holder), 2_000);
    assert!(matches!(out[..], [Output::Lead { .. }, ..]), "{out:?}");
    leadership.until()
}

#[test]
fn a_leader_that_counts_from_the_answer_leads_when_others_may_claim() {
    let others_may = Time::from_millis(1_000) + LEASE;
    assert!(leads_until() < others_may);
    planted::set(Some(Bug::StepDownFromAnswer));
    assert!(leads_until() > others_may);
    planted::set(None);
}
