//! How an error crosses the network: one enum, one mapping to `tonic::Status` and back.
//!
//! What a caller can know about a write is one of three: applied (no error), certainly not applied, outcome unknown.
//! [`ErrorKind::is_certain`] tells the last two apart, and nothing else does.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::{RequestId, Seq, Version, View, convert, wire};

/// What went wrong. See `ErrorDetail.Kind` in `types.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// This node is not the chain's head.
    NotHead,
    /// This coordinator does not lead.
    NotLeader,
    /// The epochs differ.
    WrongEpoch,
    /// The condition of a write was false.
    ConditionFailed,
    /// A limit is reached.
    ResourceExhausted,
    /// The write may or may not have been applied.
    OutcomeUnknown,
    /// No lease, no chain, or no connection. Nothing was applied or answered.
    Unavailable,
    /// The message is malformed.
    Invalid,
    /// The message is for another cluster.
    WrongCluster,
    /// The key to be deleted doesn't exist.
    NotFound,
    /// A stored or received value does not match its checksum.
    Corrupt,
    /// The request was born before what the chain still knows of requests. This attempt was not applied.
    Forgotten,
}

impl ErrorKind {
    /// Whether a write that ended so is certainly not applied.
    #[must_use]
    pub fn is_certain(self) -> bool {
        !matches!(self, Self::OutcomeUnknown)
    }

    /// Whether the same call may succeed later or elsewhere.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotHead
                | Self::NotLeader
                | Self::WrongEpoch
                | Self::OutcomeUnknown
                | Self::Unavailable
                | Self::Corrupt
        )
    }

    fn code(self) -> Code {
        match self {
            Self::NotHead
            | Self::NotLeader
            | Self::WrongEpoch
            | Self::WrongCluster
            | Self::ConditionFailed => Code::FailedPrecondition,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::OutcomeUnknown | Self::Forgotten => Code::Aborted,
            Self::Unavailable => Code::Unavailable,
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Corrupt => Code::DataLoss,
        }
    }

    fn to_wire(self) -> wire::error_detail::Kind {
        use wire::error_detail::Kind;
        match self {
            Self::NotHead => Kind::NotHead,
            Self::NotLeader => Kind::NotLeader,
            Self::WrongEpoch => Kind::WrongEpoch,
            Self::ConditionFailed => Kind::ConditionFailed,
            Self::ResourceExhausted => Kind::ResourceExhausted,
            Self::OutcomeUnknown => Kind::OutcomeUnknown,
            Self::Unavailable => Kind::Unavailable,
            Self::Invalid => Kind::Invalid,
            Self::WrongCluster => Kind::WrongCluster,
            Self::NotFound => Kind::NotFound,
            Self::Corrupt => Kind::Corrupt,
            Self::Forgotten => Kind::Forgotten,
        }
    }

    fn from_wire(kind: wire::error_detail::Kind) -> Option<Self> {
        use wire::error_detail::Kind;
        Some(match kind {
            Kind::Unspecified => return None,
            Kind::NotHead => Self::NotHead,
            Kind::NotLeader => Self::NotLeader,
            Kind::WrongEpoch => Self::WrongEpoch,
            Kind::ConditionFailed => Self::ConditionFailed,
            Kind::ResourceExhausted => Self::ResourceExhausted,
            Kind::OutcomeUnknown => Self::OutcomeUnknown,
            Kind::Unavailable => Self::Unavailable,
            Kind::Invalid => Self::Invalid,
            Kind::WrongCluster => Self::WrongCluster,
            Kind::NotFound => Self::NotFound,
            Kind::Corrupt => Self::Corrupt,
            Kind::Forgotten => Self::Forgotten,
        })
    }
}

/// An error of a call, with what helps the caller to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// [`ErrorKind::NotHead`]: host:port of the head, if known. [`ErrorKind::NotLeader`]: of the coordinator that leads.
    pub head: Option<Box<str>>,
    /// The newest view that the other side knows, if it tells.
    pub view: Option<Box<View>>,
    /// [`ErrorKind::ConditionFailed`]: the key's version; zero if it is absent.
    pub observed_version: Version,
    /// [`ErrorKind::OutcomeUnknown`]: the id with which repeating is safe.
    pub request: Option<RequestId>,
    /// [`ErrorKind::Forgotten`]: the least sequence at which a request can be born for the chain to judge it.
    pub born: Seq,
}

