//! Would the tests notice? Bugs of the log that simulations do not meet, since a writer would have to sleep for long. Only with
//! the feature `planted`.
#![cfg(feature = "planted")]
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

#[path = "log/support.rs"]
#[expect(dead_code, reason = "shared with the tests of the log")]
mod support;

use craq_log::Written;
use craq_proto::planted::{self, Bug};
use support::sleeper;

#[tokio::test]
async fn a_record_that_was_made_again_is_believed_by_who_does_not_look() {
    assert_eq!(sleeper().await.1, Written::Lost);
    planted::set(Some(Bug::RecreatedRecordBelieved));
    assert_eq!(sleeper().await.1, Written::Won);
    planted::set(None);
}
