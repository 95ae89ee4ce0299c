//! What a cluster is to be made of.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::process::Cluster;

/// Where the programs are. Only a test binary knows, through `CARGO_BIN_EXE_*`.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `craq-coordinator`.
    pub coordinator: PathBuf,
    /// `craq-node`.
    pub node: PathBuf,
    /// `craq`.
    pub client: PathBuf,
}

/// Where a node keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In a file.
    Redb,
    /// In a directory.
    Fjall,
    /// In memory.
    Memory,
}

impl Store {
    /// As `--store` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Memory => "memory",
        }
    }
}

/// How one node is started.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// `-a`.
    pub listen: String,
    /// Where the others and the clients reach it, `-p`.
    pub public: String,
    /// `-c`: all coordinators, separated by commas.
    pub coordinator: String,
    /// `-f`.
    pub file: PathBuf,
    /// `--store`.
    pub store: Store,
    /// Further flags.
    pub flags: Vec<String>,
    /// A command to start it with, that ends in an `exec`.
    pub prefix: Vec<String>,
}

/// How a cluster is started.
pub struct Builder {
    pub(super) binaries: Binaries,
    pub(super) nodes: usize,
    pub(super) store: Store,
    pub(super) node_flags: Vec<String>,
    pub(super) coordinator_flags: Vec<String>,
    pub(super) coordinator_listen: String,
    pub(super) coordinators: usize,
    pub(super) coordinator_prefix: Vec<String>,
    #[expect(clippy::type_complexity, reason = "used in two places of one file")]
    pub(super) each: Option<Box<dyn FnMut(usize, &mut NodeSpec) + Send>>,
}

impl Builder {
    /// Three nodes with their data in files, and all flags at their defaults.
    #[must_use]
    pub fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            nodes: 3,
            store: Store::Redb,
            node_flags: vec!["--cache-size".into(), "16MiB".into()],
            coordinator_flags: vec![],
            coordinator_listen: free_address(),
            coordinators: 1,
            coordinator_prefix: vec![],
            each: None,
        }
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Where they keep their data.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// More flags for every node.
    #[must_use]
    pub fn node_flags(mut self, flags: &[&str]) -> Self {
        self.node_flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// How many coordinators, all on one log.
    #[must_use]
    pub fn coordinators(mut self, coordinators: usize) -> Self {
        self.coordinators = coordinators;
        self
    }

    /// More flags for every coordinator.
    #[must_use]
    pub fn coordinator_flags(mut self, flags: &[&str]) -> Self {
        self.coordinator_flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Puts the coordinator elsewhere: the address it listens on, and a command to start it with.
    #[must_use]
    pub fn coordinator_at(mut self, listen: &str, prefix: Vec<String>) -> Self {
        listen.clone_into(&mut self.coordinator_listen);
        self.coordinator_prefix = prefix;
        self
    }

    /// The address at which the coordinator will listen.
    #[must_use]
    pub fn coordinator_address(&self) -> &str {
        &self.coordinator_listen
    }

    /// A last change to how each node is started.
    #[must_use]
    pub fn each(mut self, change: impl FnMut(usize, &mut NodeSpec) + Send + 'static) -> Self {
        self.each = Some(Box::new(change));
        self
    }

    /// Starts all of it, node by node, so that the chain has their order; returns when the chain is whole.
    pub async fn start(self) -> Cluster {
        Cluster::start(self).await
    }
}

/// An address on this machine that nobody listens on.
///
/// The port is below those that the system gives to outgoing connections. Else another process's connection could take
/// it while its owner is down; and a process that connects again and again to a port that nobody listens on would in
/// the end reach itself.
#[must_use]
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..10_000 {
        // Tests in other processes start elsewhere.
        let base = u16::try_from(std::process::id() % 1_000).unwrap_or_default() * 12;
        let port = 12_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}
