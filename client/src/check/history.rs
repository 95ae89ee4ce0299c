//! All that some clients did and saw, on one monotonic clock.
//!
//! Never judges: see the other modules of [`crate::check`]. Values are to be unique: a checker can tell from a value
//! which write made it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Error, Item, ReadOutcome, WriteOutcome};

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Who called.
    pub client: u32,
    /// What was asked for.
    pub call: Call,
    /// When it was sent, since the history began.
    pub invoked: Duration,
    /// When the answer was there. Two stamps that are equal tell no order.
    pub returned: Duration,
    /// The answer.
    pub outcome: Outcome,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A strong read of one key; or a page: several keys, all at one moment.
    Read {
        /// Which keys, each once.
        keys: Vec<String>,
    },
    /// All of these changes at one moment, or none of them.
    Write {
        /// Which changes, of each key one.
        changes: Vec<Change>,
    },
}

/// What a write does to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: String,
    /// The value, which no other write of the history has; none: delete.
    pub value: Option<Bytes>,
    /// What must be true of the key before.
    pub condition: Condition,
}

/// What must be true of a key for a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Nothing.
    Always,
    /// It exists and has this version. Zero: it does not exist.
    Version(u64),
    /// It exists.
    Exists,
}

impl Condition {
    /// Whether it is true of a key that has this version; zero stands for one that is absent or deleted.
    #[must_use]
    pub fn holds(self, version: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Version(wanted) => wanted == version,
            Self::Exists => version > 0,
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The write took effect.
    Applied {
        /// Of its entry.
        seq: u64,
        /// Which version it made of each key, in the order of its changes.
        versions: Vec<u64>,
    },
    /// The read found this, in the order of its keys.
    Found(Vec<Found>),
    /// The write changed nothing, since a condition of it was false: at some moment of the call this key had the version
    /// `observed`. An answer about the key's state, to be checked as a read is.
    ConditionFailed {
        /// Which key of the write.
        key: String,
        /// Its version; zero: absent or deleted.
        observed: u64,
    },
    /// It certainly did nothing, and tells nothing.
    NotApplied(String),
    /// A write that may take effect at any time from its call on, or never: it is open to the end.
    Unknown(String),
}

/// What a read found of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value; none: the key does not exist.
    pub value: Option<Bytes>,
    /// Of the key. A deleted key has its tombstone's, a key never written has zero. A page of several keys need not tell
    /// the tombstone's version: zero says there only that the key does not exist.
    pub version: u64,
    /// Of the entry that made the version; zero if there is none, or if it is not told.
    pub seq: u64,
}

impl Found {
    /// Nothing is there, and nothing is told about it.
    #[must_use]
    pub fn nothing() -> Self {
        Self { value: None, version: 0, seq: 0 }
    }
}

impl Change {
    /// Puts a value.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: Some(value.into()), condition: Condition::Always }
    }

    /// Deletes a key that exists, as the store's own deletion does.
    pub fn delete(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, condition: Condition::Exists }
    }

    /// The same, under this condition.
    #[must_use]
    pub fn only_if(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }
}

impl Call {
    /// Reads one key.
    pub fn read(key: impl Into<String>) -> Self {
        Self::Read { keys: vec![key.into()] }
    }

    /// Reads these keys at one moment.
    pub fn page<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self::Read { keys: keys.into_iter().map(Into::into).collect() }
    }

    /// Writes one key.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Change::put(key, value).into()
    }

    /// Deletes one key that exists.
    pub fn delete(key: impl Into<String>) -> Self {
        Change::delete(key).into()
    }

    /// Whether it asks for a change.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. })
    }

    /// The keys that it reads or changes.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let (keys, changes) = match self {
            Self::Read { keys } => (&keys[..], &[][..]),
            Self::Write { changes } => (&[][..], &changes[..]),
        };
        keys.iter().map(String::as_str).chain(changes.iter().map(|change: &Change| change.key.as_str()))
    }
}

impl From<Change> for Call {
    fn from(change: Change) -> Self {
        Self::Write { changes: vec![change] }
    }
}

