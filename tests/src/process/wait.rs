//! Waiting for a condition, with a deadline and the last reason why it was not yet so.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);

/// Asks again and again until the condition brings a value; panics at the deadline, with what it said last.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(why) if began.elapsed() > deadline => panic!("{what}: not within {deadline:?}: {why}"),
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// A condition's answer: fine, or not yet, and why.
pub fn unless(is_so: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(why()) }
}
