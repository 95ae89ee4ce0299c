//! The way to the other nodes: connections, back-off, links, pings, questions.
//!
//! Each peer is reached by several connections, one for each [`Lane`], so that bulk data, clients' values and the links'
//! own traffic never stand in the way of the pings that leases live on. Never here: decisions of the protocol; what
//! comes back is an `Input`.

mod ask;
mod link;
mod message;
mod outbox;
mod reach;

use std::{collections::HashMap, error::Error, io, sync::Arc, time::Duration};

use craq_proto::{
    CallError, NodeId,
    wire::{chain_client::ChainClient, coordinator_client::CoordinatorClient, kv_client::KvClient},
};
use parking_lot::Mutex;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub(crate) use self::{
    link::{Opening, accept as accept_link, open as open_link},
    message::{from_wire, to_wire},
    outbox::Outbox,
    reach::Reach,
};
use crate::{
    clock,
    config::connectable,
    identity::Identity,
    limits::{
        BACKOFF_FIRST, BACKOFF_MAX, CLIENT_MESSAGE_BYTES_MAX, CONNECT_TIMEOUT, CONNECTION_WINDOW,
        PEER_KEEPALIVE_INTERVAL, PEER_KEEPALIVE_TIMEOUT, PEER_MESSAGE_BYTES_MAX, STREAM_WINDOW,
    },
};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Pings, questions to the tail, questions about views: small and urgent.
    Control,
    /// The link to a successor.
    Chain,
    /// The link to a learner.
    Bulk,
    /// Writes of clients that are handed on.
    Calls,
}

/// The other nodes, by their addresses.
pub(crate) struct Peers {
    me: Arc<Identity>,
    /// L: an answer to a ping that comes later is worth nothing.
    lease: Duration,
    /// Which members could not be reached lately.
    pub(crate) reach: Reach,
    channels: Mutex<HashMap<(String, Lane), Channel>>,
    // A few bytes for each node that there ever was; as many as there are entries in `reach`.
    backoffs: Mutex<HashMap<(String, Lane), Duration>>,
    pings: Mutex<HashMap<NodeId, Arc<ask::Pings>>>,
}

impl Peers {
    pub(crate) fn new(me: Arc<Identity>, lease: Duration, reach: Reach) -> Self {
        Self {
            me,
            lease,
            reach,
            channels: Mutex::default(),
            backoffs: Mutex::default(),
            pings: Mutex::default(),
        }
    }

    /// A client of the peer's key-value service.
    pub(crate) fn kv(&self, address: &str, lane: Lane) -> Result<KvClient<Channel>, CallError> {
        let client = KvClient::new(self.channel(address, lane)?);
        Ok(client
            .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX))
    }

    /// A client of the peer's view service.
    pub(crate) fn views(&self, address: &str) -> Result<CoordinatorClient<Channel>, CallError> {
        let client = CoordinatorClient::new(self.channel(address, Lane::Control)?);
        Ok(client
            .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX))
    }

    fn chain(&self, address: &str, lane: Lane) -> Result<ChainClient<Channel>, CallError> {
        let client = ChainClient::new(self.channel(address, lane)?);
        Ok(client
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX))
    }

    /// Connects when it is first used, and again whenever the connection has broken.
    fn channel(&self, address: &str, lane: Lane) -> Result<Channel, CallError> {
        /// Far more addresses than a cluster has; older ones are reached by a new connection.
        const CHANNELS_MAX: usize = 1_024;
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&(address.to_owned(), lane)) {
            return Ok(channel.clone());
        }
        let channel = endpoint(address)?.connect_lazy();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert((address.to_owned(), lane), channel.clone());
        Ok(channel)
    }

    /// Says how long to wait after a failure, longer each time.
    fn backoff(&self, address: &str, lane: Lane) -> Duration {
        let mut backoffs = self.backoffs.lock();
        let next = backoffs.entry((address.to_owned(), lane)).or_insert(BACKOFF_FIRST);
        let wait = *next;
        *next = (wait * 2).min(BACKOFF_MAX);
        wait
    }

    fn forget_backoff(&self, address: &str, lane: Lane) {
        self.backoffs.lock().remove(&(address.to_owned(), lane));
    }

    /// Notes that a member could not be reached, and whether because nobody listens there.
    fn missed(&self, node: NodeId, view: Option<&craq_proto::View>, failure: Failure) {
        if let Some(incarnation) = view.and_then(|view| view.incarnation(node)) {
            self.reach.missed(node, incarnation, failure == Failure::Refused, clock::now());
        }
    }
}

/// How all of this node's connections are made; nothing is left to tonic's defaults, which never notice a dead peer.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, CallError> {
    let url = format!("http://{}", connectable(address));
    let endpoint = Endpoint::from_shared(url)
        .map_err(|error| CallError::invalid(format!("{address} is no address: {error}")))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PEER_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(PEER_KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// Why a call to a peer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens there: the process is gone, and the call has not arrived.
    Refused,
    /// No connection could be made: the call has not arrived.
    Unconnected,
    /// The connection broke, or the answer did not come in time: the call may have arrived.
    Broken,
    /// The peer answered.
    Answered,
}

impl Failure {
    /// What a status tells, by the errors it was made from; one that came over the network was made from none.
    pub(crate) fn of(status: &Status) -> Self {
        let mut source = status.source();
        if source.is_none() {
            return Self::Answered;
        }
        let mut failure = Self::Broken;
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                return Self::Refused;
            }
            if error.is::<tonic::ConnectError>() {
                failure = Self::Unconnected;
            }
            source = error.source();
        }
        failure
    }

    /// Whether the call has certainly not reached the peer.
    pub(crate) fn is_before_arrival(self) -> bool {
        matches!(self, Self::Refused | Self::Unconnected)
    }
}

/// A call that was given up. It may have arrived.
fn timed_out(text: &'static str) -> Status {
    let mut status = Status::deadline_exceeded(text);
    status.set_source(Arc::new(io::Error::new(io::ErrorKind::TimedOut, text)));
    status
}

/// The status in a few words, with the innermost cause, which is what people need.
pub(crate) fn reason(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(inner) = cause.and_then(Error::source) {
        cause = Some(inner);
    }
    match cause {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => status.message().to_owned(),
    }
}