impl Op {
    /// Whether it asks for a change.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.call.is_write()
    }

    /// The keys that it reads or changes.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.call.keys()
    }

    /// Whether it changed something for certain.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        matches!(self.outcome, Outcome::Applied { .. })
    }

    /// Whether it was answered in full: a write applied or its condition false, a read found or not found.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        match self.outcome {
            Outcome::Applied { .. } | Outcome::Found(_) | Outcome::ConditionFailed { .. } => true,
            Outcome::NotApplied(_) | Outcome::Unknown(_) => false,
        }
    }

    /// What was found of each key, of a read that was answered.
    pub fn found(&self) -> impl Iterator<Item = (&str, &Found)> {
        let found = if let Outcome::Found(found) = &self.outcome { &found[..] } else { &[] };
        self.keys().zip(found)
    }

    /// What a write changes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        if let Call::Write { changes } = &self.call { changes } else { &[] }
    }

    /// Each change of a write that was applied, with the version that it made.
    pub fn applied(&self) -> impl Iterator<Item = (&Change, u64)> {
        let versions =
            if let Outcome::Applied { versions, .. } = &self.outcome { &versions[..] } else { &[] };
        self.changes().iter().zip(versions.iter().copied())
    }
}

/// A call that was sent and is not yet answered.
#[derive(Debug)]
pub struct Pending {
    client: u32,
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
    pub fn invoke(&self, client: u32, call: Call) -> Pending {
        Pending { client, call, invoked: self.now() }
    }

    /// Its answer is there.
    pub fn done(&self, pending: Pending, outcome: Outcome) {
        let Pending { client, call, invoked } = pending;
        // The time is taken before the lock, so that a wait for it does not make calls look longer than they were.
        let returned = self.now();
        self.ops.lock().push(Op { client, call, invoked, returned, outcome });
    }

    /// The answer to a write or deletion of one key.
    pub fn wrote(&self, pending: Pending, result: &Result<WriteOutcome, Error>) {
        let key = || pending.call.keys().next().unwrap_or_default().to_owned();
        let outcome = match result {
            Ok(done) => Outcome::Applied { seq: done.seq.0, versions: vec![done.version.0] },
            // A refused condition is a strong read (protocol.md 3.2), and so is the answer that nothing is there to delete.
            Err(Error::NotFound) => Outcome::ConditionFailed { key: key(), observed: 0 },
            Err(Error::ConditionFailed { observed }) => {
                Outcome::ConditionFailed { key: key(), observed: observed.0 }
            }
            Err(error) if error.is_certain() => Outcome::NotApplied(error.to_string()),
            Err(error) => Outcome::Unknown(error.to_string()),
        };
        self.done(pending, outcome);
    }

    /// The answer to a read of one key.
    pub fn read(&self, pending: Pending, result: &Result<ReadOutcome, Error>) {
        let outcome = match result {
            Ok(read) => Outcome::Found(vec![Found {
                value: read.value.clone(),
                version: read.version.0,
                seq: read.seq.0,
            }]),
            Err(error) => Outcome::NotApplied(error.to_string()),
        };
        self.done(pending, outcome);
    }

    /// The answer to a page: what exists of its keys. A page does not tell of tombstones.
    pub fn page(&self, pending: Pending, result: &Result<Vec<Item>, Error>) {
        let outcome = match result {
            Ok(items) => {
                let found = |key: &str| match items.iter().find(|item| item.key == key.as_bytes()) {
                    Some(item) => {
                        Found { value: Some(item.value.clone()), version: item.version.0, seq: item.seq.0 }
                    }
                    None => Found::nothing(),
                };
                Outcome::Found(pending.call.keys().map(found).collect())
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
        ops.iter().filter(|op| op.is_applied() && op.invoked >= from).map(|op| op.returned).min()
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
    let acked = ops.iter().filter(|op| op.is_applied()).map(|op| op.returned);
    let mut times: Vec<Duration> = acked.filter(|at| (from..to).contains(at)).collect();
    times.push(from);
    times.push(to);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
