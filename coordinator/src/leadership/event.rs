//! What the leadership is told, and what it orders. Inputs are facts, outputs are orders.

use std::time::Duration;

use craq_log::{Seen, Written};
use craq_proto::{Term, Time};

/// What was done to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// It was read.
    Look,
    /// The next term was claimed.
    Claim,
    /// The present term was renewed.
    Renew,
    /// A view was written, which renews the term as well.
    View,
    /// The term was given up.
    Resign,
    /// Old records were removed.
    Prune,
}

/// What the leadership is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The log has done what it was asked. From the driver, for every operation.
    Done {
        /// Which operation.
        job: Job,
        /// The time before it was begun.
        sent: Time,
        /// What became of it. Of [`Job::Look`] and [`Job::Prune`]: `Won`, or `Unknown` if the store failed.
        written: Written,
        /// What the log says now, as far as it has been read.
        seen: Seen,
    },
    /// Somebody looks for a leader here: there may be none. From the driver.
    Asked,
    /// The leader is to give up, and not to claim for so long. From an operator, or since the process is to end.
    Resign {
        /// For so long others have the first word.
        rest: Duration,
    },
    /// The deadline has passed.
    Tick,
}

/// What the leadership orders. Of jobs, one is under way at a time; each is answered by [`Input::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Read the log.
    Look,
    /// Claim the next term, unless the log has more by then; try again until then.
    Claim {
        /// How many records there were when this was decided.
        records: u64,
        /// No longer than this.
        until: Time,
    },
    /// Renew the present term; try again until then.
    Renew {
        /// No longer than this.
        until: Time,
    },
    /// Give the present term up; try again until then.
    Resign {
        /// No longer than this.
        until: Time,
    },
    /// Remove what is no longer needed of the records below this number.
    Prune {
        /// The first that stays anyway.
        below: u64,
    },
    /// This coordinator leads from now on.
    Lead {
        /// In this term.
        term: Term,
    },
    /// This coordinator leads no longer.
    Follow {
        /// For people.
        why: String,
    },
}
