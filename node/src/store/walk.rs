//! Reading a chain's whole log, once, upwards, as fast as the backend hands it out: for the start of a node.
//!
//! Rows are copied and verified in pieces. Of a long log they are so by a thread of its own, a few pieces ahead of whoever
//! takes them. Never here: what is made of the rows (see [`crate::replica::Loader`]).

use std::{ops::ControlFlow, panic, sync::mpsc, thread};

use bytes::Bytes;
use craq_proto::{Row, Seq};

use super::{
    ChainStore, Snapshot, StoreError, Table,
    encoding::{decode_row, decode_row_key, row_key},
};

/// After how many rows a walk tells how far it has come.
const PROGRESS_ROWS: u64 = 10_000;
/// A piece is full with so many rows, or so many bytes.
const PIECE_ROWS: usize = 512;
const PIECE_BYTES: usize = 256 * 1024;
/// How many pieces may wait for the one who takes them.
const PIECES_AHEAD: usize = 4;

impl ChainStore {
    /// Calls `visit` with each row of the log, rising, and `progress` now and then with the number of rows so far.
    /// Returns how many there were. After an error, not all rows before the damaged one have been visited.
    ///
    /// A visitor that keeps a row's key for long should [detach](craq_proto::Key::detached) it: it pins the value, and
    /// some hundred rows beside it.
    pub fn walk(&self, progress: &mut dyn FnMut(u64), visit: &mut dyn FnMut(Row)) -> Result<u64, StoreError> {
        let mut rows = 0_u64;
        let mut take = |piece: Vec<Row>| {
            for row in piece {
                visit(row);
                rows += 1;
                if rows.is_multiple_of(PROGRESS_ROWS) {
                    progress(rows);
                }
            }
        };
        let log = Log { snapshot: self.backend.snapshot()?, table: self.log };
        let mut first = None;
        let rest = log.scan(&[], &mut |piece| {
            first = Some(piece);
            ControlFlow::Break(())
        })?;
        // A log of one piece is not worth a thread.
        if let Some(first) = first {
            let end = first.last().map(|row| row_key(row.seq, row.index)).unwrap_or_default();
            take(first);
            log.read_ahead(&just_above(&end), &mut take)?;
        }
        take(rest);
        Ok(rows)
    }
}

/// The least key above this one.
fn just_above(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A chain's log in one state.
struct Log {
    snapshot: Box<dyn Snapshot>,
    table: Table,
}

impl Log {
    /// Hands out the rows from this key on in full pieces, until `take` breaks. Returns those that fill no piece.
    fn scan(
        &self,
        from: &[u8],
        take: &mut dyn FnMut(Vec<Row>) -> ControlFlow<()>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut piece = Piece::default();
        let mut error = None;
        self.snapshot.scan(self.table, from, None, &mut |key, record| {
            let added = piece.add(key, record);
            if added.is_ok() && !piece.is_full() {
                return ControlFlow::Continue(());
            }
            match added.and_then(|()| piece.rows()) {
                Ok(rows) => take(rows),
                Err(refused) => {
                    error = Some(refused);
                    ControlFlow::Break(())
                }
            }
        })?;
        error.map_or_else(|| piece.rows(), Err)
    }

    /// The same by a thread of its own, with everything handed to `take` on this one.
    fn read_ahead(&self, from: &[u8], take: &mut dyn FnMut(Vec<Row>)) -> Result<(), StoreError> {
        let (sender, receiver) = mpsc::sync_channel(PIECES_AHEAD);
        // The receiver goes into the scope: should `take` panic, the reader finds nobody there, and ends.
        let rest = thread::scope(|scope| {
            let reader = scope.spawn(move || {
                self.scan(from, &mut |piece| match sender.send(piece) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(mpsc::SendError(_)) => ControlFlow::Break(()),
                })
            });
            for piece in receiver {
                take(piece);
            }
            reader.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })?;
        take(rest);
        Ok(())
    }
}

