//! The state of the cluster, for people and tools.
//!
//! Told by a coordinator if one answers; else put together from what each node says of itself, so that it can be had
//! while every coordinator is away.

use std::{cmp::Reverse, collections::BTreeMap};

use craq_proto::{Epoch, NodeId, wire};
use futures::future::join_all;
use serde::{Serialize, Serializer};
use tokio::time::{Instant, timeout_at};

use crate::{
    Client, Error, Options,
    call::{ASK_TIMEOUT, failed, first_view},
    failure::Failure,
    follow, kv,
    shared::Shared,
};

/// The state of a cluster. Its JSON form is what `craq status -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The cluster's id; none if nobody names it.
    pub cluster: Option<String>,
    /// By name.
    pub chains: Vec<ChainStatus>,
    /// Registered nodes that are part of no chain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<SpareStatus>,
}

/// The state of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainStatus {
    /// The chain's name.
    pub chain: String,
    /// The epoch of its view.
    #[serde(serialize_with = "json_number")]
    pub epoch: u64,
    /// From head to tail.
    pub members: Vec<MemberStatus>,
    /// Replicas that catch up.
    pub learners: Vec<MemberStatus>,
    /// Why the chain is as it is, and what it waits for.
    pub reason: String,
}

/// The state of one member or learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// The node's id.
    pub node: String,
    /// host:port.
    pub address: String,
    /// head, middle, tail, single or learner.
    pub role: String,
    /// Known to hold every committed write.
    pub in_sync: bool,
    /// Heard from lately.
    pub alive: bool,
    /// The highest committed sequence that it told; none if it told nothing.
    #[serde(serialize_with = "json_number_if_any")]
    pub commit: Option<u64>,
    /// How it has answered reads since it started; none if it was not asked itself: see [`Client::status`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<ReadCounts>,
}

/// How one replica has answered reads of single keys since its process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ReadCounts {
    /// Strong, of clean keys.
    #[serde(serialize_with = "json_number")]
    pub clean: u64,
    /// Strong, of dirty keys: the tail was asked.
    #[serde(serialize_with = "json_number")]
    pub asked_tail: u64,
    /// Strong, of dirty keys, by the tail itself.
    #[serde(serialize_with = "json_number")]
    pub at_tail: u64,
    /// Eventual and bounded ones.
    #[serde(serialize_with = "json_number")]
    pub weak: u64,
    /// Questions sent to the tail; reads that wait together share one, and pages of ranges may ask too.
    #[serde(serialize_with = "json_number")]
    pub questions: u64,
    /// Strong, of dirty keys whose newest version was committed before the tail had to be asked.
    #[serde(serialize_with = "json_number")]
    pub awaited_commit: u64,
}

/// A registered node without a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpareStatus {
    /// The node's id.
    pub node: String,
    /// host:port.
    pub address: String,
    /// Why it is in no chain.
    pub reason: String,
}

/// A number for JSON: one above 2^53, which many readers can't hold exactly, becomes a string.
pub fn json_number<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT_MAX: u64 = 1 << 53;
    if *number > EXACT_MAX { serializer.collect_str(number) } else { serializer.serialize_u64(*number) }
}

fn json_number_if_any<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => json_number(number, serializer),
        None => serializer.serialize_none(),
    }
}

impl Client {
    /// The state of the cluster. Of the options, `timeout` and `node` count: then that node is asked instead of a
    /// coordinator, and each member that it names tells of itself, [`MemberStatus::reads`] too.
    pub async fn status(&self, options: &Options) -> Result<Status, Error> {
        let until = self.begin(options)?;
        let shared = &self.shared;
        let addresses = options.node.as_ref().map_or_else(|| shared.seeds.clone(), |node| vec![node.clone()]);
        let told = ask_each(shared, &addresses, until).await;
        let mut replies = Vec::new();
        let mut failure = Failure::no_route("no address is known", false);
        for answer in told {
            match answer {
                Ok(reply) if reply.source == "coordinator" => return Ok(status(reply)),
                Ok(reply) => replies.push(reply),
                Err(other) => failure = other,
            }
        }
        if replies.is_empty() && options.node.is_none() && first_view(shared, until).await.is_ok() {
            let members = shared.routes.lock().addresses();
            replies.extend(ask_each(shared, &members, until).await.into_iter().flatten());
        }
        if replies.is_empty() {
            let message = failure.error.message.clone();
            return Err(if failure.connected {
                Error::from(*failure.error)
            } else {
                Error::Unreachable { message }
            });
        }
        if options.node.is_none() {
            let others = unasked(&replies, &addresses);
            replies.extend(ask_each(shared, &others, until).await.into_iter().flatten());
        }
        let mut status = newest(replies);
        self.ask_members(&mut status, until).await;
        Ok(status)
    }

    /// Asks every member and learner for its own state.
    async fn ask_members(&self, status: &mut Status, until: Instant) {
        for chain in &mut status.chains {
            let name = chain.chain.clone();
            let members = chain.members.iter_mut().chain(&mut chain.learners);
            join_all(members.map(|member| async {
                let told = node_status(&self.shared, &member.address, until).await.ok();
                let told = told.filter(|told| is_node(told, &member.node));
                let replica = told.as_ref().and_then(|told| told.replicas.iter().find(|r| r.chain == name));
                member.alive = told.is_some();
                member.commit = replica.map(|replica| replica.commit).or(member.commit);
                member.reads = replica.and_then(|replica| replica.reads).map(read_counts);
            }))
            .await;
        }
    }
}

