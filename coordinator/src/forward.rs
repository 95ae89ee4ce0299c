//! Hands writes on to the head of a chain, and what only a leader can do to the coordinator that leads, over connections
//! that are kept.
//!
//! What the head answers goes back as it is. What a broken connection leaves open is said to be open: only an error
//! from before anything was sent says that nothing happened.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use craq_proto::{
    CallError, ErrorKind, RequestId, View,
    wire::{WriteReply, WriteRequest, coordinator_client::CoordinatorClient, kv_client::KvClient},
};
use tokio::time::timeout;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::server::MESSAGE_BYTES_MAX;

/// A head that is not reached within this time is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A head that does not answer within this time leaves the outcome unknown.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are kept at most; heads are few.
const CHANNELS_MAX: usize = 64;

/// What the other side itself has said, without the headers of its connection; none: the connection failed.
pub(crate) fn own_words(status: &Status) -> Option<Status> {
    let details = status.details();
    (!details.is_empty())
        .then(|| Status::with_details(status.code(), status.message(), details.to_vec().into()))
}

/// The connections to heads and leaders, by address.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Forwarder {
    /// Sends the write to the view's head and waits for its answer.
    pub(crate) async fn write(&self, view: &View, request: WriteRequest) -> Result<WriteReply, Status> {
        let head = view.head().map(|head| head.address.clone()).unwrap_or_default();
        let channel = self.channel(&head).await.map_err(|error| {
            let text = format!("the head at {head} is not reached: {error}");
            CallError::unavailable(text).with_view(Some(view.clone())).to_status()
        })?;
        let id = request.request_id.clone().and_then(|id| RequestId::try_from(id).ok());
        let mut client = KvClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let unknown = |why: &str| {
            let text = format!("the write was sent to the head at {head}, and {why}: its outcome is unknown");
            CallError { request: id, ..CallError::new(ErrorKind::OutcomeUnknown, text) }.to_status()
        };
        match timeout(WRITE_TIMEOUT, client.write(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => {
                if let Some(said) = own_words(&status) {
                    return Err(said);
                }
                self.forget(&head);
                let error = CallError::from_status(&status);
                if error.kind.is_certain() { Err(error.to_status()) } else { Err(unknown(&error.message)) }
            }
            Err(_) => {
                self.forget(&head);
                Err(unknown(&format!("no answer came within {}s", WRITE_TIMEOUT.as_secs())))
            }
        }
    }

    /// The coordinator at this address.
    pub(crate) async fn leader(&self, address: &str) -> Result<CoordinatorClient<Channel>, Status> {
        let channel = self.channel(address).await.map_err(|error| {
            CallError::unavailable(format!("the leader at {address} is not reached: {error}")).to_status()
        })?;
        Ok(CoordinatorClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    async fn channel(&self, address: &str) -> Result<Channel, String> {
        if let Some(channel) = self.lock().get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2));
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.unwrap_or_else(|| error.to_string())
        })?;
        let mut channels = self.lock();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    pub(crate) fn forget(&self, address: &str) {
        self.lock().remove(address);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
