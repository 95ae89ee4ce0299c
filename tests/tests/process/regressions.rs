//! Does anything happen that happened to this project's ancestor? Eighteen scenarios in which go-craq lost data,
//! crashed or stood still.
//!
//! | scenario | shown by |
//! | --- | --- |
//! | R1 writes of a key meet while the tail stands still | here |
//! | R2 a read at the head while a write is held further down | here |
//! | R3 a read at the tail between append and commit | here |
//! | R4 a write is held by a middle that dies | here |
//! | R5 the tail dies with a thousand writes under way | here |
//! | R6 reads at a node that joins, from its first moment | here |
//! | R7 the head takes a write that it can't hand on, and comes back | `partitions`, script `divergent_suffix_is_thrown_away` |
//! | R8 a clean stop and restart | `restarts` |
//! | R9 a node of another cluster | `membership` |
//! | R10 a middle stands still for long, and is read | `pauses` |
//! | R11 acknowledgements are lost | script `lost_answers_are_made_up_for`, `partitions` |
//! | R12 the coordinator is killed during writes | `coordinator` |
//! | R13 all restart, the oldest data first | `restarts` |
//! | R14 one node hangs during a change of the chain | here, `pauses` |
//! | R15 a node is back within a second | `restarts` |
//! | R16 a client repeats a write | here, script `repeated_request_takes_effect_once` |
//! | R17 a store fails | `disk` |
//! | R18 a join with more data than memory | `transfer` |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use craq_client::{Client, Consistency, Options, ReadPath, RequestToken};
use craq_proto::Role;
use craq_tests::{
    load::{Load, Plan},
    process::{Cluster, PATIENCE, ask},
};
use futures::future::{join_all, try_join_all};
use tokio::task::JoinSet;

use crate::support::{cluster, figure, load, progress, turn, verdict};

/// A cluster in which nobody is called lost for standing still a while.
async fn patient(nodes: usize) -> Cluster {
    let timing = ["--failure-timeout", "30s", "--lease", "20s"];
    cluster().nodes(nodes).node_flags(&timing).coordinator_flags(&timing[..2]).start().await
}

async fn values_at_all_nodes(cluster: &Cluster, client: &Client, key: &'static str) -> Vec<(u64, Bytes)> {
    let reads = cluster.addresses().into_iter().map(|address| {
        let client = client.clone();
        async move {
            let read = client.read_with(key, &Options::new().node(address).timeout(PATIENCE)).await.unwrap();
            (read.version.0, read.value.unwrap_or_default())
        }
    });
    join_all(reads).await
}

/// R1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_one_key_that_meet_while_the_tail_stands_still_all_count() {
    let _turn = turn().await;
    let mut cluster = patient(3).await;
    let client = cluster.client().await;
    assert_eq!(client.write("k", "a").await.unwrap().version.0, 1);
    let tail = cluster.at(Role::Tail).await;
    cluster.node(tail).pause();
    let writes = ["b", "c", "d"].map(|value| {
        let client = client.clone();
        tokio::spawn(async move { client.write_with("k", value, &Options::new().timeout(PATIENCE)).await })
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.node(tail).resume();
    let mut versions = vec![];
    for write in writes {
        versions.push(write.await.unwrap().unwrap().version.0);
    }
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4]);
    let values = values_at_all_nodes(&cluster, &client, "k").await;
    assert!(values.iter().all(|value| *value == values[0] && value.0 == 4), "{values:?}");
}

