//! Writing one key: submit it here if this is the head, else hand it on to the head; and again, with the same request id,
//! while the chain changes, until the call's deadline.
//!
//! What is told at last is what is known: applied, certainly not applied, or neither. Once one attempt may have been
//! applied, no later refusal makes that certain again, since the attempt may still be on its way.

use std::sync::Arc;

use craq_proto::{
    CallError, ErrorKind, Key, Member, RequestId, Seq, Value, Version, View, entry::checksum, wire,
};
use tonic::{Request, Status};

use super::{
    call::{Deadline, Patience, late},
    read::{may_answer, with_newest_view},
};
use crate::{
    driver::Chain,
    node::Node,
    peers::{Failure, Lane, reason},
    replica::event::{Change, Condition, Input, Reply, Write},
};

/// A write as it came, checked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) change: Change,
    pub(super) request: RequestId,
    /// The id is one of this node's, so that nobody else has ever sent it.
    pub(super) is_own_id: bool,
    /// Another node has handed it on: it goes no further.
    pub(super) handed_on: bool,
}

impl Order {
    /// The head has forgotten what became of requests so old. An own id that was never applied may be as young as the
    /// head wants it; who gave another one must say so himself.
    fn is_reborn(&mut self, error: &CallError) -> bool {
        let born = if self.is_own_id { error.reborn(self.request.born) } else { None };
        self.request.born = born.unwrap_or(self.request.born);
        born.is_some()
    }
}

/// What a write has made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    pub(super) seq: Seq,
    pub(super) version: Version,
}

/// An attempt that did not end well.
struct Failed {
    error: CallError,
    maybe_applied: bool,
}

impl Failed {
    fn certainly(error: CallError) -> Self {
        Self { error, maybe_applied: false }
    }

    fn perhaps(error: CallError) -> Self {
        Self { error, maybe_applied: true }
    }
}

/// Makes the change that a request asks for; refuses what is outside the limits.
pub(super) fn change(
    key: Key,
    value: Option<Value>,
    if_version: Option<u64>,
    sent_checksum: Option<u32>,
) -> Result<Change, CallError> {
    let own = checksum(key.as_ref(), value.as_ref().map_or(&[][..], |value| value.as_bytes()));
    if sent_checksum.is_some_and(|sent| sent != own) {
        return Err(CallError::invalid(format!("the checksum of key {key:?} does not match its value")));
    }
    let condition = match (if_version, &value) {
        (Some(version), Some(_)) => Condition::Version(Version(version)),
        (Some(0), None) => return Err(CallError::invalid("if_version of a deletion counts from 1")),
        (Some(version), None) => Condition::Version(Version(version)),
        (None, Some(_)) => Condition::Always,
        (None, None) => Condition::Exists,
    };
    Ok(Change { key, value, condition, checksum: own })
}

/// Sees the write through.
pub(super) async fn write(
    node: &Node,
    chain: &Arc<Chain>,
    mut order: Order,
    deadline: Deadline,
) -> Result<Applied, CallError> {
    let mut patience = Patience::new(deadline);
    let mut maybe_applied = false;
    loop {
        let failed = match attempt(node, chain, &order, deadline).await {
            Ok(applied) => return Ok(applied),
            Err(failed) => failed,
        };
        maybe_applied |= failed.maybe_applied;
        order.request.retry |= failed.maybe_applied;
        if !maybe_applied && order.is_reborn(&failed.error) {
            continue;
        }
        if !may_pass(failed.error.kind, order.handed_on) || !patience.wait().await {
            return Err(conclude(chain, failed.error, order.request, maybe_applied));
        }
    }
}

/// Whether the chain may answer otherwise in a moment.
fn may_pass(kind: ErrorKind, handed_on: bool) -> bool {
    match kind {
        ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::WrongEpoch => true,
        ErrorKind::NotHead => !handed_on,
        _ => false,
    }
}

