//! Does the log remember everything, has each number one winner whatever the store does, and is damage noticed?
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod damage;
mod pruned;
mod support;
mod trouble;

use std::time::Duration;

use craq_log::{Log, Written, history, probe};
use craq_proto::{ChainId, Epoch, Term, View};
use support::{at, directory, memory, open, soon, view};

#[tokio::test]
async fn a_log_that_is_opened_again_knows_the_cluster_the_leader_and_the_newest_views() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("made/here");
    let mut log = open(&directory(&path), 1).await;
    assert_eq!(log.seen().holder, None);
    assert_eq!(log.append(view("default", 1, 1), soon()).await.unwrap(), Written::Lost, "it does not lead");
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    for view in [view("default", 1, 1), view("default", 2, 1), view("other", 1, 1)] {
        assert_eq!(log.append(view, soon()).await.unwrap(), Written::Won);
    }
    let again = open(&directory(&path), 2).await;
    assert_eq!((again.cluster(), again.seen()), (log.cluster(), log.seen()));
    let seen = again.seen();
    assert_eq!((seen.term, seen.records, seen.lease), (Term(1), 4, Duration::from_secs(2)));
    assert_eq!(seen.holder.unwrap().address, "localhost:1");
    let views: Vec<View> = again.views().cloned().collect();
    assert_eq!(views, [view("default", 2, 1), view("other", 1, 1)]);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Claims, writes views until it is beaten, and so on until so many views are written.
async fn lead(mut log: Log, author: u128, wins: usize) {
    let mut won = 0;
    while won < wins {
        if log.claim(soon()).await.unwrap() == Written::Lost {
            continue;
        }
        for _ in 0..3.min(wins - won) {
            let known =
                log.views().find(|view| view.chain == ChainId::default_chain()).map(|view| view.epoch);
            let next = view("default", known.unwrap_or_default().next().0, author);
            match log.append(next, soon()).await.unwrap() {
                Written::Won => won += 1,
                Written::Lost => break,
                Written::Unknown => panic!("a healthy store leaves nothing open"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_coordinators_on_one_directory_each_number_has_one_winner() {
    let data = tempfile::tempdir().unwrap();
    let store = directory(data.path());
    let mut leading = Vec::new();
    for author in 1..=3 {
        leading.push(tokio::spawn(lead(open(&store, author).await, author, 30)));
    }
    for log in leading {
        log.await.unwrap();
    }
    // Opening checks that records follow each other, that terms do, and that no epoch is missing or written twice.
    let log = open(&store, 4).await;
    assert_eq!(log.views().next().unwrap().epoch, Epoch(90));
    let told: Vec<u64> = history(&store).await.unwrap().iter().map(|entry| entry.view.epoch.0).collect();
    assert_eq!(told, (1..=90).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_leader_that_stood_still_loses_the_next_number() {
    let store = memory();
    let (mut old, mut new) = (open(&store, 1).await, open(&store, 2).await);
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    assert_eq!(old.append(view("default", 1, 1), soon()).await.unwrap(), Written::Won);
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    assert_eq!(old.append(view("default", 2, 1), soon()).await.unwrap(), Written::Lost);
    assert_eq!(old.seen(), new.seen(), "who has lost knows to whom");
    assert_eq!(old.renew(soon()).await.unwrap(), Written::Lost);
    assert_eq!(old.resign(soon()).await.unwrap(), Written::Lost);
    assert_eq!(new.append(view("default", 2, 2), soon()).await.unwrap(), Written::Won);
    assert_eq!(new.resign(soon()).await.unwrap(), Written::Won);
    old.catch_up().await.unwrap();
    assert_eq!((old.seen().holder, old.seen().term), (None, Term(2)));
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    assert_eq!((old.seen().term, old.views().next().unwrap().reason.as_str()), (Term(3), "by 2"));
}

#[tokio::test]
async fn a_claim_that_was_decided_on_an_older_log_is_lost_and_writes_nothing() {
    let store = memory();
    let (mut old, mut new) = (open(&store, 1).await, open(&store, 2).await);
    let decided_at = old.seen().records;
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    // It would be the next number now.
    old.catch_up().await.unwrap();
    assert_eq!(old.claim_after(decided_at, soon()).await.unwrap(), Written::Lost);
    assert_eq!(new.renew(soon()).await.unwrap(), Written::Won);
    old.catch_up().await.unwrap();
    assert_eq!(old.claim_after(old.seen().records, soon()).await.unwrap(), Written::Won);
}

#[tokio::test]
async fn two_clusters_share_a_store_under_different_prefixes() {
    let data = tempfile::tempdir().unwrap();
    let (a, b) = (directory(&data.path().join("a")), directory(&data.path().join("b")));
    assert_ne!(open(&a, 1).await.cluster(), open(&b, 1).await.cluster());
}

#[tokio::test]
async fn stores_that_keep_their_promise_pass_the_probe_and_nothing_remains() {
    let data = tempfile::tempdir().unwrap();
    for store in [memory(), directory(data.path())] {
        probe(&store).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(data.path().join("probe")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_records_of_the_version_without_terms_are_read_and_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    at::format_1(data.path());
    let store = directory(data.path());
    let mut log = open(&store, 1).await;
    assert_eq!((log.seen().term, log.seen().records), (Term::ZERO, 2));
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    assert_eq!(log.append(view("default", 3, 1), soon()).await.unwrap(), Written::Won);
    let again = open(&store, 2).await;
    assert_eq!((again.seen().term, again.views().next().unwrap().epoch), (Term(1), Epoch(3)));
    let epochs: Vec<_> = history(&store).await.unwrap().iter().map(|e| (e.view.epoch.0, e.term.0)).collect();
    assert_eq!(epochs, [(1, 0), (2, 0), (3, 1)]);
}
