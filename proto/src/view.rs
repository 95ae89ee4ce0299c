//! Who makes up a chain, and what follows from it. Derived facts are methods, never stored flags.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{ChainId, Epoch, Incarnation, NodeId, id::NUMBER_MAX};

/// One member of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// Which of its process starts; another one takes no part.
    pub incarnation: Incarnation,
    /// Known to hold every committed write. Only the coordinator sets it.
    pub in_sync: bool,
    /// host:port at which the others reach it.
    pub address: String,
}

/// A replica that catches up from its source and is not yet part of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learner {
    /// Which node.
    pub node: NodeId,
    /// Which of its process starts.
    pub incarnation: Incarnation,
    /// The member that brings it up, and after which it will stand.
    pub source: NodeId,
    /// host:port at which the others reach it.
    pub address: String,
}

/// Who makes up a chain in one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Which chain.
    pub chain: ChainId,
    /// Grows by one with every change.
    pub epoch: Epoch,
    /// From head to tail; never empty.
    pub members: Vec<Member>,
    /// Replicas that catch up.
    pub learners: Vec<Learner>,
    /// Why this epoch was made, in words.
    pub reason: String,
    /// The epoch in which an operator went on with less than may have been committed; zero: never. A replica that had not
    /// been told of it starts from nothing: what it holds may be of the history that was given up.
    #[serde(default, skip_serializing_if = "is_never")]
    pub rebuilt_in: Epoch,
    /// The process starts that an operator has taken out, the latest last; at most [`EXPELLED_MAX`]. They take no part again; a
    /// later start of the same node may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expelled: Vec<Expelled>,
}

/// A process start that an operator has taken out of its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expelled {
    /// The node.
    pub node: NodeId,
    /// Its process start: this one and those before it.
    pub incarnation: Incarnation,
}

/// A view remembers so many process starts that were taken out; of more, the latest.
pub const EXPELLED_MAX: usize = 256;

fn is_never(epoch: &Epoch) -> bool {
    *epoch == Epoch::ZERO
}

/// A replica's place in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// First of several.
    Head,
    /// Neither first nor last.
    Middle,
    /// Last of several.
    Tail,
    /// First and last: a chain of one.
    Single,
    /// Catching up.
    Learner,
    /// Not in the view.
    None,
}