/// R2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_its_way_is_not_seen_at_the_head() {
    let _turn = turn().await;
    let mut cluster = patient(3).await;
    let client = cluster.client().await;
    client.write("old", "before").await.unwrap();
    let (head, middle) = (cluster.at(Role::Head).await, cluster.at(Role::Middle).await);
    cluster.node(middle).pause();
    let writes = ["old", "new"].map(|key| {
        let client = client.clone();
        tokio::spawn(async move { client.write_with(key, "after", &Options::new().timeout(PATIENCE)).await })
    });
    let address = cluster.address(head);
    craq_tests::process::wait::wait_for("writes at the head", PATIENCE, async || {
        let replica = ask::replica(&address).await?;
        if replica.last >= replica.commit + 2 { Ok(()) } else { Err(format!("{replica:?}")) }
    })
    .await;
    for (key, strong) in [("old", true), ("old", false), ("new", true), ("new", false)] {
        let consistency = if strong { Consistency::Strong } else { Consistency::Eventual };
        let read = client.read_with(key, &Options::new().node(&address).consistency(consistency)).await;
        let expected = if key == "old" { Some(&b"before"[..]) } else { None };
        assert_eq!(read.unwrap().value.as_deref(), expected, "{key}, {consistency:?}");
    }
    cluster.node(middle).resume();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(client.read("new").await.unwrap().value.as_deref(), Some(&b"after"[..]));
}

/// R3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_the_tail_between_append_and_commit_are_answered() {
    let _turn = turn().await;
    let cluster = cluster().start().await;
    let client = cluster.client().await;
    let at_tail = Options::new().node(cluster.address(cluster.at(Role::Tail).await)).timeout(PATIENCE);
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (client, at_tail) = (client.clone(), at_tail.clone());
        readers.spawn(async move {
            let (mut newest, mut dirty) = (0, 0);
            for _ in 0..300 {
                let read = client.read_with("k", &at_tail).await.expect("the tail answers");
                assert!(read.version.0 >= newest, "from {newest} back to {}", read.version.0);
                newest = read.version.0;
                dirty += usize::from(read.path == ReadPath::AtTail);
            }
            dirty
        });
    }
    let mut dirty = 0;
    while !readers.is_empty() {
        client.write("k", "v").await.unwrap();
        while let Some(done) = readers.try_join_next() {
            dirty += done.unwrap();
        }
    }
    figure("reads of a dirty key at the tail", dirty);
    assert!(dirty > 0, "no read met a write");
}

/// R4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_dead_middle_had_swallowed_is_made_once() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(4).start().await;
    let client = cluster.client().await;
    client.write("k", "before").await.unwrap();
    let order = cluster.whole().await;
    cluster.node(order[2]).pause();
    let writer = client.clone();
    let write =
        tokio::spawn(
            async move { writer.write_with("k", "swallowed", &Options::new().timeout(PATIENCE)).await },
        );
    let address = cluster.address(order[1]);
    craq_tests::process::wait::wait_for("the write at the second node", PATIENCE, async || {
        let replica = ask::replica(&address).await?;
        if replica.last > replica.commit { Ok(()) } else { Err(format!("{replica:?}")) }
    })
    .await;
    cluster.kill_node(order[1]);
    cluster.node(order[2]).resume();
    assert_eq!(write.await.unwrap().unwrap().version.0, 2);
    cluster.start_node(order[1]);
    cluster.whole().await;
    for (version, value) in values_at_all_nodes(&cluster, &client, "k").await {
        assert_eq!((version, &value[..]), (2, &b"swallowed"[..]));
    }
}

