//! Is a legal history accepted, and each way to make it illegal refused?

use super::*;

/// `at`: sent and answered, in milliseconds.
fn op(client: u32, call: Call, at: (u64, u64), outcome: Outcome) -> Op {
    let (invoked, returned) = (Duration::from_millis(at.0), Duration::from_millis(at.1));
    Op { client, key: "k".to_owned(), call, invoked, returned, outcome }
}

fn wrote(value: &'static str, at: (u64, u64), version: u64, seq: u64) -> Op {
    op(1, Call::Write(value.into()), at, Outcome::Applied { version, seq })
}

fn unknown(value: &'static str, at: (u64, u64)) -> Op {
    op(2, Call::Write(value.into()), at, Outcome::Unknown("timeout".to_owned()))
}

fn saw(value: Option<&'static str>, at: (u64, u64), version: u64, seq: u64) -> Op {
    op(3, Call::Read, at, Outcome::Found { value: value.map(Bytes::from), version, seq })
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
        op(4, Call::Delete, (60, 70), Outcome::Applied { version: 4, seq: 12 }),
        saw(None, (71, 72), 4, 12),
        wrote("three", (80, 90), 5, 14),
        op(4, Call::Write("refused".into()), (90, 99), Outcome::NotApplied("full".to_owned())),
    ]
}

fn refused(ops: &[Op], finals: &[(String, Contents)], what: &str) {
    let violations = check(ops, finals).expect_err("an illegal history was accepted");
    assert!(violations.iter().any(|v| v.what.contains(what)), "{violations:?} does not say {what:?}");
}

#[test]
fn a_legal_history_is_accepted_and_counted() {
    let counts = check(&legal(), &at_the_end(5, Some("three"))).unwrap();
    assert_eq!(counts, Counts { acked: 4, read: 6, unknown: 1, failed: 1 });
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
    let mut other = wrote("two", (11, 12), 1, 8);
    other.key = "other".to_owned();
    let ops = [wrote("one", (0, 10), 1, 9), other];
    refused(&ops, &[], "came after");
}

#[test]
fn every_single_change_of_a_version_in_a_legal_history_is_noticed() {
    let finals = at_the_end(5, Some("three"));
    for at in 0..legal().len() {
        for change in [-1_i64, 1] {
            let mut ops = legal();
            let (Outcome::Applied { version, .. } | Outcome::Found { version, .. }) = &mut ops[at].outcome
            else {
                continue;
            };
            let Some(changed) = version.checked_add_signed(change) else { continue };
            *version = changed;
            assert!(check(&ops, &finals).is_err(), "version of operation {at} changed by {change}");
        }
    }
}
