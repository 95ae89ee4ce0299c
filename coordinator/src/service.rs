//! The gRPC face: decodes, submits to the loop, waits, encodes. It decides nothing but what is malformed and what
//! belongs to another cluster.

use std::{collections::BTreeMap, time::Duration};

use craq_proto::{
    CallError, ChainId, ClusterId, Epoch, ErrorKind, Incarnation,
    convert::Header,
    wire::{self, coordinator_server::Coordinator},
};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::{
    cluster::StreamId,
    convert,
    driver::{Command, Handle, Stopping, Told, Views},
    forward::Forwarder,
};

/// A node that opens a stream says who it is within this time.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The service.
#[derive(Debug)]
pub struct Service {
    cluster: ClusterId,
    /// This process, as it signs its messages.
    sender: Uuid,
    heartbeat_interval: Duration,
    handle: Handle,
    forwarder: Forwarder,
    /// Ends all streams when the process stops.
    stop: CancellationToken,
}

impl Service {
    /// A service that submits to this loop.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        heartbeat_interval: Duration,
        handle: Handle,
        stop: CancellationToken,
    ) -> Self {
        let (sender, forwarder) = (Uuid::new_v4(), Forwarder::default());
        Self { cluster, sender, heartbeat_interval, handle, forwarder, stop }
    }

    /// The header of a message, if it is well formed and not for another cluster.
    fn check(&self, header: Option<wire::Header>) -> Result<Header, CallError> {
        let header = Header::try_from(header)?;
        match header.cluster {
            Some(other) if other != self.cluster => {
                let text = format!("this is the coordinator of cluster {}, not of {other}", self.cluster);
                Err(CallError::new(ErrorKind::WrongCluster, text))
            }
            _ => Ok(header),
        }
    }

    fn signature(&self) -> Signature {
        Signature { cluster: self.cluster, sender: self.sender }
    }

    fn stopping(_: Stopping) -> CallError {
        CallError::unavailable("the coordinator is stopping")
    }

    async fn command(&self, chain: ChainId, command: Command) -> Result<Response<wire::AdminReply>, Status> {
        let done = self.handle.command(chain.clone(), command).await.map_err(Self::stopping)?;
        let epoch = done.map_err(convert::refusal)?;
        Ok(Response::new(wire::AdminReply { header: Some(self.signature().header(&chain, epoch)) }))
    }
}

/// Who signs the messages.
#[derive(Debug, Clone, Copy)]
struct Signature {
    cluster: ClusterId,
    sender: Uuid,
}

impl Signature {
    fn header(self, chain: &ChainId, epoch: Epoch) -> wire::Header {
        let header = Header {
            cluster: Some(self.cluster),
            chain: chain.clone(),
            epoch,
            sender: Some(self.sender),
            incarnation: Incarnation::ZERO,
        };
        (&header).into()
    }

    fn header_of(self, views: &[wire::View]) -> wire::Header {
        let epoch = if let [view] = views { Epoch(view.epoch) } else { Epoch::ZERO };
        self.header(&ChainId::default_chain(), epoch)
    }

    fn message(
        self,
        body: wire::coordinator_message::Body,
        views: &[wire::View],
    ) -> wire::CoordinatorMessage {
        wire::CoordinatorMessage { header: Some(self.header_of(views)), body: Some(body) }
    }
}

/// Which chains a caller wants: the named one, or all.
fn wanted(header: Option<&wire::Header>) -> Result<Option<ChainId>, CallError> {
    match header.map(|header| header.chain.as_str()) {
        None | Some("") => Ok(None),
        Some(name) => Ok(Some(craq_proto::convert::chain_id(name.to_owned())?)),
    }
}

fn of_chain(views: &Views, wanted: Option<&ChainId>) -> Vec<wire::View> {
    let views = views.values().filter(|view| wanted.is_none_or(|chain| view.chain == *chain));
    views.map(wire::View::from).collect()
}

/// The newest views now and whenever one of them changes, until `ended`. Whoever is slow misses those in between.
fn changes(
    views: watch::Receiver<Views>,
    wanted: Option<ChainId>,
    ended: CancellationToken,
) -> impl Stream<Item = Vec<wire::View>> + Send {
    let sent: BTreeMap<String, u64> = BTreeMap::new();
    stream::unfold((views, wanted, ended, sent), |(mut views, wanted, ended, mut sent)| async move {
        loop {
            let mut fresh = of_chain(&views.borrow_and_update(), wanted.as_ref());
            fresh.retain(|view| sent.insert(view.chain.clone(), view.epoch) != Some(view.epoch));
            if !fresh.is_empty() {
                return Some((fresh, (views, wanted, ended, sent)));
            }
            tokio::select! {
                changed = views.changed() => changed.ok()?,
                () = ended.cancelled() => return None,
            }
        }
    })
}

/// Passes what a node says on to the loop, until the stream ends.
async fn listen(
    handle: Handle,
    stream: StreamId,
    mut incoming: Streaming<wire::NodeMessage>,
    ended: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = ended.cancelled() => break,
        };
        let told = match message {
            Ok(Some(message)) => told(message),
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%status, "a node's stream broke");
                break;
            }
        };
        match told {
            Ok(told) => {
                if handle.told(stream, told).await.is_err() {
                    break;
                }
            }
            Err(malformed) => {
                tracing::warn!(%malformed, "closed a node's stream");
                break;
            }
        }
    }
    ended.cancel();
    // When the loop has ended, nobody is left to be told.
    let _ = handle.told(stream, Told::Broke).await;
}

