//! How fast nodes that are brought up are sent what they lack: as fast as it goes, or no faster than the operator allows,
//! so that clients' calls keep their share of the processors, the disks and the network.

use std::{num::NonZeroUsize, time::Duration};

use craq_proto::Time;
use parking_lot::Mutex;

/// A limit for all chains of a node together.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second; none: no limit.
    rate: Option<NonZeroUsize>,
    /// When the bytes that were sent so far will have taken their time.
    even_at: Mutex<Time>,
}

impl Pace {
    pub(crate) fn new(rate: Option<NonZeroUsize>) -> Self {
        Self { rate, even_at: Mutex::default() }
    }

    /// Counts bytes that are about to be sent.
    pub(crate) fn count(&self, now: Time, bytes: usize) {
        if let Some(rate) = self.rate {
            let mut even_at = self.even_at.lock();
            // Time in which nothing was sent is not saved up.
            *even_at = (*even_at).max(now) + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        }
    }

    /// How long to wait before more is read.
    pub(crate) fn wait(&self, now: Time) -> Duration {
        self.even_at.lock().since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    #[test]
    fn each_piece_takes_its_time_and_idleness_is_not_saved_up() {
        let pace = Pace::new(NonZeroUsize::new(1_000));
        assert_eq!(pace.wait(at(5)), Duration::ZERO);
        pace.count(at(5), 1_000);
        pace.count(at(5), 2_000);
        assert_eq!(pace.wait(at(5)), 3 * SECOND);
        assert_eq!((pace.wait(at(7)), pace.wait(at(9))), (SECOND, Duration::ZERO));
        pace.count(at(100), 1_000);
        assert_eq!(pace.wait(at(100)), SECOND);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let pace = Pace::new(None);
        pace.count(at(1), usize::MAX);
        assert_eq!(pace.wait(at(1)), Duration::ZERO);
    }
}
