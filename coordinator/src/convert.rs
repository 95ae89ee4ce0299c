//! Wire to the cluster's words and back. Refuses what no correct node or operator sends.

use craq_proto::{
    CallError, ErrorKind, NodeId,
    convert::{self, Header, Malformed, uuid_bytes},
    wire,
};

use crate::cluster::{
    Placement, Refusal, Registration, ReplicaState, Replicas, Suspicion,
    status::{ChainReport, ReplicaReport, Spare},
};

/// Longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 262;

fn node_id(bytes: &[u8], field: &'static str) -> Result<NodeId, Malformed> {
    convert::uuid(bytes, field).map(NodeId)
}

/// host:port with a port that can be dialed.
fn address(text: String) -> Result<String, Malformed> {
    let legal = |(host, port): (&str, &str)| {
        let host_is_one =
            !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && !"/@?#\\".contains(c));
        host_is_one && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if text.len() <= ADDRESS_BYTES_MAX && text.rsplit_once(':').is_some_and(legal) {
        Ok(text)
    } else {
        Err(Malformed::Bad { field: "register.address", expected: "host:port" })
    }
}

fn placement(placement: Option<wire::Placement>) -> Result<Placement, Malformed> {
    use wire::placement::Place;
    Ok(match placement.and_then(|placement| placement.place) {
        None | Some(Place::First(false)) => Placement::Tail,
        Some(Place::First(true)) => Placement::First,
        Some(Place::After(node)) => Placement::After(node_id(&node, "placement.after")?),
    })
}

/// What a node tells of its replicas.
pub(crate) fn replicas(states: Vec<wire::ReplicaStatus>) -> Result<Replicas, Malformed> {
    states
        .into_iter()
        .map(|state| {
            let chain = convert::chain_id(state.chain.clone())?;
            Ok((chain, replica_state(state)))
        })
        .collect()
}

fn replica_state(state: wire::ReplicaStatus) -> ReplicaState {
    ReplicaState {
        epoch: craq_proto::Epoch(state.epoch),
        active: state.active,
        caught_up: state.caught_up,
        commit: state.commit,
        last: state.last,
        durable: state.durable,
        keys: state.keys,
        readable: state.readable,
        writable: state.writable,
        role: state.role,
        transfer_bytes: state.transfer_bytes,
        transfer_rows: state.transfer_rows,
    }
}

/// A node's first message.
pub(crate) fn registration(header: &Header, register: wire::Register) -> Result<Registration, Malformed> {
    if header.incarnation.0 == 0 {
        return Err(Malformed::Bad { field: "incarnation", expected: "number from 1" });
    }
    Ok(Registration {
        node: header.node()?,
        incarnation: header.incarnation,
        address: address(register.address)?,
        placement: placement(register.placement)?,
        replicas: replicas(register.replicas)?,
    })
}

/// What a node cannot reach.
pub(crate) fn suspicions(suspicions: Vec<wire::Suspicion>) -> Result<Vec<Suspicion>, Malformed> {
    let one = |suspicion: wire::Suspicion| {
        Ok(Suspicion {
            chain: convert::chain_id(suspicion.chain)?,
            epoch: craq_proto::Epoch(suspicion.epoch),
            node: node_id(&suspicion.node, "suspicion.node")?,
            incarnation: craq_proto::Incarnation(suspicion.incarnation),
            refused: suspicion.refused,
        })
    };
    suspicions.into_iter().map(one).collect()
}

/// The nodes that an operator names.
pub(crate) fn nodes(order: &[bytes::Bytes]) -> Result<Vec<NodeId>, Malformed> {
    order.iter().map(|node| node_id(node, "order")).collect()
}

/// The node that an operator names.
pub(crate) fn node(node: &[u8]) -> Result<NodeId, Malformed> {
    node_id(node, "node")
}

/// Why an operator's order was refused, for the operator.
pub(crate) fn refusal(refusal: Refusal) -> CallError {
    let kind = match &refusal {
        Refusal::Invalid(_) => ErrorKind::Invalid,
        Refusal::Forbidden(_) => ErrorKind::ConditionFailed,
        Refusal::Unavailable(_) => ErrorKind::Unavailable,
    };
    CallError::new(kind, refusal.to_string())
}

/// The state of a chain, as it travels.
pub(crate) fn chain_status(report: ChainReport) -> wire::ChainStatus {
    wire::ChainStatus {
        members: report.members.into_iter().map(|member| member_status(&report.chain, member)).collect(),
        learners: report.learners.into_iter().map(|learner| member_status(&report.chain, learner)).collect(),
        chain: report.chain.to_string(),
        epoch: report.epoch.0,
        reason: report.reason,
    }
}

fn member_status(chain: &craq_proto::ChainId, report: ReplicaReport) -> wire::MemberStatus {
    wire::MemberStatus {
        node: uuid_bytes(report.node.0),
        address: report.address,
        role: report.role.to_string(),
        in_sync: report.in_sync,
        alive: report.alive,
        replica: report.replica.map(|state| replica_status(chain, state)),
        incarnation: report.incarnation.0,
    }
}

fn replica_status(chain: &craq_proto::ChainId, state: ReplicaState) -> wire::ReplicaStatus {
    wire::ReplicaStatus {
        chain: chain.to_string(),
        epoch: state.epoch.0,
        active: state.active,
        caught_up: state.caught_up,
        commit: state.commit,
        last: state.last,
        durable: state.durable,
        keys: state.keys,
        readable: state.readable,
        writable: state.writable,
        role: state.role,
        transfer_bytes: state.transfer_bytes,
        transfer_rows: state.transfer_rows,
        reads: None,
    }
}

/// A view of the log, as it travels.
pub(crate) fn history_entry(entry: craq_log::Entry) -> wire::HistoryEntry {
    wire::HistoryEntry {
        view: Some((&entry.view).into()),
        time: entry.wall_time,
        term: entry.term.0,
        coordinator: entry.holder.map(|holder| holder.address).unwrap_or_default(),
    }
}

/// A node without a chain, as it travels.
pub(crate) fn spare_node(spare: Spare) -> wire::SpareNode {
    wire::SpareNode { node: uuid_bytes(spare.node.0), address: spare.address, reason: spare.reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_dialed_are_taken() {
        for good in ["localhost:1", "10.0.0.1:65535", "[::1]:80", "node-1.example.org:1235"] {
            assert!(address(good.to_owned()).is_ok(), "{good} was refused");
        }
        for bad in
            ["", "localhost", ":1", "localhost:0", "localhost:65536", "a b:1", "http://a:1", "a:1/b", "ä:1"]
        {
            assert!(address(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
    }
}
