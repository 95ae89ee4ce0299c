//! Bringing up a replica that is not in sync, by a walk of the committed log (`protocol.md` 4 and 7).
//!
//! The log compacted by key is walked upwards from the other side's commit; what is overwritten is left out. When the
//! walk has reached the own commit, the outcomes of requests follow, which such a log has lost; from then on entries flow.
//! A learner gets them as they are committed, a member as they come.

use std::sync::Arc;

use craq_proto::{
    Entry, NodeId, Outcome, Row, Seq,
    planted::{self, Bug},
};

use super::{
    Replica,
    commit::Pending,
    event::{LinkId, LinkKind, Message, Output, StoreWrite},
    link::{Down, DownStage, UpStage},
    log::Log,
    outcomes::Outcomes,
    sweep::Sweep,
};

/// Most outcomes in one message.
const OUTCOMES_PER_MESSAGE: usize = 10_000;

/// Most bytes of entries that are kept for a walk until it has come to where it is going; beyond, it goes on to where the
/// log is then.
const MEANWHILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A walk of the committed log for one replica.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    /// All up to here is sent.
    sent: Seq,
    /// How far the log was when the walk last looked: it reads up to here, piece by piece.
    target: Seq,
    /// A piece is being read.
    reading: bool,
    meanwhile: Meanwhile,
    /// Pieces that are sent and not yet durable over there.
    unacknowledged: usize,
    /// The other side has to drop what it holds, with the first piece.
    from_nothing: bool,
}

/// What was committed above a walk's target. A walk that is slower than the writes would else never come to its end.
#[derive(Debug, Clone, Default)]
struct Meanwhile {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    /// There was more than may be kept, so that nothing is.
    overflowed: bool,
}

impl Meanwhile {
    fn keep(&mut self, entries: &[Arc<Entry>]) {
        if self.overflowed {
            return;
        }
        self.bytes += entries.iter().map(|entry| entry.weight()).sum::<usize>();
        if self.bytes > MEANWHILE_BYTES_MAX {
            *self = Self { overflowed: true, ..Self::default() };
        } else {
            self.entries.extend_from_slice(entries);
        }
    }
}

impl Walk {
    fn new(commit: Seq, from_nothing: bool) -> Self {
        let sent = if from_nothing { Seq::ZERO } else { commit };
        Self {
            sent,
            target: sent,
            reading: false,
            meanwhile: Meanwhile::default(),
            unacknowledged: 0,
            from_nothing,
        }
    }

    pub(super) fn committed_meanwhile(&mut self, entries: &[Arc<Entry>]) {
        self.meanwhile.keep(entries);
    }

    /// What was sent so far: a tombstone above must not go before it is sent.
    pub(super) fn sent(&self) -> Seq {
        self.sent
    }

    /// Whether all up to `commit` is either sent or kept.
    fn is_at(&self, commit: Seq) -> bool {
        let kept = &self.meanwhile.entries;
        let kept_up_to = kept.last().map_or(self.sent, |entry| entry.seq);
        let is_contiguous = kept.first().is_none_or(|entry| entry.seq == self.sent.next());
        !self.from_nothing && is_contiguous && kept_up_to >= commit
    }

    /// Looks how far the log is, if the walk is where it was to go.
    fn aim(&mut self, commit: Seq) {
        if self.sent >= self.target {
            self.target = commit;
            self.meanwhile = Meanwhile::default();
        }
    }
}

impl Replica {
    /// The side that brings up.
    pub(super) fn begin_walk(&mut self, learner: Option<NodeId>, commit: Seq, out: &mut Vec<Output>) {
        // Tombstones below the floor are gone, so that the walk would leave deleted keys behind. And who knows of commits
        // that an in-sync log doesn't have comes from another history.
        let from_nothing = (commit < self.sweep.gc_floor && commit > Seq::ZERO) || commit > self.log.last;
        if !from_nothing {
            self.commit_known = self.commit_known.max(commit);
            self.advance_commit(out);
        }
        if let Some(down) = self.below(learner) {
            down.stage = DownStage::Walking(Walk::new(commit, from_nothing));
        }
        self.walk(learner, out);
    }

