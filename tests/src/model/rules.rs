//! What must hold in every state: the rules of `protocol.md` 8, as far as this small world can break them.

use std::sync::Arc;

use stateright::Property;

use super::{
    Chain,
    seen::Sight,
    state::{NODES, Reading, State, Writing},
};
use craq_proto::Seq;

/// A rule that a step can break; the others are judged by the state alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// protocol.md 8.3.
    OneHistory,
    /// protocol.md 8.4.
    CommitRises,
    /// protocol.md 8.5: a read returns nothing older than what was acknowledged or read before it began, and only what
    /// is committed.
    ReadsAreStrong,
    /// protocol.md 8.1, 8.6 and 8.7.
    Once,
    /// Nothing that is asserted fails, and no replica finds that its store lost data.
    NoHalt,
}

/// A rule that was broken, and how. Nothing follows on such a state.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) rule: Rule,
    pub(super) how: Arc<str>,
}

impl State {
    pub(super) fn breaks(&mut self, rule: Rule, how: impl Into<Arc<str>>) {
        if self.broken.is_none() {
            self.broken = Some(Broken { rule, how: how.into() });
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.broken.as_ref().is_none_or(|broken| broken.rule != rule)
    }

    /// protocol.md 8.1 and 8.2: what is committed, and so what is acknowledged, is on the disk of every member that the
    /// newest view calls in sync, whether its process runs or not.
    fn all_in_sync_hold_what_is_committed(&self) -> bool {
        let members = self.newest().members.iter().filter(|member| member.in_sync);
        let mut disks = members.map(|member| &self.nodes[super::place(member.node)].disk);
        disks.all(|disk| {
            let holds = |(i, (epoch, _)): (usize, &(craq_proto::Epoch, _))| {
                disk.entry(Seq(i as u64 + 1)).is_some_and(|entry| entry.origin_epoch == *epoch)
            };
            self.committed.iter().enumerate().all(holds)
        })
    }

    /// protocol.md 8.1: a head that takes writes has all in its log that was committed in the epochs before its own.
    fn heads_hold_what_was_committed(&self) -> bool {
        (0..NODES).all(|place| {
            let Some(replica) = self.replica(place) else { return true };
            let status = replica.status(self.now());
            let is_newest = status.epoch == self.newest().epoch;
            !(is_newest && status.role.is_head() && status.writable && status.active)
                || self.committed.iter().filter(|(origin, _)| *origin < status.epoch).count() as u64
                    <= status.last.0
        })
    }

    /// protocol.md 8.10, as far as it can be seen here: when nothing more happens by itself, and all members of the newest
    /// view run and may move, the chain is settled, its members are equal, and nobody waits for an answer.
    fn rest_is_well(&self, chain: &Chain) -> bool {
        if !self.may_be_at_rest() || !chain.is_at_rest(self) {
            return true;
        }
        let now = self.now();
        let mut members = self.newest().members.iter().map(|member| {
            let place = super::place(member.node);
            let runs = self.nodes[place].incarnation == member.incarnation;
            self.replica(place).filter(|_| runs).map(|replica| replica.status(now))
        });
        // A member is away, or its gate waits for a time that the model does not have.
        let Some(states) = members.by_ref().collect::<Option<Vec<_>>>() else { return true };
        if self.gate_waits() {
            return true;
        }
        let last = states.first().map_or(Seq::ZERO, |status| status.last);
        let is_well = states.iter().all(|s| s.active && (s.commit, s.last, s.durable) == (last, last, last));
        let is_answered = self.writers.iter().all(|writer| writer.phase == Writing::Idle)
            && !matches!(self.reading, Reading::Asks { .. });
        if is_well && is_answered && self.writers.iter().all(|writer| writer.left == 0) {
            chain.seen.mark(Sight::AtRest);
        }
        is_well && is_answered
    }

    /// Cheap to tell: nothing is being written to a store, and no client is about to do something.
    fn may_be_at_rest(&self) -> bool {
        self.broken.is_none()
            && !matches!(self.reading, Reading::Planned { .. })
            && self.nodes.iter().all(|node| node.writes.is_empty())
    }
}

/// The rules by name.
pub(super) fn properties() -> Vec<Property<Chain>> {
    vec![
        Property::always("two replicas commit the same", |_, state: &State| state.keeps(Rule::OneHistory)),
        Property::always("commits rise", |_, state: &State| state.keeps(Rule::CommitRises)),
        Property::always("strong reads are strong", |_, state: &State| state.keeps(Rule::ReadsAreStrong)),
        Property::always("what is acknowledged is committed, once", |_, state: &State| {
            state.keeps(Rule::Once)
        }),
        Property::always("nothing halts or fails", |_, state: &State| state.keeps(Rule::NoHalt)),
        Property::always("who is in sync holds what is committed", |_, state: &State| {
            state.all_in_sync_hold_what_is_committed()
        }),
        Property::always("a head that takes writes holds what was committed", |_, state: &State| {
            state.heads_hold_what_was_committed()
        }),
        Property::always("at rest all is answered and equal", |chain: &Chain, state: &State| {
            state.rest_is_well(chain)
        }),
    ]
}
