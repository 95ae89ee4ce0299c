//! The node's clock: what time has passed on this machine, sleep included.
//!
//! Read afresh for each decision, never kept: a lease that was checked against a time read earlier may have lapsed.
//! Never compared with another machine's (`protocol.md` 6).

use std::time::Duration;

use craq_proto::Time;
use rustix::time::{ClockId, clock_gettime};

/// Counts while the machine is suspended, so that no lease outlives a closed lid.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
/// Where there is no better one; such a machine must not be suspended.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time now.
pub(crate) fn now() -> Time {
    let time = clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Time(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_never_goes_back() {
        let first = now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(now().since(first) >= Duration::from_millis(2));
    }
}
