//! Does a process that stood still for longer than its promises answer something stale when it goes on?

use std::time::Duration;

use craq_proto::Role;
use craq_tests::load::{Plan, is_pinned};

use crate::support::{cluster, figure, load_as, number, progress, rounds, some_time, turn, verdict};

/// Longer than the lease and the failure timeout together.
fn pause() -> Duration {
    Duration::from_millis(number("CRAQ_TEST_PAUSE_MS", 2_500) as u64)
}

/// Reads that wait for the sleeper when it wakes, besides those of the bound clients.
const BURST: usize = 100;

/// Stops the node in this place, lets the others go on without it, and wakes it, while clients that are bound to it
/// keep asking it.
async fn paused(role: Role) {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let addresses = cluster.addresses();
    // Their calls wait in the sleeper's sockets and are answered when it wakes.
    let pinned_timeout = pause() * 2;
    let pinned = addresses.iter().flat_map(|address| vec![address.clone(); 4]).collect();
    let plan = Plan { pinned, pinned_timeout, ..Plan::default() };
    let mut load = load_as(&cluster, plan.clone()).await;
    let client = cluster.client().await;
    for _ in 0..rounds().div_ceil(2) {
        progress(&load, 30).await;
        some_time(Duration::from_millis(300)).await;
        let victim = cluster.at(role).await;
        let asleep = load.recorder.now();
        cluster.node(victim).pause();
        tokio::time::sleep(pause()).await;
        let awake = load.recorder.now();
        let elsewhere = load.recorder.count(|op| op.is_write() && op.is_ok() && op.invoked > asleep);
        assert!(elsewhere >= 10, "the others went on with {elsewhere} writes only");
        // Asked after the others have gone on, and answered before the sleeper can have heard of it.
        load.burst(&client, &plan, &addresses[victim], BURST);
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.node(victim).resume();
        cluster.whole().await;
        progress(&load, 30).await;
        let client_of_victim =
            |client: u32| client >= 200 && (client - 200) / 4 == u32::try_from(victim).unwrap();
        let asked = load.recorder.count(|op| {
            !op.is_write() && client_of_victim(op.client) && op.invoked < awake && op.returned > awake
        });
        assert!(asked > 0, "nobody had asked the sleeper");
    }
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure(&format!("SIGSTOP of the {role}, history"), counts);
    let failed: Vec<_> = ops.iter().filter(|op| !op.is_ok() && !is_pinned(op)).take(3).collect();
    assert!(failed.is_empty(), "clients that may go elsewhere never fail: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_head_answers_nothing_stale() {
    paused(Role::Head).await;
}

/// R10, R14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_middle_answers_nothing_stale() {
    paused(Role::Middle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_tail_answers_nothing_stale() {
    paused(Role::Tail).await;
}

/// Pauses that are about as long as the lease and the failure timeout, at every node in turn, many of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_pauses_of_any_node_show_nothing_stale() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let pinned = cluster.addresses();
    let load =
        load_as(&cluster, Plan { pinned, pinned_timeout: Duration::from_secs(3), ..Plan::default() }).await;
    for round in 0..6 * rounds() {
        let victim = round % 3;
        cluster.node(victim).pause();
        some_time(Duration::from_millis(1_500)).await;
        cluster.node(victim).resume();
        some_time(Duration::from_millis(300)).await;
    }
    let (_, counts) = verdict(&mut cluster, load).await;
    figure("short SIGSTOPs, history", counts);
}

/// A coordinator that stands still is not missed; when it goes on, it blames nobody for its own absence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_coordinator_is_not_missed_and_removes_nobody_when_it_wakes() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let epoch = cluster.chain().await.epoch;
    let load = load_as(&cluster, Plan { pinned: cluster.addresses(), ..Plan::default() }).await;
    for _ in 0..rounds() {
        cluster.coordinator().pause();
        progress(&load, 50).await;
        tokio::time::sleep(pause()).await;
        cluster.coordinator().resume();
        progress(&load, 50).await;
    }
    let (ops, _) = verdict(&mut cluster, load).await;
    let failed: Vec<_> = ops.iter().filter(|op| !op.is_ok()).take(3).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(cluster.chain().await.epoch, epoch, "a healthy chain was changed");
}
