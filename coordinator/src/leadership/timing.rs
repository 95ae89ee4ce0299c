//! The times by which leaders are judged, and which of them fit together.

use std::time::Duration;

/// However long the lease is, a dead leader is to be replaced within two seconds after it.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(750);

/// The times. None of them decides safety: they decide how soon somebody leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A leader of which nothing new was seen in the log for so long is replaced.
    pub lease: Duration,
    /// How often a leader writes into the log.
    pub renew_interval: Duration,
    /// A leader that could not write for so long, from before its last write was sent, leads no longer.
    pub step_down: Duration,
}

/// Times that do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// No time for a renewal that the store answers slowly.
    #[error(
        "the renew interval ({renew:?}) must be above zero, and with {patience:?} for the store's answer be less than \
         the step-down time ({step_down:?}): one slow answer would end the leadership"
    )]
    Renew {
        /// The renew interval.
        renew: Duration,
        /// What the store has.
        patience: Duration,
        /// The step-down time.
        step_down: Duration,
    },
    /// No time between the end of one leader and the beginning of the next.
    #[error(
        "the step-down time ({step_down:?}), with {patience:?} for the store's answer, must be less than the lease \
         ({lease:?}): the next leader would begin before the last one ends"
    )]
    StepDown {
        /// The step-down time.
        step_down: Duration,
        /// What the store has.
        patience: Duration,
        /// The lease.
        lease: Duration,
    },
}

impl Timing {
    /// The times that fit a lease.
    #[must_use]
    pub fn of_lease(lease: Duration) -> Self {
        Self { lease, renew_interval: lease / 4, step_down: lease * 13 / 20 }
    }

    /// How long one operation of the store may take.
    #[must_use]
    pub fn store_patience(&self) -> Duration {
        self.lease / 5
    }

    /// How often a coordinator that does not lead reads the log. It sees the last word of a leader up to one interval late,
    /// and waits up to another longer than the lease.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        (self.lease / 8).min(POLL_INTERVAL_MAX)
    }

    /// Whether the times fit together.
    pub fn check(&self) -> Result<(), TimingError> {
        let Self { lease, renew_interval: renew, step_down } = *self;
        let patience = self.store_patience();
        if renew.is_zero() || renew + patience >= step_down {
            return Err(TimingError::Renew { renew, patience, step_down });
        }
        if step_down + patience >= lease {
            return Err(TimingError::StepDown { step_down, patience, lease });
        }
        Ok(())
    }
}
