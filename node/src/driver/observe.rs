//! What an operator reads: places, epochs and why they changed; when strong reads stop and go on again.
//!
//! It only looks; nothing depends on it.

use std::time::Duration;

use craq_proto::{ChainId, Epoch, NodeId, Role, Time, View};
use tracing::{info, warn};

use crate::replica::{Replica, Status};

/// The replica's state is looked at this often at most.
const INTERVAL: Duration = Duration::from_millis(50);

/// Compares what is with what was, and logs the difference.
pub(super) struct Observer {
    chain: ChainId,
    node: NodeId,
    role: Role,
    looked: Time,
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    epoch: Epoch,
    active: bool,
    readable: bool,
    writable: bool,
    caught_up: bool,
}

impl Observer {
    pub(super) fn new(chain: ChainId, node: NodeId) -> Self {
        Self { chain, node, role: Role::None, looked: Time::ZERO, seen: Seen::default() }
    }

    /// A new view is installed.
    pub(super) fn on_view(&mut self, view: &View) {
        let role = view.role(self.node);
        let members: Vec<&str> = view.members.iter().map(|member| member.address.as_str()).collect();
        let learners: Vec<&str> = view.learners.iter().map(|learner| learner.address.as_str()).collect();
        info!(
            chain = %self.chain,
            epoch = view.epoch.0,
            role = role.as_str(),
            was = self.role.as_str(),
            members = members.join(","),
            learners = learners.join(","),
            reason = view.reason,
            "new epoch"
        );
        self.role = role;
    }

    /// A turn has ended.
    pub(super) fn look(&mut self, replica: &Replica, now: Time) {
        if now.since(self.looked) < INTERVAL {
            return;
        }
        self.looked = now;
        let status = replica.status(now);
        let seen = Seen {
            epoch: status.epoch,
            active: status.active,
            readable: status.readable,
            writable: status.writable,
            caught_up: status.caught_up,
        };
        let was = std::mem::replace(&mut self.seen, seen);
        if seen != was {
            self.tell(&status, was, seen);
        }
    }

    fn tell(&self, status: &Status, was: Seen, seen: Seen) {
        let chain = &self.chain;
        let (epoch, role, commit) = (status.epoch.0, status.role.as_str(), status.commit.0);
        if seen.active && !was.active {
            info!(%chain, epoch, role, commit, "takes part: the gate has passed and the epoch's first entry is durable");
        }
        if seen.writable && !was.writable {
            info!(%chain, epoch, role, commit, "takes writes");
        }
        if seen.readable && !was.readable {
            info!(%chain, epoch, role, commit, "strong reads are answered: a read lease is held");
        }
        // In a new epoch leases are made anew, which takes a moment and is no news.
        if !seen.readable && was.readable && seen.epoch == was.epoch {
            warn!(%chain, epoch, role, commit, "strong reads are refused: the read lease is lost");
        }
        if seen.caught_up && !was.caught_up {
            let (bytes, rows) = (status.transfer_bytes, status.transfer_rows);
            info!(%chain, epoch, role, commit, bytes, rows, "caught up with the chain");
        }
    }
}
