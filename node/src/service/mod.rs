//! The gRPC services: decode, check limits, submit, wait, encode. No decisions of the protocol.
//!
//! [`kv`] is for clients, [`chain`] for the other nodes, [`control`] is the part of the coordinator's service that a node
//! can serve from what it knows. Reads, writes and pages are carried out in [`read`], [`write`](mod@write) and [`scan`];
//! [`session`] answers many calls on one stream.

mod call;
mod chain;
mod control;
mod kv;
mod read;
mod request_ids;
mod scan;
mod session;
mod write;

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use craq_listener::{Limits, connections};
use craq_proto::{
    CallError,
    wire::{
        FILE_DESCRIPTOR_SET, chain_server::ChainServer, coordinator_server::CoordinatorServer,
        kv_server::KvServer,
    },
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{server::NamedService, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

pub(crate) use self::request_ids::RequestIds;
use crate::{
    error::NodeError,
    limits::{
        CALLS_PER_CONNECTION, CLIENT_MESSAGE_BYTES_MAX, CONNECTION_WINDOW, ERROR_RESETS_MAX,
        HANDLER_TIME_MAX, HEADER_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, PENDING_RESETS_MAX,
        SERVER_KEEPALIVE_INTERVAL, SERVER_KEEPALIVE_TIMEOUT, STREAM_WINDOW, STREAMS_PER_CONNECTION,
    },
    node::Node,
};

/// Where the services find the node, once there is one: until its store has been read, calls are refused and the node
/// is not healthy, but whoever asks gets an answer.
#[derive(Clone, Default)]
pub(crate) struct Door(Arc<OnceLock<Arc<Node>>>);

impl Door {
    /// From now on calls are answered.
    pub(crate) fn open(&self, node: Arc<Node>) {
        self.0.get_or_init(|| node);
    }

    fn node(&self) -> Result<&Arc<Node>, CallError> {
        self.0
            .get()
            .ok_or_else(|| CallError::unavailable("this node has just started and still reads its store"))
    }
}

/// Serves until `stop` comes and all calls have ended.
pub(crate) async fn serve(
    door: Door,
    listener: TcpListener,
    health: watch::Receiver<bool>,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    tell_health(&reporter, false).await;
    tokio::spawn(follow_health(reporter, health));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error: tonic_reflection::server::Error| NodeError::Server(error.to_string());
    let kv = KvServer::new(kv::KvService::new(door.clone()))
        .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX);
    let chain = ChainServer::new(chain::ChainService::new(door.clone()))
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let control = CoordinatorServer::new(control::ControlService::new(door))
        .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX);
    server()
        .add_service(kv)
        .add_service(chain)
        .add_service(control)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?)
        .serve_with_incoming_shutdown(connections(listener, Limits::of_process()), stop)
        .await
        .map_err(|error| NodeError::Server(error.to_string()))
}

/// Every setting that tonic has, and why, is in [`crate::limits`]. A connection's age has no limit: links live as long
/// as their epochs.
fn server() -> Server {
    Server::builder()
        .timeout(HANDLER_TIME_MAX)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .load_shed(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_adaptive_window(Some(false))
        .http2_keepalive_interval(Some(SERVER_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(SERVER_KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .accept_http1(false)
}

/// Passes on whether this node serves, as often as it changes.
async fn follow_health(reporter: HealthReporter, mut health: watch::Receiver<bool>) {
    loop {
        let serves = *health.borrow_and_update();
        tell_health(&reporter, serves).await;
        if health.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_health(reporter: &HealthReporter, serves: bool) {
    let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    let services = [
        "",
        <KvServer<kv::KvService> as NamedService>::NAME,
        <ChainServer<chain::ChainService> as NamedService>::NAME,
        <CoordinatorServer<control::ControlService> as NamedService>::NAME,
    ];
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}
