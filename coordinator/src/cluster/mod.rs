//! The cluster: who is alive, and who makes up each chain. A synchronous state machine.
//!
//! [`Cluster::step`] takes one fact and says what is to be done; [`Cluster::next_deadline`] says when it wants to be
//! asked again if nothing happens. It reads no clock, socket or disk and draws no random numbers: the driver does.
//! A view counts only once it is in the log: the cluster orders `Persist`, goes on with the chain when it is told
//! `Persisted`, and only then orders `Publish`. One view of a chain is under way at a time.
//!
//! What is judged here is *who is there*: registrations, silence, refused connections, suspicions, flapping. What
//! follows for a chain is in [`next_view`] (the rules), `order` (operators) and [`legal`] (what always holds).
//! Safety rests on none of the times here (protocol.md 7): they decide how soon a chain changes, never whether two
//! views of one epoch exist.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod event;
pub mod facts;
pub mod legal;
pub mod next_view;
mod node;
mod order;
mod proposal;
pub mod status;
mod suspicion;
#[cfg(test)]
mod tests;
pub mod transition;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use craq_proto::{ChainId, Epoch, NodeId, Time, View};
pub use event::{
    Input, OrderId, Output, Placement, Refusal, Registration, ReplicaState, Replicas, StreamId, Suspicion,
    Timing,
};
use facts::{Facts, Lost, NodeFacts};
use node::Node;
pub use node::{HOLD_MAX, HOLD_MIN, STABLE_AFTER};
use proposal::{Order, Proposal};
use suspicion::Suspicions;

/// An operator's order that has to wait is given up after this time.
pub const ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// For so long after a promotion, other learners wait until the new member is in sync.
pub const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
/// A node whose stream broke is dialed again after this time.
pub const DIAL_INTERVAL: Duration = Duration::from_millis(100);
/// A node that is in no view and was not heard for so long is forgotten.
pub const FORGET_AFTER: Duration = Duration::from_secs(120);

/// One chain.
#[derive(Debug, Clone, Default)]
struct Chain {
    /// The newest view that is in the log. None before the chain is founded.
    view: Option<View>,
    /// The view that is being persisted.
    proposal: Option<Proposal>,
    /// The highest epoch that a node has told of.
    seen: Epoch,
    /// Learners and members that joined in order to lead, and have not led yet.
    wants_head: BTreeSet<NodeId>,
    /// Members that were promoted not long ago, and until when others wait for them.
    settling: BTreeMap<NodeId, Time>,
    /// Orders of operators, oldest first.
    orders: VecDeque<Order>,
}

/// Who is alive, and who makes up each chain.
#[derive(Debug)]
pub struct Cluster {
    timing: Timing,
    /// Nobody is judged lost before this time.
    grace_until: Time,
    /// When any node was last heard.
    heard: Time,
    /// The time of the newest step.
    now: Time,
    /// The time of the newest tick: what was due by then has been judged.
    ticked: Time,
    nodes: BTreeMap<NodeId, Node>,
    streams: BTreeMap<StreamId, NodeId>,
    chains: BTreeMap<ChainId, Chain>,
    suspicions: Suspicions,
    /// When the log may be read again because nodes know a newer epoch.
    reload_at: Time,
}

impl Cluster {
    /// A cluster that goes on from the views in the log.
    #[must_use]
    pub fn new(now: Time, timing: Timing, views: Vec<View>) -> Self {
        let mut cluster = Self {
            timing,
            grace_until: now + timing.failure_timeout,
            heard: now,
            now,
            ticked: now,
            nodes: BTreeMap::new(),
            streams: BTreeMap::new(),
            chains: BTreeMap::from([(ChainId::default_chain(), Chain::default())]),
            suspicions: Suspicions::default(),
            reload_at: Time::ZERO,
        };
        for view in views {
            cluster.adopt(view);
        }
        cluster
    }

