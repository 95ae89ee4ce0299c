//! The gRPC face: decodes, submits to the loop, waits, encodes. It decides nothing but what is malformed and what
//! belongs to another cluster.

use std::{collections::BTreeMap, time::Duration};

use craq_proto::{
    CallError, ChainId, ClusterId, Epoch, ErrorKind, Incarnation, Term,
    convert::Header,
    wire::{self, coordinator_client::CoordinatorClient, coordinator_server::Coordinator},
};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue, transport::Channel};
use uuid::Uuid;

use crate::{
    cluster::StreamId,
    convert,
    driver::{Command, Handle, Stopping, Told, Turned, Views},
    forward::{Forwarder, WRITE_TIMEOUT, own_words},
};

/// A node that opens a stream says who it is within this time.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Says that a call comes from another coordinator, which took this one for the leader: it is not handed on again.
const HANDED_ON: &str = "craq-handed-on";

/// What the service is told about its process.
#[derive(Debug)]
pub struct Setup {
    /// The cluster.
    pub cluster: ClusterId,
    /// host:port at which this coordinator is reached.
    pub address: String,
    /// Where the log is, for people.
    pub data: String,
    /// The log's store, for its history.
    pub store: craq_log::Store,
    /// Who gives the leadership up on demand claims nothing for so long.
    pub rest: Duration,
    /// How often nodes are to say that they live.
    pub heartbeat_interval: Duration,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    setup: Setup,
    /// This process, as it signs its messages.
    sender: Uuid,
    handle: Handle,
    forwarder: Forwarder,
    /// Ends all streams when the process stops.
    stop: CancellationToken,
}

impl Service {
    /// A service that submits to this loop.
    #[must_use]
    pub fn new(setup: Setup, handle: Handle, stop: CancellationToken) -> Self {
        let (sender, forwarder) = (Uuid::new_v4(), Forwarder::default());
        Self { setup, sender, handle, forwarder, stop }
    }

    /// The header of a message, if it is well formed and not for another cluster.
    fn check(&self, header: Option<wire::Header>) -> Result<Header, CallError> {
        let header = Header::try_from(header)?;
        match header.cluster {
            Some(other) if other != self.setup.cluster => {
                let own = self.setup.cluster;
                let text = format!("this is a coordinator of cluster {own}, not of {other}");
                Err(CallError::new(ErrorKind::WrongCluster, text))
            }
            _ => Ok(header),
        }
    }

    fn signature(&self) -> Signature {
        Signature { cluster: self.setup.cluster, sender: self.sender }
    }

    fn stopping(_: Stopping) -> CallError {
        CallError::unavailable("the coordinator is stopping")
    }

    /// Carries the command out here, or has the leader do it by `hand_on`.
    async fn command<T, F>(
        &self,
        chain: ChainId,
        command: Command,
        came: Came<T>,
        hand_on: impl FnOnce(CoordinatorClient<Channel>, Request<T>) -> F,
    ) -> Result<Response<wire::AdminReply>, Status>
    where
        F: Future<Output = Result<Response<wire::AdminReply>, Status>>,
    {
        match self.handle.command(chain.clone(), command).await.map_err(Self::stopping)? {
            Ok(done) => {
                let epoch = done.map_err(convert::refusal)?;
                Ok(Response::new(wire::AdminReply { header: Some(self.signature().header(&chain, epoch)) }))
            }
            Err(turned) => self.hand_on(turned, came, hand_on).await,
        }
    }

    /// Has the leader answer, if it is known and the call does not come from a coordinator already.
    async fn hand_on<T, R, F>(
        &self,
        turned: Turned,
        came: Came<T>,
        call: impl FnOnce(CoordinatorClient<Channel>, Request<T>) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let leader = match turned {
            Turned::NotLeader(Some(leader)) if !came.handed_on && leader != self.setup.address => leader,
            turned => return Err(turned_away(turned).to_status()),
        };
        let client = self.forwarder.leader(&leader).await?;
        let mut request = Request::new(came.message);
        request.metadata_mut().insert(HANDED_ON, MetadataValue::from_static("1"));
        let why = match timeout(WRITE_TIMEOUT, call(client, request)).await {
            Ok(Ok(reply)) => return Ok(Response::new(reply.into_inner())),
            Ok(Err(status)) => match own_words(&status) {
                Some(said) => return Err(said),
                None => status.message().to_owned(),
            },
            Err(_) => "it does not answer".to_owned(),
        };
        self.forwarder.forget(&leader);
        let text = format!("it was sent to the leader at {leader}, and its outcome is unknown: {why}");
        Err(CallError::new(ErrorKind::OutcomeUnknown, text).to_status())
    }

    async fn leadership(&self) -> Result<wire::GetLeadershipReply, Status> {
        let status = self.handle.leadership().await.map_err(Self::stopping)?;
        let seen = status.seen;
        Ok(wire::GetLeadershipReply {
            header: Some(self.signature().header_of(&[])),
            leads: status.leads,
            term: seen.term.0,
            leader: seen.holder.map(|holder| holder.address).unwrap_or_default(),
            since: seen.since,
            store_micros: u64::try_from(status.store_took.as_micros()).unwrap_or(u64::MAX),
            records: seen.records,
            data: self.setup.data.clone(),
        })
    }
}

/// A call that may have to be handed on.
struct Came<T> {
    message: T,
    /// Another coordinator has handed it on.
    handed_on: bool,
}

