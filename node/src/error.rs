//! Why a node ends, and the exit code that says so to whoever started it.

use std::{io, path::PathBuf};

use craq_proto::ClusterId;

use crate::store::backend::StoreError;

/// Why a node could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Flags that contradict each other or cannot work.
    #[error("{0}")]
    Config(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As it was asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The store failed. It is not used again by this process.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's file cannot be used.
    #[error("{path}: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The store belongs to one cluster, the coordinator to another.
    #[error(
        "this node's store belongs to cluster {own}, and the coordinator at {coordinator} is another one's \
         ({theirs}): name this cluster's coordinator, or begin with a new store"
    )]
    WrongCluster {
        /// The store's.
        own: ClusterId,
        /// Where the coordinator was reached.
        coordinator: String,
        /// What the coordinator said.
        theirs: String,
    },
    /// The replica must not go on (its store has lost what it had called durable, say).
    #[error("{0}")]
    Halted(String),
    /// The server or the runtime failed.
    #[error("the server failed: {0}")]
    Server(String),
}

impl NodeError {
    /// The exit code: those of `sysexits.h` where one fits.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) => 2,
            Self::Listen { .. } => 69,
            Self::Halted(_) | Self::Server(_) => 70,
            Self::Store(_) | Self::Open { .. } => 74,
            Self::WrongCluster { .. } => 78,
        }
    }
}
