//! How a node stops: it leaves its chains while it still serves, ends what is in flight, and goes.

use std::sync::Arc;

use futures::future::join_all;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    driver::Chain,
    error::NodeError,
    heartbeat::Signals,
    identity::Identity,
    limits::{DRAIN_TIMEOUT, LEAVE_TIMEOUT, LINK_FAREWELL},
    node::Node,
};

/// The server that is running.
pub(crate) struct Serving {
    pub(crate) task: JoinHandle<Result<(), NodeError>>,
    /// Whether the node is healthy.
    pub(crate) health: watch::Sender<bool>,
    /// Ends the server once its calls have ended.
    pub(crate) end: CancellationToken,
}

/// Serves until SIGTERM or SIGINT comes and all is in order; a second one ends the process at once.
pub(crate) async fn serve_until_stopped(
    node: Arc<Node>,
    signals: Arc<Signals>,
    serving: Serving,
    registration: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let mut stops = Stops::new()?;
    let Serving { mut task, health, end } = serving;
    let follow = tokio::spawn(follow(registration, health.clone()));
    tokio::select! {
        ended = &mut task => return flatten(ended),
        () = stops.next() => {}
    }
    info!("asked to stop: leaves its chains first");
    tokio::spawn(async move {
        stops.next().await;
        warn!("asked a second time: stops at once");
        crate::logging::flush(LINK_FAREWELL);
        std::process::exit(1);
    });
    signals.leave();
    let leaving = node.chains.values().map(|chain| async {
        match timeout(LEAVE_TIMEOUT, left(chain, &node.me)).await {
            Ok(why) => info!(chain = %chain.id, "{why}"),
            Err(_) => warn!(chain = %chain.id, "no view without this node has come: stops all the same"),
        }
    });
    join_all(leaving).await;
    follow.abort();
    health.send_replace(false);
    end.cancel();
    if timeout(DRAIN_TIMEOUT, node.admission.drained()).await.is_err() {
        warn!("requests are still in flight: stops all the same");
    }
    node.closing.cancel();
    match timeout(LINK_FAREWELL, task).await {
        Ok(ended) => flatten(ended)?,
        Err(_) => info!("connections are still open: they are cut"),
    }
    info!("stopped");
    Ok(())
}

fn flatten(ended: Result<Result<(), NodeError>, JoinError>) -> Result<(), NodeError> {
    ended.map_err(|error| NodeError::Server(error.to_string()))?
}

/// Healthy once it is registered.
async fn follow(mut registration: watch::Receiver<bool>, health: watch::Sender<bool>) {
    if registration.wait_for(|registered| *registered).await.is_ok() {
        health.send_replace(true);
    }
}

/// Waits until the node may go as far as this chain is concerned, and says why.
async fn left(chain: &Chain, me: &Identity) -> &'static str {
    let mut views = chain.views();
    loop {
        if let Some(why) = may_go(views.borrow_and_update().as_deref(), me) {
            return why;
        }
        if views.changed().await.is_err() {
            return "the replica has ended";
        }
    }
}

fn may_go(view: Option<&craq_proto::View>, me: &Identity) -> Option<&'static str> {
    let Some(view) = view else { return Some("was never part of the chain") };
    if view.incarnation(me.node).is_none() {
        return Some("has left the chain");
    }
    let is_last = view.member(me.node).is_some_and(|own| own.in_sync)
        && view.members.iter().filter(|member| member.in_sync).count() == 1;
    is_last.then_some("is the last in-sync member, which cannot leave: the chain waits for its return")
}

/// The signals that ask a process to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> Result<Self, NodeError> {
        let listen = |kind| signal(kind).map_err(|error| NodeError::Server(error.to_string()));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
