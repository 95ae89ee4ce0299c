//! Do nodes come and go where they are told to, under load, and strangers not at all?

use std::time::Duration;

use craq_client::Options;
use craq_proto::{NodeId, Role};
use craq_tests::process::{Cluster, PATIENCE, ask};
use uuid::Uuid;

use crate::support::{cluster, load, progress, turn, verdict};

async fn id(cluster: &Cluster, node: usize) -> NodeId {
    let sender = ask::node(&cluster.address(node)).await.unwrap().header.unwrap().sender;
    NodeId(Uuid::from_slice(&sender).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_at_the_head_in_the_middle_or_at_the_tail() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(2).start().await;
    let load = load(&cluster).await;
    progress(&load, 20).await;
    let join = async |cluster: &mut Cluster, flags: &[&str]| {
        let mut spec = cluster.new_spec();
        spec.flags.extend(flags.iter().map(ToString::to_string));
        let node = cluster.add(spec);
        cluster.start_node(node);
        progress(&load, 20).await;
        node
    };
    let first = join(&mut cluster, &["--first"]).await;
    wait_for_order(&cluster, &[first, 0, 1]).await;
    let head = id(&cluster, first).await.to_string();
    let after = join(&mut cluster, &["--after", &head]).await;
    wait_for_order(&cluster, &[first, after, 0, 1]).await;
    let last = join(&mut cluster, &[]).await;
    wait_for_order(&cluster, &[first, after, 0, 1, last]).await;
    verdict(&mut cluster, load).await;
}

async fn wait_for_order(cluster: &Cluster, wanted: &[usize]) {
    let mut sorted = wanted.to_vec();
    sorted.sort_unstable();
    craq_tests::process::wait::wait_for("the order", PATIENCE, async || {
        let order = cluster.whole_of(&sorted, PATIENCE).await;
        if order == wanted { Ok(()) } else { Err(format!("it is {order:?}, not {wanted:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_change_places_and_leave_by_command_while_calls_go_on() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    let load = load(&cluster).await;
    let options = Options::new().timeout(Duration::from_secs(10));
    for order in [[2, 1, 0], [1, 2, 0], [0, 1, 2]] {
        progress(&load, 20).await;
        let ids = [id(&cluster, order[0]).await, id(&cluster, order[1]).await, id(&cluster, order[2]).await];
        client.reorder(&ids, &options).await.unwrap();
        wait_for_order(&cluster, &order).await;
    }
    let tail = cluster.at(Role::Tail).await;
    let removed = id(&cluster, tail).await;
    client.remove_node(removed, false, &options).await.unwrap();
    let rest: Vec<usize> = (0..3).filter(|node| *node != tail).collect();
    cluster.whole_of(&rest, PATIENCE).await;
    progress(&load, 20).await;
    // What an operator took out comes back with its next start.
    cluster.kill_node(tail);
    cluster.start_node(tail);
    let (ops, _) = verdict(&mut cluster, load).await;
    let failed: Vec<_> =
        ops.iter().filter(|op| !op.is_ok() && !craq_tests::load::is_pinned(op)).take(3).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_in_sync_member_is_removed_only_by_who_accepts_the_loss() {
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    let client = cluster.client().await;
    client.write("k", "v").await.unwrap();
    let only = id(&cluster, 0).await;
    let refused = client.remove_node(only, false, &Options::new()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(client.read("k").await.unwrap().is_found());
}

/// R9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_and_keeps_its_data() {
    let _turn = turn().await;
    let mut theirs = cluster().nodes(1).start().await;
    theirs.client().await.write("k", "theirs").await.unwrap();
    theirs.kill_node(0);
    let mut ours = cluster().nodes(1).start().await;
    ours.client().await.write("k", "ours").await.unwrap();
    let mut spec = ours.new_spec();
    spec.file.clone_from(&theirs.spec(0).file);
    let stranger = ours.add(spec);
    ours.launch_node(stranger);
    let exit = ours.ended(stranger, PATIENCE).await;
    assert_eq!(exit.code(), Some(78), "a foreign cluster is a wrong configuration");
    assert_eq!(ours.client().await.read("k").await.unwrap().value.as_deref(), Some(&b"ours"[..]));
    assert_eq!(ours.chain().await.members.len(), 1);
    theirs.start_node(0);
    theirs.whole().await;
    assert_eq!(theirs.client().await.read("k").await.unwrap().value.as_deref(), Some(&b"theirs"[..]));
}
