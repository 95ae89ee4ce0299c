//! How long a call may take, and how it waits while the chain cannot answer it.

use std::{future::Future, time::Duration};

use craq_proto::CallError;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::metadata::MetadataMap;

use crate::limits::{ANSWER_MARGIN_MAX, ANSWER_MARGIN_PART, CALL_TIME_MAX, RETRY_FIRST, RETRY_MAX};

/// When a call has to be answered: a little before its caller stops waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// The caller's own (`grpc-timeout`), or the node's if that is sooner.
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let named = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
        Self::after(named.unwrap_or(CALL_TIME_MAX).min(CALL_TIME_MAX))
    }

    /// After so many milliseconds, as the caller says; zero: the node's own.
    pub(super) fn of_millis(timeout_ms: u64) -> Self {
        let named = Some(timeout_ms).filter(|millis| *millis > 0).map(Duration::from_millis);
        Self::after(named.unwrap_or(CALL_TIME_MAX).min(CALL_TIME_MAX))
    }

    /// That of one part of a longer call.
    pub(super) fn of_part() -> Self {
        Self::after(CALL_TIME_MAX)
    }

    fn after(time: Duration) -> Self {
        let margin = (time / ANSWER_MARGIN_PART).min(ANSWER_MARGIN_MAX);
        Self(Instant::now() + (time - margin))
    }

    /// How much time is left.
    pub(super) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Waits for what is to come, but not longer than this; none: it did not come in time.
    pub(super) async fn bound<T>(self, future: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.0, future).await.ok()
    }
}

/// The waits between the attempts of one call.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Deadline,
    next: Duration,
}

impl Patience {
    pub(super) fn new(deadline: Deadline) -> Self {
        Self { deadline, next: RETRY_FIRST }
    }

    /// Waits a little, longer each time; false: the deadline comes first, and no time is left for another attempt.
    pub(super) async fn wait(&mut self) -> bool {
        let until = Instant::now() + self.next;
        if until >= self.deadline.0 {
            sleep_until(self.deadline.0).await;
            return false;
        }
        self.next = (self.next * 2).min(RETRY_MAX);
        sleep_until(until).await;
        true
    }
}

/// What is answered when the time is over and nothing better is known.
pub(super) fn late() -> CallError {
    CallError::unavailable("the chain did not answer in time")
}

/// A time as gRPC writes it: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last().filter(char::is_ascii)?;
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3_600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remaining(timeout: Option<&'static str>) -> Duration {
        let mut metadata = MetadataMap::new();
        if let Some(timeout) = timeout {
            metadata.insert("grpc-timeout", timeout.parse().unwrap());
        }
        Deadline::of(&metadata).remaining()
    }

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        assert_eq!(parse("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse("7S"), Some(Duration::from_secs(7)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "m", "1", "1x", "-1S", "123456789S", "1ä", "1.5S"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_answer_comes_before_the_caller_stops_waiting() {
        assert!(remaining(Some("100m")) <= Duration::from_millis(90));
        assert!(remaining(Some("100m")) > Duration::from_millis(50));
        assert!(remaining(Some("9S")) <= CALL_TIME_MAX - ANSWER_MARGIN_MAX, "the node's own limit holds");
        assert!(remaining(Some("junk")) <= CALL_TIME_MAX);
        assert!(remaining(None) > CALL_TIME_MAX / 2);
    }

    #[tokio::test]
    async fn patience_ends_at_the_deadline() {
        let began = Instant::now();
        let mut patience = Patience::new(Deadline(began + Duration::from_millis(100)));
        let mut attempts = 0;
        while patience.wait().await {
            attempts += 1;
        }
        assert!(began.elapsed() >= Duration::from_millis(100));
        assert!((1..20).contains(&attempts), "{attempts} attempts");
    }
}