/// R5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_dies_with_a_thousand_writes_under_way_loses_none() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = cluster.client().await;
    let tail = cluster.at(Role::Tail).await;
    cluster.node(tail).pause();
    let mut writes = JoinSet::new();
    for number in 0..1_000 {
        let client = client.clone();
        let key = format!("key-{}", number % 10);
        writes.spawn(async move {
            let options = Options::new().timeout(PATIENCE);
            let written = client.write_with(key.clone(), number.to_string(), &options);
            (key, written.await.unwrap().version.0, number)
        });
    }
    let address = cluster.address(cluster.at(Role::Head).await);
    let dirty = craq_tests::process::wait::wait_for("dirty writes", PATIENCE, async || {
        let replica = ask::replica(&address).await?;
        let dirty = replica.last.saturating_sub(replica.commit);
        if dirty >= 200 { Ok(dirty) } else { Err(format!("{dirty} under way")) }
    })
    .await;
    cluster.kill_node(tail);
    figure("writes under way when the tail died", dirty);
    let mut versions = std::collections::BTreeMap::<String, Vec<(u64, usize)>>::new();
    while let Some(done) = writes.join_next().await {
        let (key, version, number) = done.unwrap();
        versions.entry(key).or_default().push((version, number));
    }
    cluster.start_node(tail);
    let order = cluster.whole().await;
    for (node, contents) in cluster.contents(&order).await {
        for (key, made) in &mut versions {
            made.sort_unstable();
            assert!(made.iter().map(|(version, _)| *version).eq(1..=100), "{key}: {made:?}");
            let (version, value) = &contents[key];
            let last = made.last().unwrap();
            assert_eq!(
                (*version, value.as_deref()),
                (100, Some(last.1.to_string().as_bytes())),
                "{node} {key}"
            );
        }
    }
}

/// R6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_answers_truly_or_not_at_all() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(2).start().await;
    let client = cluster.client().await;
    let writes = (0..500).map(|n| client.write(format!("key-{n}"), vec![b'v'; 20_000]));
    try_join_all(writes).await.unwrap();
    let spec = cluster.new_spec();
    let address = spec.public.clone();
    let joining = cluster.add(spec);
    let load = load(&cluster).await;
    let reader = client.clone();
    let asking = tokio::spawn(async move {
        let options = Options::new().node(address).timeout(Duration::from_millis(100));
        let (mut refused, mut answered) = (0, 0);
        while answered < 500 {
            match reader.read_with(format!("key-{}", answered % 500), &options).await {
                Ok(read) => {
                    assert!(read.is_found(), "the joining node told that a key is not there");
                    answered += 1;
                }
                Err(_) => refused += 1,
            }
        }
        refused
    });
    cluster.start_node(joining);
    cluster.whole().await;
    figure("reads refused by a joining node", asking.await.unwrap());
    verdict(&mut cluster, load).await;
}

/// R14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_while_the_chain_changes_holds_nobody_up() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(4).start().await;
    let load: Load = crate::support::load_as(&cluster, Plan::default()).await;
    progress(&load, 20).await;
    let order = cluster.whole().await;
    // The chain has to change because of one, and the other hangs meanwhile.
    cluster.node(order[1]).pause();
    cluster.kill_node(order[3]);
    let rest = [order[0], order[2]];
    let mut sorted = rest.to_vec();
    sorted.sort_unstable();
    assert_eq!(cluster.whole_of(&sorted, PATIENCE).await, rest);
    progress(&load, 20).await;
    cluster.node(order[1]).resume();
    cluster.start_node(order[3]);
    verdict(&mut cluster, load).await;
}

/// R16.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_write_takes_effect_once_even_after_the_head_has_died() {
    let _turn = turn().await;
    let mut cluster = cluster().start().await;
    let client = Arc::new(cluster.client().await);
    let token = RequestToken::from_text("increment 7").unwrap();
    let options = Options::new().request(token).timeout(PATIENCE);
    let first = client.write_with("k", "one", &options).await.unwrap();
    let again = client.write_with("k", "one", &options).await.unwrap();
    assert_eq!((first.version, first.seq), (again.version, again.seq));
    let head = cluster.at(Role::Head).await;
    cluster.kill_node(head);
    let repeat = Options::new().request(token.repeated()).timeout(PATIENCE);
    for node in (0..3).filter(|node| *node != head) {
        let through = repeat.clone().node(cluster.address(node));
        let again = client.write_with("k", "one", &through).await.unwrap();
        assert_eq!((first.version, first.seq), (again.version, again.seq), "through node {node}");
    }
    cluster.start_node(head);
    cluster.whole().await;
    let again = client.write_with("k", "one", &repeat).await.unwrap();
    assert_eq!((first.version, first.seq), (again.version, again.seq));
    assert_eq!(client.write("k", "two").await.unwrap().version.0, 2);
}