fn conclude(chain: &Chain, error: CallError, request: RequestId, maybe_applied: bool) -> CallError {
    let error = with_newest_view(chain, error);
    if !maybe_applied || error.kind == ErrorKind::OutcomeUnknown {
        let request = error.request.or_else(|| maybe_applied.then_some(request));
        return CallError { request, ..error };
    }
    CallError {
        kind: ErrorKind::OutcomeUnknown,
        message: format!("an earlier attempt may have been applied; the last one said: {}", error.message),
        request: Some(request),
        ..error
    }
}

async fn attempt(
    node: &Node,
    chain: &Arc<Chain>,
    order: &Order,
    deadline: Deadline,
) -> Result<Applied, Failed> {
    let view = chain.view();
    let head = view.as_ref().and_then(|view| view.head());
    match head {
        Some(head) if head.node != node.me.node => {
            if order.handed_on {
                return Err(Failed::certainly(not_head(chain, view.as_deref())));
            }
            hand_on(node, chain, head, order, deadline).await
        }
        // Without a view the replica itself knows best what to say.
        _ => submit(chain, order, deadline).await,
    }
}

fn not_head(chain: &Chain, view: Option<&View>) -> CallError {
    let epoch = view.map(|view| view.epoch).unwrap_or_default();
    let text = format!("this node is not the head of chain {} in epoch {epoch}", chain.id);
    let head = view.and_then(View::head).map(|head| head.address.as_str().into());
    CallError { head, ..CallError::new(ErrorKind::NotHead, text).with_view(view.cloned()) }
}

/// Brings the write to this node's own replica.
async fn submit(chain: &Chain, order: &Order, deadline: Deadline) -> Result<Applied, Failed> {
    let write = Write { request: order.request, changes: vec![order.change.clone()] };
    let question = chain.ask(|ticket| Input::Write { ticket, write });
    let answer = match deadline.bound(question).await {
        Some(Ok(answer)) => answer,
        Some(Err(stopping)) => return Err(Failed::perhaps(stopping)),
        None => return Err(Failed::perhaps(late())),
    };
    if answer.permit.is_some_and(|permit| !may_answer(chain, permit)) {
        // What is told under a lease is a refusal: the write is not done.
        let text = "the read lease lapsed before the condition's outcome could be told";
        return Err(Failed::certainly(CallError::unavailable(text)));
    }
    match answer.reply {
        Reply::Applied { seq, versions } => {
            Ok(Applied { seq, version: versions.first().copied().unwrap_or_default() })
        }
        Reply::Refused(error) => Err(Failed { maybe_applied: !error.kind.is_certain(), error }),
        other => {
            let text = format!("a write was answered with {other:?}");
            Err(Failed::perhaps(CallError::unavailable(text)))
        }
    }
}

/// Sends the write to the head, which does not hand it on again. If another head takes over, the answer of this one is
/// not waited for: it may be long in coming.
async fn hand_on(
    node: &Node,
    chain: &Arc<Chain>,
    head: &Member,
    order: &Order,
    deadline: Deadline,
) -> Result<Applied, Failed> {
    let client = node.peers.kv(&head.address, Lane::Calls).map_err(Failed::certainly)?;
    let mut views = chain.views();
    let is_other = |view: &Option<Arc<View>>| {
        view.as_deref().and_then(View::head).is_some_and(|newest| newest.node != head.node)
    };
    let answer = async {
        tokio::select! {
            reply = send(node, chain, client, order, deadline) => Some(reply),
            _ = views.wait_for(is_other) => None,
        }
    };
    match deadline.bound(answer).await {
        Some(Some(Ok(reply))) => Ok(Applied { seq: Seq(reply.seq), version: Version(reply.version) }),
        Some(Some(Err(status))) => Err(refusal(chain, &head.address, &status)),
        Some(None) => {
            let text = format!("the head at {} was replaced before it answered", head.address);
            Err(Failed::perhaps(CallError::unavailable(text)))
        }
        None => Err(Failed::perhaps(late())),
    }
}

