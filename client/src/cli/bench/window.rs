//! The measured time of a round.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// From when to when is measured. Times are nanoseconds since the round began.
#[derive(Debug)]
pub(super) struct Window {
    base: Instant,
    start: u64,
    end: AtomicU64,
}

impl Window {
    /// A round that begins now, with its measured time after the warmup.
    pub(super) fn starting_now(warmup: Duration, duration: Duration) -> Self {
        let start = nanos(warmup);
        Self { base: Instant::now(), start, end: AtomicU64::new(start.saturating_add(nanos(duration))) }
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.base.elapsed())
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// A moment of the round.
    pub(super) fn instant(&self, at: u64) -> tokio::time::Instant {
        (self.base + Duration::from_nanos(at)).into()
    }

    /// Ends the round now.
    pub(super) fn end_now(&self) {
        self.end.fetch_min(self.now(), Ordering::Relaxed);
    }

    pub(super) fn contains(&self, at: u64) -> bool {
        (self.start..=self.end()).contains(&at)
    }

    /// How long was measured; zero if the round was ended in its warmup.
    pub(super) fn measured(&self) -> Duration {
        Duration::from_nanos(self.end().saturating_sub(self.start))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_is_ended_early_was_measured_only_so_long() {
        let window = Window::starting_now(Duration::from_secs(1), Duration::from_secs(9));
        assert!(window.contains(1_000_000_000) && window.contains(10_000_000_000));
        assert!(!window.contains(999_999_999) && !window.contains(10_000_000_001));
        assert_eq!(window.measured(), Duration::from_secs(9));
        window.end_now();
        assert_eq!(window.measured(), Duration::ZERO, "the warmup is not measured");
        assert!(window.now() >= window.end());
    }
}
