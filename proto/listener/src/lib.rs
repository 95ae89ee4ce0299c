//! The open port of a craq process: accepts connections, so many at once and no more, and closes those that do not begin
//! to speak HTTP/2, or do not listen.
//!
//! tonic by itself takes connections until the process has no file descriptor left, then tries again without a pause.
//! Its keepalive begins only after the preface, so whoever connects and says nothing stays for good; and it ends a
//! connection with a word of farewell, so whoever reads nothing stays for good too.
//!
//! - [`connections`]: what [`serve_with_incoming`](tonic::transport::server::Router::serve_with_incoming) takes.
//! - [`Connection`]: one of them; it counts until it is dropped.
//! - [`Limits`]: how many, and for how long.
//!
//! Never here: what is said on a connection, and limits of that (they are the server's settings).

mod connection;
mod descriptors;

use std::{
    convert::Infallible,
    io,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tonic::transport::server::TcpIncoming;

pub use connection::Connection;

/// Most connections of a process at once, if the system gives it descriptors for so many.
pub const CONNECTIONS_MAX: usize = 10_000;
/// How long a connection may take to begin.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other side may leave everything unread that is written.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The kernel's own keepalive: for a peer whose machine is gone.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// The pause after the system has refused to accept a connection, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refused connections are told of this often, with their number.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// What a port takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: NonZeroUsize,
    /// From the beginning of a connection to its HTTP/2 preface and first frame: else it is closed.
    pub preface_timeout: Duration,
    /// A connection whose other side takes not a byte of what is written for so long is closed.
    pub write_timeout: Duration,
}

impl Limits {
    /// As many connections as the process can have open, at most [`CONNECTIONS_MAX`]. Raises the process's limit of open
    /// files to what the system allows.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            connections_max: descriptors::make_room(),
            preface_timeout: PREFACE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
        }
    }
}

/// The connections that the listener accepts, for ever. One above the limit is closed at once, so that it does not wait
/// unseen; those that are there stay.
pub fn connections(
    listener: TcpListener,
    limits: Limits,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    // Its settings apply to the connections; those of the server builder do not reach an incoming stream.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
    let permits = Arc::new(Semaphore::new(limits.connections_max.get()));
    let door = Door { incoming, permits, limits, refused: Refused::default() };
    stream::unfold(door, async |mut door| {
        let connection = door.next().await?;
        Some((Ok(connection), door))
    })
}

struct Door {
    incoming: TcpIncoming,
    permits: Arc<Semaphore>,
    limits: Limits,
    refused: Refused,
}

impl Door {
    /// The next connection that is not one too many; none: the listener is gone.
    async fn next(&mut self) -> Option<Connection> {
        use futures::StreamExt as _;
        loop {
            match self.incoming.next().await? {
                Ok(stream) => {
                    if let Some(connection) = self.admit(stream) {
                        return Some(connection);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if let Some(refused) = self.refused.one_more() {
                        tracing::warn!(%error, refused, "cannot accept connections");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) -> Option<Connection> {
        let permit: Result<OwnedSemaphorePermit, _> = Arc::clone(&self.permits).try_acquire_owned();
        if permit.is_err()
            && let Some(refused) = self.refused.one_more()
        {
            let connections_max = self.limits.connections_max;
            tracing::warn!(connections_max, refused, "refused connections: there are as many as are allowed");
        }
        Some(Connection::new(stream, permit.ok()?, self.limits))
    }
}

/// The connection that failed was over before it was accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, TimedOut, WouldBlock];
    kinds.contains(&error.kind())
}

/// Connections that were refused since the log has told of it.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told: Option<Instant>,
}

impl Refused {
    /// Counts one; brings the number if it is time to tell of it.
    fn one_more(&mut self) -> Option<u64> {
        self.count += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}