impl<T: Clone> Came<T> {
    fn new(request: &Request<T>) -> Self {
        Self { message: request.get_ref().clone(), handed_on: request.metadata().contains_key(HANDED_ON) }
    }
}

fn turned_away(turned: Turned) -> CallError {
    match turned {
        Turned::Refused(reason) => CallError::invalid(reason),
        Turned::NotLeader(leader) => CallError::not_leader(leader),
        Turned::Unknown => {
            let text = "this coordinator leads no longer, and whether the order was carried out is unknown";
            CallError::new(ErrorKind::OutcomeUnknown, text)
        }
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
        term: Term,
        body: wire::coordinator_message::Body,
        views: &[wire::View],
    ) -> wire::CoordinatorMessage {
        wire::CoordinatorMessage { header: Some(self.header_of(views)), body: Some(body), term: term.0 }
    }
}

/// Which chains a caller wants: the named one, or all.
fn wanted(header: Option<&wire::Header>) -> Result<Option<ChainId>, CallError> {
    match header.map(|header| header.chain.as_str()) {
        None | Some("") => Ok(None),
        Some(name) => Ok(Some(craq_proto::convert::chain_id(name.to_owned())?)),
    }
}

/// Whether a caller who wants this chain, or all, wants this one.
fn is_wanted(wanted: Option<&ChainId>, chain: &ChainId) -> bool {
    wanted.is_none_or(|wanted| wanted == chain)
}

fn of_chain(views: &Views, wanted: Option<&ChainId>) -> Vec<wire::View> {
    let views = views.values().filter(|view| is_wanted(wanted, &view.chain));
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
    type GetHistoryStream = BoxStream<'static, Result<wire::HistoryEntry, Status>>;

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
        let (stream, term) = accepted.map_err(turned_away)?;
        tokio::spawn(listen(self.handle.clone(), stream, incoming, ended.clone()));

        let signature = self.signature();
        let heartbeat_interval_ms =
            u64::try_from(self.setup.heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
        let registered = Body::Registered(wire::Registered { heartbeat_interval_ms });
        let first = stream::iter([signature.message(term, registered, &[])]);
        let views = changes(self.handle.views(), None, ended).map(move |views| {
            let body = Body::Views(wire::Views { views: views.clone() });
            signature.message(term, body, &views)
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
        let came = Came::new(&request);
        let header = request.into_inner().header;
        let wanted = wanted(header.as_ref())?;
        self.check(header)?;
        let status = match self.handle.status().await.map_err(Service::stopping)? {
            Ok(status) => status,
            Err(turned) => {
                let ask = |mut leader: CoordinatorClient<Channel>, request| async move {
                    leader.get_status(request).await
                };
                return self.hand_on(turned, came, ask).await;
            }
        };
        let chains = status.chains.into_iter().filter(|status| is_wanted(wanted.as_ref(), &status.chain));
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
        let came = Came::new(&request);
        let request = request.into_inner();
        let header = self.check(request.header)?;
        let node = convert::node(&request.node)?;
        let command = Command::Remove(node, request.accept_data_loss);
        let ask = |mut leader: CoordinatorClient<Channel>, request| async move {
            leader.remove_node(request).await
        };
        self.command(header.chain, command, came, ask).await
    }

    async fn reorder(
        &self,
        request: Request<wire::ReorderRequest>,
    ) -> Result<Response<wire::AdminReply>, Status> {
        let came = Came::new(&request);
        let request = request.into_inner();
        let header = self.check(request.header)?;
        let order = convert::nodes(&request.order)?;
        let ask =
            |mut leader: CoordinatorClient<Channel>, request| async move { leader.reorder(request).await };
        self.command(header.chain, Command::Reorder(order), came, ask).await
    }

    async fn get_leadership(
        &self,
        request: Request<wire::GetLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        self.check(request.into_inner().header)?;
        self.leadership().await.map(Response::new)
    }

    async fn transfer_leadership(
        &self,
        request: Request<wire::TransferLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        let came = Came::new(&request);
        self.check(request.into_inner().header)?;
        let status = self.handle.leadership().await.map_err(Self::stopping)?;
        if status.leads {
            self.handle.resign(self.setup.rest).await.map_err(Self::stopping)?;
            let mut ended = self.leadership().await?;
            // By now, another one may lead in the next term.
            (ended.leads, ended.term) = (false, status.seen.term.0);
            ended.leader.clear();
            ended.since.clear();
            return Ok(Response::new(ended));
        }
        let ask = |mut leader: CoordinatorClient<Channel>, request| async move {
            leader.transfer_leadership(request).await
        };
        let turned = Turned::NotLeader(status.seen.holder.map(|holder| holder.address));
        self.hand_on(turned, came, ask).await
    }

    async fn get_history(
        &self,
        request: Request<wire::GetHistoryRequest>,
    ) -> Result<Response<Self::GetHistoryStream>, Status> {
        let header = request.into_inner().header;
        let wanted = wanted(header.as_ref())?;
        self.check(header)?;
        let entries = craq_log::history(&self.setup.store).await;
        let entries = entries.map_err(|error| CallError::unavailable(error.to_string()))?;
        let entries = entries.into_iter().filter(move |entry| is_wanted(wanted.as_ref(), &entry.view.chain));
        Ok(Response::new(stream::iter(entries.map(convert::history_entry).map(Ok)).boxed()))
    }
}
