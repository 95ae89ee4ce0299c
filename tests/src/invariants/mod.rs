//! What always holds in a cluster (`protocol.md` 8), checked while it runs.
//!
//! A simulation tells each [`Fact`] as it happens; the first one that must not be is a [`Violation`]. One file for each
//! invariant; `ledger` has what is committed, `node` has what each node has ordered and what is on its disk. Nothing of
//! the product's own logic is used here: what is checked is worked out anew, in the dumbest way.
//! Liveness and what clients see are judged elsewhere.
//!
//! | invariant | file |
//! | --- | --- |
//! | 1, 8: an acknowledged write stands for ever | `acked` |
//! | 2: what is committed is durable at every in-sync member before | `durable` |
//! | 3: no two replicas commit different entries at one sequence | `agree` |
//! | 4: commit and epoch never go back | `forward` |
//! | 4, 7: one legal view for each epoch | `views` |
//! | 6: a request takes effect once | `once` |
//! | 7: versions have no gaps | `versions` |
//! | 9: limits are kept | `bounds` |
//! | only what is overwritten is removed | `kept` |
//! | what was durable is there after a restart | `restart` |
//! | replicas are equal when nothing is under way | `equal` |

mod acked;
mod agree;
mod bounds;
mod durable;
mod equal;
mod forward;
mod kept;
mod ledger;
mod node;
mod once;
mod restart;
#[cfg(test)]
mod testing;
mod versions;
mod views;

use std::collections::BTreeMap;

use craq_node::{
    replica::{Config, Status, event::StoreWrite},
    store::{ChainStore, StoreError},
};
use craq_proto::{Epoch, Incarnation, NodeId, RequestId, Row, Seq, Version, View};

use self::{ledger::Ledger, node::Node, views::Views};

/// What happens, told at that moment. Of one step of a replica first what it orders, in that order, and its replies;
/// then the new view, the new commit, and the status.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A process has loaded its store.
    Started {
        /// Which node.
        node: NodeId,
        /// Which of its starts.
        incarnation: Incarnation,
        /// The view that was stored.
        view: Option<&'a View>,
        /// The commit that was stored.
        commit: Seq,
        /// The last entry that was stored.
        last: Seq,
        /// The whole log, as [`contents`] returns it.
        rows: &'a [Row],
    },
    /// A process has ended, in whatever way.
    Ended {
        /// Which node.
        node: NodeId,
    },
    /// A node's disk is lost, and the node with it.
    Wiped {
        /// Which node.
        node: NodeId,
    },
    /// A replica has ordered a write.
    Ordered {
        /// Which node.
        node: NodeId,
        /// What.
        write: &'a StoreWrite,
    },
    /// The write is on the disk; told in the order of ordering.
    Stored {
        /// Which node.
        node: NodeId,
        /// What.
        write: &'a StoreWrite,
    },
    /// A replica's commit has changed.
    Committed {
        /// Which node.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
        /// Its commit.
        commit: Seq,
    },
    /// A replica has installed a view.
    Installed {
        /// Which node.
        node: NodeId,
        /// The view.
        view: &'a View,
    },
    /// After each step of a replica.
    Status {
        /// Which node.
        node: NodeId,
        /// What it tells of itself.
        status: &'a Status,
    },
    /// The coordinator's log has a view.
    Logged {
        /// The view.
        view: &'a View,
    },
    /// A write is acknowledged to its client.
    Acked {
        /// Which node answers.
        node: NodeId,
        /// Which request.
        request: RequestId,
        /// The entry that it made.
        seq: Seq,
        /// The version that each change made.
        versions: &'a [Version],
    },
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// Which invariant: the name of its file.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
}

/// Refuses, with this text, what does not hold.
macro_rules! ensure {
    ($holds:expr, $invariant:expr, $($text:tt)+) => {
        if !$holds {
            return Err($crate::invariants::Violation { invariant: $invariant, what: format!($($text)+) });
        }
    };
}
use ensure;

type Checked = Result<(), Violation>;

