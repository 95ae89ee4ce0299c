//! What calls bring when they end well.

use bytes::Bytes;
use craq_proto::{Epoch, Seq, Version, wire};

use crate::RequestToken;

/// How a read was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPath {
    /// The replica does not tell.
    Unknown,
    /// From one replica alone.
    Clean,
    /// A replica asked the tail which version is committed.
    AskedTail,
    /// The tail itself knew which version is committed.
    AtTail,
    /// A replica did not have to ask the tail: the newest version was committed while the read waited.
    AwaitedCommit,
}

impl ReadPath {
    /// The word for it, as the command line prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Clean => "clean",
            Self::AskedTail => "asked-tail",
            Self::AtTail => "at-tail",
            Self::AwaitedCommit => "awaited-commit",
        }
    }
}

impl From<wire::ReadPath> for ReadPath {
    fn from(path: wire::ReadPath) -> Self {
        match path {
            wire::ReadPath::Unspecified => Self::Unknown,
            wire::ReadPath::Clean => Self::Clean,
            wire::ReadPath::AskedTail => Self::AskedTail,
            wire::ReadPath::AtTail => Self::AtTail,
            wire::ReadPath::AwaitedCommit => Self::AwaitedCommit,
        }
    }
}

/// What a read found.
#[derive(Clone, PartialEq, Eq)]
pub struct ReadOutcome {
    /// The value; none if the key does not exist.
    pub value: Option<Bytes>,
    /// The key's version. A deleted key has its tombstone's as long as that is kept; one never written has zero.
    pub version: Version,
    /// Sequence of the entry that made the version; zero if there is none.
    pub seq: Seq,
    /// The replica's commit when it answered; pass it to [`crate::Options::at_least`] for monotone reads.
    pub commit: Seq,
    /// The epoch under which it was answered.
    pub epoch: Epoch,
    /// How it was answered.
    pub path: ReadPath,
    /// Address of the node that answered.
    pub node: String,
}

impl ReadOutcome {
    /// Whether the key exists.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.value.is_some()
    }
}

/// A value never reaches a log; its length may.
impl std::fmt::Debug for ReadOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOutcome")
            .field("value_bytes", &self.value.as_ref().map(Bytes::len))
            .field("version", &self.version)
            .field("seq", &self.seq)
            .field("commit", &self.commit)
            .field("epoch", &self.epoch)
            .field("path", &self.path)
            .field("node", &self.node)
            .finish()
    }
}

/// What a write or a deletion made. It is on stable storage at every member of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The version that it made. A deletion's is its tombstone's.
    pub version: Version,
    /// Sequence of its entry.
    pub seq: Seq,
    /// The epoch under which it was answered.
    pub epoch: Epoch,
    /// The request id under which it was made, for a repeat.
    pub request: RequestToken,
    /// How many attempts it took.
    pub attempts: u32,
}

/// One key of a range.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
    /// The key's version.
    pub version: Version,
    /// Sequence of the entry that made it.
    pub seq: Seq,
}

/// A value never reaches a log; its length may.
impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.escape_ascii();
        write!(f, "{key} v{} s{} ({} bytes)", self.version, self.seq, self.value.len())
    }
}

/// A part of a range, read at one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In key order.
    pub items: Vec<Item>,
    /// The sequence at which the page was read; two pages may differ in theirs.
    pub seq: Seq,
    /// The epoch under which it was read.
    pub epoch: Epoch,
}
