//! The clients' service: checks what comes in, hands it to [`read`](super::read), [`write`](super::write) or
//! [`scan`](super::scan), and puts the answer into words.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use craq_proto::{
    CallError, Epoch, ErrorKind, Key, RequestId, Seq, Value, entry::Found, key::SizeError, wire,
    wire::kv_server::Kv,
};
use futures::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status};

use super::{
    Door,
    call::Deadline,
    read::{Answer, Freshness, read},
    scan::{Page, Range, page},
    session,
    write::{Applied, Order, change, write},
};
use crate::{
    driver::Chain,
    node::Node,
    replica::{
        Look,
        event::{Change, Input},
    },
    status,
};

/// Serves `craq.v1.Kv`.
pub(super) struct KvService {
    door: Door,
}

impl KvService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<wire::ReadReply>, Status> {
        let node = self.door.node()?;
        let _admitted = node.admission.admit()?;
        let deadline = Deadline::of(request.metadata());
        let request = request.into_inner();
        let chain = named_chain(node, request.header)?;
        let key = key(request.key)?;
        let fresh = freshness(request.consistency, request.bound_ms, request.min_seq)?;
        let answer = read(chain, &key, fresh, deadline).await?;
        let header = Some(reply_header(node, chain));
        Ok(Response::new(wire::ReadReply { header, ..read_reply(answer) }))
    }

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        write_one(self.door.node()?, request).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        let node = self.door.node()?;
        let _admitted = node.admission.admit()?;
        let deadline = Deadline::of(request.metadata());
        let mut request = request.into_inner();
        let chain = named_chain(node, request.header.take())?;
        let wish = Wish::to_delete(request)?;
        let applied = see_through(node, chain, wish, deadline).await?;
        let header = Some(reply_header(node, chain));
        Ok(Response::new(wire::WriteReply { header, ..write_reply(applied) }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<wire::SessionReply, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<tonic::Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = Arc::clone(self.door.node()?);
        Ok(Response::new(Box::pin(session::open(node, request.into_inner()))))
    }

    type ScanStream = Pin<Box<dyn Stream<Item = Result<wire::Page, Status>> + Send>>;

    async fn scan(&self, request: Request<wire::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let node = self.door.node()?;
        let admitted = node.admission.admit()?;
        let request = request.into_inner();
        let chain = Arc::clone(named_chain(node, request.header)?);
        let fresh = freshness(request.consistency, request.bound_ms, request.min_seq)?;
        for bound in [&request.start, &request.end] {
            if !bound.is_empty() {
                key(bound.clone())?;
            }
        }
        let range = Range {
            start: request.start,
            end: Some(request.end).filter(|end| !end.is_empty()),
            limit: Some(request.limit).filter(|limit| *limit > 0),
            keys_only: request.keys_only,
        };
        let scan = Scan { node: Arc::clone(node), chain, fresh, _admitted: admitted };
        let pages = stream::try_unfold((scan, Some(range)), |(scan, range)| async move {
            let Some(range) = range else { return Ok(None) };
            let page = page(&scan.chain, &range, scan.fresh, Deadline::of_part()).await?;
            let rest = range.after(&page);
            let reply = scan.reply(page, rest.is_some());
            Ok::<_, Status>(Some((reply, (scan, rest))))
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn get_node_status(
        &self,
        request: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatus>, Status> {
        let node = self.door.node()?;
        node.me.check(request.into_inner().header)?;
        Ok(Response::new(status::node_status(node).await?))
    }
}

/// A range that is being read.
struct Scan {
    node: Arc<Node>,
    chain: Arc<Chain>,
    fresh: Freshness,
    _admitted: OwnedSemaphorePermit,
}

impl Scan {
    fn reply(&self, page: Page, has_more: bool) -> wire::Page {
        let next = page.next.filter(|_| has_more);
        wire::Page {
            header: Some(reply_header(&self.node, &self.chain)),
            items: page.items,
            seq: page.seq.0,
            next: next.map(|key| key.as_bytes().clone()).unwrap_or_default(),
        }
    }
}

/// Writes one key, for the clients' service and for the coordinator's.
pub(super) async fn write_one(
    node: &Arc<Node>,
    request: Request<wire::WriteRequest>,
) -> Result<Response<wire::WriteReply>, Status> {
    let _admitted = node.admission.admit()?;
    let deadline = Deadline::of(request.metadata());
    let mut request = request.into_inner();
    let chain = named_chain(node, request.header.take())?;
    let wish = Wish::to_write(node, request)?;
    let applied = see_through(node, chain, wish, deadline).await?;
    let header = Some(reply_header(node, chain));
    Ok(Response::new(wire::WriteReply { header, ..write_reply(applied) }))
}

/// A change that a client wants, checked.
pub(super) struct Wish {
    change: Change,
    id: Option<RequestId>,
    handed_on: bool,
}

impl Wish {
    pub(super) fn to_write(node: &Node, request: wire::WriteRequest) -> Result<Self, CallError> {
        let value = Value::new(request.value, node.value_bytes_max).map_err(size_error)?;
        let change = change(key(request.key)?, Some(value), request.if_version, request.checksum)?;
        let id = request.request_id.map(RequestId::try_from).transpose()?;
        Ok(Self { change, id, handed_on: request.handed_on })
    }

    pub(super) fn to_delete(request: wire::DeleteRequest) -> Result<Self, CallError> {
        let change = change(key(request.key)?, None, request.if_version, None)?;
        let id = request.request_id.map(RequestId::try_from).transpose()?;
        Ok(Self { change, id, handed_on: request.handed_on })
    }
}

/// Sees a write through, under the client's id or one of this node's.
pub(super) async fn see_through(
    node: &Node,
    chain: &Arc<Chain>,
    wish: Wish,
    deadline: Deadline,
) -> Result<Applied, CallError> {
    let Wish { change, id, handed_on } = wish;
    if let Some(request) = id {
        return write(node, chain, Order { change, request, is_own_id: false, handed_on }, deadline).await;
    }
    let request = node.request_ids.take(commit(chain, &change.key));
    let outcome = write(node, chain, Order { change, request, is_own_id: true, handed_on }, deadline).await;
    if outcome.as_ref().map_or_else(|error| error.kind.is_certain(), |_| true) {
        node.request_ids.give_back(request);
    }
    outcome
}

/// What this node knows to be committed.
fn commit(chain: &Chain, key: &Key) -> Seq {
    match chain.reader.weak(crate::clock::now(), key.as_ref(), None, Seq::ZERO) {
        Look::Serve { commit, .. } => commit,
        Look::Dirty | Look::Refused(_) => Seq::ZERO,
    }
}

/// Without a header.
pub(super) fn read_reply(answer: Answer) -> wire::ReadReply {
    let found = answer.found.is_some();
    let found_value = answer.found.unwrap_or(Found {
        value: Bytes::new(),
        version: answer.position.map(|position| position.version).unwrap_or_default(),
        seq: answer.position.map(|position| position.seq).unwrap_or_default(),
        checksum: 0,
    });
    wire::ReadReply {
        header: None,
        found,
        value: found_value.value,
        version: found_value.version.0,
        seq: found_value.seq.0,
        checksum: found_value.checksum,
        path: answer.path as i32,
        commit: answer.commit.0,
    }
}

/// Without a header.
pub(super) fn write_reply(applied: Applied) -> wire::WriteReply {
    wire::WriteReply { header: None, version: applied.version.0, seq: applied.seq.0 }
}

fn reply_header(node: &Node, chain: &Chain) -> wire::Header {
    node.me.header(&chain.id, chain.epoch())
}

/// The chain that a client's message is about, if the two agree on the epoch or the client names none.
fn named_chain(node: &Node, header: Option<wire::Header>) -> Result<&Arc<Chain>, CallError> {
    let header = node.me.check(header)?;
    let chain = node.chain(&header.chain)?;
    check_epoch(chain, header.epoch)?;
    Ok(chain)
}

/// Refuses what is asked in another epoch; zero stands for any.
pub(super) fn check_epoch(chain: &Chain, asked: Epoch) -> Result<(), CallError> {
    let view = chain.view();
    let own = view.as_ref().map(|view| view.epoch).unwrap_or_default();
    if asked == Epoch::ZERO || asked == own {
        return Ok(());
    }
    if asked > own {
        chain.note(Input::NewerEpoch { epoch: asked });
    }
    let text = format!("asked in epoch {asked}, this node is in epoch {own} of chain {}", chain.id);
    Err(CallError::new(ErrorKind::WrongEpoch, text).with_view(view.as_deref().cloned()))
}

pub(super) fn key(bytes: Bytes) -> Result<Key, CallError> {
    Key::new(bytes).map_err(size_error)
}

fn size_error(error: SizeError) -> CallError {
    let kind = match error {
        SizeError::EmptyKey => ErrorKind::Invalid,
        SizeError::KeyTooLong(_) | SizeError::ValueTooLong { .. } => ErrorKind::ResourceExhausted,
    };
    CallError::new(kind, error.to_string())
}

pub(super) fn freshness(consistency: i32, bound_ms: u64, min_seq: u64) -> Result<Freshness, CallError> {
    let consistency = wire::Consistency::try_from(consistency)
        .map_err(|_| CallError::invalid(format!("consistency {consistency} is not known to this version")))?;
    let bound = match consistency {
        wire::Consistency::Bounded if bound_ms == 0 => {
            return Err(CallError::invalid("a bounded read names its bound_ms, at least 1"));
        }
        wire::Consistency::Bounded => Some(Duration::from_millis(bound_ms)),
        wire::Consistency::Strong | wire::Consistency::Eventual => None,
    };
    Ok(Freshness { strong: consistency == wire::Consistency::Strong, bound, min_seq: Seq(min_seq) })
}

#[cfg(test)]
mod tests {
    use craq_proto::key::KEY_BYTES_MAX;

    use super::*;

    #[test]
    fn what_is_too_large_is_told_apart_from_what_is_malformed() {
        assert_eq!(key(Bytes::new()).unwrap_err().kind, ErrorKind::Invalid);
        assert!(key(vec![0; KEY_BYTES_MAX].into()).is_ok());
        let refused = key(vec![0; KEY_BYTES_MAX + 1].into()).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
        assert!(refused.message.contains("4096"), "the text names the limit: {refused}");
    }

    #[test]
    fn a_bounded_read_needs_a_bound_and_an_unknown_mode_is_refused() {
        let bounded = wire::Consistency::Bounded as i32;
        assert_eq!(freshness(bounded, 0, 0).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(freshness(bounded, 5, 0).unwrap().bound, Some(Duration::from_millis(5)));
        assert_eq!(freshness(99, 0, 0).unwrap_err().kind, ErrorKind::Invalid);
        assert!(freshness(0, 0, 0).unwrap().strong, "strong is what one gets by saying nothing");
    }
}
