//! Does the chain live without its coordinator, and does the coordinator know everything when it is back?

use std::time::Duration;

use craq_proto::Role;
use craq_tests::process::{
    PATIENCE, ask,
    wait::{unless, wait_for},
};

use crate::support::{Figures, cluster, figure, load, number, progress, rounds, some_time, turn, verdict};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_coordinator_is_down() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let before = ask::cluster(cluster.coordinator_address()).await.unwrap();
    let load = load(&cluster).await;
    progress(&load, 30).await;
    cluster.kill_coordinator();
    let down = load.recorder.now();
    tokio::time::sleep(Duration::from_secs(number("CRAQ_TEST_OUTAGE_SECONDS", 4) as u64)).await;
    progress(&load, 30).await;
    cluster.start_coordinator();
    let up = load.recorder.now();
    progress(&load, 30).await;
    let order = cluster.whole().await;
    let after = ask::cluster(cluster.coordinator_address()).await.unwrap();
    let id = |status: &craq_proto::wire::GetStatusReply| status.header.clone().unwrap().cluster_id;
    assert_eq!(id(&before), id(&after), "it is another cluster");
    assert_eq!(before.chains[0].epoch, after.chains[0].epoch, "nothing had happened, so nothing changes");
    cluster.kill_node(order[0]);
    cluster.whole().await;
    assert!(cluster.chain().await.epoch > before.chains[0].epoch, "epochs go on");
    cluster.start_node(order[0]);
    let (ops, counts) = verdict(&mut cluster, load).await;
    let in_outage = |op: &&craq_tests::history::Op| op.invoked >= down && op.invoked < up;
    let failed = ops.iter().filter(in_outage).filter(|op| !op.is_ok()).count();
    figure(&format!("coordinator down for {:?}: failed calls", up - down), failed);
    figure("coordinator down, answered calls meanwhile", ops.iter().filter(in_outage).count());
    figure("coordinator down, history", counts);
    assert_eq!(failed, 0);
}

/// R12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_again_and_again_changes_nothing() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let epoch = cluster.chain().await.epoch;
    let load = load(&cluster).await;
    for _ in 0..3 * rounds() {
        some_time(Duration::from_millis(500)).await;
        cluster.kill_coordinator();
        progress(&load, 5).await;
        cluster.start_coordinator();
    }
    let (ops, _) = verdict(&mut cluster, load).await;
    let failed: Vec<_> = ops.iter().filter(|op| !op.is_ok()).take(3).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(cluster.chain().await.epoch, epoch, "a healthy chain was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lost_while_the_coordinator_was_down_is_replaced_when_it_is_back() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let load = load(&cluster).await;
    let mut writable = Figures::default();
    for role in [Role::Head, Role::Middle, Role::Tail] {
        progress(&load, 20).await;
        let victim = cluster.at(role).await;
        cluster.kill_coordinator();
        cluster.kill_node(victim);
        some_time(Duration::from_secs(1)).await;
        cluster.start_coordinator();
        let from = load.recorder.now();
        progress(&load, 20).await;
        writable.add(load.recorder.first_ack_of_new_write(from).unwrap() - from);
        cluster.start_node(victim);
        cluster.whole().await;
    }
    let (_, counts) = verdict(&mut cluster, load).await;
    figure("start of the coordinator to the next acknowledged write, a node being dead", &writable);
    figure("coordinator and a node down together, history", counts);
}

/// A coordinator that has lost its data is another cluster's. A node that serves is not put down by such a stranger; one
/// that starts refuses to, and keeps what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_without_its_data_gets_no_node_of_the_old_cluster() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(1).start().await;
    let client = cluster.client().await;
    client.write("k", "kept").await.unwrap();
    cluster.kill_coordinator();
    let data = cluster.coordinator_data();
    let aside = data.with_extension("aside");
    std::fs::rename(&data, &aside).unwrap();
    cluster.start_coordinator();
    wait_for("a complaint", PATIENCE, async || {
        let complained = cluster.node(0).said("this node's store belongs to cluster");
        unless(complained, || "nothing was said".to_owned())
    })
    .await;
    let stranger = ask::chain(cluster.coordinator_address()).await.unwrap();
    assert!(stranger.members.is_empty() && stranger.learners.is_empty(), "{stranger:?}");
    client.write("k", "kept too").await.unwrap();
    cluster.kill_node(0);
    cluster.launch_node(0);
    let exit = cluster.ended(0, PATIENCE).await;
    assert_eq!(exit.code(), Some(78), "a foreign cluster is a wrong configuration");
    cluster.kill_coordinator();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    cluster.start_coordinator();
    cluster.start_node(0);
    cluster.whole().await;
    assert_eq!(client.read("k").await.unwrap().value.as_deref(), Some(&b"kept too"[..]));
}
