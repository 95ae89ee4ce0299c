//! Whether and when a failed call is tried again, and what is known of it in the end.
//!
//! Never sends anything, reads a clock or draws a random number: what is left of the time and a random number are
//! arguments.
//!
//! # What is known of a write
//!
//! All attempts of a write carry the same request id, so it takes effect at most once. Each attempt ends in one of
//! three ways: applied; certainly not applied (by this attempt); uncertain.
//! - *Applied* settles the call, whatever came before: the answer is the outcome of the request id.
//! - While no attempt was uncertain, *certainly not applied* is the truth about the call. If the chain says so because it
//!   has forgotten what became of requests so old, the request is born again, at the sequence that the chain names.
//! - Once an attempt was uncertain, nothing but *applied* settles the call. Its message may still be on its way, or
//!   held by a node that hands it on, or stand in a log whose commit is open. So `CONDITION_FAILED`, `NOT_FOUND` or
//!   `RESOURCE_EXHAUSTED` in answer to a later attempt says only that *this* attempt did nothing: the condition may
//!   become true again before the earlier one arrives. (Had the earlier one been applied already, the head would have
//!   known the request id and answered with its outcome.) The call ends as `OutcomeUnknown`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use craq_proto::{
    CallError, ErrorKind,
    planted::{self, Bug},
};

use crate::{Error, RequestToken, failure::Failure};

/// The first pause, before jitter; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// The longest pause, before jitter.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often in a row a call follows a new route at once, before it pauses all the same.
const AT_ONCE_MAX: u32 = 3;
/// A write of which nothing is uncertain is not sent once more with less time than this: an answer that comes too late
/// would make it uncertain.
const ATTEMPT_MIN: Duration = Duration::from_millis(100);
/// How many nodes a read tries that all say that they have too much to do.
const REFUSALS_MAX: u32 = 3;

/// What comes after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, after a pause.
    Retry {
        /// How long.
        after: Duration,
    },
    /// The call ends.
    GiveUp(Error),
}

/// The history of one call.
#[derive(Debug)]
pub struct Retries {
    /// The request that is repeated; none for a read.
    request: Option<RequestToken>,
    attempts: u32,
    at_once: u32,
    pauses: u32,
    refusals: u32,
    uncertain: bool,
    connected: bool,
    /// The last replica's message whose value did not match its checksum.
    corrupt: Option<String>,
}

impl Retries {
    /// The history of a call that changes nothing.
    pub fn of_read() -> Self {
        Self::new(None)
    }

    /// The history of a write. One whose id was used before starts as uncertain.
    pub fn of_write(request: RequestToken) -> Self {
        let uncertain = request.is_repeat();
        Self { uncertain, ..Self::new(Some(request)) }
    }

    fn new(request: Option<RequestToken>) -> Self {
        Self {
            request,
            attempts: 0,
            at_once: 0,
            pauses: 0,
            refusals: 0,
            uncertain: false,
            connected: false,
            corrupt: None,
        }
    }

    /// The request as the next attempt carries it, as a repeat if it may have been applied already; none for a read.
    pub fn request(&self) -> Option<RequestToken> {
        self.request.map(|request| if self.uncertain { request.repeated() } else { request })
    }

    /// How many attempts have failed.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Judges a failed attempt. `new_route`: something was learnt about where to go. `left`: until the call's
    /// deadline. `random`: from 0 up to 1.
    pub fn on_failure(&mut self, failure: Failure, new_route: bool, left: Duration, random: f64) -> Next {
        self.attempts += 1;
        self.connected |= failure.connected;
        let kind = failure.error.kind;
        if kind == ErrorKind::Corrupt {
            self.corrupt = Some(failure.error.message.clone());
        }
        if self.request.is_some() && !kind.is_certain() {
            self.uncertain = true;
        } else if planted::is(Bug::LastAttemptDecides) {
            self.uncertain = false;
        }
        let reborn = !self.uncertain && self.is_reborn(&failure.error);
        let worthwhile = match kind {
            ErrorKind::ResourceExhausted if self.request.is_none() => {
                self.refusals += 1;
                self.refusals < REFUSALS_MAX
            }
            // Only an answer that it was applied can settle the call, and it may still come.
            ErrorKind::ResourceExhausted => self.uncertain,
            ErrorKind::Forgotten => reborn,
            kind => kind.is_retryable(),
        };
        let after = self.pause(new_route || reborn, random);
        let least = if self.request.is_some() && !self.uncertain { ATTEMPT_MIN } else { Duration::ZERO };
        if worthwhile && after + least < left {
            return Next::Retry { after };
        }
        Next::GiveUp(self.verdict(failure))
    }

    /// Nothing was sent before that could have been applied: the request may be as young as the chain wants it.
    fn is_reborn(&mut self, error: &CallError) -> bool {
        let request = self.request.and_then(|request| request.reborn(error));
        self.request = request.or(self.request);
        request.is_some()
    }

