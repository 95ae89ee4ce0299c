//! Installing a view: fencing the old epoch, and what changes with the role (`protocol.md` 4, 6 and 7).

use std::sync::Arc;

use craq_proto::{CallError, Role, Time, View};

use super::{
    Replica,
    commit::Pending,
    event::{Output, StoreWrite, StoredView},
    write::unknown,
};

impl Replica {
    /// A newer view is taken over at once; from here on nothing of the old epoch is acknowledged. The new one begins to
    /// move when it is on stable storage and its gate has passed.
    pub(super) fn on_view(&mut self, now: Time, view: View, out: &mut Vec<Output>) {
        if view.epoch <= self.epoch() {
            return;
        }
        let was_member = self.role().is_member();
        let old = self.view.replace(Arc::new(view.clone()));
        self.close_links(out);
        self.view_durable = false;
        self.first_entry = None;
        self.upstream_durable = None;
        self.caught_up = false;
        let (bound, gate) = self.leases.bound_outside(&view, now);
        self.gate = Some(gate.unwrap_or_default());

        let changed = CallError::unavailable(format!("the chain changed to epoch {}", view.epoch));
        self.questions.refuse_all(&changed.with_view(Some(view.clone())), out);
        let epoch = view.epoch;
        let write = StoreWrite { view: Some(StoredView { view, bound }), ..StoreWrite::default() };
        self.persist(write, Pending::View { epoch }, out);

        let role = self.role();
        if !role.is_head() && !self.is_in_sync() {
            // Their entries may be committed without this replica.
            self.give_up_waiters("this node has left the chain or fallen behind", out);
        }
        if role == Role::Learner || (role.is_member() && !self.is_in_sync()) {
            self.drop_dirty_suffix(out);
        }
        if let Some(old) = old.filter(|_| was_member && !role.is_member()) {
            // Readers lose their rights before anybody hears of it.
            self.publish();
            out.push(Output::Release { to: self.others(&old), epoch });
        }
        self.publish();
    }

    /// protocol.md 4: what is not known to be committed is brought again by the chain, or was never committed.
    pub(super) fn drop_dirty_suffix(&mut self, out: &mut Vec<Output>) {
        let commit = self.log.commit;
        let lost = |entry: &craq_proto::Entry| {
            unknown(entry.request, "this node has left the chain or fallen behind")
        };
        self.throw_away_above(commit, lost, out);
    }

    /// The view is durable: members greet each other, so that leases begin while the gate still holds.
    pub(super) fn view_is_durable(&mut self, now: Time, out: &mut Vec<Output>) {
        self.view_durable = true;
        if self.role().is_member() {
            self.ping(now, out);
        }
    }
}
