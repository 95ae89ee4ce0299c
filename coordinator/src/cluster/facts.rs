//! What the rules of one chain look at. Gathered by the cluster, judged by [`super::next_view`].

use std::{collections::BTreeMap, fmt, time::Duration};

use craq_proto::{Incarnation, NodeId, View};

use super::event::{Placement, ReplicaState, StreamId};

/// Why a node counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Not heard from for the failure timeout.
    Silent(Duration),
    /// It cannot be reached and connecting to its address is refused.
    Refused,
    /// Its stream broke and another node registered with its address.
    Displaced,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(timeout) => write!(f, "it was silent for {}ms", timeout.as_millis()),
            Self::Refused => f.write_str("connecting to it is refused"),
            Self::Displaced => f.write_str("another node has its address"),
        }
    }
}

/// What is known of one node, as far as one chain is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Its newest process start.
    pub incarnation: Incarnation,
    /// host:port.
    pub address: String,
    /// Where it wants to stand.
    pub placement: Placement,
    /// Set: the node is lost.
    pub lost: Option<Lost>,
    /// It wants out.
    pub leaving: bool,
    /// It is registered and may become a learner now. Its stream tells who came first.
    pub joins: Option<StreamId>,
    /// It was promoted in order to lead, and has not led yet.
    pub wants_head: bool,
    /// It was promoted not long ago; later learners wait for it, so that nodes stand in the order in which they came.
    pub settling: bool,
    /// The newest state that this incarnation told.
    pub replica: Option<ReplicaState>,
}

/// Two members that cannot reach each other, though both are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The one that has to go.
    pub victim: NodeId,
    /// The one that it cannot reach, or is not reached by.
    pub other: NodeId,
}

/// What the rules of one chain look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Every node that is known, registered or named by the view.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// A broken pair that has stood for the failure timeout.
    pub cut: Option<Cut>,
}

impl Facts {
    /// Why the node is lost, if it is.
    #[must_use]
    pub fn lost(&self, node: NodeId) -> Option<Lost> {
        self.nodes.get(&node).and_then(|facts| facts.lost)
    }

    /// Neither lost nor on its way out.
    #[must_use]
    pub fn stays(&self, node: NodeId) -> bool {
        self.lost(node).is_none() && !self.leaving(node)
    }

    /// The node wants out.
    #[must_use]
    pub fn leaving(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|facts| facts.leaving)
    }

    /// What the node said in the view's epoch, if it has said anything in that epoch, as the incarnation that the
    /// view names. What it said in another epoch proves nothing about this one (protocol.md 1, "in sync").
    #[must_use]
    pub fn replica_now(&self, view: &View, node: NodeId) -> Option<&ReplicaState> {
        let facts = self.nodes.get(&node)?;
        let replica = facts.replica.as_ref()?;
        let same_process = view.incarnation(node) == Some(facts.incarnation);
        (same_process && replica.epoch == view.epoch).then_some(replica)
    }

    /// The member has said `Active` in the view's epoch.
    #[must_use]
    pub fn active(&self, view: &View, node: NodeId) -> bool {
        self.replica_now(view, node).is_some_and(|replica| replica.active)
    }

    /// Some in-sync member is alive, and every such one has said `Active` in the view's epoch.
    ///
    /// Changes that can wait do so until then. Members that are lost do not count: they are about to be taken out.
    #[must_use]
    pub fn quiet(&self, view: &View) -> bool {
        let mut alive = view.members.iter().filter(|m| m.in_sync && self.lost(m.node).is_none()).peekable();
        alive.peek().is_some() && alive.all(|member| self.active(view, member.node))
    }

    /// The member that brings the node up: where its placement says if that is an in-sync member, else the last one.
    ///
    /// None if the view has no in-sync member that stays.
    #[must_use]
    pub fn wanted_source(&self, view: &View, node: NodeId) -> Option<NodeId> {
        let fit = |m: &&craq_proto::Member| m.in_sync && self.lost(m.node).is_none();
        let placement = self.nodes.get(&node).map(|facts| facts.placement).unwrap_or_default();
        let placed = match placement {
            Placement::Tail => None,
            Placement::After(other) => view.members.iter().find(|m| m.node == other).filter(fit),
            Placement::First => view.members.first().filter(fit),
        };
        let last = view.members.iter().rev().find(fit);
        placed.or(last).map(|member| member.node)
    }
}
