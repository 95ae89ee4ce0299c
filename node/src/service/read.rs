//! Reading one key: plan, read the store, check that the answer may still be given, answer (`protocol.md` 5).
//!
//! A clean key is read on the caller's own task without a handover. A dirty one is handed to the replica, which asks the
//! tail. What cannot be answered now is tried again until the call's deadline.

use std::time::Duration;

use craq_proto::{CallError, ErrorKind, Key, Seq, View, entry::Found, wire::ReadPath};

use super::call::{Deadline, Patience, late};
use crate::{
    clock,
    driver::Chain,
    fatal,
    replica::{
        Look, Permit,
        event::{Input, Position, Reply},
    },
    store::History,
};

/// How fresh an answer has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freshness {
    /// Linearizable.
    pub(super) strong: bool,
    /// Heard from the chain within this time.
    pub(super) bound: Option<Duration>,
    /// Of a replica that knows the log up to here.
    pub(super) min_seq: Seq,
}

/// The answer to a read.
#[derive(Debug)]
pub(super) struct Answer {
    /// The value, if the key exists.
    pub(super) found: Option<Found>,
    /// The newest version, if one is known: a tombstone's if the key is deleted.
    pub(super) position: Option<Position>,
    /// How it was come by.
    pub(super) path: ReadPath,
    /// The replica's commit.
    pub(super) commit: Seq,
}

/// A read that may be answered if its permit holds after the store was read.
struct Plan {
    history: History,
    position: Option<Position>,
    permit: Permit,
    path: ReadPath,
    commit: Seq,
}

/// Reads the key.
pub(super) async fn read(
    chain: &Chain,
    key: &Key,
    fresh: Freshness,
    deadline: Deadline,
) -> Result<Answer, CallError> {
    let mut patience = Patience::new(deadline);
    loop {
        let refused = match attempt(chain, key, fresh, deadline).await {
            Err(error) if error.kind == ErrorKind::Unavailable => error,
            decided => return decided,
        };
        if !patience.wait().await {
            return Err(with_newest_view(chain, refused));
        }
    }
}

/// Reads a clean key at once. None: it is dirty, or can't be answered at the moment.
pub(super) fn read_now(chain: &Chain, key: &Key, fresh: Freshness) -> Option<Answer> {
    let plan = look(chain, key, fresh)?.ok()?;
    complete(chain, key, fresh, plan).ok()
}

async fn attempt(
    chain: &Chain,
    key: &Key,
    fresh: Freshness,
    deadline: Deadline,
) -> Result<Answer, CallError> {
    let plan = match look(chain, key, fresh) {
        Some(plan) => plan?,
        None => ask_tail(chain, key, deadline).await?,
    };
    complete(chain, key, fresh, plan)
}

/// Reads the store as planned.
fn complete(chain: &Chain, key: &Key, fresh: Freshness, plan: Plan) -> Result<Answer, CallError> {
    if plan.commit < fresh.min_seq {
        let text = format!("this replica knows the log up to {}, not to {}", plan.commit, fresh.min_seq);
        return Err(CallError::unavailable(text));
    }
    let position = plan.position.filter(|position| !position.deleted);
    let recent = position.and_then(|position| chain.store.recent(plan.history, key, position));
    let news = match (&recent, position) {
        (None, Some(position)) => Some((position, look_up(chain, key, position)?)),
        _ => None,
    };
    still_fresh(chain, key, fresh, plan.permit)?;
    if let Some((position, found)) = &news {
        chain.store.keep(plan.history, key, *position, found);
    }
    chain.reads.answered(plan.path, fresh.strong);
    let found = recent.or(news.map(|(_, found)| found));
    Ok(Answer { found, position: plan.position, path: plan.path, commit: plan.commit })
}

/// What this replica alone can plan; none: the key is dirty.
fn look(chain: &Chain, key: &Key, fresh: Freshness) -> Option<Result<Plan, CallError>> {
    let history = chain.store.history();
    let look = if fresh.strong {
        chain.reader.strong(clock::now(), key.as_ref())
    } else {
        chain.reader.weak(clock::now(), key.as_ref(), fresh.bound, fresh.min_seq)
    };
    match look {
        Look::Serve { position, permit, commit, at_tail } => {
            let path = if at_tail { ReadPath::AtTail } else { ReadPath::Clean };
            Some(Ok(Plan { history, position, permit, path, commit }))
        }
        Look::Dirty => None,
        Look::Refused(error) => Some(Err(error)),
    }
}

async fn ask_tail(chain: &Chain, key: &Key, deadline: Deadline) -> Result<Plan, CallError> {
    // Before the question: an answer of another epoch is not given.
    let history = chain.store.history();
    let permit = chain.reader.permit(clock::now())?;
    let question = chain.ask(|ticket| Input::Read { ticket, key: key.clone() });
    let answer = deadline.bound(question).await.ok_or_else(late)??;
    match answer.reply {
        Reply::Serve { position, commit, asked } => {
            let path = if asked { ReadPath::AskedTail } else { ReadPath::AwaitedCommit };
            Ok(Plan { history, position, permit, path, commit })
        }
        Reply::Refused(error) => Err(error),
        other => Err(CallError::unavailable(format!("a read was answered with {other:?}"))),
    }
}

/// What the store holds at the position; none: it was overwritten.
fn look_up(chain: &Chain, key: &Key, position: Position) -> Result<Found, CallError> {
    let found = chain.store.find(key, position).unwrap_or_else(|error| fatal::exit(&error.into()));
    // There is something newer then, which the next look finds.
    found.ok_or_else(|| CallError::unavailable("the version was overwritten and swept while it was read"))
}

/// The process may have been paused since the plan was made: asked with a time read now.
fn still_fresh(chain: &Chain, key: &Key, fresh: Freshness, permit: Permit) -> Result<(), CallError> {
    if !may_answer(chain, permit) {
        return Err(CallError::unavailable("the read lease lapsed while the key was read"));
    }
    if fresh.bound.is_some()
        && let Look::Refused(error) =
            chain.reader.weak(clock::now(), key.as_ref(), fresh.bound, fresh.min_seq)
    {
        return Err(error);
    }
    Ok(())
}

/// Whether what was planned under the permit may be answered now.
pub(super) fn may_answer(chain: &Chain, permit: Permit) -> bool {
    chain.reader.holds(clock::now(), permit) && !fatal::is_ending()
}

/// A refusal that says "not here" or "not now" helps more with the view under which to try again; others need none.
pub(super) fn with_newest_view(chain: &Chain, error: CallError) -> CallError {
    use ErrorKind::{NotHead, OutcomeUnknown, Unavailable, WrongEpoch};
    if !matches!(error.kind, NotHead | OutcomeUnknown | Unavailable | WrongEpoch) {
        return error;
    }
    let newest = chain.view();
    let known = error.view.as_ref().map(|view| view.epoch);
    match newest {
        Some(view) if known < Some(view.epoch) => error.with_view(Some(View::clone(&view))),
        _ => error,
    }
}
