//! What a replica reads when it starts: the meta records, then the whole log, once, upwards (protocol.md 2).
//!
//! Never here: what is made of it (see [`crate::replica`]).

use std::ops::ControlFlow;

use craq_proto::{Outcome, Row, Seq};

use super::{
    ChainStore, StoreError,
    chain_store::{decode_pair, meta_key},
    records::{unseal_number, unseal_outcome, unseal_view},
};
use crate::replica::event::StoredView;

/// After how many rows a walk tells how far it has come.
const PROGRESS_ROWS: u64 = 10_000;

/// What a chain's store says besides its log. Of a chain that was never written: nothing and zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The view that was last installed.
    pub view: Option<StoredView>,
    /// The commit; may lag behind what the replica knew.
    pub commit: Seq,
    /// Below this sequence tombstones may be gone.
    pub gc_floor: Seq,
    /// Outcomes at or below this are forgotten.
    pub forgotten_through: Seq,
    /// Outcomes that are kept although their rows are gone, by rising sequence.
    pub outcomes: Vec<Outcome>,
}

impl ChainStore {
    /// Reads the meta records and the kept outcomes, in one state.
    pub fn meta(&self) -> Result<Meta, StoreError> {
        let snapshot = self.backend.snapshot()?;
        let view = snapshot.get(self.meta, meta_key::VIEW)?;
        let number = |key| match snapshot.get(self.meta, key)? {
            Some(record) => unseal_number(key, &record).map(Seq),
            None => Ok(Seq::ZERO),
        };
        let mut outcomes = Vec::new();
        let mut error = None;
        snapshot.scan(self.requests, &[], None, &mut |key, record| {
            keep_going(unseal_outcome(key, record).map(|outcome| outcomes.push(outcome)), &mut error)
        })?;
        if let Some(error) = error {
            return Err(error);
        }
        Ok(Meta {
            view: view.map(|record| unseal_view(meta_key::VIEW, &record)).transpose()?,
            commit: number(meta_key::COMMIT)?,
            gc_floor: number(meta_key::GC_FLOOR)?,
            forgotten_through: number(meta_key::FORGOTTEN_THROUGH)?,
            outcomes,
        })
    }

    /// Calls `visit` with each row of the log, rising, and `progress` now and then with the number of rows so far.
    /// Returns how many there were.
    ///
    /// A visitor that keeps a row's key for long should [detach](craq_proto::Key::detached) it: it pins the value.
    pub fn walk(&self, progress: &mut dyn FnMut(u64), visit: &mut dyn FnMut(Row)) -> Result<u64, StoreError> {
        let mut rows = 0_u64;
        let mut error = None;
        self.backend.snapshot()?.scan(self.log, &[], None, &mut |key, record| {
            let visited = decode_pair(key, record).map(|row| {
                visit(row);
                rows += 1;
                if rows.is_multiple_of(PROGRESS_ROWS) {
                    progress(rows);
                }
            });
            keep_going(visited, &mut error)
        })?;
        error.map_or(Ok(rows), Err)
    }
}

/// Ends a scan at its first error.
fn keep_going(result: Result<(), StoreError>, error: &mut Option<StoreError>) -> ControlFlow<()> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(refused) => {
            *error = Some(refused);
            ControlFlow::Break(())
        }
    }
}
