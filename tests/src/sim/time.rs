//! The world's time, and the clocks of its machines, which run at slightly different rates.

use std::{fmt, time::Duration};

use craq_proto::Time;

/// A moment of the world, in nanoseconds since it began. No process ever sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct At(pub(super) u64);

impl At {
    /// The moment that is so much later.
    #[must_use]
    pub(super) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from an earlier moment to this one; zero if it is none.
    #[must_use]
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for At {
    /// Seconds, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5}.{:06}", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// A machine's monotonic clock: it has an origin of its own, and errs by a constant rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: u64,
    error_ppm: i64,
}

impl Clock {
    /// A clock that shows `origin` nanoseconds at the world's beginning and gains `error_ppm` millionths.
    #[must_use]
    pub(super) fn new(origin: u64, error_ppm: i64) -> Self {
        Self { origin, error_ppm }
    }

    /// What it shows.
    #[must_use]
    pub(super) fn read(&self, at: At) -> Time {
        let gained = i128::from(at.0) * i128::from(self.error_ppm) / 1_000_000;
        let shown = i128::from(self.origin) + i128::from(at.0) + gained;
        Time(Duration::from_nanos(u64::try_from(shown).unwrap_or(0)))
    }

    /// The first moment at which it shows this or more.
    #[must_use]
    pub(super) fn when(&self, time: Time) -> At {
        let shown = i128::try_from(time.0.as_nanos()).unwrap_or(i128::MAX);
        let elapsed = (shown - i128::from(self.origin)).max(0);
        let at = elapsed.saturating_mul(1_000_000) / (1_000_000 + i128::from(self.error_ppm));
        let mut at = At(u64::try_from(at.max(0)).unwrap_or(u64::MAX - 2));
        while self.read(at) < time && at.0 < u64::MAX {
            at.0 += 1;
        }
        while at.0 > 0 && self.read(At(at.0 - 1)) >= time {
            at.0 -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_asked_when_it_will_show_a_time() {
        for error_ppm in [-50_000, -1, 0, 7, 50_000] {
            let clock = Clock::new(123_456_789, error_ppm);
            for at in [0, 1, 999, 1_000_000_007, 3_600_000_000_000] {
                let time = clock.read(At(at));
                let when = clock.when(time);
                assert!(clock.read(when) >= time, "{error_ppm} {at}");
                assert!(when <= At(at), "{error_ppm} {at}: {when:?}");
            }
        }
    }
}
