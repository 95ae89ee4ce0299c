//! Does a planned stop go unnoticed?

use std::time::Duration;

use craq_proto::Role;
use craq_tests::{
    history::Op,
    load::is_pinned,
    process::{Cluster, PATIENCE},
};

use crate::support::{
    Figures, cluster, figure, load, longest_gap, progress, rounds, some_time, turn, verdict,
};

async fn stop(cluster: &mut Cluster, node: usize) {
    cluster.node(node).terminate();
    let exit = cluster.ended(node, PATIENCE).await;
    assert_eq!(exit.code(), Some(0), "a node that was asked to stop ended with {exit}");
}

fn none_failed(ops: &[Op]) {
    let failed: Vec<_> = ops.iter().filter(|op| !op.is_ok() && !is_pinned(op)).take(5).collect();
    assert!(failed.is_empty(), "calls failed: {failed:?}");
}

async fn stopped(role: Role) {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let load = load(&cluster).await;
    let (mut gaps, mut stops) = (Figures::default(), Figures::default());
    for _ in 0..rounds() {
        progress(&load, 20).await;
        some_time(Duration::from_millis(200)).await;
        let node = cluster.at(role).await;
        let from = load.recorder.now();
        stop(&mut cluster, node).await;
        stops.add(load.recorder.now() - from);
        progress(&load, 20).await;
        gaps.add(longest_gap(&load.recorder.ops(), from, load.recorder.now()));
        cluster.start_node(node);
        cluster.whole().await;
    }
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure(&format!("SIGTERM of the {role} to its end"), &stops);
    figure(&format!("SIGTERM of the {role}, longest time without an acknowledged write"), &gaps);
    figure(&format!("SIGTERM of the {role}, history"), counts);
    none_failed(&ops);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_the_head_is_asked_to_stop() {
    stopped(Role::Head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_the_middle_is_asked_to_stop() {
    stopped(Role::Middle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_the_tail_is_asked_to_stop() {
    stopped(Role::Tail).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_processes_can_be_restarted_one_after_another_without_a_failed_call() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let load = load(&cluster).await;
    let from = load.recorder.now();
    for _ in 0..rounds() {
        for node in 0..3 {
            stop(&mut cluster, node).await;
            cluster.start_node(node);
            cluster.whole().await;
        }
        cluster.coordinator().terminate();
        let exit = craq_tests::process::wait::wait_for("the coordinator's end", PATIENCE, async || {
            cluster.coordinator().exit().ok_or_else(|| "it still runs".to_owned())
        })
        .await;
        assert_eq!(exit.code(), Some(0), "{exit}");
        cluster.start_coordinator();
        cluster.whole().await;
    }
    let to = load.recorder.now();
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure(
        "rolling restart, longest time without an acknowledged write",
        format!("{:?}", longest_gap(&ops, from, to)),
    );
    figure("rolling restart, history", counts);
    none_failed(&ops);
}

/// The last node can't leave: it stops, and the chain waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_stops_too_and_the_chain_waits_for_it() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    let version = client.write("k", "v").await.unwrap().version;
    for node in 0..3 {
        stop(&mut cluster, node).await;
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.whole().await;
    let read = client.read("k").await.unwrap();
    assert_eq!((read.version, read.value.as_deref()), (version, Some(&b"v"[..])));
}
