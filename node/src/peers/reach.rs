//! Which members could not be reached lately, for the heartbeat to tell the coordinator.
//!
//! A suspicion names the process start that was missed, so that it says nothing about the one that follows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use craq_proto::{Incarnation, NodeId, Time};
use parking_lot::Mutex;
use tokio::sync::Notify;

struct Missed {
    incarnation: Incarnation,
    since: Time,
    refused: bool,
}

/// What is known about reaching the other members.
pub(crate) struct Reach {
    missed: Mutex<BTreeMap<NodeId, Missed>>,
    /// Rung when a process is found to be gone.
    alarm: Arc<Notify>,
}

impl Reach {
    pub(crate) fn new(alarm: Arc<Notify>) -> Self {
        Self { missed: Mutex::default(), alarm }
    }

    /// The node has answered.
    pub(crate) fn reached(&self, node: NodeId) {
        self.missed.lock().remove(&node);
    }

    /// The node has not answered; `refused`: nobody listens where it was.
    pub(crate) fn missed(&self, node: NodeId, incarnation: Incarnation, refused: bool, now: Time) {
        let mut missed = self.missed.lock();
        let entry = missed.entry(node).or_insert(Missed { incarnation, since: now, refused: false });
        if entry.incarnation != incarnation {
            *entry = Missed { incarnation, since: now, refused: false };
        }
        if refused && !entry.refused {
            entry.refused = true;
            self.alarm.notify_one();
        }
    }

    /// Whether the member is suspected: some if so, true if its process is gone.
    pub(crate) fn suspicion(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        patience: Duration,
        now: Time,
    ) -> Option<bool> {
        let missed = self.missed.lock();
        let entry = missed.get(&node).filter(|entry| entry.incarnation == incarnation)?;
        (entry.refused || now.since(entry.since) >= patience).then_some(entry.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn node() -> NodeId {
        NodeId(uuid::Uuid::from_u128(1))
    }

    fn reach() -> Reach {
        Reach::new(Arc::new(Notify::new()))
    }

    #[test]
    fn a_refused_connection_is_suspected_at_once_and_a_silent_one_after_the_timeout() {
        let reach = reach();
        let first = Incarnation(1);
        reach.missed(node(), first, false, Time::from_millis(100));
        assert_eq!(reach.suspicion(node(), first, PATIENCE, Time::from_millis(1_099)), None);
        assert_eq!(reach.suspicion(node(), first, PATIENCE, Time::from_millis(1_100)), Some(false));
        reach.missed(node(), first, true, Time::from_millis(1_200));
        assert_eq!(reach.suspicion(node(), first, PATIENCE, Time::from_millis(1_200)), Some(true));
        reach.reached(node());
        assert_eq!(reach.suspicion(node(), first, PATIENCE, Time::from_millis(9_000)), None);
    }

    #[test]
    fn a_restarted_process_is_not_suspected_for_the_one_before() {
        let reach = reach();
        reach.missed(node(), Incarnation(1), true, Time::ZERO);
        assert_eq!(reach.suspicion(node(), Incarnation(2), PATIENCE, Time::MAX), None);
        reach.missed(node(), Incarnation(2), false, Time::from_millis(5));
        assert_eq!(reach.suspicion(node(), Incarnation(2), PATIENCE, Time::from_millis(6)), None);
    }
}
