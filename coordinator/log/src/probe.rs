//! Whether a store keeps the one promise that the log rests on: what exists is not created once more.
//!
//! Some stores accept the condition and ignore it. On those two coordinators would both win every number.

use futures::future::join_all;
use uuid::Uuid;

use crate::{Store, StoreError, store::Created};

/// So many creations of one object meet.
const AT_ONCE: usize = 8;

/// Why the store is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It does not answer.
    #[error("the store cannot be tried out: {0}")]
    Store(#[from] StoreError),
    /// It ignores the condition of a creation.
    #[error(
        "this store creates an object that exists already, instead of refusing: coordinators would overwrite each \
         other's records, and lose them. Use a store that supports conditional writes (If-None-Match: *)"
    )]
    NotConditional,
    /// It lets more than one creation win, or none.
    #[error(
        "of {AT_ONCE} creations of one object at once, {0} were told that they had won: this store's conditional writes \
         are not atomic, and coordinators would lose records"
    )]
    NotAtomic(usize),
    /// What was written is not what is read.
    #[error("this store does not have what it said that it had written, or has another's")]
    NotKept,
}

/// Tries the store out, with objects of its own below `probe/`, which it removes.
pub async fn probe(store: &Store) -> Result<(), ProbeError> {
    let (single, race) = (name(), name());
    let outcome = try_out(store, &single, &race).await;
    for path in [single, race] {
        // What remains does no harm.
        if let Err(error) = store.delete(&path).await {
            tracing::debug!(%error, "cannot remove what a probe has written");
        }
    }
    outcome
}

fn name() -> String {
    format!("probe/{}", Uuid::new_v4())
}

async fn try_out(store: &Store, single: &str, race: &str) -> Result<(), ProbeError> {
    store.create(single, b"first".to_vec()).await?;
    if store.create(single, b"second".to_vec()).await? == Created::Done {
        return Err(ProbeError::NotConditional);
    }
    if store.get(single).await?.as_deref() != Some(b"first".as_slice()) {
        return Err(ProbeError::NotKept);
    }
    let creations = join_all((0..AT_ONCE).map(|n| store.create(race, n.to_string().into_bytes()))).await;
    let mut winners = Vec::new();
    for (n, created) in creations.into_iter().enumerate() {
        if created? == Created::Done {
            winners.push(n);
        }
    }
    let [winner] = winners[..] else { return Err(ProbeError::NotAtomic(winners.len())) };
    match store.get(race).await? {
        Some(kept) if kept == winner.to_string() => Ok(()),
        _ => Err(ProbeError::NotKept),
    }
}
