//! What changed from one view to the next, each change with the reason that people read.

use std::fmt;

use craq_proto::{Incarnation, NodeId, View};

use super::facts::Lost;

/// A node as reasons name it: by address, and by id because an address can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Which node.
    pub node: NodeId,
    /// host:port; empty if it is not known.
    pub address: String,
}

impl Name {
    /// The node as the view knows it.
    #[must_use]
    pub fn of(view: &View, node: NodeId) -> Self {
        Self { node, address: view.address(node).unwrap_or_default().to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.is_empty() {
            write!(f, "{}", self.node)
        } else {
            write!(f, "{} ({})", self.address, self.node)
        }
    }
}

/// One change of a chain. `View.reason` is all of an epoch's transitions in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The chain begins.
    Founded {
        /// Its only member.
        node: Name,
    },
    /// A node's process started anew, with its store.
    Restarted {
        /// Which.
        node: Name,
        /// The new incarnation.
        incarnation: Incarnation,
    },
    /// A node is reached elsewhere.
    Moved {
        /// Which, with its new address.
        node: Name,
    },
    /// A node is gone.
    Lost {
        /// Which.
        node: Name,
        /// Why.
        why: Lost,
    },
    /// A node went by its own wish.
    Left {
        /// Which.
        node: Name,
    },
    /// Two members cannot reach each other; one had to go.
    Cut {
        /// The one that went.
        node: Name,
        /// The one that stayed.
        other: Name,
    },
    /// A member that stood before the first in-sync one catches up anew.
    FellBack {
        /// Which.
        node: Name,
        /// The head from now on.
        head: Name,
    },
    /// A learner is brought up by another member.
    Resourced {
        /// Which learner.
        node: Name,
        /// By whom.
        source: Name,
        /// The former source is no member any more.
        lost: bool,
    },
    /// A node begins to catch up.
    Joined {
        /// Which.
        node: Name,
        /// From whom.
        source: Name,
        /// It asked to stand after this node, which is no in-sync member.
        missed: Option<NodeId>,
    },
    /// A learner became a member.
    Promoted {
        /// Which.
        node: Name,
        /// It stands after this one.
        after: Name,
    },
    /// A member is known to hold every committed write.
    InSync {
        /// Which.
        node: Name,
    },
    /// A member leads, as it had asked for when it joined.
    Leads {
        /// Which.
        node: Name,
    },
    /// An operator changed the order.
    Reordered {
        /// The new head.
        head: Name,
    },
    /// An operator took a node out.
    Removed {
        /// Which.
        node: Name,
    },
    /// An operator gave up the last in-sync member; another replica leads with what it has.
    DataLossAccepted {
        /// The one that was given up.
        node: Name,
        /// The one that leads.
        head: Name,
    },
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founded { node } => write!(f, "{node} founded the chain"),
            Self::Restarted { node, incarnation } => {
                write!(f, "{node} restarted as incarnation {incarnation}")
            }
            Self::Moved { node } => write!(f, "{node} has a new address"),
            Self::Lost { node, why } => write!(f, "{node} was lost: {why}"),
            Self::Left { node } => write!(f, "{node} left"),
            Self::Cut { node, other } => {
                write!(f, "{node} was taken out: it and {other} do not reach each other")
            }
            Self::FellBack { node, head } => {
                write!(
                    f,
                    "{node} was not in sync and stood before {head}, which leads now: it catches up anew"
                )
            }
            Self::Resourced { node, source, lost } => {
                write!(f, "{node} catches up from {source} now")?;
                if *lost { f.write_str(": its source is gone") } else { Ok(()) }
            }
            Self::Joined { node, source, missed: None } => write!(f, "{node} joins after {source}"),
            Self::Joined { node, source, missed: Some(missed) } => {
                write!(f, "{node} joins after {source}, since {missed} is no member in sync")
            }
            Self::Promoted { node, after } => write!(f, "{node} has caught up and stands after {after}"),
            Self::InSync { node } => write!(f, "{node} is in sync"),
            Self::Leads { node } => write!(f, "{node} leads, as it asked to when it joined"),
            Self::Reordered { head } => write!(f, "an operator changed the order: {head} leads"),
            Self::Removed { node } => write!(f, "an operator took {node} out"),
            Self::DataLossAccepted { node, head } => write!(
                f,
                "DATA MAY BE LOST: an operator gave up {node}, the last member in sync; {head} leads with what it has"
            ),
        }
    }
}

/// The reason of an epoch: all its transitions in words.
#[must_use]
pub fn reason(transitions: &[Transition]) -> String {
    transitions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
