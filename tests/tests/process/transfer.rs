//! Is a node that comes back sent what it lacks and no more, and do writes go on meanwhile?

use std::time::Duration;

use craq_client::Client;
use craq_proto::Role;
use craq_tests::{load::Plan, process::Cluster};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::support::{cluster, figure, load_as, longest_gap, number, progress, turn, verdict};

const VALUE_BYTES: usize = 100;
/// Calls at once while the keys are made.
const CALLS: usize = 100;

fn keys() -> usize {
    number("CRAQ_TEST_KEYS", 5_000)
}

/// Writes these keys, many at a time.
async fn fill(client: &Client, keys: impl Iterator<Item = usize>, value_bytes: usize) {
    let writes =
        stream::iter(keys.map(|key| client.write(format!("filled-{key:08}"), vec![b'x'; value_bytes])));
    let done: Vec<_> =
        writes.buffer_unordered(CALLS).try_collect().await.expect("a write of a healthy chain");
    drop(done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_while_one_key_in_a_hundred_changed_is_sent_one_in_a_hundred() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    fill(&client, 0..keys(), VALUE_BYTES).await;
    // The commit is stored with the next batch: without these, the last hundred writes would count as not known.
    fill(&client, 0..1, VALUE_BYTES).await;
    fill(&client, 0..1, VALUE_BYTES).await;
    let away = cluster.at(Role::Tail).await;
    cluster.kill_node(away);
    let changed = keys() / 100;
    fill(&client, (0..keys()).step_by(100), VALUE_BYTES).await;
    cluster.start_node(away);
    cluster.whole().await;
    let replica = cluster.replica(away).await;
    figure("away while 1 % of the keys changed: keys, rows and bytes sent", {
        let (rows, bytes) = (replica.transfer_rows, replica.transfer_bytes);
        format!("{} keys, {changed} changed, {rows} rows, {bytes} bytes", keys())
    });
    assert_eq!(replica.keys, keys() as u64);
    let row_bytes = (VALUE_BYTES + 200) as u64;
    assert!(replica.transfer_rows >= changed as u64, "the rows cannot have come otherwise: {replica:?}");
    // And the first entries of some epochs.
    assert!(replica.transfer_rows <= changed as u64 + 20, "{replica:?}");
    assert!(replica.transfer_bytes <= replica.transfer_rows * row_bytes, "{replica:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_gets_everything_while_writes_go_on() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    fill(&client, 0..keys(), VALUE_BYTES).await;
    let wiped = cluster.at(Role::Tail).await;
    let load = load_as(&cluster, Plan { pause: Duration::from_millis(1), ..Plan::default() }).await;
    cluster.kill_node(wiped);
    cluster.wipe(wiped);
    progress(&load, 20).await;
    let from = load.recorder.now();
    cluster.start_node(wiped);
    cluster.whole().await;
    let to = load.recorder.now();
    let replica = cluster.replica(wiped).await;
    progress(&load, 20).await;
    let ops = load.recorder.ops();
    let gap = longest_gap(&ops, from, to);
    let writes = load.recorder.count(|op| op.is_write() && op.is_ok() && (from..to).contains(&op.returned));
    figure("wiped node: rows and bytes sent, time to a whole chain", {
        let megabytes = replica.transfer_bytes as f64 / 1e6;
        let rate = megabytes / (to - from).as_secs_f64();
        format!("{} rows, {megabytes:.1} MB in {:?}, {rate:.1} MB/s", replica.transfer_rows, to - from)
    });
    figure("wiped node: writes meanwhile, longest time without one", format!("{writes}, {gap:?}"));
    assert!(replica.transfer_rows >= keys() as u64, "{replica:?}");
    // 100 ms is promised; this bound is for machines that are busy with other things too.
    assert!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    check_filled(&mut cluster, load).await;
}

async fn check_filled(cluster: &mut Cluster, load: craq_tests::load::Load) {
    let (_, counts) = verdict(cluster, load).await;
    figure("wiped node, history", counts);
}

/// R18. What a node needs while it brings another one up does not grow with the data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_needs_no_memory_for_the_data() {
    let _turn = turn().await;
    let megabytes = number("CRAQ_TEST_MEGABYTES", 48);
    let mut cluster = cluster().nodes(1).start().await;
    let client = cluster.client().await;
    fill(&client, 0..megabytes * 4, 256 * 1024).await;
    // A fresh process, so that what the writes needed does not count.
    cluster.kill_node(0);
    cluster.start_node(0);
    cluster.whole().await;
    let before = peak_memory(cluster.node(0).pid());
    let spec = cluster.new_spec();
    let joining = cluster.add(spec);
    cluster.start_node(joining);
    let from = std::time::Instant::now();
    cluster.whole().await;
    let rate = megabytes as f64 / from.elapsed().as_secs_f64();
    let (source, learner) = (peak_memory(cluster.node(0).pid()), peak_memory(cluster.node(joining).pid()));
    figure(
        &format!("join with {megabytes} MiB of data: rate, peak memory of source (before) and learner"),
        format!("{rate:.0} MiB/s, {source} ({before}) MiB, {learner} MiB"),
    );
    // The cache, the pieces under way, and what the allocator keeps.
    let allowed = 16 + 96;
    assert!(source < before + allowed, "the source grew from {before} to {source} MiB");
    assert!(learner < before + allowed, "the learner has {learner} MiB, the source began with {before}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_goes_no_faster_than_it_may() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(1).node_flags(&["--transfer-rate", "2MiB"]).start().await;
    let client = cluster.client().await;
    let megabytes = 6;
    fill(&client, 0..megabytes * 4, 256 * 1024).await;
    let spec = cluster.new_spec();
    let joining = cluster.add(spec);
    cluster.start_node(joining);
    let from = std::time::Instant::now();
    cluster.whole().await;
    // Each megabyte but the last one is waited for.
    let least = Duration::from_millis(500) * (megabytes as u32 - 1);
    assert!(from.elapsed() >= least, "{megabytes} MiB came in {:?}", from.elapsed());
    assert!(cluster.replica(joining).await.transfer_bytes >= megabytes as u64 * 1024 * 1024);
}

/// The most memory that a process has had, in MiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") / 1024
}
