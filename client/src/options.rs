//! What a caller may say about one call.

use std::time::Duration;

use craq_proto::{Seq, Version, wire};

use crate::RequestToken;

/// How long a call may take unless it says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How fresh an answer has to be (`protocol.md` 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The newest committed value at the time of the call: linearizable.
    #[default]
    Strong,
    /// The newest committed value that the replica knows of. Answered without the chain.
    Eventual,
    /// As eventual, but only from a replica that heard from the chain within this time (whole milliseconds, at least
    /// one).
    Bounded(Duration),
}

impl Consistency {
    /// Whether a replica may answer alone, and an old epoch does no harm.
    pub(crate) fn is_weak(self) -> bool {
        self != Self::Strong
    }

    /// The mode and its bound in milliseconds.
    pub(crate) fn to_wire(self) -> (wire::Consistency, u64) {
        match self {
            Self::Strong => (wire::Consistency::Strong, 0),
            Self::Eventual => (wire::Consistency::Eventual, 0),
            Self::Bounded(bound) => {
                let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
                (wire::Consistency::Bounded, millis.max(1))
            }
        }
    }
}

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent,
    /// The key has this version. Zero means absent.
    Version(Version),
}

impl Condition {
    pub(crate) fn version(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Version(version) => version.0,
        }
    }
}

/// What a caller may say about one call. What does not concern a call is not looked at.
///
/// ```
/// use std::time::Duration;
/// use craq_client::{Consistency, Options};
///
/// let options = Options::new()
///     .consistency(Consistency::Bounded(Duration::from_millis(500)))
///     .timeout(Duration::from_secs(1));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(crate) consistency: Consistency,
    pub(crate) timeout: Option<Duration>,
    pub(crate) condition: Option<Condition>,
    pub(crate) request: Option<RequestToken>,
    pub(crate) node: Option<String>,
    pub(crate) at_least: Seq,
}

impl Options {
    /// A strong call with the client's timeout, to whichever node fits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads and scans: how fresh the answer has to be.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// How long the call may take, all attempts together. A scan: how long each page may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Writes and deletes: only if this is true.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Writes and deletes: under this request id instead of one of the client's own.
    #[must_use]
    pub fn request(mut self, request: RequestToken) -> Self {
        self.request = Some(request);
        self
    }

    /// Only by the node at this address (`host:port`), and no other.
    #[must_use]
    pub fn node(mut self, address: impl Into<String>) -> Self {
        self.node = Some(address.into());
        self
    }

    /// Reads and scans: only from a replica that has committed this sequence. With the highest sequence seen so far,
    /// weaker reads never go back and show the caller's own writes.
    #[must_use]
    pub fn at_least(mut self, seq: Seq) -> Self {
        self.at_least = seq;
        self
    }
}
