//! Does a history survive being saved, does the verdict need evidence, and can a violation be looked at?

use bytes::Bytes;

use super::toy::{self, Shape};
use crate::check::{
    history::{Call, Found, Op, Outcome},
    linearizability::{self, Settings},
    picture,
    random::Random,
    saved,
    verdict::{Verdict, judge},
};

const SHAPE: Shape = Shape { ops: 200, span: 200, joined: 10, ..Shape::SMALL };

fn history() -> Vec<Op> {
    toy::legal(&mut Random::new(5), SHAPE)
}

/// The last read of a value finds what an earlier one of the same key found.
fn forged() -> Vec<Op> {
    let mut ops = history();
    let finds = |op: &Op| op.keys().count() == 1 && op.found().any(|(_, found)| found.value.is_some());
    let last = ops.iter().rposition(finds).unwrap();
    let first = ops.iter().position(|op| finds(op) && op.call == ops[last].call).unwrap();
    ops[last].outcome = ops[first].outcome.clone();
    ops
}

#[test]
fn a_saved_history_comes_back_as_it_was() {
    let mut ops = history();
    let found = Found { value: Some(Bytes::from_static(b"\xff\x00")), version: u64::MAX, seq: 3 };
    ops.push(Op { call: Call::read("\"k\n"), outcome: Outcome::Found(vec![found]), ..ops[0].clone() });
    let mut file = Vec::new();
    saved::save(&ops, &mut file).unwrap();
    assert_eq!(saved::load(&file[..]).unwrap(), ops);
    let half = &file[..file.len() / 2];
    assert!(saved::load(half).unwrap_err().starts_with("line "), "half a line was taken");
}

#[test]
fn a_verdict_needs_evidence() {
    assert!(matches!(judge(&history(), 10), Verdict::Linearizable));
    assert!(matches!(judge(&history(), 1_000), Verdict::Unknown { .. }));
    assert!(matches!(judge(&[], 1), Verdict::Unknown { .. }));
    // However little there is, what is wrong is wrong.
    assert!(matches!(judge(&forged(), 1_000), Verdict::Violation { .. }));
}

#[test]
fn a_history_that_contradicts_itself_is_no_evidence_against_the_store() {
    let mut ops = history();
    ops.push(Op { outcome: Outcome::Found(vec![]), ..ops[0].clone() });
    assert!(matches!(judge(&ops, 1), Verdict::Unknown { .. }));
    let mut ops = history();
    let twice = ops.iter().find(|op| op.is_applied() && op.changes()[0].value.is_some()).unwrap().clone();
    ops.push(twice);
    assert!(matches!(judge(&ops, 1), Verdict::Unknown { .. }));
}

#[test]
fn a_violation_is_drawn_with_its_culprit_and_nothing_of_a_value_is_markup() {
    let linearizability::Verdict::Violation(mut violation) =
        linearizability::check(&forged(), &Settings::default())
    else {
        panic!("a forged history was accepted");
    };
    let place = violation.culprit;
    violation.ops[place].call = Call::read("<b>&");
    let page = picture::html(&violation);
    if let Ok(file) = std::env::var("CRAQ_TEST_PICTURE") {
        std::fs::write(file, &page).unwrap();
    }
    assert_eq!(page.matches("culprit\"").count(), 2, "the call is marked in the picture and in the list");
    assert!(!page.contains("<b>") && page.contains("&lt;b&gt;&amp;"), "{page}");
    for tag in ["<g>", "<svg", "<ol>", "<text"] {
        let end = tag.replace('<', "</").replace('>', "");
        assert_eq!(page.matches(tag).count(), page.matches(&end).count(), "{tag} is not closed");
    }
}
