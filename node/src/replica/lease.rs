//! Promises between members: read leases, and the gate of a new epoch (`protocol.md` 6).
//!
//! A promise says: for the time L I take part in no epoch that leaves you out. The pinger counts L from when it sent the
//! ping; the promiser counts L, and what clocks may drift apart in it, from when it answered. No two clocks are compared.
//! A promise is about a node, not about an epoch: it holds on while views change that keep both.

use std::collections::BTreeMap;

use craq_proto::{
    Epoch, NodeId, Time, View,
    planted::{self, Bug},
};

use super::{
    Replica,
    event::{Output, Ticket},
};

/// Promises received and given. Volatile; at start a process takes itself as having promised (see `load`).
#[derive(Debug, Default, Clone)]
pub(super) struct Leases {
    /// By each other member: until when it promised, on the own clock.
    pub(super) received: BTreeMap<NodeId, Time>,
    /// To each node: until when this one is bound.
    pub(super) given: BTreeMap<NodeId, Time>,
    next_ping: Time,
}

impl Leases {
    pub(super) fn promise(&mut self, to: NodeId, until: Time) {
        let bound = self.given.entry(to).or_default();
        *bound = until.max(*bound);
    }

    /// The nodes outside `view` that a promise still binds, and when the last of these ends.
    pub(super) fn bound_outside(&self, view: &View, now: Time) -> (Vec<NodeId>, Option<Time>) {
        let outside =
            self.given.iter().filter(|(node, until)| **until > now && view.member(**node).is_none());
        (outside.clone().map(|(node, _)| *node).collect(), outside.map(|(_, until)| *until).max())
    }
}

impl Replica {
    /// Until when strong reads may be answered: while every other member has promised. A lone member needs nobody.
    pub(super) fn lease_until(&self) -> Time {
        let Some(view) = self.view.as_ref().filter(|_| self.role().is_member()) else { return Time::ZERO };
        let others = view.members.iter().filter(|member| member.node != self.node);
        let promised = |node: &NodeId| self.leases.received.get(node).copied().unwrap_or_default();
        let ends = others.map(|member| promised(&member.node));
        let end = if planted::is(Bug::LeaseOfAnyMember) { ends.max() } else { ends.min() };
        end.unwrap_or(Time::MAX)
    }

    pub(super) fn next_ping(&self) -> Option<Time> {
        let has_others = self.view.as_ref().is_some_and(|view| view.members.len() > 1);
        (has_others && self.view_durable && self.role().is_member()).then_some(self.leases.next_ping)
    }

    pub(super) fn on_deadline_passed(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.next_ping().is_some_and(|due| due <= now) {
            self.ping(now, out);
        }
    }

    /// Asks all other members for their promise. An epoch that is not on stable storage isn't pinged in.
    pub(super) fn ping(&mut self, now: Time, out: &mut Vec<Output>) {
        self.leases.next_ping = now + self.config.ping_interval;
        if let Some(view) = &self.view {
            let to = self.others(view);
            out.push(Output::Ping { to, epoch: view.epoch });
        }
    }

    /// Whoever pings in this epoch has installed it and can promise in it: so no lease waits for the next round of pings.
    fn ping_back(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let is_held = self.leases.received.get(&node).is_some_and(|until| *until > now);
        if let Some(view) = self.view.as_ref().filter(|_| !is_held)
            && let Some(address) = view.address(node)
        {
            out.push(Output::Ping { to: vec![(node, address.to_owned())], epoch: view.epoch });
        }
    }

    pub(super) fn others(&self, view: &View) -> Vec<(NodeId, String)> {
        let others = view.members.iter().filter(|member| member.node != self.node);
        others.map(|member| (member.node, member.address.clone())).collect()
    }

    pub(super) fn on_pinged(
        &mut self,
        now: Time,
        ticket: Ticket,
        from: NodeId,
        epoch: Epoch,
        out: &mut Vec<Output>,
    ) {
        let is_member = self.view.as_ref().is_some_and(|view| view.member(from).is_some());
        // A view that is not on stable storage would be forgotten by a crash, and the promise with it.
        let is_due = (is_member && epoch == self.epoch()) || planted::is(Bug::OlderEpochPromised);
        let may_promise = self.view_durable && self.role().is_member() && is_due;
        if may_promise {
            let until = now + self.config.promise();
            self.leases.promise(from, until);
            self.ping_back(now, from, out);
        }
        let refused = if may_promise { None } else { Some(self.epoch()) };
        out.push(Output::Promise { ticket, refused });
        self.on_newer_epoch(epoch, out);
    }

    pub(super) fn on_promised(&mut self, now: Time, by: NodeId, epoch: Epoch, sent: Time) {
        let sent = if planted::is(Bug::LeaseFromAnswer) { now } else { sent };
        if epoch <= self.epoch() {
            let until = self.leases.received.entry(by).or_default();
            *until = (sent + self.config.lease).max(*until);
        }
    }

    /// The other node will answer no strong read any more in the epochs before the one that it has installed.
    pub(super) fn on_released(&mut self, by: NodeId, epoch: Epoch) {
        let is_member_here = self.view.as_ref().is_some_and(|view| view.member(by).is_some());
        let is_planted = planted::is(Bug::OldReleaseBelieved);
        if epoch > self.epoch() || (epoch == self.epoch() && !is_member_here) || is_planted {
            self.leases.given.remove(&by);
            if self.gate.is_some()
                && let Some(view) = &self.view
            {
                self.gate = Some(self.leases.bound_outside(view, Time::ZERO).1.unwrap_or_default());
            }
        }
    }

    /// protocol.md 6: nothing moves before the promises to those that the view leaves out have run out, nor before the
    /// view is on stable storage.
    pub(super) fn maybe_pass_gate(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.view_durable || self.gate.is_none_or(|until| now < until) {
            return;
        }
        self.gate = None;
        if self.role().is_head() {
            self.append_first_entry(out);
        }
        self.maybe_say_hello(out);
    }

    pub(super) fn on_newer_epoch(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        if epoch > self.epoch() {
            out.push(Output::FetchView);
        }
    }
}
