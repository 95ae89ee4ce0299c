//! Where reads go, and what the client believes.

use std::time::{Duration, Instant};

use craq_client::{
    Client, Consistency, Error, Options, ReadPath,
    proto::{ErrorKind, Seq, wire},
};
use uuid::Uuid;

use crate::process::{Answer, Fake, Heard, chain, error};

fn reads(fake: &Fake) -> Vec<wire::ReadRequest> {
    let read = |heard| match heard {
        Heard::Read(request) => request,
        other => panic!("{other:?} is no read"),
    };
    fake.heard().into_iter().map(read).collect()
}

async fn client(start: &Fake) -> Client {
    Client::connect([start.address.as_str()]).await.unwrap()
}

#[tokio::test]
async fn reads_are_spread_over_the_replicas() {
    let nodes = [Fake::node(), Fake::node(), Fake::node()];
    chain(1, &[&nodes[0], &nodes[1], &nodes[2]]);
    for node in &nodes {
        node.will((0..4).map(|_| Answer::Found("v")));
    }
    let client = client(&nodes[0]).await;
    for _ in 0..12 {
        let read = client.read("k").await.unwrap();
        assert_eq!((read.value.as_deref(), read.path), (Some(&b"v"[..]), ReadPath::Clean));
    }
    assert_eq!(nodes.each_ref().map(|node| reads(node).len()), [4, 4, 4]);
}

#[tokio::test]
async fn a_replica_that_cannot_answer_is_passed_over() {
    let (sick, sound) = (Fake::node(), Fake::node());
    chain(1, &[&sick, &sound]);
    sick.will([error(ErrorKind::Unavailable)]);
    sound.will((0..6).map(|_| Answer::Found("v")));
    let client = client(&sound).await;
    for _ in 0..6 {
        client.read("k").await.unwrap();
    }
    assert_eq!((reads(&sick).len(), reads(&sound).len()), (1, 6));
}

#[tokio::test]
async fn a_dead_replica_is_passed_over() {
    let (dead, sound) = (Fake::node(), Fake::node());
    chain(1, &[&dead, &sound]);
    dead.will([Answer::Death]);
    sound.will((0..4).map(|_| Answer::Missing));
    let client = client(&sound).await;
    for _ in 0..4 {
        assert!(!client.read("k").await.unwrap().is_found());
    }
}

#[tokio::test]
async fn a_silent_replica_holds_a_read_up_for_no_longer_than_a_second() {
    let (silent, sound) = (Fake::node(), Fake::node());
    chain(1, &[&silent, &sound]);
    silent.will([Answer::Silence, Answer::Silence]);
    sound.will((0..2).map(|_| Answer::Found("v")));
    let client = client(&sound).await;
    let start = Instant::now();
    client.read("k").await.unwrap();
    client.read("k").await.unwrap();
    let took = start.elapsed();
    assert_eq!(reads(&silent).len(), 1);
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_value_that_does_not_match_its_checksum_is_read_elsewhere() {
    let (sick, sound) = (Fake::node(), Fake::node());
    chain(1, &[&sick, &sound]);
    sick.will([Answer::Corrupt("v")]);
    sound.will([Answer::Found("v"), Answer::Found("v")]);
    let client = client(&sound).await;
    for _ in 0..2 {
        assert_eq!(client.read("k").await.unwrap().node, sound.address);
    }
    assert_eq!(reads(&sick).len(), 1);
}

#[tokio::test]
async fn corruption_everywhere_is_an_error_never_a_value() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will((0..1000).map(|_| Answer::Corrupt("v")));
    let options = Options::new().timeout(Duration::from_millis(300));
    let end = client(&node).await.read_with("k", &options).await;
    assert!(matches!(end, Err(Error::Corrupt { .. })), "{end:?}");
}

