//! What each node has ordered, and what is on its disk.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use craq_node::replica::event::StoreWrite;
use craq_proto::{Entry, Epoch, Incarnation, NodeId, Seq, View};

/// A row that a step has ordered to be removed, and the entry above the commit that it was part of, if it was.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) row: (Seq, u32),
    pub(super) entry: Option<Arc<Entry>>,
    /// The commit that is stored at the latest with the removal.
    pub(super) stored_commit: Seq,
}

/// A node.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) incarnation: Incarnation,
    /// What is installed; of a process that has ended: what is stored.
    pub(super) view: Option<View>,
    /// The view that was last ordered to be stored: what a step goes by before it is told as installed.
    pub(super) ordered_view: Option<View>,
    pub(super) commit: Seq,
    /// Entries above the commit.
    pub(super) suffix: Suffix,
    /// The commit that was last ordered to be stored.
    pub(super) ordered_commit: Seq,
    pub(super) gc_floor: Seq,
    /// What the present step removes.
    pub(super) removed: Vec<Removed>,
    /// The highest sequence that the present step acknowledges.
    pub(super) acked: Seq,
    /// The epoch in which it was last found to hold all that is acknowledged.
    pub(super) covered_in: Epoch,
    /// Ordered, and not yet known to be stored.
    pub(super) pending: VecDeque<Ordered>,
    pub(super) disk: Disk,
    /// All up to here was found to be on the disk and in agreement with the ledger.
    pub(super) proven: Seq,
}

impl Node {
    /// Whether it is in sync in the view that it goes by.
    pub(super) fn is_in_sync(&self, node: NodeId) -> bool {
        is_in_sync(self.ordered_view.as_ref(), node)
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(Epoch::ZERO, |view| view.epoch)
    }

    pub(super) fn order(&mut self, write: &StoreWrite) {
        if write.wipe {
            (self.commit, self.ordered_commit, self.gc_floor) = (Seq::ZERO, Seq::ZERO, Seq::ZERO);
            (self.proven, self.suffix) = (Seq::ZERO, Suffix::default());
            self.removed.clear();
        }
        self.ordered_commit = write.commit.unwrap_or(self.ordered_commit);
        self.gc_floor = write.gc_floor.unwrap_or(self.gc_floor);
        for row in &write.remove_rows {
            let entry = self.suffix.get(row.0).cloned();
            self.removed.push(Removed { row: *row, entry, stored_commit: self.ordered_commit });
        }
        write.entries.iter().for_each(|entry| self.suffix.insert(entry));
        if let Some(stored) = &write.view {
            self.ordered_view = Some(stored.view.clone());
        }
        self.pending.push_back(Ordered::new(write));
    }

    pub(super) fn store(&mut self) {
        if let Some(ordered) = self.pending.pop_front() {
            self.disk.apply(&ordered);
        }
    }

    pub(super) fn commit_to(&mut self, commit: Seq) {
        self.commit = commit;
        self.suffix.drop_through(commit);
        self.disk.entries = self.disk.entries.split_off(&commit.next());
        self.proven = self.proven.max(commit);
    }

    pub(super) fn end(&mut self) {
        self.removed.clear();
        self.acked = Seq::ZERO;
        self.view.clone_from(&self.disk.view);
    }

    /// The entry as far as it is on the disk, above what is proven.
    pub(super) fn durable(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.disk.entries.get(&seq)
    }
}

pub(super) fn is_in_sync(view: Option<&View>, node: NodeId) -> bool {
    view.and_then(|view| view.member(node)).is_some_and(|member| member.in_sync)
}

/// What of a write is needed later.
#[derive(Debug)]
pub(super) struct Ordered {
    wipe: bool,
    removed: Vec<(Seq, u32)>,
    pub(super) entries: Vec<Arc<Entry>>,
    rows: Vec<(Seq, u32, Epoch)>,
    pub(super) commit: Option<Seq>,
    view: Option<View>,
}

impl Ordered {
    fn new(write: &StoreWrite) -> Self {
        Self {
            wipe: write.wipe,
            removed: write.remove_rows.clone(),
            entries: write.entries.clone(),
            rows: write.rows.iter().map(|row| (row.seq, row.index, row.origin_epoch)).collect(),
            commit: write.commit,
            view: write.view.as_ref().map(|stored| stored.view.clone()),
        }
    }
}

/// What is on a disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Every row, with the epoch of its entry.
    pub(super) rows: BTreeMap<(Seq, u32), Epoch>,
    /// Entries above the node's commit.
    pub(super) entries: BTreeMap<Seq, Arc<Entry>>,
    pub(super) commit: Seq,
    pub(super) view: Option<View>,
    /// The newest epoch of which an entry was ever stored.
    pub(super) newest_origin: Epoch,
}

impl Disk {
    pub(super) fn apply(&mut self, ordered: &Ordered) {
        if ordered.wipe {
            *self = Self { view: self.view.take(), ..Self::default() };
        }
        for row in &ordered.removed {
            self.rows.remove(row);
            self.entries.remove(&row.0);
        }
        for entry in &ordered.entries {
            let rows = (0..entry.row_count()).map(|index| ((entry.seq, index), entry.origin_epoch));
            self.rows.extend(rows);
            self.entries.insert(entry.seq, Arc::clone(entry));
            self.newest_origin = self.newest_origin.max(entry.origin_epoch);
        }
        for (seq, index, origin) in &ordered.rows {
            self.rows.insert((*seq, *index), *origin);
            self.newest_origin = self.newest_origin.max(*origin);
        }
        self.commit = ordered.commit.unwrap_or(self.commit);
        if let Some(view) = &ordered.view {
            self.view = Some(view.clone());
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(Epoch::ZERO, |view| view.epoch)
    }
}

/// The uncommitted end of a log, with its weight.
#[derive(Debug, Default)]
pub(super) struct Suffix {
    entries: BTreeMap<Seq, Arc<Entry>>,
    /// Entries that answer a request.
    pub(super) requests: usize,
    /// Of keys and values.
    pub(super) bytes: usize,
}

impl Suffix {
    pub(super) fn get(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.entries.get(&seq)
    }

    pub(super) fn last(&self) -> Option<Seq> {
        self.entries.last_key_value().map(|(seq, _)| *seq)
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        self.remove(entry.seq);
        self.requests += usize::from(entry.request.is_some());
        self.bytes += bytes(entry);
        self.entries.insert(entry.seq, Arc::clone(entry));
    }

    pub(super) fn remove(&mut self, seq: Seq) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.requests -= usize::from(entry.request.is_some());
            self.bytes -= bytes(&entry);
        }
    }

    fn drop_through(&mut self, seq: Seq) {
        while let Some(first) =
            self.entries.first_key_value().map(|(first, _)| *first).filter(|first| *first <= seq)
        {
            self.remove(first);
        }
    }
}

fn bytes(entry: &Entry) -> usize {
    entry.mutations.iter().map(|mutation| mutation.key.as_bytes().len() + mutation.value_bytes().len()).sum()
}