/// Rows that are copied together, so that many share one allocation.
#[derive(Default)]
struct Piece {
    records: Vec<u8>,
    /// The rows' places in the log, and where their records end.
    rows: Vec<(Seq, u32, usize)>,
}

impl Piece {
    fn add(&mut self, key: &[u8], record: &[u8]) -> Result<(), StoreError> {
        let (seq, index) = decode_row_key(key)?;
        if self.rows.is_empty() {
            self.records.reserve(PIECE_BYTES.max(record.len()));
        }
        self.records.extend_from_slice(record);
        self.rows.push((seq, index, self.records.len()));
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows.len() == PIECE_ROWS || self.records.len() >= PIECE_BYTES
    }

    /// Takes all out, verified.
    fn rows(&mut self) -> Result<Vec<Row>, StoreError> {
        let records = Bytes::from(std::mem::take(&mut self.records));
        let mut begin = 0;
        let rows = self.rows.drain(..).map(|(seq, index, end)| {
            let record = records.slice(begin..end);
            begin = end;
            decode_row(seq, index, &record)
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use craq_proto::{ChainId, Entry, Epoch, Key, Mutation, Op, Value, Version, entry::checksum};

    use super::*;
    use crate::{
        replica::event::StoreWrite,
        store::{Backend, Change, Memory, Store},
    };

    /// A chain with so many rows, each with a value of that length.
    fn chain(rows: u64, value_bytes: usize) -> (Arc<Memory>, ChainStore) {
        let entry = |seq: u64| {
            let value = vec![seq as u8; value_bytes];
            let key = seq.to_be_bytes();
            let sum = checksum(&key, &value);
            let op = Op::Put(Value::new(value, usize::MAX).unwrap());
            let key = Key::new(key.to_vec()).unwrap();
            let mutations = vec![Mutation { key, version: Version(1), op, checksum: sum }];
            let forget_through = Seq::ZERO;
            Arc::new(Entry {
                seq: Seq(seq),
                origin_epoch: Epoch(1),
                request: None,
                mutations,
                forget_through,
            })
        };
        let backend = Arc::new(Memory::new());
        let store = Store::open(backend.clone()).unwrap();
        let chain = store.chain(&ChainId::default_chain()).unwrap();
        let write = StoreWrite { entries: (1..=rows).map(entry).collect(), ..StoreWrite::default() };
        let mut batch = Vec::new();
        chain.encode(&write, &mut batch);
        backend.apply(batch).unwrap();
        (backend, chain)
    }

    #[test]
    fn every_row_comes_once_and_in_order_however_the_pieces_are_cut() {
        let piece = PIECE_ROWS as u64;
        for (rows, value_bytes) in
            [(0, 9), (1, 9), (piece - 1, 9), (piece, 9), (piece + 1, 9), (9 * piece, 9), (7, PIECE_BYTES)]
        {
            let (_, chain) = chain(rows, value_bytes);
            let mut seen = Vec::new();
            let visit = &mut |row: Row| seen.push((row.seq.0, row.mutation.unwrap().value_bytes().len()));
            assert_eq!(chain.walk(&mut |_| {}, visit).unwrap(), rows);
            assert!(seen.into_iter().eq((1..=rows).map(|seq| (seq, value_bytes))), "{rows} rows");
        }
    }

    #[test]
    fn a_damaged_row_is_found_wherever_it_stands() {
        let rows = 5 * PIECE_ROWS as u64;
        for damaged in [1, PIECE_ROWS as u64, PIECE_ROWS as u64 + 1, rows / 2, rows] {
            let (backend, chain) = chain(rows, 9);
            let key = Bytes::copy_from_slice(&row_key(Seq(damaged), 0));
            let mut record = backend.get(chain.log, &key).unwrap().unwrap().to_vec();
            *record.last_mut().unwrap() ^= 1;
            backend.apply(vec![Change::Put(chain.log, key, record.into())]).unwrap();
            let refused = chain.walk(&mut |_| {}, &mut |_| {}).unwrap_err().to_string();
            assert!(refused.contains(&format!("row ({damaged}, 0)")), "{refused}");
        }
    }
}
