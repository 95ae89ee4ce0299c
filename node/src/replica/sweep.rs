//! Removing what is overwritten: rows of the log that are no key's newest version any more, and old tombstones
//! (`protocol.md` 2). In the background, a batch at a time, without an operator's help; on the writer's way, so that no
//! row goes before what overwrote it is committed in the store too.

use std::collections::BTreeSet;

use craq_proto::{
    Entry, Mutation, Row, Seq, Time,
    planted::{self, Bug},
};

use super::{
    Replica,
    commit::Pending,
    event::{Output, Position, StoreWrite},
    link::Down,
    own_key::OwnKey,
    transfer::Walk,
    versions::{KeyState, position},
};

/// What is to be removed.
#[derive(Debug, Default, Clone)]
pub(super) struct Sweep {
    /// Overwritten rows.
    rows: BTreeSet<(Seq, u32)>,
    /// Keys whose newest committed version is a deletion, by the sequence of that.
    tombstones: BTreeSet<(Seq, OwnKey)>,
    /// The newest committed row without a key: always kept, so that the log's end is never empty.
    marker: Option<Seq>,
    /// Tombstones below may be gone: whoever knows less of the log starts from nothing.
    pub(super) gc_floor: Seq,
    due: Option<Time>,
    under_way: bool,
}

impl Sweep {
    pub(super) fn at(gc_floor: Seq) -> Self {
        Self { gc_floor, ..Self::default() }
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.due.filter(|_| !self.under_way)
    }

    pub(super) fn done(&mut self) {
        self.under_way = false;
    }

    /// An entry was committed; `commit` puts a key's new position into the map and returns the one that it overwrites.
    pub(super) fn entry_committed(
        &mut self,
        entry: &Entry,
        commit: impl Fn(&[u8], Position) -> Option<Position>,
    ) {
        if entry.mutations.is_empty() {
            self.marker_committed(entry.seq);
        }
        for (index, mutation) in entry.mutations.iter().enumerate() {
            let position = position(entry.seq, index, mutation.version, mutation.is_delete());
            let overwritten = commit(mutation.key.as_ref(), position);
            self.mutation_committed(mutation, position, overwritten);
        }
    }

    /// The same for a row of the committed log.
    pub(super) fn row_committed(
        &mut self,
        row: &Row,
        commit: impl FnOnce(&[u8], Position) -> Option<Position>,
    ) {
        match &row.mutation {
            None => self.marker_committed(row.seq),
            Some(mutation) => {
                let position = position(row.seq, row.index as usize, mutation.version, mutation.is_delete());
                let overwritten = commit(mutation.key.as_ref(), position);
                self.mutation_committed(mutation, position, overwritten);
            }
        }
    }

    fn mutation_committed(&mut self, mutation: &Mutation, new: Position, overwritten: Option<Position>) {
        if let Some(old) = overwritten {
            self.rows.insert((old.seq, old.index));
            if planted::is(Bug::SweepRemovesNewest) {
                self.rows.insert((new.seq, new.index));
            }
            if old.deleted {
                self.tombstones.remove(&(old.seq, mutation.key.as_ref().into()));
            }
        }
        if new.deleted && overwritten != Some(new) {
            self.tombstones.insert((new.seq, mutation.key.as_ref().into()));
        }
    }

    fn marker_committed(&mut self, seq: Seq) {
        match self.marker {
            Some(newer) if newer > seq => _ = self.rows.insert((seq, 0)),
            Some(newer) if newer == seq => {}
            older => {
                self.rows.extend(older.map(|older| (older, 0)));
                self.marker = Some(seq);
            }
        }
    }
}

impl Replica {
    pub(super) fn maybe_sweep(&mut self, now: Time, out: &mut Vec<Output>) {
        self.collect_tombstones();
        if self.sweep.rows.is_empty() {
            self.sweep.due = None;
            return;
        }
        let due = *self.sweep.due.get_or_insert(now + self.config.sweep_interval);
        if self.sweep.under_way || (self.sweep.rows.len() < self.config.sweep_rows && now < due) {
            return;
        }
        self.sweep.due = None;
        self.sweep.under_way = true;
        let mut write = StoreWrite { gc_floor: Some(self.sweep.gc_floor), ..StoreWrite::default() };
        for _ in 0..self.config.sweep_rows {
            let Some((seq, index)) = self.sweep.rows.pop_first() else { break };
            if !planted::is(Bug::OutcomesNotRescued) {
                write.keep_outcomes.extend(self.outcomes.rescue(seq));
            }
            write.remove_rows.push((seq, index));
        }
        self.persist(write, Pending::Sweep, out);
    }

    /// A tombstone that many entries lie above of is removed; no replica that knows less of the log may then be brought up
    /// from where it is.
    fn collect_tombstones(&mut self) {
        let kept = self.config.tombstone_entries;
        let walks = self.learners.values().chain(&self.down).filter_map(Down::walk);
        let sent = walks.map(Walk::sent).min().unwrap_or(self.log.commit);
        while let Some((seq, _)) = self.sweep.tombstones.first() {
            let is_unsent = *seq > sent && !planted::is(Bug::TombstoneUnderWalk);
            if seq.0 + kept >= self.log.commit.0 || is_unsent {
                return;
            }
            let Some((seq, key)) = self.sweep.tombstones.pop_first() else { return };
            // One that is being overwritten goes as any other row.
            if let KeyState::Clean(position) = self.versions.state(&key)
                && position.seq == seq
            {
                self.versions.remove(&key);
                self.sweep.rows.insert((seq, position.index));
                if !planted::is(Bug::TombstoneFloorNotRaised) {
                    self.sweep.gc_floor = self.sweep.gc_floor.max(seq);
                }
            }
        }
    }
}
