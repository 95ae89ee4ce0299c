//! What the cluster knows of one node: its newest process start, its stream, whether it is lost, and whether it is
//! held back for having come and gone too often. All of it volatile: what must survive stands in the views.

use std::{collections::BTreeMap, time::Duration};

use craq_proto::{ChainId, Incarnation, Time};

use super::{
    event::{Placement, Registration, ReplicaState, Replicas, StreamId},
    facts::Lost,
};

/// How long a node that was taken out and returns with the same incarnation waits, the first time.
pub const HOLD_MIN: Duration = Duration::from_secs(1);
/// The longest such wait; each further time doubles it up to here.
pub const HOLD_MAX: Duration = Duration::from_secs(30);
/// A node that has stayed for so long starts with [`HOLD_MIN`] again.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its newest process start.
    pub(super) incarnation: Incarnation,
    /// host:port.
    pub(super) address: String,
    /// Where it asked to stand.
    pub(super) placement: Placement,
    /// Its open register stream.
    pub(super) stream: Option<StreamId>,
    /// When it was last heard, or when it was first heard of.
    pub(super) heard: Time,
    /// This coordinator has heard it itself since it started.
    pub(super) told: bool,
    /// What speaks for its being gone, though it has not been silent for long: nothing was heard since.
    pub(super) gone: Option<Lost>,
    /// It is lost.
    pub(super) lost: Option<Lost>,
    /// It said that it wants out, on its newest stream.
    pub(super) leaving: bool,
    /// When to dial it again; set while its stream is broken.
    pub(super) dial_at: Option<Time>,
    /// What its newest incarnation told of its replicas.
    pub(super) replicas: BTreeMap<ChainId, ReplicaState>,
    /// It is no learner before this time.
    pub(super) held_until: Time,
    /// How long it was held back the last time.
    penalty: Duration,
    /// Since when it has been part of a chain, or known.
    pub(super) since: Time,
}

impl Node {
    /// A node that a view names, and that has not been heard yet.
    pub(super) fn named(now: Time, incarnation: Incarnation, address: String) -> Self {
        Self {
            incarnation,
            address,
            placement: Placement::Tail,
            stream: None,
            heard: now,
            told: false,
            gone: None,
            lost: None,
            leaving: false,
            dial_at: None,
            replicas: BTreeMap::new(),
            held_until: Time::ZERO,
            penalty: Duration::ZERO,
            since: now,
        }
    }

    /// It presents itself on a new stream. Checked before: the incarnation is not an older one.
    pub(super) fn register(&mut self, now: Time, stream: StreamId, registration: Registration) {
        let Registration { incarnation, address, placement, replicas, .. } = registration;
        if incarnation > self.incarnation {
            // A new process start is a new beginning.
            (self.held_until, self.penalty) = (Time::ZERO, Duration::ZERO);
            self.lost = None;
        }
        (self.incarnation, self.address, self.placement) = (incarnation, address, placement);
        self.stream = Some(stream);
        self.leaving = false;
        self.dial_at = None;
        self.hear(now, replicas);
    }

    /// It was heard.
    pub(super) fn hear(&mut self, now: Time, replicas: Replicas) {
        if self.lost.take().is_some() && self.penalty > Duration::ZERO {
            // It was taken out, and the same process is back: it has to wait.
            self.held_until = self.held_until.max(now + self.penalty);
        }
        self.gone = None;
        self.told = true;
        self.heard = now;
        self.replicas = replicas.into_iter().collect();
    }

    /// It was taken out of a chain because it was lost, or not reached by another member.
    pub(super) fn hold_back(&mut self, now: Time) {
        let first = self.penalty == Duration::ZERO || now.since(self.since) >= STABLE_AFTER;
        self.penalty = if first { HOLD_MIN } else { (self.penalty * 2).min(HOLD_MAX) };
        self.held_until = now + self.penalty;
    }

    /// Alive as far as this coordinator can tell.
    pub(super) fn is_alive(&self, now: Time, failure_timeout: Duration) -> bool {
        self.told && self.lost.is_none() && now.since(self.heard) < failure_timeout
    }

    /// It may become a learner, if no operator has taken it out.
    pub(super) fn may_join(&self, now: Time, failure_timeout: Duration) -> Option<StreamId> {
        let kept_out = self.leaving || now < self.held_until;
        self.stream.filter(|_| self.is_alive(now, failure_timeout) && !kept_out)
    }
}
