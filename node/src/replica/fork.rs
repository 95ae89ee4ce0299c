//! A replica for model checkers: one that can be copied, and whose states can be told apart.
//!
//! A checker takes the same replica through many different futures, and must know a state that it has seen before.
//! Behind the feature `model`, which nothing that is shipped turns on. Both functions name every field of [`Replica`], so
//! that a new one has to be thought of here.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use craq_proto::{Entry, Time};

use super::{
    Replica,
    commit::Pending,
    event::{Message, Position},
    lease::Leases,
    link::{Down, DownStage, Up},
    log::Log,
    versions::KeyState,
    write::Waiter,
};

impl Replica {
    /// A deep copy, with readers of its own: what happens to one is not seen by the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            config: self.config.clone(),
            node: self.node,
            incarnation: self.incarnation,
            versions: Arc::new(self.versions.fork()),
            view: self.view.clone(),
            view_durable: self.view_durable,
            gate: self.gate,
            first_entry: self.first_entry,
            log: self.log.clone(),
            commit_known: self.commit_known,
            upstream_durable: self.upstream_durable,
            outcomes: self.outcomes.clone(),
            sweep: self.sweep.clone(),
            persisting: self.persisting.clone(),
            persists: self.persists,
            saved_commit: self.saved_commit,
            saved_forgotten: self.saved_forgotten,
            up: self.up.clone(),
            down: self.down.clone(),
            learners: self.learners.clone(),
            links: self.links,
            durable_told: self.durable_told,
            ack_due: self.ack_due,
            caught_up: self.caught_up,
            transfer_rows: self.transfer_rows,
            transfer_bytes: self.transfer_bytes,
            waiters: self.waiters.clone(),
            questions: self.questions.clone(),
            leases: self.leases.clone(),
            reported: self.reported,
            halted: self.halted,
        }
    }

    /// Feeds `to` with all that the replica's future depends on, in a canonical form: two that feed the same at the same
    /// time behave alike from then on. Promises that have run out are nothing; names of writes to the store are left out,
    /// since these complete in order; so are statistics, and what the coordinator was last told. Also left out is what waits
    /// to be swept: the config must put that off for good.
    pub fn hash_state<H: Hasher>(&self, now: Time, to: &mut H) {
        // No `..`: a new field has to be thought of.
        #[rustfmt::skip]
        let Self {
            config: _, node, incarnation, versions, view, view_durable, gate, first_entry, log, commit_known,
            upstream_durable, outcomes, sweep, persisting, persists: _, saved_commit, saved_forgotten, up, down,
            learners, links, durable_told, ack_due, caught_up, transfer_rows: _, transfer_bytes: _, waiters,
            questions, leases, reported: _, halted,
        } = self;
        (node, incarnation, view_durable, first_entry).hash(to);
        view.as_ref().map(|view| (view.epoch, view.rebuilt_in)).hash(to);
        gate.map(|until| until.max(now)).hash(to);
        versions.states().iter().for_each(|(key, state)| hash_key_state(key, *state, to));
        let rights = versions.rights();
        (rights.epoch, rights.readable, rights.is_authority, rights.has_lease(now)).hash(to);
        hash_log(log, to);
        (commit_known, upstream_durable, outcomes, sweep.gc_floor, persisting.len()).hash(to);
        persisting.iter().for_each(|(_, pending)| hash_pending(pending, to));
        (saved_commit, saved_forgotten, links, durable_told, ack_due, caught_up, halted).hash(to);
        (up.is_some(), down.is_some(), learners.len(), waiters.len()).hash(to);
        up.iter().for_each(|up| hash_up(up, to));
        down.iter().chain(learners.values()).for_each(|down| hash_down(down, to));
        for (seq, waiters) in waiters {
            (seq, waiters.len()).hash(to);
            waiters.iter().for_each(|waiter| hash_waiter(waiter, to));
        }
        questions.hash(to);
        hash_leases(leases, self.next_ping(), now, to);
    }
}

fn hash_position(position: Option<Position>, to: &mut impl Hasher) {
    position.map(|position| (position.seq, position.index, position.version, position.deleted)).hash(to);
}

fn hash_key_state(key: &[u8], state: KeyState, to: &mut impl Hasher) {
    key.hash(to);
    hash_position(state.clean(), to);
    hash_position(state.newest(), to);
}

fn hash_entry(entry: &Entry, to: &mut impl Hasher) {
    (entry.seq, entry.origin_epoch, entry.request, entry.forget_through).hash(to);
}

fn hash_log(log: &Log, to: &mut impl Hasher) {
    (log.commit, log.last, log.durable).hash(to);
    log.above(log.commit).for_each(|entry| hash_entry(entry, to));
}

fn hash_pending(pending: &Pending, to: &mut impl Hasher) {
    std::mem::discriminant(pending).hash(to);
    match pending {
        Pending::Entries { through } => through.hash(to),
        Pending::View { epoch } => epoch.hash(to),
        Pending::Rows { rows, through } => {
            through.hash(to);
            rows.iter().for_each(|row| (row.seq, row.index, row.origin_epoch).hash(to));
        }
        Pending::CaughtUp | Pending::Sweep | Pending::Nothing => {}
    }
}

fn hash_up(up: &Up, to: &mut impl Hasher) {
    (up.link, up.kind, up.outcomes.len(), up.held.len()).hash(to);
    std::mem::discriminant(&up.stage).hash(to);
    up.held.iter().for_each(|message| message.hash_message(to));
}

fn hash_down(down: &Down, to: &mut impl Hasher) {
    down.link.hash(to);
    std::mem::discriminant(&down.stage).hash(to);
    if let DownStage::Walking(walk) = &down.stage {
        // Rare enough for its slowness.
        format!("{walk:?}").hash(to);
    }
}

fn hash_waiter(waiter: &Waiter, to: &mut impl Hasher) {
    match waiter {
        Waiter::Applied { ticket, versions } => (0, ticket, versions).hash(to),
        Waiter::ConditionFailed { ticket, error } => (1, ticket, &error.message).hash(to),
    }
}

fn hash_leases(leases: &Leases, next_ping: Option<Time>, now: Time, to: &mut impl Hasher) {
    next_ping.map(|at| at.max(now)).hash(to);
    for promises in [&leases.received, &leases.given] {
        let alive = promises.iter().filter(|(_, until)| **until > now);
        alive.clone().count().hash(to);
        alive.for_each(|promise| promise.hash(to));
    }
}

impl Message {
    /// Feeds `to` with what the message says; entries by what identifies them.
    pub fn hash_message<H: Hasher>(&self, to: &mut H) {
        std::mem::discriminant(self).hash(to);
        match self {
            Self::Hello { commit, last, suffix } => (commit, last, suffix).hash(to),
            Self::Level { commit, truncate_to } => (commit, truncate_to).hash(to),
            Self::Rows { rows, through, from_nothing, gc_floor } => {
                (through, from_nothing, gc_floor, rows.len()).hash(to);
                rows.iter().for_each(|row| (row.seq, row.index, row.origin_epoch).hash(to));
            }
            Self::RowsAck { through } => through.hash(to),
            Self::CaughtUp { through, outcomes, more, forgotten_through } => {
                (through, more, forgotten_through, outcomes.len()).hash(to);
                outcomes.iter().for_each(|outcome| (outcome.client, outcome.number, outcome.seq).hash(to));
            }
            Self::Append { entries, durable, commit } => {
                (durable, commit, entries.len()).hash(to);
                entries.iter().for_each(|entry| hash_entry(entry, to));
            }
            Self::Ack { commit } => commit.hash(to),
        }
    }
}