fn told(message: wire::NodeMessage) -> Result<Told, craq_proto::convert::Malformed> {
    use wire::node_message::Body;
    match message.body {
        Some(Body::Heartbeat(heartbeat)) => Ok(Told::Heartbeat(
            convert::replicas(heartbeat.replicas)?,
            convert::suspicions(heartbeat.suspicions)?,
        )),
        Some(Body::Leave(_)) => Ok(Told::Leave),
        Some(Body::Register(_)) => {
            Err(craq_proto::convert::Malformed::Bad { field: "body", expected: "heartbeat or leave" })
        }
        None => Err(craq_proto::convert::Malformed::Missing("body")),
    }
}

#[tonic::async_trait]
impl Coordinator for Service {
    type RegisterStream = BoxStream<'static, Result<wire::CoordinatorMessage, Status>>;
    type WatchViewsStream = BoxStream<'static, Result<wire::GetViewReply, Status>>;

    async fn register(
        &self,
        request: Request<Streaming<wire::NodeMessage>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        use wire::{coordinator_message::Body, node_message};
        let mut incoming = request.into_inner();
        let first = timeout(FIRST_MESSAGE_TIMEOUT, incoming.message()).await;
        let first =
            first.map_err(|_| CallError::invalid("no message came: the first one must be Register"))??;
        let first = first.ok_or_else(|| CallError::invalid("the stream ended before its first message"))?;
        let header = self.check(first.header)?;
        let Some(node_message::Body::Register(register)) = first.body else {
            return Err(CallError::invalid("the first message must be Register").to_status());
        };
        let registration = convert::registration(&header, register)?;
        let ended = self.stop.child_token();
        let accepted = self.handle.register(registration, ended.clone()).await.map_err(Service::stopping)?;
        let stream = accepted.map_err(CallError::invalid)?;
        tokio::spawn(listen(self.handle.clone(), stream, incoming, ended.clone()));

        let signature = self.signature();
        let heartbeat_interval_ms = u64::try_from(self.heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
        let registered = Body::Registered(wire::Registered { heartbeat_interval_ms });
        let first = stream::iter([signature.message(registered, &[])]);
        let views = changes(self.handle.views(), None, ended).map(move |views| {
            let header = signature.header_of(&views);
            wire::CoordinatorMessage { header: Some(header), body: Some(Body::Views(wire::Views { views })) }
        });
        Ok(Response::new(first.chain(views).map(Ok).boxed()))
    }

    async fn get_view(
        &self,
        request: Request<wire::GetViewRequest>,
    ) -> Result<Response<wire::GetViewReply>, Status> {
        let header = request.into_inner().header;
        let wanted = wanted(header.as_ref())?;
        self.check(header)?;
        let views = of_chain(&self.handle.views().borrow(), wanted.as_ref());
        Ok(Response::new(wire::GetViewReply { header: Some(self.signature().header_of(&views)), views }))
    }

    async fn watch_views(
        &self,
        request: Request<wire::WatchViewsRequest>,
    ) -> Result<Response<Self::WatchViewsStream>, Status> {
        let header = request.into_inner().header;
        let wanted = wanted(header.as_ref())?;
        self.check(header)?;
        let signature = self.signature();
        let views = changes(self.handle.views(), wanted, self.stop.child_token());
        let replies =
            views.map(move |views| wire::GetViewReply { header: Some(signature.header_of(&views)), views });
        Ok(Response::new(replies.map(Ok).boxed()))
    }

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        let request = request.into_inner();
        let header = self.check(request.header.clone())?;
        let view = self.handle.views().borrow().get(&header.chain).cloned();
        let Some(view) = view else {
            return Err(
                CallError::unavailable(format!("chain {} has no member yet", header.chain)).to_status()
            );
        };
        self.forwarder.write(&view, request).await.map(Response::new)
    }

    async fn get_status(
        &self,
        request: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusReply>, Status> {
        let header = request.into_inner().header;
        let wanted = wanted(header.as_ref())?;
        self.check(header)?;
        let status = self.handle.status().await.map_err(Service::stopping)?;
        let chains = status.chains.into_iter().filter(|c| wanted.as_ref().is_none_or(|w| c.chain == *w));
        Ok(Response::new(wire::GetStatusReply {
            header: Some(self.signature().header_of(&[])),
            chains: chains.map(convert::chain_status).collect(),
            spares: status.spares.into_iter().map(convert::spare_node).collect(),
            source: "coordinator".to_owned(),
        }))
    }

    async fn remove_node(
        &self,
        request: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::AdminReply>, Status> {
        let request = request.into_inner();
        let header = self.check(request.header)?;
        let node = convert::node(&request.node)?;
        self.command(header.chain, Command::Remove(node, request.accept_data_loss)).await
    }

    async fn reorder(
        &self,
        request: Request<wire::ReorderRequest>,
    ) -> Result<Response<wire::AdminReply>, Status> {
        let request = request.into_inner();
        let header = self.check(request.header)?;
        let order = convert::nodes(&request.order)?;
        self.command(header.chain, Command::Reorder(order)).await
    }
}
