//! The faults, one after another, in an order and of a kind that a seed gives.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use craq_client::{Client, Options, check::random::Random};
use craq_tests::process::{
    Cluster, PATIENCE, ask,
    wait::{unless, wait_for},
};

use super::{
    NODES,
    clients::Clients,
    network::{Links, SmallDisk},
};
use crate::support::Figures;

/// A fault lasts as long as was drawn for it, and until so many calls that were sent during it are answered.
const ANSWERS_MIN: usize = 5;
/// A node whose disk is full has to write before it can notice.
const BULK_BYTES: usize = 128 * 1024;
const BULK_KEYS: usize = 16;
/// What is read over a slow link.
const PROBE: &str = "bulk/probe";
const PROBE_BYTES: usize = 16 * 1024;
/// A slow link makes a call that long at least.
pub(super) const SLOW_MIN: Duration = Duration::from_millis(60);

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    KillNode,
    KillCoordinator,
    Pause,
    CutNode,
    CutPair,
    Slow,
    FullDisk,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::KillNode,
        Self::KillCoordinator,
        Self::Pause,
        Self::CutNode,
        Self::CutPair,
        Self::Slow,
        Self::FullDisk,
    ];
}

/// What happens. The number of nodes stands for the coordinator.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill { process: usize },
    Pause { process: usize },
    CutNode { node: usize, clients_too: bool },
    CutPair { pair: [usize; 2], both_ways: bool },
    Slow { node: usize },
    FullDisk,
}

/// What happened of one kind.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) times: usize,
    /// Answers in all of these faults together, and in the one with the fewest.
    pub(super) answers: usize,
    pub(super) fewest: usize,
    lasted: Figures,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, answers, fewest, lasted } = self;
        write!(
            f,
            "{times} times, {answers} calls answered meanwhile, at least {fewest} each; lasted {lasted}"
        )
    }
}

/// A cluster, and what makes its life hard. Fields are dropped in this order.
pub(super) struct Nemesis {
    pub(super) cluster: Cluster,
    links: Links,
    /// The node that has its data on it.
    disk: Option<(usize, SmallDisk)>,
    client: Client,
    random: Random,
    pub(super) tallies: BTreeMap<Kind, Tally>,
    /// The longest call over a slow link.
    pub(super) slowest: Duration,
    /// How links are slowed, on a machine where they can be.
    pub(super) slowed_by: Option<&'static str>,
    /// When the last fault had ended.
    pub(super) ended: Instant,
}

impl Nemesis {
    pub(super) async fn start(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = match SmallDisk::mount() {
            Ok(disk) => Some((random.index(NODES), disk)),
            Err(why) => {
                println!("SKIPPED: a full disk needs the right to mount one: {why}");
                None
            }
        };
        let file = disk.as_ref().map(|(node, disk)| (*node, disk.node_file()));
        let (links, cluster) = Links::with_cluster(file).await;
        let slowed_by = links.slow(0);
        links.heal();
        let slowed_by = slowed_by.map_err(|why| println!("SKIPPED: links are slowed by `tc`: {why}")).ok();
        let client = cluster.client().await;
        client.write(PROBE, vec![1; PROBE_BYTES]).await.expect("a whole chain takes a write");
        let (tallies, slowest) = (BTreeMap::new(), Duration::ZERO);
        Self { cluster, links, disk, client, random, tallies, slowest, slowed_by, ended: Instant::now() }
    }

