//! Is a legal history accepted, and each way to make it illegal refused?

use std::time::Duration;

use bytes::Bytes;

use crate::check::{
    history::{Call, Change, Condition, Found, Op, Outcome},
    linearizability::{self, Settings, Tombstones},
    versions::{Contents, Counts, check, check_with},
};

/// `at`: sent and answered, in milliseconds.
fn op(client: u32, call: Call, at: (u64, u64), outcome: Outcome) -> Op {
    let (invoked, returned) = (Duration::from_millis(at.0), Duration::from_millis(at.1));
    Op { client, call, invoked, returned, outcome }
}

fn applied(seq: u64, version: u64) -> Outcome {
    Outcome::Applied { seq, versions: vec![version] }
}

fn found(value: Option<&'static str>, version: u64, seq: u64) -> Found {
    Found { value: value.map(Bytes::from), version, seq }
}

fn wrote(value: &'static str, at: (u64, u64), version: u64, seq: u64) -> Op {
    op(1, Call::put("k", value), at, applied(seq, version))
}

fn unknown(value: &'static str, at: (u64, u64)) -> Op {
    op(2, Call::put("k", value), at, Outcome::Unknown("timeout".to_owned()))
}

fn saw(value: Option<&'static str>, at: (u64, u64), version: u64, seq: u64) -> Op {
    op(3, Call::read("k"), at, Outcome::Found(vec![found(value, version, seq)]))
}

fn at_the_end(version: u64, value: Option<&'static str>) -> Vec<(String, Contents)> {
    let contents = Contents::from([("k".to_owned(), (version, value.map(Bytes::from)))]);
    vec![("a".to_owned(), contents.clone()), ("b".to_owned(), contents)]
}

/// Two writes, an unknown one that took effect late, a deletion, and reads of all of them.
fn legal() -> Vec<Op> {
    vec![
        saw(None, (0, 1), 0, 0),
        wrote("one", (0, 10), 1, 5),
        saw(Some("one"), (4, 12), 1, 5),
        unknown("late", (11, 20)),
        saw(Some("one"), (13, 15), 1, 5),
        wrote("two", (30, 40), 2, 9),
        // Overlaps: either answer would be right.
        saw(Some("one"), (31, 39), 1, 5),
        saw(Some("late"), (50, 55), 3, 11),
        op(4, Call::delete("k"), (60, 70), applied(12, 4)),
        saw(None, (71, 72), 4, 12),
        wrote("three", (80, 90), 5, 14),
        op(4, Call::put("k", "refused"), (90, 99), Outcome::NotApplied("full".to_owned())),
    ]
}

fn refused(ops: &[Op], finals: &[(String, Contents)], what: &str) {
    let violations = check(ops, finals).expect_err("an illegal history was accepted");
    assert!(violations.iter().any(|v| v.what.contains(what)), "{violations:?} does not say {what:?}");
}

#[test]
fn a_legal_history_is_accepted_and_counted() {
    let counts = check(&legal(), &at_the_end(5, Some("three"))).unwrap();
    assert_eq!(counts, Counts { acked: 4, read: 6, refused: 0, unknown: 1, failed: 1 });
}

#[test]
fn an_unknown_write_that_never_took_effect_is_accepted() {
    let ops = [wrote("one", (0, 10), 1, 5), unknown("lost", (11, 20)), wrote("two", (30, 40), 2, 9)];
    check(&ops, &at_the_end(2, Some("two"))).unwrap();
}

#[test]
fn an_unknown_write_may_take_effect_after_everything_else() {
    let ops = [unknown("late", (0, 5)), wrote("one", (10, 20), 1, 5)];
    check(&ops, &at_the_end(2, Some("late"))).unwrap();
}

#[test]
fn a_stale_read_is_refused() {
    let mut ops = legal();
    ops.push(saw(Some("two"), (91, 95), 2, 9));
    refused(&ops, &at_the_end(5, Some("three")), "came after");
}

#[test]
fn a_read_of_nothing_after_a_write_is_refused() {
    refused(
        &[wrote("one", (0, 10), 1, 5), saw(None, (11, 12), 0, 0)],
        &at_the_end(1, Some("one")),
        "came after",
    );
}

