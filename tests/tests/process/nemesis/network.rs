//! The links of the cluster and the small disk: what a fault needs that processes do not have of themselves.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use craq_tests::{
    netns::Network,
    process::{Cluster, NodeSpec, free_address},
    proxy::{Proxy, State},
};

use crate::support::cluster;

/// The coordinator's host; node `n` is on host `n + 2`.
const COORDINATOR: u32 = 1;
/// The clients' host.
const CLIENTS: u32 = 254;
/// How long a message travels on a slow link.
const SLOW: Duration = Duration::from_millis(60);

/// How processes reach each other, and how that is disturbed.
pub(super) enum Links {
    /// Each process is on a host of its own, so that any link can be cut.
    Hosts(Network),
    /// Of each node: the way to it, and its way to the coordinator.
    Proxies(Vec<[Proxy; 2]>),
}

fn host(process: usize) -> u32 {
    // After the nodes comes the coordinator.
    if process == super::NODES { COORDINATOR } else { u32::try_from(process).unwrap() + 2 }
}

impl Links {
    /// A cluster on hosts of its own, or behind proxies on a machine that has no rights for hosts.
    pub(super) async fn with_cluster(disk: Option<(usize, PathBuf)>) -> (Self, Cluster) {
        let place_on_disk = move |index: usize, spec: &mut NodeSpec| {
            if let Some((_, file)) = disk.as_ref().filter(|(node, _)| *node == index) {
                spec.file.clone_from(file);
            }
        };
        match Network::new(4) {
            Ok(network) => {
                let coordinator = format!("{}:1234", network.address(COORDINATOR));
                let places: Vec<_> = (0..super::NODES)
                    .map(|node| (network.address(host(node)), network.prefix(host(node))))
                    .collect();
                let place = move |index: usize, spec: &mut NodeSpec| {
                    let (address, prefix) = &places[index];
                    spec.listen = format!("{address}:1235");
                    spec.public.clone_from(&spec.listen);
                    spec.prefix.clone_from(prefix);
                    place_on_disk(index, spec);
                };
                let builder = cluster().coordinator_at(&coordinator, network.prefix(COORDINATOR)).each(place);
                let cluster = builder.start().await;
                (Self::Hosts(network), cluster)
            }
            Err(why) => {
                println!("proxies stand in for hosts, pairs are a node and the coordinator: {why}");
                let builder = cluster();
                let (mut proxies, mut places) = (vec![], vec![]);
                for _ in 0..super::NODES {
                    let listen = free_address();
                    let to_node = Proxy::start(&listen).await;
                    let to_coordinator = Proxy::start(builder.coordinator_address()).await;
                    places.push((listen, to_node.address(), to_coordinator.address()));
                    proxies.push([to_node, to_coordinator]);
                }
                let place = move |index: usize, spec: &mut NodeSpec| {
                    (spec.listen, spec.public, spec.coordinator) = places[index].clone();
                    place_on_disk(index, spec);
                };
                let cluster = builder.each(place).start().await;
                (Self::Proxies(proxies), cluster)
            }
        }
    }

    /// Nothing passes between the node and the other processes, nor, if so wished, between it and the clients.
    pub(super) fn cut_node(&self, node: usize, clients_too: bool) {
        match self {
            Self::Hosts(network) => {
                (0..=super::NODES).filter(|other| *other != node).for_each(|other| {
                    network.cut(host(node), host(other));
                });
                if clients_too {
                    network.cut(CLIENTS, host(node));
                }
            }
            Self::Proxies(proxies) => proxies[node].iter().for_each(|proxy| proxy.set(State::Cut)),
        }
    }

    /// Nothing passes from the one process to the other, nor, if so wished, back.
    pub(super) fn cut_pair(&self, [from, to]: [usize; 2], both_ways: bool) {
        match self {
            Self::Hosts(network) if both_ways => network.cut(host(from), host(to)),
            Self::Hosts(network) => network.cut_one_way(host(from), host(to)),
            Self::Proxies(proxies) => proxies[from.min(to)][1].set(State::Cut),
        }
    }

    /// What the node sends is slow, and so is, with proxies, what is sent to it. Brings how that is done, or why it can't
    /// be.
    pub(super) fn slow(&self, node: usize) -> Result<&'static str, String> {
        match self {
            Self::Hosts(network) => {
                let delay = format!("netem delay {}ms 20ms", SLOW.as_millis());
                if queue(network, node, "add", &delay).is_ok() {
                    return Ok("netem");
                }
                // A kernel without netem: few bytes at a time, so that they queue, and what does not fit is lost.
                let few = "tbf rate 256kbit burst 2000 limit 8000";
                queue(network, node, "add", few).map(|()| "a low rate")
            }
            Self::Proxies(proxies) => {
                proxies[node].iter().for_each(|proxy| proxy.set(State::Slow(SLOW)));
                Ok("a proxy")
            }
        }
    }

    /// All links are whole and fast again.
    pub(super) fn heal(&self) {
        match self {
            Self::Hosts(network) => {
                network.heal();
                for node in 0..super::NODES {
                    // It fails where nothing was slowed.
                    let _ = queue(network, node, "del", "");
                }
            }
            Self::Proxies(proxies) => proxies.iter().flatten().for_each(|proxy| proxy.set(State::Open)),
        }
    }
}

/// Changes how what a node sends is queued.
fn queue(network: &Network, node: usize, verb: &str, how: &str) -> Result<(), String> {
    let prefix = network.prefix(host(node));
    let on_host = |words: &str| {
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(words.split_whitespace());
        ran(command.output())
    };
    let devices = on_host("ip -o link show type veth")?;
    let name = devices.split([':', '@']).nth(1).ok_or("the host has no card")?.trim().to_owned();
    on_host(&format!("tc qdisc {verb} dev {name} root {how}")).map(drop)
}

/// What a command wrote, or why it failed.
fn ran(output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A file system of its own, in memory, that can be filled to the last byte.
pub(super) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts it; `Err` says why this machine can't.
    pub(super) fn mount() -> Result<Self, String> {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=48m", "craq-test"]).arg(dir.path());
        ran(command.output()).map(|_| Self(dir))
    }

    /// Where a node may keep its data.
    pub(super) fn node_file(&self) -> PathBuf {
        self.0.path().join("node.redb")
    }

    /// Takes all the room that is left.
    pub(super) fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).expect("a disk with room");
        // Ever fewer bytes at a time, since the last page is smaller than the first.
        for size in [1 << 20, 1 << 12] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives the room back.
    pub(super) fn free(&self) {
        fs::remove_file(self.ballast()).expect("a disk that was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may be about to end.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}