    /// The kinds that this machine allows.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let is_allowed = |kind: &Kind| match kind {
            Kind::FullDisk => self.disk.is_some(),
            Kind::Slow => self.slowed_by.is_some(),
            _ => true,
        };
        Kind::ALL.into_iter().filter(is_allowed).collect()
    }

    /// Every kind once, in a random order; or, if every kind has been before, as many as begin before `end`.
    pub(super) async fn round(&mut self, clients: &Clients, end: Instant) {
        let mut kinds = self.kinds();
        let is_first = self.tallies.is_empty();
        while !kinds.is_empty() && (is_first || Instant::now() < end) {
            let kind = kinds.swap_remove(self.random.index(kinds.len()));
            self.one(kind, clients).await;
        }
    }

    /// One fault from its beginning to its end, after a breath.
    async fn one(&mut self, kind: Kind, clients: &Clients) {
        let (fault, time) = self.draw(kind);
        let breath = self.millis(100, 700);
        tokio::time::sleep(breath).await;
        self.can_stand(kind).await;
        let from = clients.recorder.now();
        println!("{:>7.3} s: {fault:?} for {time:?}", from.as_secs_f64());
        self.begin(fault).await;
        // What was sent before the fault was complete shows nothing.
        let complete = clients.recorder.now();
        let left = (from + time).saturating_sub(clients.recorder.now());
        tokio::time::sleep(left).await;
        let answers = wait_for(&format!("answers during {fault:?}"), PATIENCE, async || {
            let answers = clients.answered_since(complete);
            unless(answers >= ANSWERS_MIN, || format!("only {answers}")).map(|()| answers)
        })
        .await;
        let lasted = clients.recorder.now() - from;
        self.end(fault);
        self.ended = Instant::now();
        let tally = self.tallies.entry(kind).or_default();
        tally.fewest = if tally.times == 0 { answers } else { tally.fewest.min(answers) };
        tally.times += 1;
        tally.answers += answers;
        tally.lasted.add(lasted);
    }

    fn millis(&mut self, least: u64, end: u64) -> Duration {
        Duration::from_millis(least + self.random.below(end - least))
    }

    fn draw(&mut self, kind: Kind) -> (Fault, Duration) {
        let node = self.random.index(NODES);
        let process = self.random.index(NODES + 1);
        let coin = self.random.below(2) == 0;
        let other = (process + 1 + self.random.index(NODES)) % (NODES + 1);
        let pair = match self.links {
            Links::Hosts(_) => [process, other],
            Links::Proxies(_) => [node, NODES],
        };
        match kind {
            Kind::KillNode => (Fault::Kill { process: node }, self.millis(100, 1_500)),
            Kind::KillCoordinator => (Fault::Kill { process: NODES }, self.millis(100, 1_500)),
            Kind::Pause => (Fault::Pause { process }, self.millis(100, 1_500)),
            Kind::CutNode => (Fault::CutNode { node, clients_too: coin }, self.millis(200, 2_000)),
            Kind::CutPair => (Fault::CutPair { pair, both_ways: coin }, self.millis(200, 2_000)),
            Kind::Slow => (Fault::Slow { node }, self.millis(300, 1_500)),
            Kind::FullDisk => (Fault::FullDisk, self.millis(100, 500)),
        }
    }

    /// Waits until the chain can lose a member and go on: else nobody could answer, and nothing would be shown.
    async fn can_stand(&self, kind: Kind) {
        let on_disk = self.disk.as_ref().filter(|_| kind == Kind::FullDisk);
        let on_disk = on_disk.map(|(node, _)| self.cluster.address(*node));
        wait_for("two members in sync", PATIENCE, async || {
            let chain = ask::chain(self.cluster.coordinator_address()).await?;
            let mut in_sync = vec![];
            for member in chain.members.iter().filter(|member| member.in_sync && member.alive) {
                let replica = ask::replica(&member.address).await?;
                if replica.epoch == chain.epoch && replica.active && replica.readable {
                    in_sync.push(&member.address);
                }
            }
            let is_enough = in_sync.len() >= 2 && on_disk.as_ref().is_none_or(|node| in_sync.contains(&node));
            unless(is_enough, || format!("in sync: {in_sync:?}"))
        })
        .await;
    }

    async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { process: NODES } => self.cluster.kill_coordinator(),
            Fault::Kill { process } => self.cluster.kill_node(process),
            Fault::Pause { process: NODES } => self.cluster.coordinator().pause(),
            Fault::Pause { process } => self.cluster.node(process).pause(),
            Fault::CutNode { node, clients_too } => self.links.cut_node(node, clients_too),
            Fault::CutPair { pair, both_ways } => self.links.cut_pair(pair, both_ways),
            Fault::Slow { node } => {
                self.links.slow(node).expect("a link can be slowed, as it could before");
                let began = Instant::now();
                let options = Options::new().timeout(PATIENCE / 10).node(self.cluster.address(node));
                // A node that is put out of the chain for its slowness does not answer at all.
                let _ = self.client.read_with(PROBE, &options).await;
                self.slowest = self.slowest.max(began.elapsed());
            }
            Fault::FullDisk => self.until_the_disk_fails().await,
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { process: NODES } => self.cluster.start_coordinator(),
            Fault::Kill { process } => self.cluster.start_node(process),
            Fault::Pause { process: NODES } => self.cluster.coordinator().resume(),
            Fault::Pause { process } => self.cluster.node(process).resume(),
            Fault::CutNode { .. } | Fault::CutPair { .. } | Fault::Slow { .. } => self.links.heal(),
            Fault::FullDisk => {
                let (node, disk) = self.disk.as_ref().expect("a disk that was full");
                disk.free();
                // With what it has: what it acknowledged is there, and what it could not write is not.
                self.cluster.start_node(*node);
            }
        }
    }

    /// Fills the disk and writes, beside the clients, until the node on it has ended as it should.
    async fn until_the_disk_fails(&mut self) {
        let (node, disk) = self.disk.as_ref().expect("a disk to be filled");
        disk.fill();
        let bulk = Bytes::from(vec![2; BULK_BYTES]);
        let options = Options::new().timeout(Duration::from_secs(1));
        let (child, mut number) = (self.cluster.node(*node), 0);
        let exit = wait_for("the end of a node whose disk is full", PATIENCE, async || {
            number += 1;
            let key = format!("bulk/{}", number % BULK_KEYS);
            // It may fail: the chain is about to lose a member.
            let _ = self.client.write_with(key, bulk.clone(), &options).await;
            child.exit().ok_or_else(|| format!("it still runs after {number} writes"))
        })
        .await;
        assert_eq!(exit.code(), Some(74), "a node whose disk fails ends with an I/O error");
        assert!(child.said("this node stops at once"), "it says why\n{}", child.last_words());
    }
}
