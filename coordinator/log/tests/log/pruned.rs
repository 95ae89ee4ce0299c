//! Is what is needed kept, is the rest removed, and does nobody believe a record that was made again?

use std::time::Duration;

use craq_log::{KEPT, Written, faulty::Trouble, history};
use craq_proto::{Epoch, Term};

use super::support::{MONTH, faulty, open, prune_all, renew, sleeper, soon, view};

#[tokio::test]
async fn ten_thousand_renewals_leave_few_objects_and_every_view() {
    let (store, of_log) = faulty();
    let mut log = open(&of_log, 1).await;
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    for epoch in 1..=10 {
        assert_eq!(log.append(view("default", epoch, 1), soon()).await.unwrap(), Written::Won);
        for _ in 0..25 {
            renew(&mut log, 40).await;
            log.prune(log.seen().records, MONTH).await.unwrap();
            assert!(store.objects().await < 100);
        }
    }
    let epochs: Vec<u64> = history(&of_log).await.unwrap().iter().map(|entry| entry.view.epoch.0).collect();
    assert_eq!(epochs, (1..=10).collect::<Vec<_>>());
    let again = open(&of_log, 2).await;
    assert_eq!((again.seen(), again.views().next().unwrap().epoch), (log.seen(), Epoch(10)));
    // Without history, only the newest view stays, and whoever opens the log finds it.
    log.prune(log.seen().records, Duration::ZERO).await.unwrap();
    assert_eq!(history(&of_log).await.unwrap().len(), 1);
    assert_eq!(open(&of_log, 3).await.views().next().unwrap().epoch, Epoch(10));
    // The cluster, the claim, the view, and the newest records.
    assert_eq!(store.objects().await as u64, 3 + KEPT);
}

#[tokio::test]
async fn who_has_slept_while_records_were_removed_reads_anew() {
    let (_, of_log) = faulty();
    let (mut log, mut sleeper) = (open(&of_log, 1).await, open(&of_log, 2).await);
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    sleeper.catch_up().await.unwrap();
    assert_eq!(log.append(view("default", 1, 1), soon()).await.unwrap(), Written::Won);
    renew(&mut log, 200).await;
    log.prune(150, MONTH).await.unwrap();
    assert_eq!(sleeper.claim(soon()).await.unwrap(), Written::Lost);
    assert_eq!((sleeper.seen(), sleeper.views().count()), (log.seen(), 1));
}

/// A number was removed. Whoever slept meanwhile makes it again, and believes nothing.
#[tokio::test(start_paused = true)]
async fn a_removed_number_that_is_made_again_counts_for_nobody() {
    let (store, of_log) = faulty();
    let (mut old, mut new) = (open(&of_log, 1).await, open(&of_log, 2).await);
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    assert_eq!(old.append(view("default", 1, 1), soon()).await.unwrap(), Written::Won);
    // The view of an old leader is on its way for long.
    store.expect([Trouble::Late; 1_000]);
    assert_eq!(old.append(view("default", 2, 1), soon()).await.unwrap(), Written::Unknown);
    store.expect_nothing();
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    renew(&mut new, 100).await;
    let mut newer = open(&of_log, 3).await;
    assert_eq!(newer.claim(soon()).await.unwrap(), Written::Won);
    renew(&mut newer, 100).await;
    prune_all(&mut newer).await;
    assert!(store.land().await, "the number is free again");
    // Nobody takes it for a view: not who opens the log, nor its history, nor who wrote it.
    let opened = open(&of_log, 4).await;
    assert_eq!((opened.views().next().unwrap().epoch, opened.seen().term), (Epoch(1), Term(3)));
    assert_eq!(history(&of_log).await.unwrap().len(), 1);
    old.catch_up().await.unwrap();
    assert_eq!((old.views().next().unwrap().epoch, old.seen().term), (Epoch(1), Term(3)));
    // And it goes with the next pruning.
    let before = store.objects().await;
    prune_all(&mut newer).await;
    assert_eq!(store.objects().await, before - 1);
}

#[tokio::test]
async fn a_sleeper_that_creates_a_removed_number_has_lost() {
    let (old, written) = sleeper().await;
    assert_eq!(written, Written::Lost);
    assert_eq!((old.seen().term, old.views().count()), (Term(3), 0));
}