#[test]
fn a_lost_write_is_refused_even_if_nobody_read_in_between() {
    refused(&legal(), &at_the_end(4, None), "lost is");
    let mut one_behind = at_the_end(5, Some("three"));
    one_behind[1].1.clear();
    refused(&legal(), &one_behind, "lost is");
}

#[test]
fn a_lost_write_whose_version_was_taken_again_is_refused() {
    let ops = [wrote("one", (0, 10), 1, 5), wrote("two", (20, 30), 1, 7)];
    refused(&ops, &at_the_end(1, Some("two")), "made by two writes");
    // The first one seen by nobody but its writer, the second one's writer told nothing.
    let ops = [wrote("one", (0, 10), 1, 5), unknown("two", (20, 30))];
    refused(&ops, &at_the_end(1, Some("two")), "version 1 is one and two");
}

#[test]
fn a_doubled_write_is_refused() {
    let ops = [unknown("one", (0, 10)), saw(Some("one"), (11, 12), 1, 5), saw(Some("one"), (20, 21), 2, 6)];
    refused(&ops, &at_the_end(2, Some("one")), "took effect twice");
    // Nobody saw the first of the two: the count tells.
    let ops = [wrote("one", (0, 10), 2, 6)];
    refused(&ops, &at_the_end(2, Some("one")), "it has 2 versions");
}