    /// How long to wait before the next attempt.
    fn pause(&mut self, new_route: bool, random: f64) -> Duration {
        if new_route && self.at_once < AT_ONCE_MAX {
            self.at_once += 1;
            return Duration::ZERO;
        }
        self.at_once = 0;
        let pause = PAUSE_FIRST.saturating_mul(1 << self.pauses.min(8)).min(PAUSE_MAX);
        self.pauses += 1;
        pause.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    fn verdict(&self, failure: Failure) -> Error {
        let message = match self.attempts {
            1 => failure.error.message.clone(),
            n => format!("{} ({n} attempts)", failure.error.message),
        };
        if self.uncertain
            && !planted::is(Bug::UnknownCalledRefused)
            && let Some(request) = self.request
        {
            return Error::OutcomeUnknown { request: request.repeated(), message };
        }
        match Error::from(*failure.error) {
            // That a value is damaged says more than that the last replica did not answer in time.
            Error::Unavailable { .. } if let Some(corrupt) = &self.corrupt => {
                Error::Corrupt { message: corrupt.clone() }
            }
            Error::Unavailable { .. } if !self.connected => Error::Unreachable { message },
            Error::Unavailable { .. } => Error::Unavailable { message },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use craq_proto::{ClientId, Seq, Version};

    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    fn token() -> RequestToken {
        RequestToken::new(ClientId(uuid::Uuid::from_u128(7)), 3, Seq(9))
    }

    fn write() -> Retries {
        Retries::of_write(token())
    }

    fn failure(kind: ErrorKind) -> Failure {
        let mut error = CallError::new(kind, "because");
        error.observed_version = Version(4);
        Failure { error: Box::new(error), target: None, connected: true, unserved: false }
    }

    fn refused() -> Failure {
        Failure::not_connected("a:1", "refused")
    }

    fn retries(next: &Next) -> bool {
        matches!(next, Next::Retry { .. })
    }

    fn unknown() -> impl Fn(Next) {
        |next| match next {
            Next::GiveUp(Error::OutcomeUnknown { request, .. }) => {
                assert!(request.is_repeat());
                assert_eq!(request, token().repeated());
            }
            other => panic!("{other:?} claims to know the outcome"),
        }
    }

    #[test]
    fn certain_refusals_end_a_write_as_what_they_are() {
        let end = |kind| match write().on_failure(failure(kind), false, LONG, 0.0) {
            Next::GiveUp(error) => error,
            retry @ Next::Retry { .. } => panic!("{kind:?} led to {retry:?}"),
        };
        assert_eq!(end(ErrorKind::ConditionFailed), Error::ConditionFailed { observed: Version(4) });
        assert_eq!(end(ErrorKind::NotFound), Error::NotFound);
        assert!(matches!(end(ErrorKind::ResourceExhausted), Error::Refused { .. }));
        assert!(matches!(end(ErrorKind::Invalid), Error::Invalid { .. }));
        assert!(matches!(end(ErrorKind::WrongCluster), Error::Invalid { .. }));
    }

    #[test]
    fn after_an_uncertain_attempt_no_refusal_settles_the_call() {
        for kind in
            [ErrorKind::ConditionFailed, ErrorKind::NotFound, ErrorKind::Invalid, ErrorKind::WrongCluster]
        {
            let mut history = write();
            assert!(retries(&history.on_failure(failure(ErrorKind::OutcomeUnknown), false, LONG, 0.0)));
            assert!(history.request().unwrap().is_repeat());
            unknown()(history.on_failure(failure(kind), false, LONG, 0.0));
        }
    }

    #[test]
    fn after_an_uncertain_attempt_an_overloaded_head_is_asked_again() {
        let mut history = write();
        history.on_failure(failure(ErrorKind::OutcomeUnknown), false, LONG, 0.0);
        assert!(retries(&history.on_failure(failure(ErrorKind::ResourceExhausted), false, LONG, 0.0)));
        unknown()(history.on_failure(failure(ErrorKind::ResourceExhausted), false, Duration::ZERO, 0.0));
    }

    #[test]
    fn a_write_that_was_nowhere_received_is_certainly_not_applied() {
        let mut history = write();
        assert!(retries(&history.on_failure(refused(), false, LONG, 0.0)));
        assert!(!history.request().unwrap().is_repeat());
        let end = history.on_failure(refused(), false, Duration::ZERO, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Unreachable { .. })), "{end:?}");
        let mut history = write();
        history.on_failure(failure(ErrorKind::NotHead), false, LONG, 0.0);
        let end = history.on_failure(refused(), false, Duration::ZERO, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Unavailable { .. })), "{end:?}");
    }

    fn forgotten(born: u64) -> Failure {
        let error = CallError { born: Seq(born), ..CallError::new(ErrorKind::Forgotten, "too old") };
        Failure { error: Box::new(error), target: None, connected: true, unserved: false }
    }

    #[test]
    fn a_request_too_old_to_be_judged_is_born_again_at_once() {
        let mut history = write();
        let next = history.on_failure(forgotten(12), false, LONG, 1.0);
        assert_eq!(next, Next::Retry { after: Duration::ZERO });
        let request = history.request().unwrap();
        assert_eq!(request, RequestToken::new(ClientId(uuid::Uuid::from_u128(7)), 3, Seq(12)));
        let end = history.on_failure(forgotten(12), false, LONG, 1.0);
        assert!(matches!(end, Next::GiveUp(Error::Unavailable { .. })), "it is young enough: {end:?}");
    }

    #[test]
    fn a_request_that_may_have_been_applied_is_not_born_again() {
        let mut history = write();
        history.on_failure(failure(ErrorKind::OutcomeUnknown), false, LONG, 0.0);
        unknown()(history.on_failure(forgotten(12), false, LONG, 0.0));
    }

    #[test]
    fn what_is_certain_is_not_risked_at_the_last_moment() {
        let soon = ATTEMPT_MIN;
        let end = write().on_failure(failure(ErrorKind::Unavailable), false, soon, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Unavailable { .. })), "{end:?}");
        assert!(retries(&write().on_failure(failure(ErrorKind::OutcomeUnknown), false, soon, 0.0)));
        assert!(retries(&Retries::of_read().on_failure(failure(ErrorKind::Unavailable), false, soon, 0.0)));
    }

    #[test]
    fn one_uncertain_attempt_makes_the_end_unknown() {
        let mut history = write();
        history.on_failure(refused(), false, LONG, 0.0);
        history.on_failure(failure(ErrorKind::OutcomeUnknown), false, LONG, 0.0);
        unknown()(history.on_failure(refused(), false, Duration::ZERO, 0.0));
    }

    #[test]
    fn a_repeated_id_is_uncertain_from_the_start() {
        let mut history = Retries::of_write(token().repeated());
        assert!(history.request().unwrap().is_repeat());
        unknown()(history.on_failure(failure(ErrorKind::ConditionFailed), false, LONG, 0.0));
    }

    #[test]
    fn a_read_is_never_uncertain() {
        let mut history = Retries::of_read();
        for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Unavailable, ErrorKind::WrongEpoch] {
            assert!(retries(&history.on_failure(failure(kind), false, LONG, 0.0)), "{kind:?}");
        }
        let end = history.on_failure(failure(ErrorKind::OutcomeUnknown), false, Duration::ZERO, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Unavailable { .. })), "{end:?}");
        let end = Retries::of_read().on_failure(failure(ErrorKind::Corrupt), false, Duration::ZERO, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Corrupt { .. })), "{end:?}");
    }

    #[test]
    fn a_damaged_value_is_told_of_whatever_came_after() {
        let mut history = Retries::of_read();
        history.on_failure(failure(ErrorKind::Corrupt), false, LONG, 0.0);
        let end = history.on_failure(failure(ErrorKind::OutcomeUnknown), false, Duration::ZERO, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Corrupt { .. })), "{end:?}");
    }

    #[test]
    fn a_refused_read_tries_few_others() {
        let mut history = Retries::of_read();
        assert!(retries(&history.on_failure(failure(ErrorKind::ResourceExhausted), false, LONG, 0.0)));
        assert!(retries(&history.on_failure(failure(ErrorKind::ResourceExhausted), false, LONG, 0.0)));
        let end = history.on_failure(failure(ErrorKind::ResourceExhausted), false, LONG, 0.0);
        assert!(matches!(end, Next::GiveUp(Error::Refused { .. })), "{end:?}");
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_are_jittered() {
        let mut history = Retries::of_read();
        let mut pause =
            |random| match history.on_failure(failure(ErrorKind::Unavailable), false, LONG, random) {
                Next::Retry { after } => after.as_micros(),
                Next::GiveUp(error) => panic!("{error}"),
            };
        let full: Vec<_> = (0..7).map(|_| pause(1.0)).collect();
        assert_eq!(full, [5_000, 10_000, 20_000, 40_000, 80_000, 100_000, 100_000]);
        assert_eq!(pause(0.0), 50_000);
    }

    #[test]
    fn a_new_route_is_followed_at_once_but_not_for_ever() {
        let mut history = write();
        let mut pause = || match history.on_failure(failure(ErrorKind::NotHead), true, LONG, 1.0) {
            Next::Retry { after } => after.as_millis(),
            Next::GiveUp(error) => panic!("{error}"),
        };
        assert_eq!([pause(), pause(), pause(), pause(), pause()], [0, 0, 0, 5, 0]);
    }
}
