//! Is everything there after all processes were gone at once, and does the right node lead?

use std::time::Duration;

use craq_client::{Client, Options};
use craq_proto::Role;
use craq_tests::process::{PATIENCE, ask, wait::wait_for};

use crate::support::{cluster, figure, load, progress, rounds, some_time, turn, verdict};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_processes_may_be_killed_at_once_and_restarted_in_any_order() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let id = ask::cluster(cluster.coordinator_address()).await.unwrap().header.unwrap().cluster_id;
    let load = load(&cluster).await;
    for round in 0..ORDERS.len() * rounds().div_ceil(2) {
        progress(&load, 30).await;
        some_time(Duration::from_millis(200)).await;
        let epoch = cluster.chain().await.epoch;
        // Whoever is killed last may have told the coordinator of the others' end.
        if round % 2 == 0 {
            cluster.kill_coordinator();
        }
        for node in 0..3 {
            cluster.kill_node(node);
        }
        cluster.kill_coordinator();
        if round % 3 != 0 {
            cluster.start_coordinator();
        }
        for node in ORDERS[round % ORDERS.len()] {
            cluster.start_node(node);
            some_time(Duration::from_millis(300)).await;
        }
        if round % 3 == 0 {
            cluster.start_coordinator();
        }
        cluster.whole().await;
        let now = ask::cluster(cluster.coordinator_address()).await.unwrap();
        assert_eq!(now.header.unwrap().cluster_id, id, "it is still the same cluster");
        assert!(now.chains[0].epoch > epoch, "epochs go on: {} after {epoch}", now.chains[0].epoch);
    }
    let (_, counts) = verdict(&mut cluster, load).await;
    figure("all processes killed at once, in each of 6 orders, history", counts);
}

/// R13. The node with the oldest data comes back first: it must wait for those that know more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_with_the_oldest_data_does_not_lead_when_it_comes_back_first() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    client.write("k", "old").await.unwrap();
    let oldest = cluster.at(Role::Head).await;
    cluster.kill_node(oldest);
    client.write("k", "new").await.unwrap();
    let rest: Vec<usize> = cluster.running();
    for node in &rest {
        cluster.kill_node(*node);
    }
    cluster.kill_coordinator();
    cluster.start_coordinator();
    cluster.start_node(oldest);
    let alone = Client::connect([cluster.address(oldest)]).await.unwrap();
    let strong = Options::new().node(cluster.address(oldest)).timeout(Duration::from_secs(3));
    let read = alone.read_with("k", &strong).await;
    assert!(read.is_err(), "the oldest node answered a strong read: {read:?}");
    let write = alone.write_with("k", "wrong", &Options::new().timeout(Duration::from_secs(1))).await;
    assert!(write.is_err(), "the oldest node took a write: {write:?}");
    let chain = cluster.chain().await;
    assert!(!chain.reason.is_empty(), "the status says what the chain waits for");
    for node in rest {
        cluster.start_node(node);
    }
    cluster.whole().await;
    for node in 0..3 {
        let read = client.read_with("k", &Options::new().node(cluster.address(node))).await.unwrap();
        let value = read.value.expect("the key exists");
        // The refused write was sent to a chain that could not take it; had its outcome been unknown, it might show.
        assert!(
            value == "new" || matches!(write, Err(craq_client::Error::OutcomeUnknown { .. })),
            "{value:?}"
        );
    }
}

/// R15. A node that is back within a moment takes its own place again, and is never there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_back_at_once_keeps_its_place() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let load = load(&cluster).await;
    for round in 0..3 * rounds() {
        let before = cluster.whole().await;
        cluster.kill_node(round % 3);
        cluster.start_node(round % 3);
        let mut after = cluster.whole().await;
        let chain = cluster.chain().await;
        assert_eq!(chain.members.len() + chain.learners.len(), 3, "{chain:?}");
        after.sort_unstable();
        assert_eq!(after, [0, 1, 2], "before: {before:?}");
        progress(&load, 10).await;
    }
    verdict(&mut cluster, load).await;
}

/// R8. After a clean stop and a restart without a write in between there is nothing to be sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_nothing_is_sent_nothing() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    for number in 0..200 {
        client.write(format!("key-{number}"), vec![7; 100]).await.unwrap();
    }
    for node in 0..3 {
        cluster.node(node).terminate();
        let exit = cluster.ended(node, PATIENCE).await;
        assert!(exit.success(), "{exit}");
        cluster.start_node(node);
        cluster.whole().await;
        let replica = cluster.replica(node).await;
        // Epochs came and went meanwhile, and each has a first entry.
        assert!(replica.transfer_rows <= 10, "{replica:?}");
        assert_eq!(replica.keys, 200);
        let read = client.read_with("key-7", &Options::new().node(cluster.address(node))).await.unwrap();
        assert_eq!(read.version.0, 1);
    }
}

/// What a node in memory held is gone with its process: it comes back as another one, and learns everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_memory_comes_back_as_a_new_one() {
    let _turn = turn().await;
    let mut cluster = cluster().store(craq_tests::process::Store::Memory).start().await;
    let load = load(&cluster).await;
    for node in 0..3 {
        progress(&load, 30).await;
        let before = ask::node(&cluster.address(node)).await.unwrap().header.unwrap().sender;
        cluster.kill_node(node);
        cluster.start_node(node);
        let after = wait_for("its id", PATIENCE, async || ask::node(&cluster.address(node)).await).await;
        assert_ne!(before, after.header.unwrap().sender);
        cluster.whole().await;
    }
    verdict(&mut cluster, load).await;
}
