//! Holds every backend to two clauses of its contract: one batch at a time, and nothing more after a failed one.
//!
//! The store's directory and the writer both write; they do it through the same [`Guard`].
//! Never here: what is written.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;

use super::{Backend, Batch, Snapshot, StoreError, Table};

/// A backend that lets one batch pass at a time and answers nothing once a batch has failed.
pub(super) struct Guard {
    backend: Arc<dyn Backend>,
    turn: Mutex<()>,
    failed: OnceLock<String>,
}

impl Guard {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, turn: Mutex::new(()), failed: OnceLock::new() }
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(why) => Err(StoreError::Io(format!("the store has failed before: {why}"))),
            None => Ok(()),
        }
    }
}

impl Backend for Guard {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let Ok(_turn) = self.turn.lock() else {
            return Err(StoreError::Io("a batch was broken off by a panic".to_owned()));
        };
        self.check()?;
        self.backend.apply(batch).inspect_err(|error| {
            self.failed.get_or_init(|| error.to_string());
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.backend.get(table, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.check()?;
        self.backend.snapshot()
    }

    fn is_volatile(&self) -> bool {
        self.backend.is_volatile()
    }

    fn size_bytes(&self) -> u64 {
        self.backend.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    /// Fails its first batch, and would take the next.
    #[derive(Default)]
    struct FailsOnce {
        memory: Memory,
        batches: std::sync::atomic::AtomicU32,
    }

    impl Backend for FailsOnce {
        fn apply(&self, batch: Batch) -> Result<(), StoreError> {
            match self.batches.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Err(StoreError::Io("planted".to_owned())),
                _ => self.memory.apply(batch),
            }
        }
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.memory.get(table, key)
        }
        fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
            self.memory.snapshot()
        }
        fn is_volatile(&self) -> bool {
            true
        }
        fn size_bytes(&self) -> u64 {
            0
        }
    }

    #[test]
    fn nothing_is_answered_after_a_failed_batch() {
        let guard = Guard::new(Arc::new(FailsOnce::default()));
        assert!(guard.get(Table(0), b"k").is_ok());
        assert!(guard.apply(vec![]).is_err());
        assert!(guard.apply(vec![]).is_err(), "a batch was tried again");
        assert!(guard.get(Table(0), b"k").is_err() && guard.snapshot().is_err());
    }
}
