//! Whether a store keeps the one promise that the log rests on: what exists is not created once more.
//!
//! Some stores accept the condition and ignore it. On those two coordinators would both win every number.

use futures::future::try_join_all;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{RETRY_PAUSE, Store, StoreError, store::Created};

/// So many creations of one object meet.
const AT_ONCE: usize = 8;
/// So often a creation is tried that is refused, or fails, while no such object is there.
const TRIES_MAX: usize = 5;

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
    if !wins(store, single, "first").await? {
        return Err(ProbeError::NotKept);
    }
    if wins(store, single, "second").await? {
        return Err(ProbeError::NotConditional);
    }
    if store.get(single).await?.as_deref() != Some(b"first".as_slice()) {
        return Err(ProbeError::NotKept);
    }
    let contents: Vec<String> = (0..AT_ONCE).map(|n| n.to_string()).collect();
    let creations = try_join_all(contents.iter().map(|content| wins(store, race, content))).await?;
    let winners: Vec<&String> =
        contents.iter().zip(creations).filter_map(|(content, wins)| wins.then_some(content)).collect();
    let [winner] = winners[..] else { return Err(ProbeError::NotAtomic(winners.len())) };
    match store.get(race).await? {
        Some(kept) if kept == *winner => Ok(()),
        _ => Err(ProbeError::NotKept),
    }
}

/// Whether this creation is done, as far as its author can tell. As in the log, what is there tells if the answer was a
/// refusal or none: a client that tries again by itself is refused by its own first try.
async fn wins(store: &Store, path: &str, content: &str) -> Result<bool, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let created = store.create(path, content.as_bytes().to_vec()).await;
        if matches!(created, Ok(Created::Done)) {
            return Ok(true);
        }
        match (store.get(path).await?, created) {
            (Some(found), _) => return Ok(found == content),
            (None, Err(error)) if tries == TRIES_MAX => return Err(error),
            (None, _) if tries == TRIES_MAX => return Ok(false),
            // Two creations met, and neither was done; or the store failed.
            (None, _) => sleep(RETRY_PAUSE).await,
        }
    }
}