impl CallError {
    /// An error without further help.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            head: None,
            view: None,
            observed_version: Version::ZERO,
            request: None,
            born: Seq::ZERO,
        }
    }

    /// A malformed message.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Nothing was applied or answered; try again.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Another coordinator leads, at this address if it is known. Nothing was done.
    #[must_use]
    pub fn not_leader(leader: Option<String>) -> Self {
        let text = match &leader {
            Some(leader) => format!("this coordinator does not lead: {leader} does"),
            None => "this coordinator does not lead, and knows nobody who does".to_owned(),
        };
        Self { head: leader.map(Into::into), ..Self::new(ErrorKind::NotLeader, text) }
    }

    /// Where a request that was born at `born` and refused with this error is to be born again. Only for one none of whose
    /// attempts may have been applied: what an earlier one made would not be recognised.
    #[must_use]
    pub fn reborn(&self, born: Seq) -> Option<Seq> {
        (self.kind == ErrorKind::Forgotten && self.born > born).then_some(self.born)
    }

    /// With the newest view that this side knows.
    #[must_use]
    pub fn with_view(mut self, view: Option<View>) -> Self {
        self.view = view.map(Box::new);
        self
    }

    /// The same error as a gRPC status: a fitting code, the message, and all of it as an `ErrorDetail` in a
    /// `google.rpc.Status`.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let detail = wire::ErrorDetail::from(self);
        let code = self.kind.code();
        let status = tonic_types::pb::Status {
            code: code as i32,
            message: self.message.clone(),
            details: vec![prost_types::Any { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec() }],
        };
        Status::with_details(code, self.message.clone(), Bytes::from(status.encode_to_vec()))
    }

    /// What a status says, whoever made it. A status without our detail never says more than it can know: whatever
    /// may come from a broken connection or a passed deadline is [`ErrorKind::OutcomeUnknown`].
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        if let Some(error) = Self::from_details(status.details()) {
            return error;
        }
        let kind = match status.code() {
            Code::InvalidArgument | Code::Unimplemented => ErrorKind::Invalid,
            // A message above the limit, seen before anybody acted on it. (RESOURCE_EXHAUSTED may be a dying connection.)
            Code::OutOfRange => ErrorKind::ResourceExhausted,
            _ => ErrorKind::OutcomeUnknown,
        };
        Self::new(kind, format!("{:?}: {}", status.code(), status.message()))
    }

    fn from_details(details: &[u8]) -> Option<Self> {
        let status = tonic_types::pb::Status::decode(details).ok()?;
        let any = status.details.iter().find(|any| any.type_url == TYPE_URL)?;
        Self::from_detail(wire::ErrorDetail::decode(any.value.as_slice()).ok()?)
    }

    /// The error that a detail stands for; none if its kind is not known to this version.
    #[must_use]
    pub fn from_detail(detail: wire::ErrorDetail) -> Option<Self> {
        Some(Self {
            kind: ErrorKind::from_wire(detail.kind())?,
            message: detail.message,
            head: Some(detail.head).filter(|head| !head.is_empty()).map(Into::into),
            view: detail.view.and_then(|view| View::try_from(view).ok()).map(Box::new),
            observed_version: Version(detail.observed_version),
            request: detail.request_id.and_then(|id| RequestId::try_from(id).ok()),
            born: Seq(detail.born),
        })
    }
}

impl From<&CallError> for wire::ErrorDetail {
    fn from(error: &CallError) -> Self {
        Self {
            kind: error.kind.to_wire() as i32,
            message: error.message.clone(),
            head: error.head.as_deref().unwrap_or_default().to_owned(),
            view: error.view.as_deref().map(Into::into),
            observed_version: error.observed_version.0,
            request_id: error.request.as_ref().map(Into::into),
            born: error.born.0,
        }
    }
}

const TYPE_URL: &str = "type.googleapis.com/craq.v1.ErrorDetail";

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        error.to_status()
    }
}

impl From<convert::Malformed> for CallError {
    fn from(malformed: convert::Malformed) -> Self {
        Self::invalid(malformed.to_string())
    }
}

impl From<convert::Malformed> for Status {
    fn from(malformed: convert::Malformed) -> Self {
        CallError::from(malformed).to_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientId;

    #[test]
    fn an_error_survives_the_network() {
        let request = RequestId {
            client: ClientId(uuid::Uuid::from_u128(7)),
            number: 3,
            floor: 2,
            born: Seq(9),
            retry: true,
        };
        let error = CallError {
            kind: ErrorKind::OutcomeUnknown,
            message: "who knows".into(),
            head: Some("localhost:1".into()),
            view: None,
            observed_version: Version(4),
            request: Some(request),
            born: Seq(8),
        };
        assert_eq!(CallError::from_status(&error.to_status()), error);
    }

    #[test]
    fn a_foreign_status_never_claims_that_nothing_happened() {
        for code in
            [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal]
        {
            let kind = CallError::from_status(&Status::new(code, "broken")).kind;
            assert!(!kind.is_certain(), "{code:?} became {kind:?}");
        }
    }
}