/// All that was told, as far as it is needed.
#[derive(Debug)]
pub struct Invariants {
    config: Config,
    ledger: Ledger,
    views: Views,
    nodes: BTreeMap<NodeId, Node>,
}

impl Invariants {
    /// Nothing has happened yet. All replicas have these limits.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let ledger = Ledger::new(config.tombstone_entries);
        Self { config: config.clone(), ledger, views: Views::default(), nodes: BTreeMap::new() }
    }

    /// Takes in a fact. After a violation nothing more should be told.
    pub fn fact(&mut self, fact: Fact<'_>) -> Result<(), Violation> {
        match fact {
            Fact::Started { node, incarnation, view, commit, last, rows } => {
                let found = restart::Found { view, commit, last, rows };
                restart::started(
                    &self.ledger,
                    self.nodes.entry(node).or_default(),
                    (node, incarnation),
                    &found,
                )
            }
            Fact::Ended { node } => {
                self.nodes.entry(node).or_default().end();
                Ok(())
            }
            Fact::Wiped { node } => {
                self.nodes.remove(&node);
                Ok(())
            }
            Fact::Ordered { node, write } => {
                let known = self.nodes.entry(node).or_default();
                forward::ordered(node, known, write)?;
                agree::rows(&self.ledger, node, &write.rows)?;
                kept::ordered(node, known, write)?;
                known.order(write);
                Ok(())
            }
            Fact::Stored { node, write } => {
                let known = self.nodes.entry(node).or_default();
                restart::stored(node, known, write)?;
                known.store();
                Ok(())
            }
            Fact::Committed { node, epoch, commit } => self.on_committed(node, epoch, commit),
            Fact::Installed { node, view } => {
                self.views.installed(&self.nodes, view)?;
                let known = self.nodes.entry(node).or_default();
                forward::installed(node, known, view)?;
                known.view = Some(view.clone());
                Ok(())
            }
            Fact::Status { node, status } => self.on_status(node, status),
            Fact::Logged { view } => {
                if self.views.logged(&self.nodes, view)? {
                    acked::logged(&self.ledger, &self.nodes, view)?;
                }
                Ok(())
            }
            Fact::Acked { node, request, seq, versions } => {
                acked::acked(&mut self.ledger, &mut self.nodes, node, request, seq, versions)
            }
        }
    }

    fn on_committed(&mut self, node: NodeId, epoch: Epoch, commit: Seq) -> Checked {
        let Some(known) = self.nodes.get(&node) else { return Ok(()) };
        forward::committed(node, known, commit)?;
        let before = known.commit;
        agree::committed(&mut self.ledger, node, known, commit)?;
        bounds::outcomes(&self.config, &self.ledger)?;
        if let Some(view) = known.view.as_ref().filter(|view| view.epoch == epoch) {
            durable::committed(&self.ledger, &self.nodes, view, node, (before, commit))?;
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            known.commit_to(commit);
        }
        Ok(())
    }

    fn on_status(&mut self, node: NodeId, status: &Status) -> Checked {
        let Some(known) = self.nodes.get_mut(&node) else { return Ok(()) };
        forward::status(node, known, status)?;
        kept::stepped(&self.config, &self.ledger, node, known)?;
        acked::stepped(&self.ledger, self.views.newest(), node, known, status)?;
        bounds::suffix(&self.config, node, known, status)
    }

    /// Nothing is under way: all replicas, of which these are the [contents], must be equal.
    pub fn quiet(&self, replicas: &[(NodeId, Vec<Row>)]) -> Result<(), Violation> {
        equal::quiet(&self.ledger, &self.nodes, self.views.newest(), replicas)
    }

    /// How much was committed so far, in entries.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.ledger.last().0
    }
}

/// The whole log of a chain's store, for [`Fact::Started`] and [`Invariants::quiet`].
pub fn contents(chain: &ChainStore) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    chain.walk(&mut |_| (), &mut |row| rows.push(row))?;
    Ok(rows)
}