    /// Goes on as far as it can: orders the next piece, or ends the walk.
    pub(super) fn walk(&mut self, learner: Option<NodeId>, out: &mut Vec<Output>) {
        let (commit, window, bytes_max) =
            (self.log.commit, self.config.transfer_window, self.config.transfer_bytes);
        let Some(down) = self.below(learner) else { return };
        let link = down.link;
        let Some(walk) = down.walk_mut().filter(|walk| !walk.reading) else { return };
        if walk.is_at(commit) {
            let (sent, meanwhile) = (walk.sent, std::mem::take(&mut walk.meanwhile.entries));
            return self.end_walk(learner, sent, meanwhile, out);
        }
        if walk.unacknowledged < window {
            walk.aim(commit);
            walk.reading = true;
            out.push(Output::ReadLog { link, after: walk.sent, up_to: walk.target, bytes_max });
        }
    }

    fn end_walk(
        &mut self,
        learner: Option<NodeId>,
        sent: Seq,
        meanwhile: Vec<Arc<Entry>>,
        out: &mut Vec<Output>,
    ) {
        self.send_outcomes(learner, sent, out);
        let (epoch, commit) = (self.epoch(), self.log.commit);
        let Some(node) = learner else { return self.go_live(commit, sent, meanwhile, out) };
        if let Some(down) = self.learners.get_mut(&node) {
            down.stage = DownStage::Live;
            let message = Message::Append { entries: meanwhile, durable: commit, commit };
            out.push(Output::Send { link: down.link, epoch, message });
        }
    }

    pub(super) fn on_log_read(&mut self, link: LinkId, rows: Vec<Row>, through: Seq, out: &mut Vec<Output>) {
        let learner = self.learners.iter().find(|(_, learner)| learner.link == link).map(|(node, _)| *node);
        let versions = Arc::clone(&self.versions);
        let epoch = self.epoch();
        if self.below(learner).is_none_or(|down| down.link != link) {
            return;
        }
        let is_newest = |row: &Row| match &row.mutation {
            None => true,
            Some(mutation) if mutation.is_delete() && planted::is(Bug::WalkSkipsTombstones) => false,
            Some(mutation) => match versions.state(mutation.key.as_ref()).clean() {
                Some(position) => (position.seq, position.index) == (row.seq, row.index),
                None => false,
            },
        };
        let rows: Vec<Row> = rows.into_iter().filter(is_newest).collect();
        let gc_floor = self.sweep.gc_floor;
        let Some(walk) = self.below(learner).and_then(Down::walk_mut) else { return };
        walk.reading = false;
        let through = if planted::is(Bug::WalkClaimsTooMuch) { walk.target } else { through };
        walk.sent = through;
        walk.unacknowledged += 1;
        let from_nothing = std::mem::take(&mut walk.from_nothing);
        out.push(Output::Send {
            link,
            epoch,
            message: Message::Rows { rows, through, from_nothing, gc_floor },
        });
        self.walk(learner, out);
    }

    pub(super) fn on_rows_ack(&mut self, learner: Option<NodeId>, out: &mut Vec<Output>) {
        if let Some(walk) = self.below(learner).and_then(Down::walk_mut) {
            walk.unacknowledged = walk.unacknowledged.saturating_sub(1);
            self.walk(learner, out);
        }
    }

    /// The newest outcomes, which may know of entries above `through` already: those bring the same again.
    fn send_outcomes(&mut self, learner: Option<NodeId>, through: Seq, out: &mut Vec<Output>) {
        let epoch = self.epoch();
        let forgotten_through = self.outcomes.forgotten_through();
        let is_left_out = planted::is(Bug::OutcomesNotTransferred);
        let all: Vec<Outcome> = self.outcomes.all().filter(|_| !is_left_out).collect();
        let Some(down) = self.below(learner) else { return };
        let mut parts = all.chunks(OUTCOMES_PER_MESSAGE).peekable();
        loop {
            let outcomes = parts.next().unwrap_or_default().to_vec();
            let more = parts.peek().is_some();
            let message = Message::CaughtUp { through, outcomes, more, forgotten_through };
            out.push(Output::Send { link: down.link, epoch, message });
            if !more {
                return;
            }
        }
    }