#[tokio::test]
async fn with_a_fixed_node_no_other_is_asked() {
    let (fixed, other) = (Fake::node(), Fake::node());
    chain(3, &[&fixed, &other]);
    fixed.will([error(ErrorKind::Unavailable), Answer::Found("v")]);
    let options = Options::new().node(fixed.address.as_str());
    let read = client(&other).await.read_with("k", &options).await.unwrap();
    assert_eq!(read.node, fixed.address);
    assert!(reads(&other).is_empty());
    let asked = reads(&fixed);
    assert_eq!(asked.iter().map(|read| read.header.clone().unwrap().epoch).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn the_wanted_freshness_is_sent() {
    let node = Fake::node();
    chain(3, &[&node]);
    node.will((0..3).map(|_| Answer::Found("v")));
    let client = client(&node).await;
    client.read("k").await.unwrap();
    let bounded = Options::new().consistency(Consistency::Bounded(Duration::from_millis(500)));
    client.read_with("k", &bounded).await.unwrap();
    client.read_with("k", &Options::new().consistency(Consistency::Eventual).at_least(Seq(9))).await.unwrap();
    let sent = reads(&node);
    let summary = |read: &wire::ReadRequest| {
        (read.consistency(), read.bound_ms, read.min_seq, read.header.as_ref().unwrap().epoch)
    };
    assert_eq!(
        sent.iter().map(summary).collect::<Vec<_>>(),
        [
            (wire::Consistency::Strong, 0, 0, 3),
            (wire::Consistency::Bounded, 500, 0, 0),
            (wire::Consistency::Eventual, 0, 9, 0),
        ]
    );
}

#[tokio::test]
async fn any_address_that_answers_is_enough_to_start_from() {
    let (dead, node) = (Fake::coordinator(), Fake::node());
    chain(1, &[&node]);
    dead.dies();
    node.will([Answer::Found("v")]);
    let client = Client::connect([dead.address.as_str(), node.address.as_str()]).await.unwrap();
    assert!(client.read("k").await.unwrap().is_found());
    let nobody = Client::connect([dead.address.as_str()]).await;
    assert!(matches!(nobody, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn an_answer_of_another_cluster_is_no_answer() {
    let (node, stranger) = (Fake::node(), Fake::start(Uuid::from_u128(0xbad), false));
    chain(1, &[&node]);
    stranger.will([Answer::Found("not ours")]);
    let client = client(&node).await;
    let end = client.read_with("k", &Options::new().node(stranger.address.as_str())).await;
    assert!(matches!(end, Err(Error::Invalid { .. })), "{end:?}");
}

#[tokio::test]
async fn a_new_view_is_followed_without_a_call() {
    let (coordinator, old, new) = (Fake::coordinator(), Fake::node(), Fake::node());
    coordinator.tells(&chain(1, &[&old]));
    let client = client(&coordinator).await;
    coordinator.tells(&chain(2, &[&new]));
    let view = client.wait_for_view(Duration::from_secs(5), |view| view.epoch.0 == 2).await.unwrap();
    assert_eq!(view.members[0].address, new.address);
    let late = client.wait_for_view(Duration::from_millis(10), |view| view.epoch.0 == 3).await;
    assert!(matches!(late, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn many_keys_are_read_at_once_and_come_in_their_order() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Found("x"), Answer::Missing, Answer::Found("z")]);
    let outcomes = client(&node).await.read_many(["a", "b", "c"], &Options::new()).await.unwrap();
    let values: Vec<_> = outcomes.iter().map(|outcome| outcome.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"x"[..]), None, Some(&b"z"[..])]);
    let keys: Vec<_> = reads(&node).into_iter().map(|read| read.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    assert_eq!(client(&node).await.read_many([""; 0], &Options::new()).await, Ok(vec![]));
}

#[tokio::test]
async fn of_many_keys_those_without_a_good_answer_are_read_again() {
    let node = Fake::node();
    chain(1, &[&node]);
    let first = [Answer::Found("x"), error(ErrorKind::Unavailable), Answer::Corrupt("y"), Answer::Silence];
    node.will(first).will((0..3).map(|_| Answer::Found("again")));
    let began = Instant::now();
    let outcomes = client(&node).await.read_many(["a", "b", "c", "d"], &Options::new()).await.unwrap();
    let values: Vec<_> = outcomes.iter().map(|outcome| outcome.value.as_deref().unwrap()).collect();
    assert_eq!(values, [&b"x"[..], b"again", b"again", b"again"]);
    assert!(began.elapsed() < Duration::from_secs(4), "the silence was waited for");
    assert_eq!(reads(&node).len(), 7);
}

#[tokio::test]
async fn one_key_that_cannot_be_read_is_the_error_of_all() {
    let node = Fake::node();
    chain(1, &[&node]);
    node.will([Answer::Found("x"), error(ErrorKind::Invalid), error(ErrorKind::Invalid)]);
    let client = client(&node).await;
    let end = client.read_many(["a", "b"], &Options::new()).await;
    assert!(matches!(end, Err(Error::Invalid { .. })), "{end:?}");
    let end = client.read_many(["a", ""], &Options::new()).await;
    assert!(matches!(end, Err(Error::Invalid { .. })), "{end:?}");
}
