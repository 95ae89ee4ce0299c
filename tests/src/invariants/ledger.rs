//! What is committed: every entry, by sequence. Nothing that stands here ever changes.

use std::{collections::BTreeMap, sync::Arc};

use craq_proto::{Entry, Key, Row, Seq, Version};

use super::{Checked, ensure, once::Requests, versions};

/// Where a version of a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: Seq,
    pub(super) index: u32,
    pub(super) version: Version,
    pub(super) is_deleted: bool,
}

/// The committed history.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<Arc<Entry>>,
    /// All versions of each key, in the order of their commits.
    pub(super) keys: BTreeMap<Key, Vec<Place>>,
    /// Sequences of entries without mutations, rising.
    pub(super) markers: Vec<Seq>,
    pub(super) requests: Requests,
    /// The highest sequence that was acknowledged.
    pub(super) acked: Seq,
    tombstone_entries: u64,
}

impl Ledger {
    pub(super) fn new(tombstone_entries: u64) -> Self {
        Self {
            entries: Vec::new(),
            keys: BTreeMap::new(),
            markers: Vec::new(),
            requests: Requests::default(),
            acked: Seq::ZERO,
            tombstone_entries,
        }
    }

    /// The last sequence that is committed.
    pub(super) fn last(&self) -> Seq {
        Seq(self.entries.len() as u64)
    }

    pub(super) fn entry(&self, seq: Seq) -> Option<&Arc<Entry>> {
        self.entries.get(usize::try_from(seq.0.checked_sub(1)?).ok()?)
    }

    /// Whether this very entry is committed at its sequence.
    pub(super) fn has(&self, entry: &Arc<Entry>) -> bool {
        self.entry(entry.seq).is_some_and(|own| is_same(own, entry))
    }

    /// An entry is committed somewhere, for the first time.
    pub(super) fn append(&mut self, entry: &Arc<Entry>) -> Checked {
        let (seq, expected) = (entry.seq, self.last().next());
        ensure!(seq == expected, "versions", "{seq} is committed where {expected} is the next");
        self.requests.committed(entry)?;
        versions::committed(&self.keys, entry, self.tombstone_entries)?;
        for (index, mutation) in (0..).zip(&entry.mutations) {
            let (version, is_deleted) = (mutation.version, mutation.is_delete());
            self.keys.entry(mutation.key.clone()).or_default().push(Place {
                seq,
                index,
                version,
                is_deleted,
            });
        }
        if entry.mutations.is_empty() {
            self.markers.push(seq);
        }
        self.entries.push(Arc::clone(entry));
        Ok(())
    }

    /// The newest version of a key as of this commit.
    pub(super) fn newest(&self, key: &Key, commit: Seq) -> Option<Place> {
        as_of(self.keys.get(key)?, commit)
    }

    /// Whether the row is one of the committed entry at its sequence.
    pub(super) fn agrees(&self, row: &Row) -> bool {
        self.entry(row.seq).is_some_and(|entry| {
            row.count == entry.row_count()
                && row.index < row.count
                && row.origin_epoch == entry.origin_epoch
                && row.forget_through == entry.forget_through
                && request(row.request) == request(entry.request)
                && row.mutation.as_ref() == entry.mutations.get(row.index as usize)
        })
    }
}

/// The newest of these places as of this commit.
pub(super) fn as_of(places: &[Place], commit: Seq) -> Option<Place> {
    let above = places.partition_point(|place| place.seq <= commit);
    places[..above].last().copied()
}

/// Whether two entries are the same, but for what is not stored.
pub(super) fn is_same(a: &Arc<Entry>, b: &Arc<Entry>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.seq == b.seq
            && a.origin_epoch == b.origin_epoch
            && a.forget_through == b.forget_through
            && request(a.request) == request(b.request)
            && a.mutations == b.mutations)
}

fn request(request: Option<craq_proto::RequestId>) -> Option<craq_proto::RequestId> {
    request.map(|request| craq_proto::RequestId { retry: false, ..request })
}
