//! One loop for all calls: attempt, learn, pause, attempt again, until the deadline.
//!
//! Never knows what is sent: each kind of call says that as a [`Call`]. What to do after a failure is decided by
//! [`crate::retry`], where to go by [`crate::routing`].

use std::{future::Future, sync::Arc, time::Duration};

use craq_proto::{CallError, Epoch, ErrorKind, Time, View, wire};
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

use crate::{
    Error, RequestToken,
    channels::Connection,
    failure::Failure,
    retry::{Next, Retries},
    routing::Routes,
    session::{Answered, Lost},
    shared::Shared,
};

/// How long an attempt may stay without an answer before the client asks around for a newer view.
const DOUBT_AFTER: Duration = Duration::from_millis(500);
/// How long one question for the views may take.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// One kind of call.
pub(crate) trait Call: Sync {
    /// What it brings.
    type Reply: Send;

    /// The only node that may answer, if the caller named one.
    fn fixed(&self) -> Option<&str>;

    /// Where to send it, by the newest view.
    fn route(&self, routes: &mut Routes, now: Time) -> Option<String>;

    /// How long one attempt may take, if not until the call's deadline.
    fn attempt_timeout(&self) -> Option<Duration>;

    /// One attempt at `target`, which must end by `until`. `request`: under which id, if it is a write.
    fn attempt(
        &self,
        shared: &Shared,
        target: &str,
        until: Instant,
        request: Option<RequestToken>,
    ) -> impl Future<Output = Result<Self::Reply, Failure>> + Send;
}

/// Makes a call: attempts until it is settled or the time is over.
pub(crate) async fn run<C: Call>(
    shared: &Shared,
    call: &C,
    retries: &mut Retries,
    until: Instant,
) -> Result<C::Reply, Error> {
    loop {
        let epoch = shared.epoch();
        let failure = match attempt(shared, call, retries.request(), until).await {
            Ok(reply) => return Ok(reply),
            Err(failure) => failure,
        };
        let new_route = shared.learn(&failure) || shared.epoch() > epoch;
        tracing::debug!(error = %failure.error, kind = ?failure.error.kind, new_route, "an attempt failed");
        let left = until.saturating_duration_since(Instant::now());
        match retries.on_failure(failure, new_route, left, Shared::random()) {
            Next::GiveUp(error) => return Err(error),
            Next::Retry { after } => pause(shared, after).await,
        }
    }
}

async fn attempt<C: Call>(
    shared: &Shared,
    call: &C,
    request: Option<RequestToken>,
    until: Instant,
) -> Result<C::Reply, Failure> {
    if let Some(node) = call.fixed() {
        return call.attempt(shared, node, until, request).await;
    }
    let target = target(shared, until, |routes, now| call.route(routes, now)).await?;
    let until = call.attempt_timeout().map_or(until, |limit| until.min(Instant::now() + limit));
    call.attempt(shared, &target, until, request).await
}

/// Where to send a call, by the newest view.
pub(crate) async fn target(
    shared: &Shared,
    until: Instant,
    route: impl FnOnce(&mut Routes, Time) -> Option<String>,
) -> Result<String, Failure> {
    first_view(shared, until).await?;
    let target = route(&mut shared.routes.lock(), shared.now());
    target.ok_or_else(|| Failure::no_route("the chain has no member that can answer this", true))
}

/// Waits, but no longer than until a newer view comes.
async fn pause(shared: &Shared, after: Duration) {
    if after.is_zero() {
        return;
    }
    let mut views = shared.views.subscribe();
    tokio::select! {
        () = tokio::time::sleep(after) => {}
        _ = views.changed() => {}
    }
}

/// Returns when a view is known. Asks for it if none came yet; one question at a time.
pub(crate) async fn first_view(shared: &Shared, until: Instant) -> Result<Arc<View>, Failure> {
    let known = || shared.routes.lock().view().cloned();
    if let Some(view) = known() {
        return Ok(view);
    }
    let late = || Failure::no_route("no view of the chain in time", true);
    let asking = timeout_at(until, shared.asking.lock()).await.map_err(|_| late())?;
    if let Some(view) = known() {
        return Ok(view);
    }
    let answers = crate::follow::ask_all(shared, until.min(Instant::now() + ASK_TIMEOUT)).await;
    drop(asking);
    match (known(), answers) {
        (Some(view), _) => Ok(view),
        (None, Ok(())) => Err(Failure::no_route("the chain has no nodes yet", true)),
        (None, Err(failure)) => Err(failure),
    }
}

