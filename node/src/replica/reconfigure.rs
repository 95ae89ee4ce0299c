//! Installing a view: fencing the old epoch, and what changes with the role (`protocol.md` 4, 6 and 7).

use std::sync::Arc;

use craq_proto::{
    CallError, Epoch, Role, Time, View,
    planted::{self, Bug},
};

use super::{
    Replica,
    commit::Pending,
    event::{Output, StoreWrite, StoredView},
};

impl Replica {
    /// A newer view is taken over at once; from here on nothing of the old epoch is acknowledged. The new one begins to
    /// move when it is on stable storage and its gate has passed.
    pub(super) fn on_view(&mut self, now: Time, view: View, out: &mut Vec<Output>) {
        if view.epoch <= self.epoch() {
            return;
        }
        let was = self.role();
        let starts_over = self.is_of_given_up_history(&view);
        let old = self.view.replace(Arc::new(view.clone()));
        self.close_links(out);
        self.view_durable = false;
        self.first_entry = None;
        self.forget_upstream();
        self.caught_up = false;
        let (bound, gate) = self.leases.bound_outside(&view, now);
        self.gate = Some(gate.filter(|_| !planted::is(Bug::NoGate)).unwrap_or_default());

        let changed = CallError::unavailable(format!("the chain changed to epoch {}", view.epoch));
        self.questions.refuse_all(&changed.with_view(Some(view.clone())), out);
        let epoch = view.epoch;
        if starts_over {
            self.give_up_waiters("an operator went on without what this node holds", out);
            self.start_from_nothing();
        }
        let view = Some(Box::new(StoredView { view, bound }));
        let write = StoreWrite { wipe: starts_over, view, ..StoreWrite::default() };
        self.persist(write, Pending::View { epoch }, out);

        let role = self.role();
        if !role.is_head() && !self.is_in_sync() {
            // Their entries may be committed without this replica.
            self.give_up_waiters("this node has left the chain or fallen behind", out);
        }
        let takes_over = (role.is_head() && !was.is_head()) || (role.is_tail() && !was.is_tail());
        let is_planted = takes_over && planted::is(Bug::NewTailDropsSuffix);
        if role == Role::Learner || (role.is_member() && !self.is_in_sync()) || is_planted {
            self.drop_dirty_suffix(out);
        }
        // Readers lose their rights before anybody hears of it.
        self.publish(now);
        if let Some(old) = old.filter(|_| was.is_member() && !role.is_member()) {
            out.push(Output::Release { to: self.others(&old), epoch });
        }
    }

    /// An operator has accepted the loss of what the last in-sync member alone held, and this replica was not told of that
    /// epoch: what it holds as committed may differ from what the chain has committed since.
    fn is_of_given_up_history(&self, view: &View) -> bool {
        let leads_on = view.member(self.node).is_some_and(|member| member.in_sync);
        let is_told = planted::is(Bug::RebuiltIgnored) || view.rebuilt_in <= self.epoch();
        !is_told && self.epoch() > Epoch::ZERO && !leads_on
    }

    /// protocol.md 4: what is not known to be committed is brought again by the chain, or was never committed.
    pub(super) fn drop_dirty_suffix(&mut self, out: &mut Vec<Output>) {
        let commit = self.log.commit;
        self.throw_away_above(commit, "this node has left the chain or fallen behind", out);
    }

    /// The view is durable: members greet each other, so that leases begin while the gate still holds.
    pub(super) fn view_is_durable(&mut self, now: Time, out: &mut Vec<Output>) {
        self.view_durable = true;
        if self.role().is_member() {
            self.ping(now, out);
        }
    }
}
