//! Puts the parts together: the log, the loop, and the gRPC server with every limit set.

use std::{net::SocketAddr, time::Duration};

use craq_listener::Limits;
use craq_log::{Holder, LocationError, Log, LogError, ProbeError};
use craq_proto::{
    HolderId,
    wire::{self, coordinator_server::CoordinatorServer},
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server as GrpcServer, server::Router};
use tonic_health::ServingStatus;
use uuid::Uuid;

use crate::{
    Config, ConfigError,
    cluster::Timing,
    driver::{Driver, Handle},
    leadership::Leadership,
    service::{Service, Setup},
};

/// The largest message, either way. Views and statuses are small; a write that is handed on has one value.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Calls at once on one connection, streams included.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Calls at once on one connection that are being answered; more are refused with `RESOURCE_EXHAUSTED`.
const CALLS_PER_CONNECTION_MAX: usize = 256;
/// A connection that was silent for so long is pinged. Nodes keep a stream open, so this is how a dead one is noticed
/// that never closed its connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A ping that is not answered for so long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Streams that a client may open and reset before they are accepted (against HTTP/2 rapid reset).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that this side may reset for a client's errors before the connection is closed.
const ERROR_RESETS_MAX: usize = 1_024;
/// The longest that any call may take to begin its answer, the time to send it included. Longer than [`crate::forward::WRITE_TIMEOUT`], which knows
/// better what to say.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// If nobody leads at the start, so long is waited for the first claim before calls are answered.
const FIRST_CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
/// A store has so long to take the record that this coordinator leads no longer.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest header list, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Calls that are under way when the process is told to stop have so long to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// While the log is opened, one operation of the store may take so long.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);

/// Why the coordinator could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The place of the log cannot be used.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The store of the log cannot be relied on.
    #[error("{location}: {source}")]
    Probe {
        /// Which.
        location: String,
        /// Why.
        source: ProbeError,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server failed.
    #[error("the server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// gRPC reflection cannot be set up.
    #[error("the service descriptors are damaged: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

/// A coordinator that has opened its log and its port.
pub struct Server {
    driver: Driver,
    handle: Handle,
    router: Router,
    listener: TcpListener,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Server {
    /// Opens the log and the port. Nothing is answered before [`Server::serve`].
    pub async fn open(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let failed = |source| Error::Listen { address: config.listen.clone(), source };
        let listener = bind(&config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let public = config.public_address(address);

        let patience = config.timing().store_patience();
        let store = config.data.open(config.data_endpoint.as_deref(), OPENING_PATIENCE)?;
        let location = || config.data.to_string();
        craq_log::probe(&store).await.map_err(|source| Error::Probe { location: location(), source })?;
        let me = Holder { id: HolderId(Uuid::new_v4()), address: public.clone() };
        let mut log = Log::open(store.clone(), me.clone(), config.timing().lease).await?;
        log.limit(patience);
        tracing::info!(data = location(), id = %me.id, address = public, "reached by the others at");

        let cluster = log.cluster();
        let jitter = f64::from(me.id.0.as_bytes()[0]) / 256.0;
        let leadership = Leadership::new(me.id, config.timing(), jitter);
        let timing = Timing { failure_timeout: config.failure_timeout };
        let (driver, handle) = Driver::new(log, leadership, timing, config.history);
        let stop = CancellationToken::new();
        let setup = Setup {
            cluster,
            address: public,
            data: location(),
            store: store.patient(patience),
            rest: config.timing().lease * 2,
            heartbeat_interval: config.heartbeat_interval,
        };
        let router = router(Service::new(setup, handle.clone(), stop.clone())).await?;
        Ok(Self { driver, handle, router, listener, address, stop })
    }

    /// The address that it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done or the log fails for good. Then the leadership is given up, if it is here; streams
    /// end at once, other calls within 2 s.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { driver, handle, router, listener, address, stop } = self;
        // The loop goes on while calls end, so that those which wait for it get their answers.
        let halt = CancellationToken::new();
        let mut driver = tokio::spawn(driver.run(halt.clone()));
        // Whoever calls first need not be told that nobody leads, if that is about to change.
        if timeout(FIRST_CLAIM_TIMEOUT, is_led(&handle)).await.is_err() {
            tracing::warn!("nobody leads yet");
        }
        tracing::info!("listening on {address}");
        let connections = craq_listener::connections(listener, Limits::of_process());
        let server = router.serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
        let mut server = tokio::spawn(server);
        let early = tokio::select! {
            () = shutdown => None,
            ended = &mut driver => Some(flatten(ended)),
            ended = &mut server => return flatten(ended),
        };
        tracing::info!("stopping");
        // Another coordinator takes over at once, if there is one. A store that does not answer is not waited for.
        if early.is_none() && timeout(RESIGN_TIMEOUT, handle.resign(Duration::MAX)).await.is_err() {
            tracing::warn!(
                "could not give the leadership up in time; the next leader waits for the lease to run out"
            );
        }
        stop.cancel();
        if timeout(SHUTDOWN_TIMEOUT, &mut server).await.is_err() {
            tracing::warn!("some calls did not end in time");
            server.abort();
        }
        halt.cancel();
        match early {
            Some(result) => result,
            None => flatten(driver.await),
        }
    }
}

/// Returns when the log says that somebody leads, or when the loop has ended.
async fn is_led(handle: &Handle) {
    while handle.leadership().await.is_ok_and(|status| status.seen.holder.is_none()) {
        sleep(FIRST_CLAIM_TIMEOUT / 500).await;
    }
}

/// What a task ended with. A panic has ended the process already; a task is never aborted before this.
fn flatten<E: Into<Error>>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(result) => result.map_err(Into::into),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// `:1234` stands for all interfaces: those of IPv6 and IPv4 at once, or of IPv4 alone where there is no IPv6.
async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else { return TcpListener::bind(address).await };
    match TcpListener::bind(format!("[::]:{port}")).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0:{port}")).await
        }
        bound => bound,
    }
}

async fn router(service: Service) -> Result<Router, Error> {
    let coordinator = CoordinatorServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in ["", "craq.v1.Coordinator"] {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("craq.v1.Coordinator")
            .with_service_name("grpc.health.v1.Health")
    };
    Ok(GrpcServer::builder()
        .timeout(CALL_TIMEOUT)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .load_shed(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .accept_http1(false)
        .add_service(coordinator)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
