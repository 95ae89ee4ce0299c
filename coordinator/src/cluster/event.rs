//! What the cluster is told, and what it orders. Inputs are facts, outputs are orders.

use std::time::Duration;

use craq_proto::{ChainId, Epoch, Incarnation, NodeId, View};

/// Numbers a node's register stream; grows with each new stream, so a smaller one is the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Numbers an operator's order, so that its answer finds the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderId(pub u64);

/// The times by which the cluster judges.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A node that is silent for so long is lost.
    pub failure_timeout: Duration,
}

/// Where a node wants to stand in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// At the tail.
    #[default]
    Tail,
    /// Right after this node; at the tail while that is no in-sync member.
    After(NodeId),
    /// At the head.
    First,
}

/// What a node tells of one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaState {
    /// The installed epoch.
    pub epoch: Epoch,
    /// The gate of this epoch has passed and its first entry is durable at the node.
    pub active: bool,
    /// A learner: level with its source within a small lag.
    pub caught_up: bool,
    /// The highest sequence known to be committed.
    pub commit: u64,
    /// The highest sequence held.
    pub last: u64,
    /// The highest sequence on stable storage.
    pub durable: u64,
    /// Keys that exist.
    pub keys: u64,
    /// Answers strong reads now.
    pub readable: bool,
    /// Takes writes now.
    pub writable: bool,
    /// The role that the node itself sees.
    pub role: String,
    /// Bytes of rows received by catching up since the process started.
    pub transfer_bytes: u64,
    /// Rows received by catching up since the process started.
    pub transfer_rows: u64,
}

/// What a node holds, by chain.
pub type Replicas = Vec<(ChainId, ReplicaState)>;

/// A node presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Which node.
    pub node: NodeId,
    /// Which of its process starts.
    pub incarnation: Incarnation,
    /// host:port at which the others reach it.
    pub address: String,
    /// Where it wants to stand if it is not in the chain yet.
    pub placement: Placement,
    /// What it holds.
    pub replicas: Replicas,
}

/// A node says that it cannot reach another member of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// The chain in which the two are members.
    pub chain: ChainId,
    /// The epoch in which they are.
    pub epoch: Epoch,
    /// The member that is not reached.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Connecting to it is refused: the process seems to be gone.
    pub refused: bool,
}

/// What the cluster is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A node opened a stream and presented itself. From the service; answered by `Accept` or `Refuse`.
    Registered {
        /// The new stream.
        stream: StreamId,
        /// Who it is.
        registration: Registration,
    },
    /// A node is alive. From the service, for an accepted stream.
    Heartbeat {
        /// The node's stream.
        stream: StreamId,
        /// The state of its replicas.
        replicas: Replicas,
        /// All members that it cannot reach at present.
        suspicions: Vec<Suspicion>,
    },
    /// A node wants out of every chain. From the service, for an accepted stream.
    Leave {
        /// The node's stream.
        stream: StreamId,
    },
    /// A node's stream ended, for whatever reason. From the service.
    StreamBroke {
        /// The stream that ended.
        stream: StreamId,
    },
    /// Connecting to a node's address was refused. From the driver, after `Dial`.
    DialRefused {
        /// The node that was dialed.
        node: NodeId,
        /// The address that was dialed.
        address: String,
    },
    /// Dialing a node proved nothing: somebody answered, or nobody in time. From the driver, after `Dial`.
    DialAnswered {
        /// The node that was dialed.
        node: NodeId,
    },
    /// The view is in the log. From the driver, after `Persist`.
    Persisted {
        /// The view, as it was to be persisted.
        view: View,
    },
    /// Another coordinator wrote to the log: these are its newest views. From the driver, after `Persist` or `Reload`.
    Superseded {
        /// The newest view of each chain.
        views: Vec<View>,
    },
    /// An operator wants a node out of a chain. Answered by `Answer`.
    Remove {
        /// Finds the way back.
        order: OrderId,
        /// Which chain.
        chain: ChainId,
        /// Which node.
        node: NodeId,
        /// Even if it is the last in-sync member: what only it holds is lost.
        accept_data_loss: bool,
    },
    /// An operator wants the members of a chain in another order. Answered by `Answer`.
    Reorder {
        /// Finds the way back.
        order: OrderId,
        /// Which chain.
        chain: ChainId,
        /// All members, head first.
        nodes: Vec<NodeId>,
    },
    /// The deadline has passed, and every input that came before it has been told. Only a tick judges silence.
    Tick,
}

/// Why an operator's order was not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The order itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The state of the chain forbids it.
    #[error("{0}")]
    Forbidden(String),
    /// The chain could not be changed in time; the same order may succeed later.
    #[error("{0}")]
    Unavailable(String),
}

/// What the cluster orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write the view to the log, then say `Persisted` or `Superseded`.
    Persist(View),
    /// Tell the view to every node and watcher. Always persisted before.
    Publish(View),
    /// Connect to the address, then say `DialRefused` or `DialAnswered`.
    Dial {
        /// Whose address it is.
        node: NodeId,
        /// host:port.
        address: String,
    },
    /// The registration is taken.
    Accept {
        /// Its stream.
        stream: StreamId,
    },
    /// The registration is refused; the stream ends.
    Refuse {
        /// Its stream.
        stream: StreamId,
        /// For people.
        reason: String,
    },
    /// The stream was replaced by a newer one of the same node; it ends.
    Close {
        /// Which stream.
        stream: StreamId,
        /// For people.
        reason: String,
    },
    /// An operator's order is done or refused.
    Answer {
        /// Which order.
        order: OrderId,
        /// The epoch that it made.
        result: Result<Epoch, Refusal>,
    },
    /// Nodes know a newer epoch than the cluster: read the log again, then say `Superseded`.
    Reload,
}
