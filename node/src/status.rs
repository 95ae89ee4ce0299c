//! What a node tells about itself, and what it can find out about the others.

use std::collections::BTreeMap;

use craq_proto::{CallError, ChainId, NodeId, Role, View, convert::uuid_bytes, wire};
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    limits::INQUIRY_TIMEOUT,
    node::{Chains, Node},
    peers::Lane,
    replica::Status,
};

/// The state of all replicas of this node.
pub(crate) async fn replicas(chains: &Chains) -> Result<Vec<wire::ReplicaStatus>, CallError> {
    let mut replicas = Vec::with_capacity(chains.len());
    for chain in chains.values() {
        let reads = Some(chain.reads.to_wire());
        replicas.push(wire::ReplicaStatus { reads, ..replica(&chain.id, &chain.status().await?) });
    }
    Ok(replicas)
}

fn replica(chain: &ChainId, status: &Status) -> wire::ReplicaStatus {
    wire::ReplicaStatus {
        chain: chain.to_string(),
        epoch: status.epoch.0,
        active: status.active,
        caught_up: status.caught_up,
        commit: status.commit.0,
        last: status.last.0,
        durable: status.durable.0,
        keys: status.keys,
        readable: status.readable,
        writable: status.writable,
        role: status.role.as_str().to_owned(),
        transfer_bytes: status.transfer_bytes,
        transfer_rows: status.transfer_rows,
        reads: None,
    }
}

/// What this node tells about itself.
pub(crate) async fn node_status(node: &Node) -> Result<wire::NodeStatus, CallError> {
    Ok(wire::NodeStatus { header: Some(node.me.bare_header()), replicas: replicas(&node.chains).await? })
}

/// The state of these chains, as far as this node knows it or the others tell in time.
pub(crate) async fn cluster_status(node: &Node, views: &[View]) -> wire::GetStatusReply {
    let mut addresses = BTreeMap::new();
    for view in views {
        addresses.extend(view.members.iter().map(|member| (member.node, member.address.as_str())));
        addresses.extend(view.learners.iter().map(|learner| (learner.node, learner.address.as_str())));
    }
    let asked = addresses.iter().map(|(id, address)| async { (*id, ask(node, *id, address).await) });
    let told: BTreeMap<NodeId, Option<wire::NodeStatus>> = join_all(asked).await.into_iter().collect();
    wire::GetStatusReply {
        header: Some(node.me.bare_header()),
        chains: views.iter().map(|view| chain_status(view, &told)).collect(),
        spares: Vec::new(),
        source: "node".to_owned(),
    }
}

async fn ask(node: &Node, id: NodeId, address: &str) -> Option<wire::NodeStatus> {
    if id == node.me.node {
        return node_status(node).await.ok();
    }
    let mut client = node.peers.kv(address, Lane::Control).ok()?;
    let request = wire::NodeStatusRequest { header: Some(node.me.bare_header()) };
    let reply = timeout(INQUIRY_TIMEOUT, client.get_node_status(request)).await.ok()?.ok()?.into_inner();
    let (_, sender) = node.me.check_peer(reply.header.clone()).ok()?;
    (sender == id).then_some(reply)
}

fn chain_status(view: &View, told: &BTreeMap<NodeId, Option<wire::NodeStatus>>) -> wire::ChainStatus {
    let status = |node: NodeId, incarnation: u64, address: &str, role: Role, in_sync: bool| {
        let answer = told.get(&node).and_then(Option::as_ref);
        let replicas = answer.into_iter().flat_map(|answer| &answer.replicas);
        wire::MemberStatus {
            node: uuid_bytes(node.0),
            address: address.to_owned(),
            role: role.as_str().to_owned(),
            in_sync,
            alive: answer.is_some(),
            replica: replicas.into_iter().find(|replica| replica.chain == view.chain.as_str()).cloned(),
            incarnation,
        }
    };
    let members = view.members.iter().map(|member| {
        status(member.node, member.incarnation.0, &member.address, view.role(member.node), member.in_sync)
    });
    let learners = view
        .learners
        .iter()
        .map(|learner| status(learner.node, learner.incarnation.0, &learner.address, Role::Learner, false));
    wire::ChainStatus {
        chain: view.chain.to_string(),
        epoch: view.epoch.0,
        members: members.collect(),
        learners: learners.collect(),
        reason: view.reason.clone(),
    }
}
