//! Who says that it cannot reach whom, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use craq_proto::{ChainId, Epoch, Incarnation, NodeId, Time, View};

use super::{event::Suspicion, facts::Cut};

/// One suspicion, repeated with each heartbeat of the node that has it.
#[derive(Debug, Clone)]
struct Standing {
    since: Time,
    /// As of the newest heartbeat.
    epoch: Epoch,
    incarnation: Incarnation,
    refused: bool,
}

/// All suspicions that stand, by chain, who has it, and whom it is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Suspicions {
    standing: BTreeMap<(ChainId, NodeId, NodeId), Standing>,
}

impl Suspicions {
    /// A heartbeat came with these suspicions; what it does not repeat has ended.
    pub(super) fn on_heartbeat(&mut self, now: Time, from: NodeId, told: Vec<Suspicion>) {
        let mut kept = BTreeMap::new();
        for Suspicion { chain, epoch, node, incarnation, refused } in told {
            let key = (chain, from, node);
            let before = self.standing.get(&key).filter(|standing| standing.incarnation == incarnation);
            let since = before.map_or(now, |standing| standing.since);
            kept.insert(key, Standing { since, epoch, incarnation, refused });
        }
        self.standing.retain(|(_, reporter, _), _| *reporter != from);
        self.standing.append(&mut kept);
    }

    /// The node is gone or starts anew: what it said no longer counts.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.standing.retain(|(_, reporter, _), _| *reporter != node);
    }

    /// Somebody finds connecting to the node refused.
    pub(super) fn refused(&self, node: NodeId) -> bool {
        self.standing.iter().any(|((_, _, suspect), standing)| *suspect == node && standing.refused)
    }

    /// When suspicions become old enough to be judged.
    pub(super) fn deadlines(&self, failure_timeout: Duration) -> impl Iterator<Item = Time> {
        self.standing.values().map(move |standing| standing.since + failure_timeout)
    }

    /// The member that has to go, because it and another one have not reached each other for the failure timeout.
    ///
    /// Of one broken pair, the later in the chain goes. Of several pairs, the one that is in most of them: it is more
    /// likely to be the one with the broken network. The only in-sync member that is alive never goes.
    pub(super) fn cut(
        &self,
        view: &View,
        now: Time,
        failure_timeout: Duration,
        alive: impl Fn(NodeId) -> bool,
    ) -> Option<Cut> {
        let mut pairs = BTreeSet::new();
        for ((chain, reporter, suspect), standing) in &self.standing {
            let (Some(a), Some(b)) = (view.position(*reporter), view.position(*suspect)) else { continue };
            let current = *chain == view.chain
                && standing.epoch == view.epoch
                && view.incarnation(*suspect) == Some(standing.incarnation);
            let stands = now.since(standing.since) >= failure_timeout;
            if a != b && current && stands && alive(*reporter) && alive(*suspect) {
                pairs.insert((a.min(b), a.max(b)));
            }
        }
        let mut count: BTreeMap<usize, usize> = BTreeMap::new();
        for (a, b) in &pairs {
            *count.entry(*a).or_default() += 1;
            *count.entry(*b).or_default() += 1;
        }
        let holds = |position: &usize| view.members[*position].in_sync && alive(view.members[*position].node);
        let mut holders = (0..view.members.len()).filter(holds);
        let only = holders.next().filter(|_| holders.next().is_none());
        count.retain(|position, _| Some(*position) != only);
        let (victim, _) = count.into_iter().max_by_key(|(position, count)| (*count, *position))?;
        let (a, b) = pairs.into_iter().find(|(a, b)| *a == victim || *b == victim)?;
        let other = if a == victim { b } else { a };
        Some(Cut { victim: view.members[victim].node, other: view.members[other].node })
    }
}
