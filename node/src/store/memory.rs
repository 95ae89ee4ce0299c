//! A backend in memory: everything is gone when the process ends.
//!
//! Each table is a map of chunks that snapshots share: taking one copies nothing, and a batch that follows copies only
//! the chunks that it touches. Never here: anything durable.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Backend, Batch, Change, Snapshot, StoreError, Table, backend::Visit};

/// A chunk that grows beyond this is split.
const CHUNK_KEYS_MAX: usize = 256;

/// A volatile backend. Clones are the same store.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    // Held while a batch is carried out in memory: moments, never for I/O.
    newest: Arc<RwLock<Arc<State>>>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backend for Memory {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut newest = self.newest.write();
        let state = Arc::make_mut(&mut newest);
        batch.into_iter().for_each(|change| state.change(change));
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.newest.read().get(table, key).cloned())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(Still(Arc::clone(&self.newest.read()))))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn size_bytes(&self) -> u64 {
        self.newest.read().bytes
    }
}

/// A snapshot: one state, held by a count.
struct Still(Arc<State>);

impl Snapshot for Still {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(table, key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError> {
        let chunks = self.0.tables.get(&table).into_iter().flat_map(|table| table.chunks_from(from));
        let pairs = chunks.flat_map(|chunk| chunk.iter()).skip_while(|(key, _)| key.as_ref() < from);
        for (key, value) in pairs.take_while(|(key, _)| to.is_none_or(|to| key.as_ref() < to)) {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct State {
    tables: BTreeMap<Table, Chunks>,
    /// Of all keys and values.
    bytes: u64,
}

impl State {
    fn get(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        self.tables.get(&table)?.get(key)
    }

    fn change(&mut self, change: Change) {
        let (added, removed) = match change {
            Change::Put(table, key, value) => {
                let added = weight(&key, &value);
                let old = self.tables.entry(table).or_default().put(key.clone(), value);
                (added, old.map_or(0, |old| weight(&key, &old)))
            }
            Change::Delete(table, key) => {
                let old = self.tables.get_mut(&table).and_then(|chunks| chunks.delete(&key));
                (0, old.map_or(0, |old| weight(&key, &old)))
            }
            Change::Clear(table) => (0, self.tables.remove(&table).map_or(0, |chunks| chunks.weight())),
        };
        self.bytes = self.bytes + added - removed;
    }
}

fn weight(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

/// Sorted keys with their values.
type Chunk = Vec<(Bytes, Bytes)>;

/// A table: chunks by a key that is not above their first and above the last of the chunk before.
#[derive(Debug, Clone, Default)]
struct Chunks(BTreeMap<Bytes, Arc<Chunk>>);

impl Chunks {
    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let chunk = self.chunks_from(key).next()?;
        chunk.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok().map(|at| &chunk[at].1)
    }

    /// The chunk that may hold the key, and those after it.
    fn chunks_from(&self, key: &[u8]) -> impl Iterator<Item = &Chunk> {
        let first = self.floor(key).unwrap_or_default();
        self.0
            .range::<[u8], _>((Bound::Included(first.as_ref()), Bound::Unbounded))
            .map(|(_, chunk)| &**chunk)
    }

    /// The name of the chunk that the key belongs to.
    fn floor(&self, key: &[u8]) -> Option<Bytes> {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .map(|(floor, _)| floor.clone())
    }

    fn put(&mut self, key: Bytes, value: Bytes) -> Option<Bytes> {
        // The first chunk is named by the empty key, which is below all.
        let floor = self.floor(&key).unwrap_or_default();
        let chunk = Arc::make_mut(self.0.entry(floor).or_default());
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => {
                chunk.insert(at, (key, value));
                if chunk.len() > CHUNK_KEYS_MAX {
                    let upper = chunk.split_off(CHUNK_KEYS_MAX / 2);
                    self.0.insert(upper[0].0.clone(), Arc::new(upper));
                }
                None
            }
        }
    }

    fn delete(&mut self, key: &[u8]) -> Option<Bytes> {
        let floor = self.floor(key)?;
        let chunk = self.0.get_mut(&floor)?;
        let at = chunk.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        let (_, old) = Arc::make_mut(chunk).remove(at);
        if chunk.is_empty() {
            self.0.remove(&floor);
        }
        Some(old)
    }

    fn weight(&self) -> u64 {
        self.0.values().flat_map(|chunk| chunk.iter()).map(|(key, value)| weight(key, value)).sum()
    }
}
