//! What a replica reads when it starts, before its log (see `walk`): the meta records and the kept outcomes (protocol.md 2).
//!
//! Never here: what is made of it (see [`crate::replica`]).

use std::ops::ControlFlow;

use craq_proto::{Outcome, Seq};

use super::{
    ChainStore, StoreError,
    chain_store::meta_key,
    records::{unseal_number, unseal_outcome, unseal_view},
};
use crate::replica::event::StoredView;

/// What a chain's store says besides its log. Of a chain that was never written: nothing and zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The view that was last installed.
    pub view: Option<Box<StoredView>>,
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
            view: view.map(|record| unseal_view(meta_key::VIEW, &record)).transpose()?.map(Box::new),
            commit: number(meta_key::COMMIT)?,
            gc_floor: number(meta_key::GC_FLOOR)?,
            forgotten_through: number(meta_key::FORGOTTEN_THROUGH)?,
            outcomes,
        })
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
