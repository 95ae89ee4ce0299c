//! Coordinators and their nodes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use craq_client::{Client, Options, Range};
use craq_proto::{Role, wire};
use futures::{StreamExt as _, TryStreamExt as _, stream::FuturesUnordered};
use tempfile::TempDir;

use super::{
    Binaries, Builder, Child, Exit, NodeSpec, Store, ask,
    spec::free_address,
    wait::{unless, wait_for},
};
use crate::versions::Contents;

/// How long a test waits for what should take a second or two: machines that run tests are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node: how it is started, and its process, if it runs.
#[derive(Debug)]
pub struct Node {
    /// How it is started.
    pub spec: NodeSpec,
    child: Option<Child>,
}

/// Coordinators and their nodes. Indices of nodes are in the order of their first start.
pub struct Cluster {
    dir: TempDir,
    binaries: Binaries,
    nodes: Vec<Node>,
    node_flags: Vec<String>,
    store: Store,
    /// Where each coordinator is reached, and its process, if it runs.
    coordinators: Vec<(String, Option<Child>)>,
    coordinator_flags: Vec<String>,
    coordinator_prefix: Vec<String>,
}

impl Cluster {
    pub(super) async fn start(mut builder: Builder) -> Self {
        let mut cluster = Self {
            dir: TempDir::new().expect("a temporary directory"),
            binaries: builder.binaries,
            nodes: vec![],
            node_flags: builder.node_flags,
            store: builder.store,
            coordinators: vec![(builder.coordinator_listen, None)],
            coordinator_flags: builder.coordinator_flags,
            coordinator_prefix: builder.coordinator_prefix,
        };
        cluster.coordinators.resize_with(builder.coordinators, || (free_address(), None));
        for index in 0..builder.coordinators {
            cluster.start_coordinator_at(index);
        }
        for index in 0..builder.nodes {
            let mut spec = cluster.new_spec();
            if let Some(change) = &mut builder.each {
                change(index, &mut spec);
            }
            let index = cluster.add(spec);
            cluster.start_node(index);
            cluster.whole().await;
        }
        cluster
    }

    /// How a further node is started, unless changed.
    #[must_use]
    pub fn new_spec(&self) -> NodeSpec {
        let listen = free_address();
        NodeSpec {
            public: listen.clone(),
            listen,
            coordinator: self.coordinator_addresses().join(","),
            file: self.dir.path().join(format!("node-{}.{}", self.nodes.len(), self.store.as_str())),
            store: self.store,
            flags: self.node_flags.clone(),
            prefix: vec![],
        }
    }

    /// A further node, not yet started.
    pub fn add(&mut self, spec: NodeSpec) -> usize {
        self.nodes.push(Node { spec, child: None });
        self.nodes.len() - 1
    }

