//! Exit codes and the messages that go with them. The codes are a contract; they stand in the help of `craq`.

use std::{io, process::ExitCode};

use craq_client::Error;

use super::encoding::shown;

/// An end that is decided by the command line itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exit {
    /// The key does not exist.
    #[error("key not found: {0}")]
    NotFound(String),
    /// What stands on the command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A check found an answer that nothing explains.
    #[error("the history is not linearizable")]
    Violation,
    /// A check could not judge.
    #[error("no verdict: nothing is shown, neither good nor bad")]
    NoVerdict,
}

/// The key does not exist.
pub(crate) fn not_found(key: &[u8]) -> anyhow::Error {
    Exit::NotFound(shown(key)).into()
}

/// What stands on the command line makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Exit::Usage(message.into()).into()
}

/// Says on stderr what went wrong, and brings the exit code. A reader of stdout that has gone away is no error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("craq: {error:#}");
    if let Some(Error::OutcomeUnknown { request, .. }) = error.downcast_ref() {
        eprintln!("The write may or may not have been applied. Repeating the same command with");
        eprintln!("  --request-id {request}");
        eprintln!("is safe: it takes effect at most once.");
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return match exit {
            Exit::NotFound(_) => 1,
            Exit::Usage(_) => 2,
            Exit::NoVerdict => 4,
            Exit::Violation => 8,
        };
    }
    match error.downcast_ref::<Error>() {
        Some(Error::NotFound) | None => 1,
        Some(Error::Invalid { .. }) => 2,
        Some(Error::Unavailable { .. } | Error::Unreachable { .. }) => 3,
        Some(Error::ConditionFailed { .. }) => 6,
        Some(Error::Refused { .. }) => 7,
        Some(Error::Corrupt { .. }) => 9,
        // Unknown outcomes; and what is not known here is not known to have failed either.
        Some(_) => 4,
    }
}