/// Awaits the reply of a call that was sent to `target`.
///
/// Gives up at `until`; asks around for a newer view when it takes long; and, if `follows_head`, gives up as soon as a
/// newer view puts the head elsewhere, since the deposed one may never answer. Giving up leaves the outcome unknown.
pub(crate) async fn reply<T>(
    shared: &Shared,
    target: &str,
    until: Instant,
    follows_head: bool,
    sent: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let sent_in = shared.epoch();
    let moved = async {
        if follows_head {
            let moved = |view: &Option<Arc<View>>| {
                view.as_ref().is_some_and(|view| Routes::head_moved(view, sent_in, target))
            };
            if shared.views.subscribe().wait_for(moved).await.is_ok() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let late = async {
        loop {
            let doubt = Instant::now() + DOUBT_AFTER;
            tokio::time::sleep_until(doubt.min(until)).await;
            if until <= doubt {
                return;
            }
            shared.doubt.notify_one();
        }
    };
    tokio::select! {
        biased;
        answer = sent => {
            if answer.is_ok() {
                shared.routes.lock().forgive(target);
            }
            answer
        }
        () = late => Err(Failure::no_answer(target, "no answer in time")),
        () = moved => Err(Failure::no_answer(target, "given up, since the head moved")),
    }
}

/// Makes a unary call, or opens a stream.
pub(crate) async fn sent<T>(
    shared: &Shared,
    target: &str,
    connection: &Connection,
    sent: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    sent.await.map(Response::into_inner).map_err(|status| failed(shared, target, connection, &status))
}

/// Makes a call in the connection's session, and checks who answers. Returns the epoch, and what is answered.
pub(crate) async fn in_session(
    shared: &Shared,
    target: &str,
    connection: &Connection,
    epoch: Epoch,
    until: Instant,
    call: wire::session_call::Call,
) -> Result<(Epoch, wire::session_answer::Answer), Failure> {
    let outcome = match connection.session(|| shared.header(Epoch::ZERO)) {
        Some(session) => session.call(epoch.0, timeout_ms(until), call).await,
        None => Err(Lost::Unsent),
    };
    answer(shared, target, connection, outcome)
}

/// How long a node may take over a call.
pub(crate) fn timeout_ms(until: Instant) -> u64 {
    let left = until.saturating_duration_since(Instant::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// What a call's outcome in the connection's session says.
pub(crate) fn answer(
    shared: &Shared,
    target: &str,
    connection: &Connection,
    outcome: Result<Answered, Lost>,
) -> Result<(Epoch, wire::session_answer::Answer), Failure> {
    let answered = match outcome {
        Ok(answered) => answered,
        Err(Lost::Ended(status)) => return Err(failed(shared, target, connection, &status)),
        Err(Lost::Unsent) => {
            shared.channels.forget(target, connection);
            return Err(Failure::not_connected(target, "the connection broke before the call was sent"));
        }
    };
    let error = match answered.answer {
        wire::session_answer::Answer::Error(detail) => detail,
        answer => {
            shared.check_cluster(answered.cluster, target).map_err(|failure| match answer {
                // The write was applied, so that who answered proves nothing against it.
                wire::session_answer::Answer::Write(_) => Failure::no_answer(target, &failure.error.message),
                _ => failure,
            })?;
            return Ok((Epoch(answered.epoch), answer));
        }
    };
    let message = error.message.clone();
    let error =
        CallError::from_detail(error).unwrap_or_else(|| CallError::new(ErrorKind::OutcomeUnknown, message));
    Err(Failure::told(target, error))
}

/// What a status says; a connection that broke is forgotten.
pub(crate) fn failed(shared: &Shared, target: &str, connection: &Connection, status: &Status) -> Failure {
    let failure = Failure::from_status(target, status);
    if !failure.connected || (failure.error.kind == ErrorKind::OutcomeUnknown && status.details().is_empty())
    {
        shared.channels.forget(target, connection);
    }
    failure
}
