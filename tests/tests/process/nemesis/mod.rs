//! Does anything lie, or stay broken, when the shipped binaries are killed, stopped, cut off, slowed and robbed of their
//! disk, one fault after another, at random?
//!
//! `CRAQ_TEST_NEMESIS_SECONDS` says for how long, `CRAQ_TEST_NEMESIS_SEED` repeats the faults of a run; what the machine
//! makes of them differs. [`faults`] has the kinds, [`network`] the links and the small disk, [`clients`] the load.

mod clients;
mod faults;
mod network;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use craq_client::check::{
    history::{Change, Found, Op, Outcome},
    linearizability::{self, Settings, Verdict},
    saved,
};
use craq_tests::{
    process::{PATIENCE, wait::wait_for},
    versions::{self, Counts},
};

use crate::support::{cluster, figure, number, turn};
use clients::Clients;
use faults::{Kind, Nemesis, SLOW_MIN};

const NODES: usize = 3;

/// No answer that was certain is contradicted: what was said to be not applied was seen by nobody.
fn certain_answers_are_true(ops: &[Op]) -> Result<(), String> {
    let is_refused =
        |op: &&Op| matches!(op.outcome, Outcome::NotApplied(_) | Outcome::ConditionFailed { .. });
    let refused = ops.iter().filter(is_refused).flat_map(Op::changes);
    let refused: BTreeSet<(&str, &Bytes)> =
        refused.filter_map(|change| Some((&change.key[..], change.value.as_ref()?))).collect();
    let seen = ops.iter().flat_map(Op::found).filter_map(|(key, found)| Some((key, found.value.as_ref()?)));
    match seen.into_iter().find(|seen| refused.contains(seen)) {
        Some((key, value)) => Err(format!("{key}: {value:?} was read, and certainly never written")),
        None => Ok(()),
    }
}

/// What an order of all calls can explain.
fn by_search(ops: &[Op]) -> Result<(), String> {
    match linearizability::check(ops, &Settings::default()) {
        Verdict::Linearizable => Ok(()),
        Verdict::Violation(violation) => Err(violation.to_string()),
        Verdict::Unknown { why } => Err(format!("unknown, which is no pass: {why}")),
    }
}

