//! How a call can end badly. What the caller knows about a write is part of the type.

use craq_proto::{CallError, ErrorKind, Version, key::SizeError};

use crate::RequestToken;

/// How a call ended, if not well.
///
/// After every variant but [`Error::OutcomeUnknown`] a write is certainly not applied; after that one it may or may
/// not be, now or a little later, and repeating it with the request id inside is safe. ([`Error::Unclear`] is to admin
/// calls what that one is to writes; writes never end so.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key to be deleted does not exist. A read of a missing key is no error.
    #[error("the key does not exist")]
    NotFound,
    /// The condition of the write was false.
    #[error("the condition is false: the key {}", describe(*.observed))]
    ConditionFailed {
        /// The key's version; zero if it is absent.
        observed: Version,
    },
    /// A limit: the request is too large, or the node has too much to do.
    #[error("refused: {message}")]
    Refused {
        /// Which limit.
        message: String,
    },
    /// The chain could not answer in time. Nothing was applied.
    #[error("unavailable, nothing was applied: {message}")]
    Unavailable {
        /// The last reason.
        message: String,
    },
    /// The write may or may not have been applied.
    #[error("the outcome is unknown, request id {request}: {message}")]
    OutcomeUnknown {
        /// Repeating the write with this id is safe: it takes effect at most once.
        request: RequestToken,
        /// The last reason.
        message: String,
    },
    /// An admin call may or may not have been carried out; the status of the cluster tells.
    #[error("it is unknown whether it was carried out, see the status of the cluster: {message}")]
    Unclear {
        /// The last reason.
        message: String,
    },
    /// The call itself is wrong: an empty key, an address that is none, another cluster.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// No process could be connected to. Nothing was applied.
    #[error("not reachable, nothing was applied: {message}")]
    Unreachable {
        /// The last reason.
        message: String,
    },
    /// A value does not match its checksum, at every replica that was asked.
    #[error("corrupt: {message}")]
    Corrupt {
        /// Where.
        message: String,
    },
}

impl Error {
    /// Whether a write that ended so is certainly not applied.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. } | Self::Unclear { .. })
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound | Self::ConditionFailed { .. } | Self::Invalid { .. } => false,
            Self::Refused { .. } | Self::Corrupt { .. } | Self::Unclear { .. } => false,
            Self::Unavailable { .. } | Self::OutcomeUnknown { .. } | Self::Unreachable { .. } => true,
        }
    }
}

fn describe(observed: Version) -> String {
    if observed == Version::ZERO { "is absent".to_owned() } else { format!("has version {observed}") }
}

/// The verdict on a call that is not tried again, after attempts that certainly applied nothing.
impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let message = error.message;
        match error.kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::ConditionFailed => Self::ConditionFailed { observed: error.observed_version },
            ErrorKind::ResourceExhausted => Self::Refused { message },
            ErrorKind::Invalid | ErrorKind::WrongCluster => Self::Invalid { message },
            ErrorKind::Corrupt => Self::Corrupt { message },
            ErrorKind::NotHead
            | ErrorKind::NotLeader
            | ErrorKind::WrongEpoch
            | ErrorKind::Unavailable
            | ErrorKind::Forgotten
            | ErrorKind::OutcomeUnknown => Self::Unavailable { message },
        }
    }
}

impl From<SizeError> for Error {
    fn from(error: SizeError) -> Self {
        let message = error.to_string();
        match error {
            SizeError::EmptyKey => Self::Invalid { message },
            SizeError::KeyTooLong(_) | SizeError::ValueTooLong { .. } => Self::Refused { message },
        }
    }
}
