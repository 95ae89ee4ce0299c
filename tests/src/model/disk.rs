//! A store that keeps what was written to it, whole writes only. Swept rows and walks are no part of the model, so that
//! whole entries are kept.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use craq_node::{
    replica::event::{StoreWrite, StoredView},
    store::Meta,
};
use craq_proto::{Entry, Row, Seq};

/// What survives a crash of its node.
#[derive(Debug, Default, Clone)]
pub(super) struct Disk {
    entries: BTreeMap<Seq, Arc<Entry>>,
    view: Option<Box<StoredView>>,
    commit: Seq,
}

impl Disk {
    pub(super) fn apply(&mut self, write: &StoreWrite) {
        for (seq, _) in &write.remove_rows {
            self.entries.remove(seq);
        }
        self.entries.extend(write.entries.iter().map(|entry| (entry.seq, Arc::clone(entry))));
        self.commit = write.commit.unwrap_or(self.commit);
        self.view = write.view.clone().or(self.view.take());
    }

    pub(super) fn entry(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.entries.get(&seq)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.entries.values().flat_map(|entry| entry.rows())
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            view: self.view.clone(),
            commit: self.commit,
            gc_floor: Seq::ZERO,
            forgotten_through: Seq::ZERO,
            outcomes: Vec::new(),
        }
    }
}

impl Hash for Disk {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.commit.hash(to);
        hash_view(self.view.as_deref(), to);
        hash_entries(self.entries.values(), to);
    }
}

/// What a write says, entries by what identifies them.
pub(super) fn hash_write(write: &StoreWrite, to: &mut impl Hasher) {
    (write.wipe, &write.remove_rows, write.commit, write.forgotten_through).hash(to);
    hash_view(write.view.as_deref(), to);
    hash_entries(write.entries.iter(), to);
}

fn hash_view(view: Option<&StoredView>, to: &mut impl Hasher) {
    view.map(|stored| (stored.view.epoch, &stored.bound)).hash(to);
}

fn hash_entries<'a>(entries: impl ExactSizeIterator<Item = &'a Arc<Entry>>, to: &mut impl Hasher) {
    entries.len().hash(to);
    entries.for_each(|entry| (entry.seq, entry.origin_epoch, entry.request).hash(to));
}
