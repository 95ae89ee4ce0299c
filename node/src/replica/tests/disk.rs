//! A disk that keeps what was written to it, whole writes only: what a store owes a replica.

use std::collections::BTreeMap;

use craq_proto::{Outcome, Row, Seq};

use crate::{
    replica::event::{StoreWrite, StoredView},
    store::Meta,
};

#[derive(Debug, Default, Clone)]
pub(super) struct Disk {
    pub(super) rows: BTreeMap<(Seq, u32), Row>,
    outcomes: BTreeMap<Seq, Outcome>,
    view: Option<Box<StoredView>>,
    pub(super) commit: Seq,
    gc_floor: Seq,
    forgotten_through: Seq,
}

impl Disk {
    pub(super) fn apply(&mut self, write: StoreWrite) {
        if write.wipe {
            *self = Self { view: self.view.take(), ..Self::default() };
        }
        for row in &write.remove_rows {
            self.rows.remove(row);
        }
        let entries = write.entries.iter().flat_map(|entry| entry.rows());
        self.rows.extend(entries.chain(write.rows).map(|row| ((row.seq, row.index), row)));
        self.commit = write.commit.unwrap_or(self.commit);
        self.gc_floor = write.gc_floor.unwrap_or(self.gc_floor);
        self.forgotten_through = write.forgotten_through.unwrap_or(self.forgotten_through);
        self.outcomes.extend(write.keep_outcomes.into_iter().map(|outcome| (outcome.seq, outcome)));
        for seq in write.drop_outcomes {
            self.outcomes.remove(&seq);
        }
        self.view = write.view.or(self.view.take());
    }

    /// What a disk must never do.
    pub(super) fn lose_all_after(&mut self, seq: Seq) {
        self.rows.retain(|(at, _), _| *at <= seq);
        self.commit = self.commit.min(seq);
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            view: self.view.clone(),
            commit: self.commit,
            gc_floor: self.gc_floor,
            forgotten_through: self.forgotten_through,
            outcomes: self.outcomes.values().cloned().collect(),
        }
    }

    /// Whole entries above `after` up to `up_to`, at least one, until their weight reaches `bytes_max`.
    pub(super) fn read_log(&self, after: Seq, up_to: Seq, bytes_max: usize) -> (Vec<Row>, Seq) {
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes = 0;
        for ((seq, _), row) in self.rows.range((after.next(), 0)..=(up_to, u32::MAX)) {
            if bytes >= bytes_max && rows.last().is_some_and(|last| last.seq < *seq) {
                let through = seq.previous();
                return (rows, through);
            }
            bytes += row.weight();
            rows.push(row.clone());
        }
        (rows, up_to)
    }
}
