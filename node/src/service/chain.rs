//! The other nodes' service: links, transfers, pings and questions to the tail. Whoever is of another cluster, or does
//! not say who it is, is refused here; everything else is the replica's to judge.

use std::{pin::Pin, sync::Arc};

use craq_proto::{CallError, ChainId, Epoch, Key, NodeId, wire, wire::chain_server::Chain};
use futures::{Stream, StreamExt, future::join_all};
use tonic::{Request, Response, Status, Streaming};

use super::{Door, read::may_answer};
use crate::{
    clock,
    limits::{LINK_OPEN_TIMEOUT, QUESTION_KEYS_MAX, QUESTION_TIMEOUT},
    node::Node,
    peers,
    replica::event::{Input, LinkKind, Position},
};

/// Serves `craq.v1.Chain`.
pub(super) struct ChainService {
    door: Door,
}

type Words = Pin<Box<dyn Stream<Item = Result<wire::LinkMessage, Status>> + Send>>;

impl ChainService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }

    async fn accept(
        &self,
        kind: LinkKind,
        mut heard: Streaming<wire::LinkMessage>,
    ) -> Result<Response<Words>, Status> {
        let first = tokio::time::timeout(LINK_OPEN_TIMEOUT, heard.message()).await;
        let first = first.map_err(|_| CallError::invalid("a link was opened and nothing said on it"))??;
        let first = first.ok_or_else(|| CallError::invalid("a link was opened and closed"))?;
        let node = self.door.node()?;
        let (header, sender) = node.me.check_peer(first.header)?;
        let chain = node.chain(&header.chain)?;
        let Some(wire::link_message::Body::Open(wire::Open {})) = first.body else {
            return Err(CallError::invalid("the first message on a link is Open").into());
        };
        let me = Arc::clone(&node.me);
        let words = peers::accept_link(me, Arc::clone(chain), &header, sender, kind, heard).await;
        let closing = node.closing.clone();
        Ok(Response::new(Box::pin(words.map(Ok).take_until(closing.cancelled_owned()))))
    }
}

#[tonic::async_trait]
impl Chain for ChainService {
    type LinkStream = Words;

    async fn link(
        &self,
        request: Request<Streaming<wire::LinkMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        self.accept(LinkKind::Chain, request.into_inner()).await
    }

    type TransferStream = Words;

    async fn transfer(
        &self,
        request: Request<Streaming<wire::LinkMessage>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        self.accept(LinkKind::Transfer, request.into_inner()).await
    }

    async fn latest_versions(
        &self,
        request: Request<wire::LatestVersionsRequest>,
    ) -> Result<Response<wire::LatestVersionsReply>, Status> {
        let request = request.into_inner();
        let node = self.door.node()?;
        let (header, _) = node.me.check_peer(request.header)?;
        let chain = node.chain(&header.chain)?;
        if request.keys.len() > QUESTION_KEYS_MAX {
            let text = format!("{} keys are asked for; {QUESTION_KEYS_MAX} are allowed", request.keys.len());
            return Err(CallError::invalid(text).into());
        }
        let keys: Vec<Key> = request
            .keys
            .into_iter()
            .map(Key::new)
            .collect::<Result<_, _>>()
            .map_err(|error| CallError::invalid(error.to_string()))?;
        let (answer, permit) = chain.reader.latest_versions(clock::now(), header.epoch, &keys)?;
        let version = |position: Option<Position>| {
            position.map_or_else(wire::LatestVersion::default, |position| wire::LatestVersion {
                seq: position.seq.0,
                index: position.index,
                version: position.version.0,
                deleted: position.deleted,
            })
        };
        let reply = wire::LatestVersionsReply {
            header: Some(node.me.header(&chain.id, header.epoch)),
            versions: answer.versions.into_iter().map(version).collect(),
            commit: answer.commit.0,
        };
        if !may_answer(chain, permit) {
            return Err(CallError::unavailable("the tail's lease lapsed while it answered").into());
        }
        Ok(Response::new(reply))
    }

    async fn ping(&self, request: Request<wire::PingRequest>) -> Result<Response<wire::PingReply>, Status> {
        let request = request.into_inner();
        let node = self.door.node()?;
        let (_, from) = node.me.check_peer(request.header)?;
        for released in request.released {
            if let Ok(id) = released.chain.parse::<ChainId>()
                && let Ok(chain) = node.chain(&id)
            {
                chain.tell(Input::Released { by: from, epoch: Epoch(released.epoch) }).await;
            }
        }
        let promises = request.chains.into_iter().map(|asked| promise(node, from, asked));
        let answered = tokio::time::timeout(QUESTION_TIMEOUT, join_all(promises)).await;
        let answers = answered.map_err(|_| CallError::unavailable("this node is too busy to promise"))?;
        let (granted, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().flatten().partition(|(_, is_promised)| *is_promised);
        let epochs = |answers: Vec<(wire::ChainEpoch, bool)>| answers.into_iter().map(|(epoch, _)| epoch);
        Ok(Response::new(wire::PingReply {
            header: Some(node.me.bare_header()),
            granted: epochs(granted).collect(),
            refused: epochs(refused).collect(),
        }))
    }
}

/// The answer to one chain's part of a ping: the epoch, and whether it was promised.
async fn promise(node: &Node, from: NodeId, asked: wire::ChainEpoch) -> Option<(wire::ChainEpoch, bool)> {
    let id: ChainId = asked.chain.parse().ok()?;
    let Ok(chain) = node.chain(&id) else {
        return Some((wire::ChainEpoch { chain: asked.chain, epoch: 0 }, false));
    };
    match chain.ask_promise(from, Epoch(asked.epoch)).await.ok()? {
        None => Some((asked, true)),
        Some(own) => Some((wire::ChainEpoch { chain: asked.chain, epoch: own.0 }, false)),
    }
}