/// What the versions tell.
fn by_versions(ops: &[Op]) -> Result<Counts, String> {
    let told = |violations: Vec<versions::Violation>| {
        violations.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    versions::check(ops, &[]).map_err(told)
}

/// The verdict of all judges; a history that fails is kept.
fn judge(ops: &[Op], seed: u64) -> Counts {
    let verdict = certain_answers_are_true(ops).and_then(|()| by_search(ops));
    verdict.and_then(|()| by_versions(ops)).unwrap_or_else(|why| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nemesis-{seed}.ndjson"));
        saved::save(ops, fs::File::create(&file).unwrap()).unwrap();
        panic!("seed {seed}, the history is in {}:\n{why}", file.display())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_lies_and_nothing_stays_broken_under_a_random_nemesis() {
    let _turn = turn().await;
    let seed = number_or("CRAQ_TEST_NEMESIS_SEED", rand::random());
    let time = Duration::from_secs(number("CRAQ_TEST_NEMESIS_SECONDS", 10) as u64);
    println!("CRAQ_TEST_NEMESIS_SEED={seed}");
    let mut nemesis = Nemesis::start(seed).await;
    let clients = Clients::start(&nemesis.cluster, seed).await;
    let began = Instant::now();
    while began.elapsed() < time {
        nemesis.round(&clients, began + time).await;
    }
    let faults_took = began.elapsed();
    let order = nemesis.cluster.whole_of(&[0, 1, 2], PATIENCE).await;
    figure("nemesis: the end of all faults to a whole chain", format!("{:?}", nemesis.ended.elapsed()));
    figure("nemesis: views in the end", nemesis.cluster.chain().await.epoch);
    let client = nemesis.cluster.client().await;
    let (ops, keys) = clients.stop(&client).await;
    let finals = nemesis.cluster.contents(&order).await;
    for pair in finals.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "{} and {} differ in the end", pair[0].0, pair[1].0);
    }
    let judged = Instant::now();
    let counts = judge(&ops, seed);
    figure("nemesis: history", format!("{} calls on {keys} keys in {faults_took:?}: {counts}", ops.len()));
    figure("nemesis: judged in", format!("{:?}", judged.elapsed()));
    covered(&nemesis, &ops);
    forged_histories_are_refused(&ops);
}

fn number_or(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Every kind of fault happened, and every kind of call was answered.
fn covered(nemesis: &Nemesis, ops: &[Op]) {
    for (kind, tally) in &nemesis.tallies {
        figure(&format!("nemesis: {kind:?}"), tally);
        assert!(tally.times > 0 && tally.fewest > 0, "{kind:?} met no calls: {tally}");
    }
    let happened: Vec<Kind> = nemesis.tallies.keys().copied().collect();
    assert_eq!(happened, nemesis.kinds(), "a kind of fault did not happen");
    if let Some(slowed_by) = nemesis.slowed_by {
        let slowest = nemesis.slowest;
        figure(
            &format!("nemesis: the longest read over a link slowed by {slowed_by}"),
            format!("{slowest:?}"),
        );
        assert!(slowest >= SLOW_MIN, "a slow link was fast: {slowest:?}");
    }
    let is_page = |op: &&Op| op.is_ok() && !op.is_write() && op.keys().count() == 2;
    let is_deletion = |op: &&Op| op.is_applied() && op.changes().iter().any(|change| change.value.is_none());
    let is_conditional = |op: &&Op| {
        use craq_client::check::history::Condition::Version;
        op.is_applied() && op.changes().iter().any(|change| matches!(change.condition, Version(_)))
    };
    let count = |picked: &dyn Fn(&&Op) -> bool| ops.iter().filter(picked).count();
    let (pages, deletions, conditional) = (count(&is_page), count(&is_deletion), count(&is_conditional));
    let kinds = format!("{pages} pages, {deletions} deletions, {conditional} conditional writes");
    figure("nemesis: answered or applied, among others", &kinds);
    assert!(pages > 0 && deletions > 0 && conditional > 0, "a kind of call was never answered: {kinds}");
}

/// The judges can fail: one answer of a history that they accepted is changed, and they do not accept it.
fn forged_histories_are_refused(ops: &[Op]) {
    let older_value = |last: &Op| {
        let key = last.keys().next()?;
        let is_before = |op: &&Op| op.returned < last.invoked && op.keys().eq([key]);
        let is_older = |op: &&Op| is_before(op) && op.outcome != last.outcome;
        // Nothing that is written at the same time can excuse it: the newer answer had been given before.
        ops.iter().find(|op| is_before(op) && op.outcome == last.outcome)?;
        let found = |op: &Op| match &op.outcome {
            Outcome::Found(found) if found[0].value.is_some() => Some(found[0].clone()),
            _ => None,
        };
        found(last)?;
        ops.iter().filter(is_older).find_map(found)
    };
    let (place, old): (usize, Found) = (0..ops.len())
        .rev()
        .find_map(|place| Some((place, older_value(&ops[place])?)))
        .expect("a key that was read twice");
    let mut stale = ops.to_vec();
    stale[place].outcome = Outcome::Found(vec![old]);
    by_search(&stale).expect_err("a stale read is accepted by the search");
    by_versions(&stale).expect_err("a stale read is accepted by the versions");

    let read: BTreeSet<_> = ops.iter().flat_map(Op::found).map(|(key, found)| (key, &found.value)).collect();
    // Values are unique, absence is not: a key without a value may be one that nobody had written yet.
    let was_read = |op: &Op| {
        let is_read = |c: &Change| c.value.is_some() && read.contains(&(&c.key[..], &c.value));
        op.is_applied() && op.changes().iter().all(is_read)
    };
    let place = ops.iter().position(was_read).expect("a write that was read");
    let mut denied = ops.to_vec();
    denied[place].outcome = Outcome::NotApplied("forged".to_owned());
    certain_answers_are_true(&denied).expect_err("a write that was denied and read is accepted");
    by_search(&denied).expect_err("a write that was denied and read is accepted by the search");
}

/// A node alone, on a disk that goes back to an earlier state while the node is down: what was acknowledged since is
/// gone, and the judges see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_from_the_past_is_noticed_by_the_judges() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(1).start().await;
    let clients = Clients::start(&cluster, 7).await;
    let (file, past) = (cluster.spec(0).file.clone(), cluster.dir().join("past"));
    for is_back_in_time in [false, true] {
        let from = clients.recorder.now();
        wait_for("acknowledged writes", PATIENCE, async || {
            let acked = clients.recorder.count(|op| op.is_applied() && op.invoked > from);
            if acked >= 60 { Ok(()) } else { Err(format!("only {acked}")) }
        })
        .await;
        cluster.kill_node(0);
        let (from, to) = if is_back_in_time { (&past, &file) } else { (&file, &past) };
        fs::copy(from, to).unwrap();
        cluster.start_node(0);
        cluster.whole().await;
    }
    let client = cluster.client().await;
    let (ops, _) = clients.stop(&client).await;
    let searched = by_search(&ops).expect_err("lost writes are accepted by the search");
    let versions = by_versions(&ops).expect_err("lost writes are accepted by the versions");
    assert!(!searched.starts_with("unknown"), "{searched}");
    println!("a store from the past, by the search:\n{searched}\nby the versions:\n{versions}");
}
