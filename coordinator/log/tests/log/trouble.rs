//! What the store leaves open is resolved by what is there, and never guessed.

use craq_log::{Written, faulty::Trouble, history};
use craq_proto::{Epoch, Term};

use super::support::{faulty, open, soon, view};

#[tokio::test(start_paused = true)]
async fn a_record_that_was_written_though_the_store_said_otherwise_is_ours_and_written_once() {
    for trouble in [Trouble::DoneUnsaid, Trouble::NotDone, Trouble::Conflict] {
        let (store, of_log) = faulty();
        let mut log = open(&of_log, 1).await;
        assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
        store.expect([trouble, trouble]);
        assert_eq!(log.append(view("default", 1, 1), soon()).await.unwrap(), Written::Won, "{trouble:?}");
        assert_eq!(log.append(view("default", 2, 1), soon()).await.unwrap(), Written::Won);
        assert_eq!(open(&of_log, 2).await.seen().records, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_know_is_said_to_be_unknown_and_may_come_yet() {
    let (store, of_log) = faulty();
    let (mut log, mut other) = (open(&of_log, 1).await, open(&of_log, 2).await);
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    store.expect([Trouble::Late; 1_000]);
    assert_eq!(log.append(view("default", 1, 1), soon()).await.unwrap(), Written::Unknown);
    assert!(store.land().await, "nobody else had that number");
    store.cure();
    log.catch_up().await.unwrap();
    other.catch_up().await.unwrap();
    assert_eq!(log.views().next(), other.views().next());
    assert_eq!(log.views().next().unwrap().epoch, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_lands_after_a_takeover_is_refused_by_the_store() {
    let (store, of_log) = faulty();
    let (mut old, mut new) = (open(&of_log, 1).await, open(&of_log, 2).await);
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    store.expect([Trouble::Late; 1_000]);
    assert_eq!(old.append(view("default", 1, 1), soon()).await.unwrap(), Written::Unknown);
    store.expect_nothing();
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    assert!(!store.land().await, "the number is taken");
    assert_eq!(old.append(view("default", 1, 1), soon()).await.unwrap(), Written::Lost);
    assert_eq!((old.seen().term, old.views().count()), (Term(2), 0));
    assert_eq!(history(&of_log).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_nothing_but_the_patience() {
    let (store, of_log) = faulty();
    let mut log = open(&of_log, 1).await;
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    store.out(true);
    assert_eq!(log.renew(soon()).await.unwrap(), Written::Unknown);
    assert!(log.catch_up().await.unwrap_err().is_passing());
    store.out(false);
    assert_eq!(log.renew(soon()).await.unwrap(), Written::Won);
}