impl Role {
    /// The word for it, as status output and scripts have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Middle => "middle",
            Self::Tail => "tail",
            Self::Single => "single",
            Self::Learner => "learner",
            Self::None => "none",
        }
    }

    /// Head or single.
    #[must_use]
    pub fn is_head(self) -> bool {
        matches!(self, Self::Head | Self::Single)
    }

    /// Tail or single.
    #[must_use]
    pub fn is_tail(self) -> bool {
        matches!(self, Self::Tail | Self::Single)
    }

    /// Part of the chain.
    #[must_use]
    pub fn is_member(self) -> bool {
        !matches!(self, Self::Learner | Self::None)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl View {
    /// What every view is by itself, wherever it comes from; if it is not, what is wrong with it.
    ///
    /// Whether a view may follow another one is for the coordinator to judge.
    pub fn check(&self) -> Result<(), &'static str> {
        let check = |holds: bool, wrong| if holds { Ok(()) } else { Err(wrong) };
        check(self.epoch != Epoch::ZERO, "a view's epochs count from 1")?;
        check(!self.members.is_empty(), "a view has no member")?;
        check(self.rebuilt_in <= self.epoch, "a view was rebuilt in a later epoch than its own")?;
        let members = self.members.iter().map(|member| (member.node, member.incarnation));
        let learners = self.learners.iter().map(|learner| (learner.node, learner.incarnation));
        let mut seen = BTreeSet::new();
        for (node, incarnation) in members.chain(learners) {
            check(seen.insert(node), "a node stands twice in a view")?;
            check(incarnation.0 <= NUMBER_MAX, "an incarnation in a view is out of range")?;
        }
        check(self.expelled.len() <= EXPELLED_MAX, "a view names too many processes that were taken out")?;
        for expelled in &self.expelled {
            let number = expelled.incarnation;
            check(number.0 <= NUMBER_MAX, "an incarnation in a view is out of range")?;
            let is_back = self.incarnation(expelled.node).is_some();
            check(!is_back, "a node is in a view and was taken out of it")?;
        }
        check(self.epoch.0 <= NUMBER_MAX, "the epoch of a view is out of range")
    }

    /// Whether an operator has taken this process out.
    #[must_use]
    pub fn is_expelled(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.expelled.iter().any(|expelled| expelled.node == node && expelled.incarnation >= incarnation)
    }

    /// The first member: takes the writes.
    #[must_use]
    pub fn head(&self) -> Option<&Member> {
        self.members.first()
    }

    /// The last member: commits.
    #[must_use]
    pub fn tail(&self) -> Option<&Member> {
        self.members.last()
    }

    /// The node's entry, if it is a member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The node's entry, if it is a learner.
    #[must_use]
    pub fn learner(&self, node: NodeId) -> Option<&Learner> {
        self.learners.iter().find(|learner| learner.node == node)
    }

    /// The node's place.
    #[must_use]
    pub fn role(&self, node: NodeId) -> Role {
        let Some(position) = self.position(node) else {
            return if self.learner(node).is_some() { Role::Learner } else { Role::None };
        };
        match (position == 0, position + 1 == self.members.len()) {
            (true, true) => Role::Single,
            (true, false) => Role::Head,
            (false, true) => Role::Tail,
            (false, false) => Role::Middle,
        }
    }

    /// The neighbour towards the head.
    #[must_use]
    pub fn predecessor(&self, node: NodeId) -> Option<&Member> {
        let position = self.position(node)?;
        self.members.get(position.checked_sub(1)?)
    }

    /// The neighbour towards the tail.
    #[must_use]
    pub fn successor(&self, node: NodeId) -> Option<&Member> {
        self.members.get(self.position(node)? + 1)
    }

    /// How many members stand before it, if it is a member.
    #[must_use]
    pub fn position(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.node == node)
    }

    /// Where the node is reached, member or learner.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&str> {
        let member = self.member(node).map(|member| member.address.as_str());
        member.or_else(|| self.learner(node).map(|learner| learner.address.as_str()))
    }

    /// The incarnation that the view names for the node, member or learner.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        let member = self.member(node).map(|member| member.incarnation);
        member.or_else(|| self.learner(node).map(|learner| learner.incarnation))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(Uuid::from_u128(n))
    }

    fn view(members: &[u128], learners: &[u128]) -> View {
        let member = |n: &u128| Member {
            node: node(*n),
            incarnation: Incarnation(1),
            in_sync: true,
            address: format!("n{n}:1"),
        };
        let learner = |n: &u128| Learner {
            node: node(*n),
            incarnation: Incarnation(1),
            source: node(members[0]),
            address: format!("n{n}:1"),
        };
        View {
            chain: ChainId::default_chain(),
            epoch: Epoch(1),
            members: members.iter().map(member).collect(),
            learners: learners.iter().map(learner).collect(),
            reason: String::new(),
            rebuilt_in: Epoch::ZERO,
            expelled: Vec::new(),
        }
    }

    #[test]
    fn roles_and_neighbours_follow_from_the_order() {
        let three = view(&[1, 2, 3], &[4]);
        let roles = [1, 2, 3, 4, 5].map(|n| three.role(node(n)));
        assert_eq!(roles, [Role::Head, Role::Middle, Role::Tail, Role::Learner, Role::None]);
        assert_eq!(view(&[1], &[]).role(node(1)), Role::Single);
        assert_eq!(three.predecessor(node(1)), None);
        assert_eq!(three.successor(node(1)).unwrap().node, node(2));
        assert_eq!(three.predecessor(node(3)).unwrap().node, node(2));
        assert_eq!(three.successor(node(3)), None);
        assert_eq!(three.successor(node(4)), None);
        assert_eq!(three.address(node(4)), Some("n4:1"));
    }
}