async fn send(
    node: &Node,
    chain: &Chain,
    mut client: wire::kv_client::KvClient<tonic::transport::Channel>,
    order: &Order,
    deadline: Deadline,
) -> Result<wire::WriteReply, Status> {
    // The head is asked whatever its epoch is: if it is the head, its epoch is the one that counts.
    let header = Some(node.me.header(&chain.id, craq_proto::Epoch::ZERO));
    let request_id = Some((&order.request).into());
    let key = order.change.key.as_bytes().clone();
    let if_version = match order.change.condition {
        Condition::Version(version) => Some(version.0),
        Condition::Always | Condition::Exists => None,
    };
    let reply = match &order.change.value {
        Some(value) => {
            let mut request = Request::new(wire::WriteRequest {
                header,
                key,
                value: value.as_bytes().clone(),
                if_version,
                request_id,
                checksum: Some(order.change.checksum),
                handed_on: true,
            });
            request.set_timeout(deadline.remaining());
            client.write(request).await
        }
        None => {
            let mut request =
                Request::new(wire::DeleteRequest { header, key, if_version, request_id, handed_on: true });
            request.set_timeout(deadline.remaining());
            client.delete(request).await
        }
    };
    reply.map(tonic::Response::into_inner)
}

/// What the head's refusal, or its silence, says about the write.
fn refusal(chain: &Chain, address: &str, status: &Status) -> Failed {
    let failure = Failure::of(status);
    if failure.is_before_arrival() {
        let text = format!("the head at {address} is not reached: {}", reason(status));
        return Failed::certainly(CallError::unavailable(text));
    }
    let error = CallError::from_status(status);
    if let Some(view) = &error.view {
        chain.note(Input::View(View::clone(view)));
    }
    // Without our own detail it is not known who speaks, or when the connection broke.
    if failure == Failure::Answered && !status.details().is_empty() && error.kind.is_certain() {
        return Failed::certainly(error);
    }
    let text = format!("the head at {address} did not say what became of it: {}", error.message);
    Failed::perhaps(CallError { message: text, ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    #[test]
    fn only_an_own_id_is_born_again() {
        let order = |is_own_id| {
            let client = craq_proto::ClientId(uuid::Uuid::from_u128(7));
            let request = RequestId { client, number: 1, floor: 1, born: Seq(3), retry: false };
            let change = change(key(), None, None, None).unwrap();
            Order { change, request, is_own_id, handed_on: false }
        };
        let forgotten =
            |born| CallError { born: Seq(born), ..CallError::new(ErrorKind::Forgotten, "too old") };
        let (mut own, mut foreign) = (order(true), order(false));
        assert!(!foreign.is_reborn(&forgotten(9)));
        assert!(!own.is_reborn(&CallError::unavailable("no lease")));
        assert!(own.is_reborn(&forgotten(9)));
        assert_eq!((foreign.request.born, own.request.born), (Seq(3), Seq(9)));
        assert!(!own.is_reborn(&forgotten(9)), "the same error again would be asked for without end");
    }

    #[test]
    fn a_condition_means_what_the_request_says() {
        let value = || Some(Value::new("v", 10).unwrap());
        let condition = |value, version| change(key(), value, version, None).map(|change| change.condition);
        assert_eq!(condition(value(), None), Ok(Condition::Always));
        assert_eq!(condition(value(), Some(0)), Ok(Condition::Version(Version(0))));
        assert_eq!(condition(None, None), Ok(Condition::Exists));
        assert_eq!(condition(None, Some(3)), Ok(Condition::Version(Version(3))));
        assert_eq!(condition(None, Some(0)).unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_value_that_was_damaged_on_its_way_is_refused() {
        let value = Some(Value::new("v", 10).unwrap());
        let right = checksum(b"k", b"v");
        assert!(change(key(), value.clone(), None, Some(right)).is_ok());
        assert_eq!(change(key(), value, None, Some(right ^ 1)).unwrap_err().kind, ErrorKind::Invalid);
    }
}
