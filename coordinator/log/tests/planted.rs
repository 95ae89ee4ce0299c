//! Would the tests notice? Bugs of the log that simulations do not meet, since a writer would have to sleep for long. Only with
//! the feature `planted`.
#![cfg(feature = "planted")]
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

#[path = "log/support.rs"]
#[expect(dead_code, reason = "shared with the tests of the log")]
mod support;

use std::time::Duration;

use craq_log::Written;
use craq_proto::planted::{self, Bug};
use support::{faulty, open, soon, view};

/// What becomes of a view whose writer slept while its number was taken, and removed again.
async fn sleeper() -> Written {
    let (_, of_log) = faulty();
    let (mut old, mut new) = (open(&of_log, 1).await, open(&of_log, 2).await);
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    let mut newer = open(&of_log, 3).await;
    assert_eq!(newer.claim(soon()).await.unwrap(), Written::Won);
    for _ in 0..100 {
        assert_eq!(newer.renew(soon()).await.unwrap(), Written::Won);
    }
    newer.prune(newer.seen().records, Duration::ZERO).await.unwrap();
    old.append(view("default", 1, 1), soon()).await.unwrap()
}

#[tokio::test]
async fn a_record_that_was_made_again_is_believed_by_who_does_not_look() {
    assert_eq!(sleeper().await, Written::Lost);
    planted::set(Some(Bug::RecreatedRecordBelieved));
    assert_eq!(sleeper().await, Written::Won);
    planted::set(None);
}
