//! All that the clients of a test did and saw, on one monotonic clock.
//!
//! Never judges: see [`crate::versions`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use craq_client::{Error, ReadOutcome, WriteOutcome};
use parking_lot::Mutex;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A strong read.
    Read,
    /// A write of this value, which no other write of the history has.
    Write(Bytes),
    /// A deletion.
    Delete,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A write or deletion took effect and made this version.
    Applied {
        /// Of the key.
        version: u64,
        /// Of its entry.
        seq: u64,
    },
    /// A read found this; no value: the key does not exist, and its tombstone, if any, has the version.
    Found {
        /// The value.
        value: Option<Bytes>,
        /// Of the key; zero if it was never written.
        version: u64,
        /// Of the entry that made it; zero if there is none.
        seq: u64,
    },
    /// It certainly changed nothing and told nothing.
    NotApplied(String),
    /// A write that may take effect at any time from its call on, or never.
    Unknown(String),
}

/// One call of one client.
#[derive(Debug, Clone)]
pub struct Op {
    /// Who called.
    pub client: u32,
    /// Which key.
    pub key: String,
    /// What was asked for.
    pub call: Call,
    /// When it was sent, since the history began.
    pub invoked: Duration,
    /// When the answer was there.
    pub returned: Duration,
    /// The answer.
    pub outcome: Outcome,
}

impl Op {
    /// Whether it asks for a change.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.call != Call::Read
    }

    /// The version that it made or saw.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Applied { version, .. } | Outcome::Found { version, .. } => Some(*version),
            Outcome::NotApplied(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether it was answered in full: a write applied, a read found or not found.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.version().is_some()
    }
}

/// A call that was sent and is not yet answered.
#[derive(Debug)]
pub struct Pending {
    client: u32,
    key: String,
    call: Call,
    invoked: Duration,
}

/// Takes down what clients do. Cheap to clone; all clones write into one history.
#[derive(Debug, Clone)]
pub struct Recorder {
    began: Instant,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), ops: Arc::default() }
    }
}

impl Recorder {
    /// A history that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The history's time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A call is about to be sent.
    #[must_use]
    pub fn invoke(&self, client: u32, key: &str, call: Call) -> Pending {
        Pending { client, key: key.to_owned(), call, invoked: self.now() }
    }

    /// Its answer is there.
    pub fn done(&self, pending: Pending, outcome: Outcome) {
        let Pending { client, key, call, invoked } = pending;
        // The time is taken before the lock, so that a wait for it does not make calls look longer than they were.
        let returned = self.now();
        self.ops.lock().push(Op { client, key, call, invoked, returned, outcome });
    }

    /// The answer to a write or deletion. That there was nothing to delete is not taken down: it names no version.
    pub fn wrote(&self, pending: Pending, result: &Result<WriteOutcome, Error>) {
        let outcome = match result {
            Err(Error::NotFound) => return,
            Ok(done) => Outcome::Applied { version: done.version.0, seq: done.seq.0 },
            Err(error) if error.is_certain() => Outcome::NotApplied(error.to_string()),
            Err(error) => Outcome::Unknown(error.to_string()),
        };
        self.done(pending, outcome);
    }

    /// The answer to a read.
    pub fn read(&self, pending: Pending, result: &Result<ReadOutcome, Error>) {
        let outcome = match result {
            Ok(read) => {
                Outcome::Found { value: read.value.clone(), version: read.version.0, seq: read.seq.0 }
            }
            Err(error) => Outcome::NotApplied(error.to_string()),
        };
        self.done(pending, outcome);
    }

    /// How many answered operations there are that `wanted` picks.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&Op) -> bool) -> usize {
        self.ops.lock().iter().filter(|op| wanted(op)).count()
    }

    /// When the first write that was sent at or after `from` was acknowledged.
    #[must_use]
    pub fn first_ack_of_new_write(&self, from: Duration) -> Option<Duration> {
        let ops = self.ops.lock();
        ops.iter().filter(|op| op.is_write() && op.is_ok() && op.invoked >= from).map(|op| op.returned).min()
    }

    /// A copy of all that is answered so far.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.ops.lock().clone()
    }
}

/// The longest time between two acknowledged writes that lies within `from..to`, the ends counted as writes.
#[must_use]
pub fn longest_gap_of_writes(ops: &[Op], from: Duration, to: Duration) -> Duration {
    let acked = ops.iter().filter(|op| op.is_write() && op.is_ok()).map(|op| op.returned);
    let mut times: Vec<Duration> = acked.filter(|at| (from..to).contains(at)).collect();
    times.push(from);
    times.push(to);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
