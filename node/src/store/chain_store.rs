//! One chain on any backend: its log, its meta records and its request outcomes (protocol.md 2).
//!
//! What a replica orders as a [`StoreWrite`] becomes changes of a batch here; the [`writer`](super::writer) applies them.
//! Reading needs no turn: rows are looked up by position, by any thread, while the writer writes.
//! Every row's checksums are verified whenever it is read; values that were read lately are kept (see `recent`).
//! Never here: which rows are committed, newest, or no longer wanted. See `recover` and `walk` for how a chain is read at a
//! start.

use std::{fmt, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use craq_proto::{ChainId, Key, Op, Row, Seq, Version, entry::Found};

use super::{
    Backend, Batch, Change, Snapshot, StoreError, Table,
    encoding::{decode_row, decode_row_key, encode_row, row_key},
    recent::{History, Recent},
    records::{outcome_key, seal, seal_outcome, seal_view},
};
use crate::replica::event::{Position, StoreWrite};

/// Keys of the meta records.
pub(super) mod meta_key {
    pub(crate) const VIEW: &[u8] = b"view";
    pub(crate) const COMMIT: &[u8] = b"commit";
    pub(crate) const GC_FLOOR: &[u8] = b"gc_floor";
    pub(crate) const FORGOTTEN_THROUGH: &[u8] = b"forgotten_through";
}

/// One chain's part of a store. Cheap to clone.
#[derive(Clone)]
pub struct ChainStore {
    pub(super) backend: Arc<dyn Backend>,
    chain: ChainId,
    pub(super) log: Table,
    pub(super) meta: Table,
    pub(super) requests: Table,
    recent: Arc<Recent>,
}

impl ChainStore {
    /// The chain with this number in the store's directory.
    pub(super) fn new(backend: Arc<dyn Backend>, chain: ChainId, number: u32) -> Self {
        let table = |offset| Table(number * 4 + offset);
        let recent = Arc::new(Recent::new(0));
        Self { backend, chain, log: table(1), meta: table(2), requests: table(3), recent }
    }

    /// The same, and up to about so many bytes of values that were read lately are kept in memory.
    #[must_use]
    pub fn with_recent(self, bytes_max: usize) -> Self {
        Self { recent: Arc::new(Recent::new(bytes_max)), ..self }
    }

    /// Which chain.
    #[must_use]
    pub fn chain(&self) -> &ChainId {
        &self.chain
    }

    /// The row at this place in the newest state; none: there is no such row (any more).
    pub fn get(&self, seq: Seq, index: u32) -> Result<Option<Row>, StoreError> {
        let record = self.backend.get(self.log, &row_key(seq, index))?;
        record.map(|record| decode_row(seq, index, &record)).transpose()
    }

    /// To be taken before the look at the map that says where a value lies.
    #[must_use]
    pub fn history(&self) -> History {
        self.recent.history()
    }

    /// The value at this position, if it was read lately.
    #[must_use]
    pub fn recent(&self, history: History, key: &Key, position: Position) -> Option<Found> {
        self.recent.get(history, key, position)
    }

    /// The value at this position; none: it was overwritten and swept.
    pub fn find(&self, key: &Key, position: Position) -> Result<Option<Found>, StoreError> {
        Ok(self.get(position.seq, position.index)?.and_then(|row| found(row, key, position.version)))
    }

    /// What was found under this history could be answered: it is kept, so that it is found again as a recent one.
    pub fn keep(&self, history: History, key: &Key, position: Position, found: &Found) {
        self.recent.keep(history, key, position, found);
    }

    /// The newest state, held still: for pages of a range.
    pub fn snapshot(&self) -> Result<ChainSnapshot, StoreError> {
        Ok(ChainSnapshot { snapshot: self.backend.snapshot()?, log: self.log })
    }

    /// Rows above `after`, up to `up_to`, rising, and the sequence up to which nothing is missing.
    ///
    /// Whole entries only, as far as their rows are kept; at least one entry if there is one, and then further ones as
    /// long as all together weigh at most `bytes_max` (see [`Row::weight`]). The sequence is `up_to` when the range is
    /// exhausted.
    pub fn read_log(&self, after: Seq, up_to: Seq, bytes_max: usize) -> Result<(Vec<Row>, Seq), StoreError> {
        let mut page = Page { rows: Vec::new(), whole: 0, bytes: 0, bytes_max };
        let (Some(from), true) = (after.0.checked_add(1), after < up_to) else {
            return Ok((page.rows, up_to));
        };
        let to = up_to.0.checked_add(1).map(|end| row_key(Seq(end), 0));
        let mut cut = None;
        let mut error = None;
        let snapshot = self.backend.snapshot()?;
        snapshot.scan(
            self.log,
            &row_key(Seq(from), 0),
            to.as_ref().map(AsRef::as_ref),
            &mut |key, record| {
                match decode_pair(key, record).map(|row| page.add(row)) {
                    Ok(ControlFlow::Continue(())) => return ControlFlow::Continue(()),
                    Ok(ControlFlow::Break(seq)) => cut = Some(seq),
                    Err(refused) => error = Some(refused),
                }
                ControlFlow::Break(())
            },
        )?;
        match error {
            Some(error) => Err(error),
            None => Ok((page.rows, cut.unwrap_or(up_to))),
        }
    }

    /// Adds the changes that this write means to the batch, in the order that [`StoreWrite`] documents.
    pub fn encode(&self, write: &StoreWrite, batch: &mut Batch) {
        if write.wipe {
            self.recent.begin_history();
            batch.push(Change::Clear(self.log));
            batch.push(Change::Clear(self.requests));
            for key in [meta_key::COMMIT, meta_key::GC_FLOOR, meta_key::FORGOTTEN_THROUGH] {
                batch.push(Change::Delete(self.meta, Bytes::from_static(key)));
            }
        }
        for (seq, index) in &write.remove_rows {
            batch.push(Change::Delete(self.log, copy(&row_key(*seq, *index))));
        }
        for entry in &write.entries {
            batch.extend(entry.rows().map(|row| self.put_row(&row)));
        }
        batch.extend(write.rows.iter().map(|row| self.put_row(row)));
        self.encode_numbers(write, batch);
        for outcome in &write.keep_outcomes {
            batch.push(Change::Put(self.requests, copy(&outcome_key(outcome.seq)), seal_outcome(outcome)));
        }
        for seq in &write.drop_outcomes {
            batch.push(Change::Delete(self.requests, copy(&outcome_key(*seq))));
        }
        if let Some(view) = &write.view {
            let key = meta_key::VIEW;
            batch.push(Change::Put(self.meta, Bytes::from_static(key), seal_view(key, view)));
        }
    }

    fn encode_numbers(&self, write: &StoreWrite, batch: &mut Batch) {
        let numbers = [
            (meta_key::COMMIT, write.commit),
            (meta_key::GC_FLOOR, write.gc_floor),
            (meta_key::FORGOTTEN_THROUGH, write.forgotten_through),
        ];
        for (key, seq) in numbers {
            if let Some(seq) = seq {
                let record = seal(key, &seq.0.to_be_bytes());
                batch.push(Change::Put(self.meta, Bytes::from_static(key), record));
            }
        }
    }

    fn put_row(&self, row: &Row) -> Change {
        Change::Put(self.log, copy(&row_key(row.seq, row.index)), encode_row(row))
    }
}

impl fmt::Debug for ChainStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainStore({}, log in table {})", self.chain, self.log.0)
    }
}