/// Whether it is the named node that answers at this address, and not one that took its place.
fn is_node(told: &wire::NodeStatus, node: &str) -> bool {
    told.header.as_ref().is_none_or(|header| header.sender.is_empty() || id(&header.sender) == node)
}

async fn ask_each(
    shared: &Shared,
    addresses: &[String],
    until: Instant,
) -> Vec<Result<wire::GetStatusReply, Failure>> {
    join_all(addresses.iter().map(|address| cluster_status(shared, address, until))).await
}

async fn cluster_status(
    shared: &Shared,
    address: &str,
    until: Instant,
) -> Result<wire::GetStatusReply, Failure> {
    let until = until.min(Instant::now() + ASK_TIMEOUT);
    let connection = shared.channels.get(address, until).await?;
    let message = wire::GetStatusRequest { header: Some(shared.header(Epoch::ZERO)) };
    let mut client = follow::client(&connection);
    let reply = timeout_at(until, client.get_status(Shared::request(message, until))).await;
    let reply = reply.map_err(|_| Failure::no_answer(address, "no answer in time"))?;
    let reply = reply.map_err(|status| failed(shared, address, &connection, &status))?.into_inner();
    shared.check(reply.header.clone(), address)?;
    Ok(reply)
}

async fn node_status(shared: &Shared, address: &str, until: Instant) -> Result<wire::NodeStatus, Failure> {
    let until = until.min(Instant::now() + ASK_TIMEOUT);
    let connection = shared.channels.get(address, until).await?;
    let message = wire::NodeStatusRequest { header: Some(shared.header(Epoch::ZERO)) };
    let mut client = kv::client(connection.channel.clone());
    let reply = timeout_at(until, client.get_node_status(Shared::request(message, until))).await;
    let reply = reply.map_err(|_| Failure::no_answer(address, "no answer in time"))?;
    let reply = reply.map_err(|status| failed(shared, address, &connection, &status))?.into_inner();
    shared.check(reply.header.clone(), address)?;
    Ok(reply)
}

/// The addresses that the replies name and that were not asked yet.
fn unasked(replies: &[wire::GetStatusReply], asked: &[String]) -> Vec<String> {
    let members =
        replies.iter().flat_map(|reply| &reply.chains).flat_map(|c| c.members.iter().chain(&c.learners));
    let mut addresses: Vec<String> = members.map(|member| member.address.clone()).collect();
    addresses.sort();
    addresses.dedup();
    addresses.retain(|address| !asked.contains(address));
    addresses
}

/// What the node of the newest epoch says, chain by chain.
fn newest(mut replies: Vec<wire::GetStatusReply>) -> Status {
    let cluster = replies.iter().find_map(cluster);
    replies.sort_by_key(|reply| Reverse(reply.chains.iter().map(|chain| chain.epoch).max()));
    let mut chains: BTreeMap<String, wire::ChainStatus> = BTreeMap::new();
    for chain in replies.into_iter().flat_map(|reply| reply.chains) {
        let known = chains.entry(chain.chain.clone()).or_insert_with(|| chain.clone());
        if known.epoch < chain.epoch {
            *known = chain;
        }
    }
    Status { cluster, chains: chains.into_values().map(chain_status).collect(), spares: vec![] }
}

fn status(reply: wire::GetStatusReply) -> Status {
    let spare = |spare: wire::SpareNode| SpareStatus {
        node: id(&spare.node),
        address: spare.address,
        reason: spare.reason,
    };
    Status {
        cluster: cluster(&reply),
        chains: reply.chains.into_iter().map(chain_status).collect(),
        spares: reply.spares.into_iter().map(spare).collect(),
    }
}

fn cluster(reply: &wire::GetStatusReply) -> Option<String> {
    let header = reply.header.as_ref()?;
    (!header.cluster_id.is_empty()).then(|| id(&header.cluster_id))
}

fn chain_status(chain: wire::ChainStatus) -> ChainStatus {
    let member = |member: wire::MemberStatus| MemberStatus {
        node: id(&member.node),
        address: member.address,
        role: member.role,
        in_sync: member.in_sync,
        alive: member.alive,
        commit: member.replica.map(|replica| replica.commit),
        reads: None,
    };
    ChainStatus {
        chain: chain.chain,
        epoch: chain.epoch,
        members: chain.members.into_iter().map(member).collect(),
        learners: chain.learners.into_iter().map(member).collect(),
        reason: chain.reason,
    }
}

fn read_counts(counts: wire::ReadCounts) -> ReadCounts {
    let wire::ReadCounts { clean, asked_tail, at_tail, weak, questions, awaited_commit } = counts;
    ReadCounts { clean, asked_tail, at_tail, weak, questions, awaited_commit }
}

fn id(bytes: &[u8]) -> String {
    craq_proto::convert::uuid(bytes, "node")
        .map(NodeId)
        .map_or_else(|_| "unknown".to_owned(), |id| id.to_string())
}
