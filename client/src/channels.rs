//! One connection to each address, made when it is first needed, and one session on it.
//!
//! Connecting is a step of its own, so that a failure before anything was sent is told apart from one after. Never
//! retries: a connection that broke is forgotten, and the next call makes another.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use craq_proto::wire;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};
use tonic::transport::{Channel, Endpoint};

use crate::{
    address::dial,
    failure::{Failure, innermost},
    session::Session,
};

/// How long connecting may take, in each attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a silent connection is probed; the answer may take twice as long.
const KEEPALIVE: Duration = Duration::from_millis(500);

type Slot = Arc<OnceCell<Open>>;

/// What an address has.
#[derive(Debug)]
struct Open {
    channel: Channel,
    session: OnceLock<Session>,
}

/// The connections of one client.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    slots: Mutex<BTreeMap<String, Slot>>,
}

/// A connection, and which one of its address it is.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// To make calls on.
    pub(crate) channel: Channel,
    slot: Slot,
}

impl Connection {
    /// The connection's session; begun now if there is none. `header` says which chain it is about.
    pub(crate) fn session(&self, header: impl FnOnce() -> wire::Header) -> Option<&Session> {
        let open = self.slot.get()?;
        Some(open.session.get_or_init(|| Session::open(open.channel.clone(), header())))
    }
}

impl Channels {
    /// The connection to `address`; made now if there is none. Nothing is sent when this fails.
    pub(crate) async fn get(&self, address: &str, until: Instant) -> Result<Connection, Failure> {
        let slot = match self.slots.lock().get(address) {
            Some(slot) => Arc::clone(slot),
            None => Slot::default(),
        };
        if let Some(open) = slot.get() {
            return Ok(Connection { channel: open.channel.clone(), slot });
        }
        let slot = Arc::clone(self.slots.lock().entry(address.to_owned()).or_insert(slot));
        let connecting = slot.get_or_try_init(|| async {
            Ok::<_, String>(Open { channel: connect(address).await?, session: OnceLock::new() })
        });
        match tokio::time::timeout_at(until, connecting).await {
            Ok(Ok(open)) => Ok(Connection { channel: open.channel.clone(), slot }),
            Ok(Err(reason)) => Err(Failure::not_connected(address, reason)),
            Err(_) => Err(Failure::not_connected(address, "no connection in time")),
        }
    }

    /// The connection has broken: the next call to the address makes another.
    pub(crate) fn forget(&self, address: &str, connection: &Connection) {
        let mut slots = self.slots.lock();
        if slots.get(address).is_some_and(|slot| Arc::ptr_eq(slot, &connection.slot)) {
            slots.remove(address);
        }
    }
}

async fn connect(address: &str) -> Result<Channel, String> {
    let uri = format!("http://{}", dial(address).map_err(|error| error.to_string())?);
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| innermost(&error))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(2 * KEEPALIVE)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| innermost(&error))
}
