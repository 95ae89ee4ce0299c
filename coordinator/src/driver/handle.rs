//! The way to the loop: what can be asked of it, and what it answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use craq_log::Seen;
use craq_proto::{ChainId, Epoch, NodeId, Term, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Refusal, Registration, Replicas, StreamId, Suspicion, status::ClusterStatus};

/// The newest view of each chain.
pub type Views = Arc<BTreeMap<ChainId, View>>;

/// What a node says on its stream.
#[derive(Debug)]
pub enum Told {
    /// It is alive.
    Heartbeat(Replicas, Vec<Suspicion>),
    /// It wants out.
    Leave,
    /// The stream ended.
    Broke,
}

/// What an operator orders.
#[derive(Debug)]
pub enum Command {
    /// A node out of the chain; the last in-sync one only if data loss is accepted.
    Remove(NodeId, bool),
    /// The members in this order.
    Reorder(Vec<NodeId>),
}

/// Why a request was turned away. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// The rules forbid it; for the node to know.
    Refused(String),
    /// This coordinator does not lead. Who does, as host:port, if it knows.
    NotLeader(Option<String>),
    /// This coordinator led when the order came, and leads no longer: whether it was carried out is unknown.
    Unknown,
}

/// What this coordinator knows of the leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadershipStatus {
    /// What the log says.
    pub seen: Seen,
    /// Whether this coordinator leads.
    pub leads: bool,
    /// How long the last operation of the store took.
    pub store_took: Duration,
}

/// What the service asks of the loop.
pub(super) enum Request {
    Register(Registration, CancellationToken, oneshot::Sender<Registered>),
    Told(StreamId, Told),
    Status(oneshot::Sender<Result<ClusterStatus, Turned>>),
    Command(ChainId, Command, oneshot::Sender<Ordered>),
    Leadership(oneshot::Sender<LeadershipStatus>),
    Resign(Duration, oneshot::Sender<()>),
}

/// A node's stream, and the term of who leads.
pub(super) type Registered = Result<(StreamId, Term), Turned>;

/// What became of an operator's order.
pub(super) type Ordered = Result<Result<Epoch, Refusal>, Turned>;

/// The loop has ended: the process is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct Stopping;

/// The way to the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) views: watch::Receiver<Views>,
}

impl Handle {
    /// Presents a node. `ended` is cancelled when another stream takes its place. Brings its stream, and the term of who
    /// leads.
    pub async fn register(
        &self,
        registration: Registration,
        ended: CancellationToken,
    ) -> Result<Result<(StreamId, Term), Turned>, Stopping> {
        self.ask(|answer| Request::Register(registration, ended, answer)).await
    }

    /// Passes on what a node said.
    pub async fn told(&self, stream: StreamId, told: Told) -> Result<(), Stopping> {
        self.requests.send(Request::Told(stream, told)).await.map_err(|_| Stopping)
    }

    /// The state of the cluster.
    pub async fn status(&self) -> Result<Result<ClusterStatus, Turned>, Stopping> {
        self.ask(Request::Status).await
    }

    /// Carries an operator's command out. Ok: the epoch that it made, which is in the log.
    pub async fn command(&self, chain: ChainId, command: Command) -> Result<Ordered, Stopping> {
        self.ask(|answer| Request::Command(chain, command, answer)).await
    }

    /// Who leads.
    pub async fn leadership(&self) -> Result<LeadershipStatus, Stopping> {
        self.ask(Request::Leadership).await
    }

    /// Gives the leadership up, if this coordinator has it, and claims nothing for so long. Returns when that is done.
    pub async fn resign(&self, rest: Duration) -> Result<(), Stopping> {
        self.ask(|answer| Request::Resign(rest, answer)).await
    }

    /// The newest views, and their changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
}
