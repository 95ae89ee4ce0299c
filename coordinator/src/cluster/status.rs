//! The state of the cluster for people: each chain, why it is as it is, and what it waits for, in words.

use std::time::Duration;

use craq_proto::{ChainId, Epoch, Incarnation, NodeId, Role, View};

use super::{Chain, Cluster, event::ReplicaState, facts::Facts, node::Node, transition::Name};

/// The state of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// By name.
    pub chains: Vec<ChainReport>,
    /// Known nodes that are in no chain.
    pub spares: Vec<Spare>,
}

/// The state of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Which.
    pub chain: ChainId,
    /// Its newest epoch; zero before it is founded.
    pub epoch: Epoch,
    /// From head to tail.
    pub members: Vec<ReplicaReport>,
    /// Replicas that catch up.
    pub learners: Vec<ReplicaReport>,
    /// Why it is as it is, and what it waits for.
    pub reason: String,
}

/// The state of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Which node.
    pub node: NodeId,
    /// The incarnation that the view names.
    pub incarnation: Incarnation,
    /// host:port.
    pub address: String,
    /// Its place.
    pub role: Role,
    /// Known to hold every committed write.
    pub in_sync: bool,
    /// Heard from within the failure timeout.
    pub alive: bool,
    /// What the node told last.
    pub replica: Option<ReplicaState>,
}

/// A node without a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spare {
    /// Which.
    pub node: NodeId,
    /// host:port.
    pub address: String,
    /// Why it is in no chain.
    pub reason: String,
}

impl Cluster {
    /// The state of the cluster as of the newest step.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let in_view = |id: &NodeId| self.views().any(|view| view.incarnation(*id).is_some());
        let spares = self.nodes.iter().filter(|(id, _)| !in_view(id)).map(|(id, node)| Spare {
            node: *id,
            address: node.address.clone(),
            reason: self.why_spare(*id, node),
        });
        ClusterStatus {
            chains: self.chains.iter().map(|(name, chain)| self.report(name, chain)).collect(),
            spares: spares.collect(),
        }
    }

    fn report(&self, name: &ChainId, chain: &Chain) -> ChainReport {
        let mut waits = self.waits(chain);
        let Some(view) = &chain.view else {
            waits.insert(0, "the chain is not founded: the first node that registers founds it".to_owned());
            let (members, learners) = (Vec::new(), Vec::new());
            return ChainReport {
                chain: name.clone(),
                epoch: Epoch::ZERO,
                members,
                learners,
                reason: waits.join("; "),
            };
        };
        let report = |id: NodeId, in_sync: bool| {
            let node = self.nodes.get(&id);
            ReplicaReport {
                node: id,
                incarnation: view.incarnation(id).unwrap_or_default(),
                address: view.address(id).unwrap_or_default().to_owned(),
                role: view.role(id),
                in_sync,
                alive: node.is_some_and(|node| node.is_alive(self.now, self.timing.failure_timeout)),
                replica: node.and_then(|node| node.replicas.get(name)).cloned(),
            }
        };
        waits.insert(0, format!("epoch {}: {}", view.epoch, view.reason));
        ChainReport {
            chain: name.clone(),
            epoch: view.epoch,
            members: view.members.iter().map(|member| report(member.node, member.in_sync)).collect(),
            learners: view.learners.iter().map(|learner| report(learner.node, false)).collect(),
            reason: waits.join("; "),
        }
    }

    /// What the chain waits for.
    fn waits(&self, chain: &Chain) -> Vec<String> {
        let mut waits = Vec::new();
        if chain.is_behind() {
            waits.push(format!(
                "stands still: nodes know epoch {}, which is not in the log (has the coordinator's data been \
                 restored from an old copy?)",
                chain.seen
            ));
        }
        if let Some(proposal) = &chain.proposal {
            waits.push(format!(
                "epoch {} is being written to the log: {}",
                proposal.view.epoch, proposal.view.reason
            ));
        }
        let Some(view) = &chain.view else { return waits };
        let quiet = self.now.since(self.heard);
        if quiet > self.timing.failure_timeout / 2 {
            let millis = quiet.as_millis();
            waits.push(format!("no node has been heard for {millis}ms: nobody is judged by that alone"));
        }
        let facts = self.facts(chain);
        let holders: Vec<_> = view.members.iter().filter(|member| member.in_sync).collect();
        let lost = |id| facts.lost(id).is_some();
        if holders.iter().all(|member| lost(member.node)) {
            let names: Vec<String> = holders.iter().map(|m| Name::of(view, m.node).to_string()).collect();
            let one = if names.len() == 1 { "" } else { "one of " };
            waits.push(format!("waits for {one}{}, lost and the only in sync", names.join(", ")));
            return waits;
        }
        for member in &view.members {
            let name = Name::of(view, member.node);
            if self.nodes.get(&member.node).is_none_or(|node| !node.told) {
                waits.push(format!("waits for {name} to register"));
            } else if !facts.active(view, member.node) {
                waits.push(format!("waits until {name} is active in epoch {}", view.epoch));
            }
            if facts.leaving(member.node) {
                waits.push(format!("{name} wants to leave, but is the last member in sync"));
            }
        }
        waits.extend(view.learners.iter().map(|learner| self.learner_waits(view, &facts, learner)));
        waits
    }

    fn learner_waits(&self, view: &View, facts: &Facts, learner: &craq_proto::Learner) -> String {
        let (name, source) = (Name::of(view, learner.node), Name::of(view, learner.source));
        if self.nodes.get(&learner.node).is_none_or(|node| !node.told) {
            format!("waits for {name} to register")
        } else if facts.replica_now(view, learner.node).is_some_and(|replica| replica.caught_up) {
            format!("{name} has caught up with {source} and becomes a member as soon as the chain is active")
        } else {
            format!("{name} catches up from {source}")
        }
    }

    fn why_spare(&self, id: NodeId, node: &Node) -> String {
        let held: Duration = node.held_until.since(self.now);
        if let Some(lost) = node.lost {
            lost.to_string()
        } else if node.leaving {
            "it left".to_owned()
        } else if self.views().any(|view| view.is_expelled(id, node.incarnation)) {
            "an operator took it out; it may return when its process starts anew".to_owned()
        } else if node.stream.is_none() {
            "its connection broke".to_owned()
        } else if !node.is_alive(self.now, self.timing.failure_timeout) {
            "it is silent".to_owned()
        } else if held > Duration::ZERO {
            format!("it was lost a short time ago and is held back for {}ms", held.as_millis())
        } else {
            "it becomes a learner as soon as the chain is active".to_owned()
        }
    }
}
