//! The machine's own clock, which also counts while the machine sleeps.

use std::time::Duration;

use craq_proto::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time since the machine was booted. Comparable with nothing on another machine.
#[must_use]
pub fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Time(Duration::new(seconds, nanos))
}
