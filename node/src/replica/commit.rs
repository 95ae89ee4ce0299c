//! When entries are durable, when they are committed, and what follows (`protocol.md` 3.5 to 3.7).
//!
//! Only the tail starts a commit: what is durable at itself and, as its predecessor says, at all before it. Everyone else
//! is told. Never here: which replica is the tail (see `reconfigure`), how entries arrive (see `link`).

use std::sync::Arc;

use craq_proto::{
    Entry, Epoch, Row, Seq, Time,
    planted::{self, Bug},
};

use super::{
    Replica,
    event::{Message, Output, PersistId, Reply, StoreWrite},
    write::Waiter,
};

/// What a write to the store means when it is done.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    /// The log is durable up to here.
    Entries { through: Seq },
    /// The view is durable.
    View { epoch: Epoch },
    /// Rows of the committed log are durable; nothing is missing up to `through`.
    Rows { rows: Vec<Row>, through: Seq },
    /// The outcomes that complete a walk are durable.
    CaughtUp,
    /// Overwritten rows are gone.
    Sweep,
    /// Nothing follows.
    Nothing,
}

impl Replica {
    /// Orders a write. With it goes what costs no extra sync: the commit, and what is forgotten.
    pub(super) fn persist(&mut self, mut write: StoreWrite, pending: Pending, out: &mut Vec<Output>) {
        let commit = if planted::is(Bug::CommitSavedAhead) { self.log.last } else { self.log.commit };
        if write.commit.is_none() && commit > self.saved_commit {
            write.commit = Some(commit);
        }
        self.saved_commit = write.commit.unwrap_or(self.saved_commit);
        if write.forgotten_through.is_none() && self.outcomes.forgotten_through() > self.saved_forgotten {
            write.forgotten_through = Some(self.outcomes.forgotten_through());
        }
        self.saved_forgotten = write.forgotten_through.unwrap_or(self.saved_forgotten);
        write.drop_outcomes.extend(self.outcomes.take_dropped());
        if let Pending::Entries { through } = pending
            && planted::is(Bug::DurableAtAppend)
        {
            self.log.durable = self.log.durable.max(through);
        }
        self.persists += 1;
        let id = PersistId(self.persists);
        self.persisting.push_back((id, pending));
        out.push(Output::Persist { id, write });
    }

    pub(super) fn on_persisted(&mut self, now: Time, id: PersistId, out: &mut Vec<Output>) {
        while self.persisting.front().is_some_and(|(first, _)| *first <= id) {
            let Some((_, pending)) = self.persisting.pop_front() else { break };
            match pending {
                Pending::Entries { through } => self.log.durable = self.log.durable.max(through),
                Pending::View { epoch } if epoch == self.epoch() => self.view_is_durable(now, out),
                Pending::View { .. } | Pending::Nothing => {}
                Pending::Rows { rows, through } => self.on_rows_durable(&rows, through, out),
                Pending::CaughtUp => self.on_caught_up_durable(),
                Pending::Sweep => self.sweep.done(),
            }
        }
        self.advance_commit(out);
        self.take_held_messages(out);
    }

    /// What is thrown away is no longer durable, and a write of it that is under way no longer counts (protocol.md 4).
    pub(super) fn forget_durability_above(&mut self, seq: Seq) {
        if planted::is(Bug::StaleBatchCounts) {
            return;
        }
        for (_, pending) in &mut self.persisting {
            if let Pending::Entries { through } = pending {
                *through = (*through).min(seq);
            }
        }
    }

    /// The tail's rule.
    pub(super) fn maybe_commit(&mut self, out: &mut Vec<Output>) {
        if !self.is_moving() || !self.role().is_tail() {
            return;
        }
        // protocol.md 3.6: durable at this and at every member before it. The head has none before it.
        let has_none_before = self.role().is_head() || planted::is(Bug::TailIgnoresUpstream);
        let upstream = if has_none_before { Some(self.log.durable) } else { self.upstream_durable };
        if let Some(upstream) = upstream {
            self.commit_known = self.commit_known.max(self.log.durable.min(upstream));
            self.advance_commit(out);
        }
    }