#[test]
fn a_write_that_was_called_not_applied_must_not_be_seen() {
    let mut ops = legal();
    ops.push(saw(Some("refused"), (100, 101), 6, 15));
    refused(&ops, &at_the_end(6, Some("refused")), "had not been applied");
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_refused() {
    refused(&[saw(Some("x"), (0, 1), 1, 1)], &[], "never written");
    refused(&[saw(Some("one"), (0, 1), 1, 5), wrote("one", (2, 10), 1, 5)], &[], "before it was written");
}

#[test]
fn replicas_that_differ_in_the_end_are_refused() {
    let mut finals = at_the_end(5, Some("three"));
    finals[1].1.insert("k".to_owned(), (5, Some("two".into())));
    refused(&legal(), &finals, "version 5 is three and two");
}

#[test]
fn a_log_that_runs_backwards_is_refused() {
    let ops = [wrote("one", (0, 10), 1, 9), wrote("two", (5, 12), 2, 8)];
    refused(&ops, &at_the_end(2, Some("two")), "stands at sequence");
    let other = op(1, Call::put("other", "two"), (11, 12), applied(8, 1));
    let ops = [wrote("one", (0, 10), 1, 9), other];
    refused(&ops, &[], "sequence 8");
}

#[test]
fn every_single_change_of_a_version_in_a_legal_history_is_noticed() {
    let finals = at_the_end(5, Some("three"));
    for at in 0..legal().len() {
        for change in [-1_i64, 1] {
            let mut ops = legal();
            let version = match &mut ops[at].outcome {
                Outcome::Applied { versions, .. } => &mut versions[0],
                Outcome::Found(found) => &mut found[0].version,
                _ => continue,
            };
            let Some(changed) = version.checked_add_signed(change) else { continue };
            *version = changed;
            assert!(check(&ops, &finals).is_err(), "version of operation {at} changed by {change}");
        }
    }
}

/// Two keys written together, twice, with a page of them in between, and one after a deletion.
fn joined() -> Vec<Op> {
    let both = |n: u32, seq, at| {
        let changes = ["a", "b"].map(|key| Change::put(key, format!("{n}-{key}"))).to_vec();
        op(n, Call::Write { changes }, at, Outcome::Applied { seq, versions: vec![n.into(), n.into()] })
    };
    let page = |a, b, at| op(7, Call::page(["a", "b"]), at, Outcome::Found(vec![a, b]));
    vec![
        both(1, 3, (0, 10)),
        page(found(Some("1-a"), 1, 3), found(Some("1-b"), 1, 3), (11, 12)),
        both(2, 5, (20, 40)),
        page(found(Some("2-a"), 2, 5), found(Some("2-b"), 2, 5), (25, 30)),
        op(3, Call::delete("a"), (50, 60), applied(7, 3)),
        page(Found::nothing(), found(Some("2-b"), 2, 5), (61, 62)),
    ]
}

/// Refused by both checkers.
fn refused_by_both(ops: &[Op], what: &str) {
    refused(ops, &[], what);
    let verdict = linearizability::check(ops, &Settings::default());
    assert!(verdict.is_violation(), "{verdict:?}");
}

#[test]
fn pages_and_writes_of_several_keys_are_accepted() {
    check(&joined(), &[]).unwrap();
    assert!(linearizability::check(&joined(), &Settings::default()).is_linearizable());
}

#[test]
fn a_page_of_two_moments_is_refused() {
    let mut ops = joined();
    ops[3].outcome = Outcome::Found(vec![found(Some("2-a"), 2, 5), found(Some("1-b"), 1, 3)]);
    refused_by_both(&ops, "a page shows two moments");
    let mut ops = joined();
    // The deleted key is still there in one page, and gone in an earlier one.
    ops.push(op(
        7,
        Call::page(["a", "b"]),
        (63, 64),
        Outcome::Found(vec![found(Some("2-a"), 2, 5), found(Some("2-b"), 2, 5)]),
    ));
    refused_by_both(&ops, "a page shows two moments");
    let mut ops = joined();
    ops[1].outcome = Outcome::Found(vec![Found::nothing(), found(Some("1-b"), 1, 3)]);
    refused_by_both(&ops, "a page shows two moments");
}

#[test]
fn a_write_that_is_torn_apart_is_refused() {
    let mut ops = joined();
    ops[0].outcome = Outcome::Unknown("timeout".to_owned());
    check(&ops, &[]).unwrap();
    ops[1].outcome = Outcome::Found(vec![found(Some("1-a"), 1, 3), found(Some("1-b"), 1, 4)]);
    refused(&ops, &[], "torn apart");
    // One half of it is never there.
    let mut ops = joined();
    ops[1].outcome = Outcome::Found(vec![found(Some("1-a"), 1, 3), Found::nothing()]);
    refused_by_both(&ops, "is not found");
}

#[test]
fn reads_of_different_keys_go_by_one_log() {
    let x = op(1, Call::put("x", "x1"), (0, 90), applied(4, 1));
    let y = op(2, Call::put("y", "y1"), (0, 90), applied(5, 1));
    let read = |key: &str, at, one| op(3, Call::read(key), at, Outcome::Found(vec![one]));
    // The later entry is seen, and after that not the earlier one.
    let ops = [x, y, read("y", (10, 20), found(Some("y1"), 1, 5)), read("x", (30, 40), found(None, 0, 0))];
    refused(&ops, &[], "is not found");
}

#[test]
fn a_refused_condition_is_an_answer_like_any_other() {
    let conditional = |observed| {
        let call: Call = Change::put("k", "never").only_if(Condition::Version(9)).into();
        op(5, call, (100, 110), Outcome::ConditionFailed { key: "k".to_owned(), observed })
    };
    let with = |observed| [legal(), vec![conditional(observed)]].concat();
    check(&with(5), &[]).unwrap();
    assert!(linearizability::check(&with(5), &Settings::default()).is_linearizable());
    refused_by_both(&with(3), "came after");
    let verdict = linearizability::check(&with(0), &Settings::default());
    assert!(verdict.is_violation(), "the key exists: {verdict:?}");
    let verdict = linearizability::check(&with(9), &Settings::default());
    assert!(verdict.is_violation(), "the condition was true: {verdict:?}");
}

#[test]
fn versions_that_begin_again_are_judged_by_the_log() {
    let ops = vec![
        wrote("one", (0, 10), 1, 5),
        op(4, Call::delete("k"), (20, 30), applied(6, 2)),
        wrote("two", (40, 50), 1, 9),
        saw(Some("two"), (60, 70), 1, 9),
    ];
    assert!(check(&ops, &[]).is_err(), "with tombstones kept that is no order");
    check_with(&ops, &at_the_end(1, Some("two")), Tombstones::Collected).unwrap();
    let mut stale = ops.clone();
    stale.push(saw(Some("one"), (80, 90), 1, 5));
    assert!(check_with(&stale, &[], Tombstones::Collected).is_err());
    assert!(
        check_with(&ops, &at_the_end(1, Some("one")), Tombstones::Collected).is_err(),
        "the last one is lost"
    );
}