/// One state of a chain, held still.
pub struct ChainSnapshot {
    snapshot: Box<dyn Snapshot>,
    log: Table,
}

impl ChainSnapshot {
    /// The row at this place; none: there was no such row.
    pub fn get(&self, seq: Seq, index: u32) -> Result<Option<Row>, StoreError> {
        let record = self.snapshot.get(self.log, &row_key(seq, index))?;
        record.map(|record| decode_row(seq, index, &record)).transpose()
    }

    /// The value at this position; none: there was none.
    pub fn find(&self, key: &Key, position: Position) -> Result<Option<Found>, StoreError> {
        Ok(self.get(position.seq, position.index)?.and_then(|row| found(row, key, position.version)))
    }
}

/// The row as a reader gets it, if it holds this version of the key.
fn found(row: Row, key: &Key, version: Version) -> Option<Found> {
    let seq = row.seq;
    let mutation = row.mutation.filter(|mutation| mutation.key == *key && mutation.version == version)?;
    let checksum = mutation.checksum;
    match mutation.op {
        Op::Put(value) => Some(Found { value: value.into_bytes(), version, seq, checksum }),
        Op::Delete => None,
    }
}

impl fmt::Debug for ChainSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainSnapshot(log in table {})", self.log.0)
    }
}

/// A row as a scan finds it.
fn decode_pair(key: &[u8], record: &[u8]) -> Result<Row, StoreError> {
    let (seq, index) = decode_row_key(key)?;
    decode_row(seq, index, &copy(record))
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A piece of the log that is being gathered.
struct Page {
    rows: Vec<Row>,
    /// How many of the rows belong to entries that are complete.
    whole: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Page {
    /// Takes the next row, or breaks with the sequence up to which the page is complete, and leaves only whole entries.
    fn add(&mut self, row: Row) -> ControlFlow<Seq> {
        if self.rows.last().is_some_and(|last| last.seq != row.seq) {
            self.whole = self.rows.len();
        }
        self.bytes += row.weight();
        if self.bytes > self.bytes_max && self.whole > 0 {
            self.rows.truncate(self.whole);
            return ControlFlow::Break(row.seq.previous());
        }
        self.rows.push(row);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, Store};

    #[test]
    fn what_was_read_before_a_wipe_is_not_found_after_it() {
        let store = Store::open(Arc::new(Memory::new())).unwrap();
        let chain = store.chain(&ChainId::default_chain()).unwrap().with_recent(1 << 20);
        let key = Key::new("k").unwrap();
        let position = Position { seq: Seq(3), index: 0, version: Version(1), deleted: false };
        let found = Found { value: Bytes::from_static(b"v"), version: Version(1), seq: Seq(3), checksum: 7 };
        let before = chain.history();
        chain.keep(before, &key, position, &found);
        let writer = chain.clone();
        assert_eq!(writer.recent(before, &key, position), Some(found), "clones share what was read");
        writer.encode(&StoreWrite { wipe: true, ..StoreWrite::default() }, &mut Batch::new());
        assert_eq!(chain.recent(chain.history(), &key, position), None);
    }
}
