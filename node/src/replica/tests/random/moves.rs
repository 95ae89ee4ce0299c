//! What a coordinator may do to a chain: at random while things go wrong, and step by step towards a whole one after.
//!
//! Each move is one legal step from the newest view, or none if it does not apply.

use craq_proto::{Learner, Member, NodeId, View};
use rand::{RngExt, seq::IndexedRandom};

use super::{NODES, Run};
use crate::replica::{
    Status,
    tests::{
        script::describe_view,
        world::{Event, node_id},
    },
};

impl Run {
    /// One step at random.
    pub(super) fn reconfigure(&mut self) {
        let next = match self.rng.random_range(0..12) {
            0..2 if self.is_slow && self.rng.random_bool(0.8) => None,
            0..2 => self.restart().or_else(|| self.named()),
            2 => self.without_one(),
            3..6 => self.with_learner(),
            6..8 => self.promoted(),
            8..11 => self.in_sync(),
            _ => self.reordered(),
        };
        self.install(next);
    }

    /// One step towards a chain of all nodes.
    pub(super) fn mend(&mut self) {
        let is_down = |name: &char| self.world.replica(node_id(*name)).is_none();
        let next = if NODES.iter().any(is_down) {
            self.restart()
        } else {
            self.named()
                .or_else(|| self.in_sync())
                .or_else(|| self.promoted())
                .or_else(|| self.with_learner())
        };
        self.install(next);
    }

    fn install(&mut self, next: Option<View>) {
        if let Some(view) = next {
            self.world.trace.push(format!("VIEW {}", describe_view(&view)));
            self.view = view;
            self.publish();
        }
    }

    fn draft(&self) -> View {
        View { epoch: self.view.epoch.next(), ..self.view.clone() }
    }

    /// The node's state, if it is in the newest epoch.
    fn status(&self, node: NodeId) -> Option<Status> {
        let status = self.world.replica(node).map(|replica| replica.status(self.world.now));
        status.filter(|status| status.epoch == self.view.epoch)
    }

    /// A node starts again; if the view names it, an epoch names its new incarnation, mostly at once.
    fn restart(&mut self) -> Option<View> {
        let name = NODES.iter().find(|name| self.world.replica(node_id(**name)).is_none())?;
        let node = node_id(*name);
        self.world.start(node);
        if self.rng.random_bool(0.3) { None } else { self.named() }
    }

    /// The same chain, naming the processes that run now.
    fn named(&self) -> Option<View> {
        let mut view = self.draft();
        let members = view.members.iter_mut().map(|m| (m.node, &mut m.incarnation));
        let learners = view.learners.iter_mut().map(|l| (l.node, &mut l.incarnation));
        let newest = |node| self.world.nodes[&node].incarnation;
        let mut renewed = members.chain(learners).filter(|(node, named)| **named != newest(*node)).peekable();
        renewed.peek()?;
        renewed.for_each(|(node, named)| *named = newest(node));
        Some(view)
    }

    /// Mostly without who is away, sometimes by a wrong suspicion.
    fn without_one(&mut self) -> Option<View> {
        let view = &self.view;
        let is_away = |m: &Member| self.is_isolated(m.node) || self.world.replica(m.node).is_none();
        let away = view.members.iter().position(is_away);
        let at = away.unwrap_or_else(|| self.rng.random_range(0..view.members.len()));
        self.without(at)
    }

    fn without(&self, at: usize) -> Option<View> {
        let mut view = self.draft();
        let gone = view.members.remove(at);
        let first = view.members.iter().position(|m| m.in_sync)?;
        view.members.drain(..first);
        view.learners.retain(|l| l.node != gone.node && view.members.iter().any(|m| m.node == l.source));
        Some(view)
    }

    /// A member hears nobody any more, the chain goes on without it, and all others start anew, before or after that: what
    /// they have promised to the one has to outlive them.
    pub(super) fn strand(&mut self) {
        let at = self.rng.random_range(0..self.view.members.len());
        let stranded = self.view.members[at].node;
        let Some(without) = self.without(at) else { return };
        let is_known = self.rng.random_bool(0.5);
        self.isolate(&[stranded]);
        if is_known {
            self.install(Some(without));
        }
        let others: Vec<_> = NODES.into_iter().filter(|name| node_id(*name) != stranded).collect();
        for node in others.iter().map(|name| node_id(*name)) {
            for _ in 0..self.rng.random_range(0..10) {
                self.world.run(Event::Persisted(node));
            }
            self.crash(node);
        }
        for _ in others {
            let next = self.restart();
            self.install(next);
        }
        if !is_known {
            let at = self.view.position(stranded);
            let next = at.and_then(|at| self.without(at));
            self.install(next);
        }
    }

    fn with_learner(&mut self) -> Option<View> {
        let absent = |name: &&char| self.view.address(node_id(**name)).is_none();
        let name = *NODES.iter().filter(absent).collect::<Vec<_>>().choose(&mut self.rng).copied()?;
        let mut view = self.draft();
        let source = view.members.choose(&mut self.rng)?.node;
        let Member { node, incarnation, address, .. } = self.member(name, false);
        view.learners.push(Learner { node, incarnation, source, address });
        Some(view)
    }

    fn promoted(&self) -> Option<View> {
        let mut view = self.draft();
        let caught_up = |l: &&Learner| self.status(l.node).is_some_and(|status| status.caught_up);
        let learner = view.learners.iter().find(caught_up).cloned()?;
        view.learners.retain(|l| l.node != learner.node);
        let at = view.position(learner.source)? + 1;
        let Learner { node, incarnation, address, .. } = learner;
        view.members.insert(at, Member { node, incarnation, in_sync: false, address });
        Some(view)
    }

    fn in_sync(&self) -> Option<View> {
        let mut view = self.draft();
        let is_ready =
            |m: &&mut Member| !m.in_sync && self.status(m.node).is_some_and(|status| status.active);
        let mut ready = view.members.iter_mut().filter(is_ready).peekable();
        ready.peek()?;
        ready.for_each(|m| m.in_sync = true);
        Some(view)
    }

    fn reordered(&mut self) -> Option<View> {
        let mut view = self.draft();
        let at = self.rng.random_range(0..view.members.len());
        let to = self.rng.random_range(0..view.members.len());
        if at == to || !(view.members[at].in_sync && view.members[to].in_sync) {
            return None;
        }
        view.members.swap(at, to);
        Some(view)
    }
}
