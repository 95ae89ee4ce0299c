//! What one attempt's failure says: whether anything was sent, and what the other side told.
//!
//! Never claims more than can be known. Only two things prove that a request was not applied: an answer that says so
//! in craq's own words, and a connection that could not be made. All else is unknown.

use std::error::Error as _;

use craq_proto::{CallError, ErrorKind};
use tonic::{Code, ConnectError, Status};

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub error: Box<CallError>,
    /// The address that was tried, if it came to that.
    pub target: Option<String>,
    /// Whether a connection was made. Without one, nothing was sent.
    pub connected: bool,
    /// The other side does not serve such calls at all.
    pub unserved: bool,
}

impl Failure {
    /// No connection could be made.
    pub fn not_connected(target: &str, reason: impl std::fmt::Display) -> Self {
        let error = CallError::unavailable(format!("cannot connect to {target}: {reason}"));
        Self { error: Box::new(error), target: Some(target.to_owned()), connected: false, unserved: false }
    }

    /// Nowhere to send the request to.
    pub fn no_route(reason: impl Into<String>, connected: bool) -> Self {
        Self { error: Box::new(CallError::unavailable(reason)), target: None, connected, unserved: false }
    }

    /// Sent, and no answer came.
    pub fn no_answer(target: &str, reason: &str) -> Self {
        let message = format!("{target}: {reason}");
        Self::told(target, CallError::new(ErrorKind::OutcomeUnknown, message))
    }

    /// Answered with an error in craq's own words.
    pub fn told(target: &str, error: CallError) -> Self {
        Self { error: Box::new(error), target: Some(target.to_owned()), connected: true, unserved: false }
    }

    /// Answered with something that no correct process says.
    pub fn bad_answer(target: &str, kind: ErrorKind, reason: &str) -> Self {
        Self::told(target, CallError::new(kind, format!("{target}: {reason}")))
    }

    /// A call to `target` ended with `status`.
    pub fn from_status(target: &str, status: &Status) -> Self {
        if let Some(connect) = connect_error(status) {
            return Self::not_connected(target, connect);
        }
        let mut error = CallError::from_status(status);
        // A status that this side's transport made may have any code, and is no word of the other side's.
        if status.source().is_some() {
            error = CallError::new(ErrorKind::OutcomeUnknown, error.message);
        }
        let ours = !status.details().is_empty();
        if !ours {
            error.message = format!("{target}: {}", plain(status));
        }
        let unserved = !ours && status.code() == Code::Unimplemented && status.source().is_none();
        Self { unserved, ..Self::told(target, error) }
    }
}

/// The reason why connecting failed, if that is what the status is about.
fn connect_error(status: &Status) -> Option<String> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(connect) = error.downcast_ref::<ConnectError>() {
            return Some(innermost(connect));
        }
        source = error.source();
    }
    None
}

/// The deepest reason of an error: what a person wants to read.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn plain(status: &Status) -> String {
    match (status.code(), status.source()) {
        (Code::Cancelled, _) if status.message() == "Timeout expired" => "no answer in time".to_owned(),
        (_, Some(source)) => format!("the connection broke: {}", innermost(source)),
        (code, None) => format!("{code:?}: {}", status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Box<dyn std::error::Error + Send + Sync>);

    fn refused() -> Box<dyn std::error::Error + Send + Sync> {
        Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    }

    #[test]
    fn a_refused_connection_applied_nothing() {
        let status = Status::from_error(Box::new(Outer(Box::new(ConnectError(refused())))));
        let failure = Failure::from_status("n1:1", &status);
        assert_eq!(failure.error.kind, ErrorKind::Unavailable);
        assert!(!failure.connected);
    }

    #[test]
    fn a_broken_connection_is_no_refused_one_though_both_are_unavailable() {
        let mut status = Status::unavailable("broken");
        status.set_source(std::sync::Arc::new(Outer(refused())));
        let failure = Failure::from_status("n1:1", &status);
        assert_eq!(failure.error.kind, ErrorKind::OutcomeUnknown);
        assert!(failure.connected);
    }

    #[test]
    fn a_code_that_the_own_transport_made_proves_nothing() {
        let mut status = Status::out_of_range("too large");
        assert_eq!(Failure::from_status("n1:1", &status).error.kind, ErrorKind::ResourceExhausted);
        status.set_source(std::sync::Arc::new(Outer(refused())));
        assert_eq!(Failure::from_status("n1:1", &status).error.kind, ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn the_words_of_the_other_side_are_kept() {
        let error = CallError::unavailable("no lease");
        let failure = Failure::from_status("n1:1", &error.to_status());
        assert_eq!(*failure.error, error);
        assert_eq!(failure.target.as_deref(), Some("n1:1"));
    }
}