    /// Takes one input and appends what is to be done. Total: never fails, never blocks.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        match input {
            Input::Registered { stream, registration } => self.on_registered(stream, registration, out),
            Input::Heartbeat { stream, replicas, suspicions } => {
                self.on_heartbeat(stream, replicas, suspicions, out);
            }
            Input::Leave { stream } => {
                if let Some(node) = self.node_of(stream) {
                    node.leaving = true;
                }
            }
            Input::StreamBroke { stream } => self.on_stream_broke(stream, out),
            Input::DialRefused { node, address } => self.on_dial_refused(node, &address),
            Input::DialAnswered { node } => self.dial_later(node),
            Input::Persisted { view } => self.on_persisted(view, out),
            Input::Superseded { views } => self.on_superseded(views, out),
            Input::Remove { order, chain, node, accept_data_loss } => {
                self.on_order(order, chain, proposal::Wish::Remove { node, accept_data_loss }, out);
            }
            Input::Reorder { order, chain, nodes } => {
                self.on_order(order, chain, proposal::Wish::Reorder { nodes }, out);
            }
            Input::Tick => self.on_tick(out),
        }
        self.evaluate(out);
    }

    /// When the cluster wants a [`Input::Tick`]; in the past if another input came just then and the tick is still due.
    /// None: not before the next input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let timeout = self.timing.failure_timeout;
        let nodes = self.nodes.values().flat_map(|node| {
            let silent = node.lost.is_none().then(|| (node.heard + timeout).max(self.grace_until));
            [silent, node.dial_at, Some(node.held_until)]
        });
        let suspicions = self.suspicions.deadlines(timeout).map(|at| Some(at.max(self.grace_until)));
        let chains = self.chains.values().flat_map(|chain| {
            let orders = chain.orders.iter().map(|order| Some(order.until));
            orders.chain(chain.settling.values().map(|until| Some(*until)))
        });
        let all = nodes.chain(suspicions).chain(chains).chain([Some(self.grace_until)]).flatten();
        all.filter(|at| *at > self.ticked).min()
    }

    /// The newest view of each chain that is in the log.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.chains.values().filter_map(|chain| chain.view.as_ref())
    }

    /// A node was heard. If it is the first after a while without any, it was this process that nobody reached, or
    /// that did not run, and the silence of the others proves nothing either.
    fn notice_voice(&mut self) {
        if self.now.since(self.heard) > self.timing.failure_timeout / 2 {
            self.begin_grace(self.now);
        }
        self.heard = self.now;
    }

    /// Whoever seems lost gets a failure timeout to prove the contrary.
    fn begin_grace(&mut self, now: Time) {
        self.grace_until = now + self.timing.failure_timeout;
        self.nodes.values_mut().for_each(|node| node.lost = None);
    }

    fn node_of(&mut self, stream: StreamId) -> Option<&mut Node> {
        self.nodes.get_mut(self.streams.get(&stream)?)
    }

    fn on_registered(&mut self, stream: StreamId, registration: Registration, out: &mut Vec<Output>) {
        let id = registration.node;
        if let Some(reason) = self.why_refused(&registration) {
            out.push(Output::Refuse { stream, reason });
            return;
        }
        self.notice_voice();
        for node in self.nodes.iter_mut().filter(|(other, _)| **other != id).map(|(_, node)| node) {
            // Another node answers at that address now: whoever was there before and has no stream is gone.
            if node.stream.is_none() && node.address == registration.address {
                node.gone = Some(Lost::Displaced);
            }
        }
        let (now, address) = (self.now, registration.address.clone());
        let node =
            self.nodes.entry(id).or_insert_with(|| Node::named(now, registration.incarnation, address));
        if let Some(old) = node.stream.take() {
            self.streams.remove(&old);
            out.push(Output::Close { stream: old, reason: format!("node {id} opened another stream") });
        }
        self.suspicions.forget(id);
        for chain in self.chains.values_mut() {
            let in_sync = chain.view.as_ref().and_then(|view| view.member(id)).is_some_and(|m| m.in_sync);
            if registration.placement != Placement::First {
                chain.wants_head.remove(&id);
            } else if !in_sync {
                chain.wants_head.insert(id);
            }
        }
        node.register(now, stream, registration);
        self.streams.insert(stream, id);
        out.push(Output::Accept { stream });
        self.notice_epochs(id, out);
        self.judge();
    }

    fn why_refused(&self, registration: &Registration) -> Option<String> {
        let Registration { node: id, incarnation, address, .. } = registration;
        let node = self.nodes.get(id)?;
        if *incarnation < node.incarnation {
            let known = node.incarnation;
            return Some(format!(
                "incarnation {incarnation} of node {id} is older than {known}, which is known"
            ));
        }
        let twin = *incarnation == node.incarnation && *address != node.address && node.stream.is_some();
        (twin && node.is_alive(self.now, self.timing.failure_timeout)).then(|| {
            let known = &node.address;
            format!("node {id} is alive at {known}: has its data directory been copied to {address}?")
        })
    }

    fn on_heartbeat(
        &mut self,
        stream: StreamId,
        replicas: Replicas,
        suspicions: Vec<Suspicion>,
        out: &mut Vec<Output>,
    ) {
        let now = self.now;
        let Some(id) = self.streams.get(&stream).copied() else { return };
        self.notice_voice();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.hear(now, replicas);
        let refused: Vec<NodeId> = suspicions.iter().filter(|s| s.refused).map(|s| s.node).collect();
        self.suspicions.on_heartbeat(now, id, suspicions);
        for suspect in refused {
            if let Some(node) = self.nodes.get(&suspect).filter(|node| node.gone.is_none()) {
                out.push(Output::Dial { node: suspect, address: node.address.clone() });
            }
        }
        self.notice_epochs(id, out);
    }

    /// A node that knows a newer epoch than the log tells of has it from another coordinator.
    fn notice_epochs(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let Some(node) = self.nodes.get(&id) else { return };
        for (name, replica) in node.replicas.iter().filter(|(_, replica)| replica.epoch > Epoch::ZERO) {
            let chain = self.chains.entry(name.clone()).or_default();
            chain.seen = chain.seen.max(replica.epoch);
            if chain.is_behind() && self.now >= self.reload_at {
                self.reload_at = self.now + self.timing.failure_timeout;
                out.push(Output::Reload);
            }
        }
    }

    fn on_stream_broke(&mut self, stream: StreamId, out: &mut Vec<Output>) {
        let Some(id) = self.streams.remove(&stream) else { return };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.stream = None;
        self.suspicions.forget(id);
        out.push(Output::Dial { node: id, address: node.address.clone() });
    }

    fn on_dial_refused(&mut self, id: NodeId, address: &str) {
        let doubted = self.suspicions.refused(id);
        let node = self.nodes.get_mut(&id).filter(|node| node.address == address);
        if let Some(node) = node.filter(|node| node.stream.is_none() || doubted) {
            node.gone = Some(Lost::Refused);
        }
        self.judge();
    }

    fn dial_later(&mut self, id: NodeId) {
        let at = self.now + DIAL_INTERVAL;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.dial_at = Some(at).filter(|_| node.stream.is_none() && node.lost.is_none());
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Output>) {
        self.ticked = self.now;
        let (now, timeout) = (self.now, self.timing.failure_timeout);
        // Silence is judged only against a voice: with none at all, it may be this process that is cut off, or did not run.
        let hears = now >= self.grace_until && now.since(self.heard) <= timeout / 2;
        for node in self.nodes.values_mut() {
            if hears && now.since(node.heard) >= timeout && node.lost.is_none() {
                node.lost = Some(Lost::Silent(timeout));
            }
        }
        self.judge();
        for (id, node) in &mut self.nodes {
            if node.dial_at.is_some_and(|at| at <= now) {
                node.dial_at = None;
                out.push(Output::Dial { node: *id, address: node.address.clone() });
            }
        }
        for chain in self.chains.values_mut() {
            chain.settling.retain(|_, until| *until > now);
            chain.wants_head.retain(|id| self.nodes.contains_key(id));
            chain.give_up_orders(now, out);
        }
        let named: BTreeSet<NodeId> = self
            .views()
            .flat_map(|view| self.nodes.keys().filter(|n| view.incarnation(**n).is_some()))
            .copied()
            .collect();
        self.nodes.retain(|id, node| {
            named.contains(id) || node.stream.is_some() || now.since(node.heard) < FORGET_AFTER
        });
    }

    /// Evidence other than silence counts at once, but not before this coordinator has been up for a failure timeout.
    fn judge(&mut self) {
        if self.now >= self.grace_until {
            for node in self.nodes.values_mut().filter(|node| node.gone.is_some() && node.lost.is_none()) {
                node.lost = node.gone;
                node.dial_at = None;
            }
        }
    }

    /// What the rules of one chain look at.
    fn facts(&self, chain: &Chain) -> Facts {
        let (now, timeout) = (self.now, self.timing.failure_timeout);
        let name = chain.view.as_ref().map(|view| &view.chain);
        let facts = |(id, node): (&NodeId, &Node)| {
            let facts = NodeFacts {
                incarnation: node.incarnation,
                address: node.address.clone(),
                placement: node.placement,
                lost: node.lost,
                leaving: node.leaving,
                // For now every node serves the one chain there is.
                joins: node.may_join(now, timeout).filter(|_| name == Some(&ChainId::default_chain())),
                wants_head: chain.wants_head.contains(id),
                settling: chain.settling.get(id).is_some_and(|until| *until > now),
                replica: name.and_then(|name| node.replicas.get(name)).cloned(),
            };
            (*id, facts)
        };
        let nodes = self.nodes.iter().map(facts).collect();
        let alive = |id| self.nodes.get(&id).is_some_and(|node| node.is_alive(now, timeout));
        let cut = chain.view.as_ref().filter(|_| now >= self.grace_until);
        let cut = cut.and_then(|view| self.suspicions.cut(view, now, timeout, alive));
        Facts { nodes, cut }
    }
}