    /// The side that is brought up.
    pub(super) fn on_rows(
        &mut self,
        rows: Vec<Row>,
        through: Seq,
        from_nothing: bool,
        gc_floor: Seq,
        out: &mut Vec<Output>,
    ) {
        let is_expected =
            self.up.as_ref().is_some_and(|up| up.stage == UpStage::Greeted) && !self.is_in_sync();
        if !is_expected {
            return self.close_up(out);
        }
        self.transfer_rows += rows.len() as u64;
        self.transfer_bytes += rows.iter().map(|row| row.weight() as u64).sum::<u64>();
        if from_nothing {
            self.start_from_nothing();
        }
        if !planted::is(Bug::TombstoneFloorNotInherited) {
            self.sweep.gc_floor = self.sweep.gc_floor.max(gc_floor);
        }
        let write = StoreWrite {
            wipe: from_nothing,
            rows: rows.clone(),
            commit: Some(through),
            gc_floor: Some(self.sweep.gc_floor),
            ..StoreWrite::default()
        };
        self.persist(write, Pending::Rows { rows, through }, out);
    }

    pub(super) fn start_from_nothing(&mut self) {
        self.versions.clear();
        self.log = Log::at(Seq::ZERO);
        self.commit_known = Seq::ZERO;
        self.outcomes = Outcomes::default();
        self.sweep = Sweep::at(Seq::ZERO);
        self.saved_commit = Seq::ZERO;
        self.saved_forgotten = Seq::ZERO;
        // What was on its way to the store is gone with the rest.
        for (_, pending) in &mut self.persisting {
            if !matches!(pending, Pending::View { .. }) {
                *pending = Pending::Nothing;
            }
        }
    }

    pub(super) fn has_rows_under_way(&self) -> bool {
        let is_row = |pending: &Pending| matches!(pending, Pending::Rows { .. } | Pending::CaughtUp);
        self.persisting.iter().any(|(_, pending)| is_row(pending))
    }

    pub(super) fn on_rows_durable(&mut self, rows: &[Row], through: Seq, out: &mut Vec<Output>) {
        if through < self.log.commit {
            return;
        }
        self.commit_rows(rows, through);
        self.log = Log::at(through);
        self.commit_known = self.commit_known.max(through);
        let epoch = self.epoch();
        if let Some(up) = self.up.as_ref().filter(|up| up.stage == UpStage::Greeted) {
            out.push(Output::Send { link: up.link, epoch, message: Message::RowsAck { through } });
        }
    }

    pub(super) fn on_caught_up(
        &mut self,
        through: Seq,
        outcomes: Vec<Outcome>,
        more: bool,
        forgotten_through: Seq,
        out: &mut Vec<Output>,
    ) {
        let Some(up) =
            self.up.as_mut().filter(|up| up.stage == UpStage::Greeted && through == self.log.commit)
        else {
            return self.close_up(out);
        };
        up.outcomes.extend(outcomes);
        if more {
            return;
        }
        let outcomes = std::mem::take(&mut up.outcomes);
        let drop_outcomes = self.outcomes.replace(&outcomes, forgotten_through);
        let write = StoreWrite {
            forgotten_through: Some(forgotten_through),
            keep_outcomes: outcomes,
            drop_outcomes,
            ..StoreWrite::default()
        };
        self.persist(write, Pending::CaughtUp, out);
    }

    /// A member goes on to be told where the logs part; a learner follows from here on.
    pub(super) fn on_caught_up_durable(&mut self) {
        if let Some(up) =
            self.up.as_mut().filter(|up| up.kind == LinkKind::Transfer && up.stage == UpStage::Greeted)
        {
            up.stage = UpStage::Live;
            self.caught_up = true;
        }
    }
}