    /// Raises the commit to what is known, as far as it is durable here: readers find a committed version in the store.
    pub(super) fn advance_commit(&mut self, out: &mut Vec<Output>) {
        let target = self.commit_known.min(self.log.durable).min(self.log.last);
        if target <= self.log.commit {
            return;
        }
        let entries = self.log.commit_to(target);
        let versions = Arc::clone(&self.versions);
        let commits = versions.begin_commits();
        for entry in &entries {
            self.sweep.entry_committed(entry, |key, position| commits.commit(key, position));
            self.outcomes.commit(entry);
        }
        commits.reached(target);
        drop(commits);
        self.ack_due = true;
        self.answer_waiters(out);
        self.answer_reads(target, out);
        self.feed_learners(&entries, out);
    }

    fn answer_waiters(&mut self, out: &mut Vec<Output>) {
        let above = self.waiters.split_off(&self.log.commit.next());
        for (seq, waiters) in std::mem::replace(&mut self.waiters, above) {
            for waiter in waiters {
                out.push(match waiter {
                    Waiter::Applied { ticket, versions } => {
                        Output::Reply { ticket, reply: Reply::Applied { seq, versions }, under_lease: false }
                    }
                    Waiter::ConditionFailed { ticket, error } => {
                        Output::Reply { ticket, reply: Reply::Refused(error), under_lease: true }
                    }
                });
            }
        }
    }

    fn feed_learners(&mut self, entries: &[Arc<Entry>], out: &mut Vec<Output>) {
        let (epoch, commit) = (self.epoch(), self.log.commit);
        for learner in self.learners.values_mut().filter(|learner| learner.is_live()) {
            let message = Message::Append { entries: entries.to_vec(), durable: commit, commit };
            out.push(Output::Send { link: learner.link, epoch, message });
        }
        let mut walking = Vec::new();
        for (node, learner) in &mut self.learners {
            if let Some(walk) = learner.walk_mut() {
                walk.committed_meanwhile(entries);
                walking.push(*node);
            }
        }
        for node in walking {
            self.walk(Some(node), out);
        }
    }

    /// Entries to the successor, if its link has come so far.
    pub(super) fn forward(&mut self, entries: Vec<Arc<Entry>>, out: &mut Vec<Output>) {
        let (epoch, durable, commit) = (self.epoch(), self.durable_so_far(), self.log.commit);
        if let Some(down) = self.down.as_ref().filter(|down| down.is_live()) {
            self.durable_told = durable;
            let message = Message::Append { entries, durable, commit };
            out.push(Output::Send { link: down.link, epoch, message });
        }
    }

    /// How far the log is durable at this replica and all before it.
    fn durable_so_far(&self) -> Seq {
        if self.role().is_head() || planted::is(Bug::UpstreamNotPassedOn) {
            return self.log.durable;
        }
        self.upstream_durable.map_or(Seq::ZERO, |upstream| upstream.min(self.log.durable))
    }

    /// protocol.md 3.5: sent again, alone if need be, when it grows.
    pub(super) fn maybe_tell_durable(&mut self, out: &mut Vec<Output>) {
        if self.durable_so_far() > self.durable_told {
            self.forward(Vec::new(), out);
        }
    }

    pub(super) fn maybe_ack(&mut self, out: &mut Vec<Output>) {
        if !std::mem::take(&mut self.ack_due) {
            return;
        }
        if let Some(up) = self.up.as_ref().filter(|up| up.is_live()) {
            let message = Message::Ack { commit: self.log.commit };
            out.push(Output::Send { link: up.link, epoch: self.epoch(), message });
        }
    }

    /// From the successor: what is committed.
    pub(super) fn on_ack(&mut self, now: Time, commit: Seq, out: &mut Vec<Output>) {
        if commit > self.log.last {
            let last = self.log.last;
            let reason = format!(
                "the successor has committed up to {commit}, but this log ends at {last}: the store lost data"
            );
            return self.halt(reason, out);
        }
        self.versions.hear(now);
        self.commit_known = self.commit_known.max(commit);
        // Passed on even if it brings nothing new here, so that one lost answer delays nobody for long.
        self.ack_due = true;
        self.advance_commit(out);
    }

    /// Rows of the committed log are in the store: now readers may find them.
    pub(super) fn commit_rows(&mut self, rows: &[Row], through: Seq) {
        let versions = Arc::clone(&self.versions);
        let commits = versions.begin_commits();
        for row in rows {
            self.sweep.row_committed(row, |key, position| commits.commit(key, position));
        }
        commits.reached(through);
    }
}