    /// Where files may be put that vanish with the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn address(&self, node: usize) -> String {
        self.nodes[node].spec.public.clone()
    }

    /// Where clients reach all nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.spec.public.clone()).collect()
    }

    /// Where the first coordinator is reached.
    #[must_use]
    pub fn coordinator_address(&self) -> &str {
        &self.coordinators[0].0
    }

    /// Where the coordinators are reached.
    #[must_use]
    pub fn coordinator_addresses(&self) -> Vec<String> {
        self.coordinators.iter().map(|(address, _)| address.clone()).collect()
    }

    /// The coordinators' directory.
    #[must_use]
    pub fn coordinator_data(&self) -> PathBuf {
        self.dir.path().join("coordinator")
    }

    /// The first coordinator's process.
    pub fn coordinator(&mut self) -> &mut Child {
        self.coordinator_at(0)
    }

    /// A coordinator's process.
    pub fn coordinator_at(&mut self, index: usize) -> &mut Child {
        self.coordinators[index].1.as_mut().expect("the coordinator runs")
    }

    /// Waits until a coordinator leads in a later term than this one; brings which, and its term.
    pub async fn leader(&self, after: u64) -> (usize, u64) {
        wait_for("a leader", PATIENCE, async || {
            let places = self.coordinators.iter().enumerate();
            let ask =
                async |(index, (address, _)): (usize, &(String, _))| (index, ask::leadership(address).await);
            // One that stands still takes long to say nothing.
            let mut asked: FuturesUnordered<_> = places.map(ask).collect();
            let mut answers = vec![];
            while let Some((index, answer)) = asked.next().await {
                match answer {
                    Ok(reply) if reply.leads && reply.term > after => return Ok((index, reply.term)),
                    other => answers.push(other),
                }
            }
            Err(format!("{answers:?}"))
        })
        .await
    }

    /// A node's process.
    pub fn node(&mut self, node: usize) -> &mut Child {
        self.nodes[node].child.as_mut().expect("the node runs")
    }

    /// How a node is started, to be changed before its next start.
    pub fn spec(&mut self, node: usize) -> &mut NodeSpec {
        &mut self.nodes[node].spec
    }

    /// Starts the first coordinator on its data and its address.
    pub fn start_coordinator(&mut self) {
        self.start_coordinator_at(0);
    }

    /// Starts a coordinator on the data of all and its address.
    pub fn start_coordinator_at(&mut self, index: usize) {
        let data = self.coordinator_data().display().to_string();
        let address = self.coordinators[index].0.clone();
        let mut arguments = vec!["-a".to_owned(), address.clone()];
        if !self.coordinator_flags.iter().any(|flag| flag == "--data") {
            arguments.extend(["--data".to_owned(), data]);
        }
        arguments.extend(self.coordinator_flags.iter().cloned());
        let name = format!("coordinator {index}");
        let child = Child::spawn(&name, &self.coordinator_prefix, &self.binaries.coordinator, &arguments);
        assert_eq!(child.listening(), address, "the coordinator listens where it was told to");
        self.coordinators[index].1 = Some(child);
    }

    /// Kills the first coordinator; its data stay.
    pub fn kill_coordinator(&mut self) {
        self.kill_coordinator_at(0);
    }

    /// Kills a coordinator; its data stay.
    pub fn kill_coordinator_at(&mut self, index: usize) {
        self.coordinators[index].1 = None;
    }

    /// Starts a node on its data and its address; returns when it listens.
    pub fn start_node(&mut self, node: usize) {
        self.launch_node(node);
        let _ = self.node(node).listening();
    }

    /// As [`Cluster::start_node`], for one that may end before it listens.
    pub fn launch_node(&mut self, node: usize) {
        let spec = &self.nodes[node].spec;
        let store = spec.store.as_str();
        let file = spec.file.display().to_string();
        let mut arguments: Vec<String> =
            ["-a", &spec.listen, "-p", &spec.public, "-c", &spec.coordinator, "-f", &file, "--store", store]
                .map(str::to_owned)
                .to_vec();
        arguments.extend(spec.flags.iter().cloned());
        let child = Child::spawn(&format!("node {node}"), &spec.prefix, &self.binaries.node, &arguments);
        self.nodes[node].child = Some(child);
    }

    /// Kills a node; its data stay.
    pub fn kill_node(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].child.take() {
            child.kill();
        }
    }

    /// Takes a dead node's data away.
    pub fn wipe(&mut self, node: usize) {
        assert!(self.nodes[node].child.is_none(), "a running node is not wiped");
        let file = &self.nodes[node].spec.file;
        let _ = if file.is_dir() { std::fs::remove_dir_all(file) } else { std::fs::remove_file(file) };
    }

    /// Waits until a process that was asked to stop, or has to, is gone; brings how it ended.
    pub async fn ended(&mut self, node: usize, deadline: Duration) -> Exit {
        let child = self.node(node);
        let exit = wait_for("the node's end", deadline, async || {
            child.exit().ok_or_else(|| "it still runs".to_owned())
        })
        .await;
        self.nodes[node].child = None;
        exit
    }

    /// The nodes that run, paused ones included.
    pub fn running(&mut self) -> Vec<usize> {
        let mut running = vec![];
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.child.as_mut().is_some_and(|child| child.exit().is_none()) {
                running.push(index);
            }
        }
        running
    }

    /// Waits until all running nodes, and no others, make up the chain: in sync, of one epoch, with their gates
    /// passed, readable, the head writable. Brings their order.
    pub async fn whole(&mut self) -> Vec<usize> {
        let running = self.running();
        self.whole_of(&running, PATIENCE).await
    }

    /// As [`Cluster::whole`], of these nodes and within this time.
    pub async fn whole_of(&self, wanted: &[usize], patience: Duration) -> Vec<usize> {
        wait_for("a whole chain", patience, async || {
            let chain = self.ask_chain().await?;
            self.is_whole(wanted, &chain).await.map_err(|why| format!("{why}: {}", describe(&chain)))
        })
        .await
    }

    async fn is_whole(&self, wanted: &[usize], chain: &wire::ChainStatus) -> Result<Vec<usize>, String> {
        unless(chain.learners.is_empty(), || "a node still learns".to_owned())?;
        let order = self.order(chain)?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        unless(sorted == wanted, || format!("members are {sorted:?}, not {wanted:?}"))?;
        unless(chain.members.iter().all(|member| member.in_sync), || "a member is not in sync".to_owned())?;
        for (index, member) in chain.members.iter().enumerate() {
            let replica = ask::replica(&member.address).await?;
            let is_ready = replica.epoch == chain.epoch && replica.active && replica.readable;
            unless(is_ready, || format!("{} is not ready: {replica:?}", member.address))?;
            unless(index > 0 || replica.writable, || format!("the head takes no writes: {replica:?}"))?;
        }
        Ok(order)
    }

    /// The nodes of a chain, from head to tail.
    fn order(&self, chain: &wire::ChainStatus) -> Result<Vec<usize>, String> {
        let index = |member: &wire::MemberStatus| {
            let found = self.nodes.iter().position(|node| node.spec.public == member.address);
            found.ok_or_else(|| format!("{} is none of this cluster's nodes", member.address))
        };
        chain.members.iter().map(index).collect()
    }

    /// The coordinator's view of the chain.
    pub async fn chain(&self) -> wire::ChainStatus {
        wait_for("the coordinator's answer", PATIENCE, async || self.ask_chain().await).await
    }

    /// As a coordinator that runs tells it.
    async fn ask_chain(&self) -> Result<wire::ChainStatus, String> {
        let mut answer = Err("no coordinator runs".to_owned());
        for (address, child) in &self.coordinators {
            if answer.is_err() && child.is_some() {
                answer = ask::chain(address).await;
            }
        }
        answer
    }

    /// The node in this place of the chain.
    pub async fn at(&self, role: Role) -> usize {
        let chain = self.chain().await;
        let order = self.order(&chain).expect("the members are known");
        match role {
            Role::Middle => order[order.len() / 2],
            Role::Tail => *order.last().expect("a chain has a tail"),
            _ => order[0],
        }
    }

    /// What a node tells of its replica.
    pub async fn replica(&self, node: usize) -> wire::ReplicaStatus {
        let address = self.address(node);
        wait_for("the node's status", PATIENCE, async || ask::replica(&address).await).await
    }

    /// A client that starts from the coordinator and from all nodes.
    pub async fn client(&self) -> Client {
        let mut addresses = self.coordinator_addresses();
        addresses.extend(self.addresses());
        Client::connect(addresses).await.expect("a process of the cluster answers")
    }

    /// What each of these nodes has, by strong reads of it alone.
    pub async fn contents(&self, nodes: &[usize]) -> Vec<(String, Contents)> {
        let client = self.client().await;
        let mut all = vec![];
        for node in nodes {
            let address = self.address(*node);
            let options = Options::new().node(&address).timeout(PATIENCE);
            let items: Vec<_> = client
                .scan(Range::all(), options)
                .try_collect()
                .await
                .expect("a node of a whole chain is readable");
            let contents: BTreeMap<_, _> = items
                .into_iter()
                .map(|item| {
                    (String::from_utf8_lossy(&item.key).into_owned(), (item.version.0, Some(item.value)))
                })
                .collect();
            all.push((format!("node {node}"), contents));
        }
        all
    }

    /// The ends of all logs.
    #[must_use]
    pub fn last_words(&self) -> String {
        let nodes = self.nodes.iter().filter_map(|node| node.child.as_ref());
        nodes
            .chain(self.coordinators.iter().filter_map(|(_, child)| child.as_ref()))
            .map(Child::last_words)
            .collect()
    }
}

/// A chain in one line.
#[must_use]
pub(super) fn describe(chain: &wire::ChainStatus) -> String {
    let member = |m: &wire::MemberStatus| {
        let sync = if m.in_sync { "" } else { ", not in sync" };
        let alive = if m.alive { "" } else { ", not alive" };
        let replica = m.replica.as_ref().map(|r| {
            format!(
                ", epoch {} active {} commit {} last {} readable {}",
                r.epoch, r.active, r.commit, r.last, r.readable
            )
        });
        format!("{} ({}{sync}{alive}{})", m.address, m.role, replica.unwrap_or_default())
    };
    let members: Vec<_> = chain.members.iter().chain(&chain.learners).map(member).collect();
    format!("epoch {}: {}; {}", chain.epoch, members.join(", "), chain.reason)
}
