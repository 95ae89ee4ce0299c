//! What the tests of this binary share: their turn, the programs, the load, and the verdict on its history.

use std::{env, fmt, time::Duration};

use craq_tests::{
    history::{Op, longest_gap_of_writes},
    load::{Load, Plan},
    process::{Binaries, Builder, Cluster},
    versions::{self, Counts},
};
use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// Holds the machine for one test, until it is dropped.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// The programs under test.
pub(crate) fn binaries() -> Binaries {
    Binaries {
        coordinator: env!("CARGO_BIN_EXE_craq-coordinator-under-test").into(),
        node: env!("CARGO_BIN_EXE_craq-node-under-test").into(),
        client: env!("CARGO_BIN_EXE_craq-under-test").into(),
    }
}

/// A cluster to be.
pub(crate) fn cluster() -> Builder {
    Builder::new(binaries())
}

/// How often a test repeats its fault.
pub(crate) fn rounds() -> usize {
    number("CRAQ_TEST_ROUNDS", 2)
}

/// A number from the environment.
pub(crate) fn number(variable: &str, otherwise: usize) -> usize {
    env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A load on the whole cluster, with a reader bound to each node.
pub(crate) async fn load(cluster: &Cluster) -> Load {
    load_as(cluster, Plan::default()).await
}

/// As [`load`], with settings. Unless they say to which nodes readers are bound, one is to each.
pub(crate) async fn load_as(cluster: &Cluster, plan: Plan) -> Load {
    let pinned = if plan.pinned.is_empty() { cluster.addresses() } else { plan.pinned };
    let plan = Plan { pinned, ..plan };
    Load::start([cluster.client().await, cluster.client().await, cluster.client().await], plan)
}

/// Lets the load run for a random time, at most this long, so that faults meet every state.
pub(crate) async fn some_time(most: Duration) {
    tokio::time::sleep(most.mul_f64(rand::random_range(0.1..1.0))).await;
}

/// Waits until so many more writes were acknowledged and reads answered than there are now.
pub(crate) async fn progress(load: &Load, more: usize) {
    let counts = || (load.recorder.count(|op| op.is_ok() && op.is_write()), load.recorder.count(Op::is_ok));
    let (writes, all) = counts();
    craq_tests::process::wait::wait_for("progress", craq_tests::process::PATIENCE, async || {
        let (now_writes, now_all) = counts();
        let is_enough = now_writes >= writes + more && now_all - now_writes >= all - writes + more;
        if is_enough {
            Ok(())
        } else {
            Err(format!("{now_writes} writes, {now_all} operations, from {writes} and {all}"))
        }
    })
    .await;
}

/// Ends the load, waits until the chain is whole, compares all nodes with the history, and judges it.
pub(crate) async fn verdict(cluster: &mut Cluster, load: Load) -> (Vec<Op>, Counts) {
    let order = cluster.whole().await;
    progress(&load, 5).await;
    let ops = load.stop().await;
    let finals = cluster.contents(&order).await;
    let counts = match versions::check(&ops, &finals) {
        Ok(counts) => counts,
        Err(violations) => {
            let shown: Vec<_> = violations.iter().take(10).map(ToString::to_string).collect();
            panic!("{} violations\n{}\n{}", violations.len(), shown.join("\n"), cluster.last_words());
        }
    };
    for pair in finals.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "{} and {} differ in the end", pair[0].0, pair[1].0);
    }
    assert!(counts.acked > 0 && counts.read > 0, "nothing happened, so nothing is shown: {counts}");
    (ops, counts)
}

/// Times that were measured, and how they are told.
#[derive(Default)]
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn min(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "min {} ms, median {} ms, max {} ms, of {}",
            self.min().as_millis(),
            self.median().as_millis(),
            self.max().as_millis(),
            self.0.len()
        )
    }
}

/// Says something measured.
pub(crate) fn figure(what: &str, value: impl fmt::Display) {
    println!("figure: {what}: {value}");
}

/// The longest time without an acknowledged write.
pub(crate) fn longest_gap(ops: &[Op], from: Duration, to: Duration) -> Duration {
    longest_gap_of_writes(ops, from, to)
}
