//! A whole durable backend in under a hundred lines of code: a journal of batches in a file, a map in memory.
//! It shows what the contract asks for; `tests/store.rs` runs the conformance suite on it. It never shrinks its file.

use std::{collections::BTreeMap, fs::File, io, io::Write, path::Path, sync::Arc};

use bytes::Bytes;
use craq_node::store::{Backend, Batch, Change, Snapshot, StoreError, Table, backend::Visit};
use parking_lot::{Mutex, RwLock};

/// Table and key, and what is put there; none: it is deleted. A table is cleared by the empty key, which no value has.
type Entry = ((u32, Vec<u8>), Option<Vec<u8>>);

#[derive(Clone, Default)]
struct State(Arc<BTreeMap<(u32, Vec<u8>), Bytes>>);

pub(crate) struct Journal {
    file: Mutex<Option<File>>, // None after an error: nothing is written any more.
    newest: RwLock<State>,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        let (mut state, mut whole) = (State::default(), 0);
        for line in std::fs::read(path)?.split_inclusive(|byte| *byte == b'\n') {
            let parts = line.strip_suffix(b"\n").and_then(|line| line.split_at_checked(8));
            match parts {
                Some((sum, json)) if checksum(json).as_bytes() == sum => {
                    state.change(serde_json::from_slice(json)?)
                }
                _ => break, // Broken off by a crash: this batch was never acknowledged.
            }
            whole += line.len() as u64;
        }
        file.set_len(whole)?;
        file.sync_all()?;
        Ok(Self { file: Mutex::new(Some(file)), newest: RwLock::new(state) })
    }
}

fn checksum(json: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(json))
}

impl Backend for Journal {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let entries = batch.into_iter().map(|change| match change {
            Change::Put(table, key, value) => ((table.0, key.into()), Some(value.into())),
            Change::Delete(table, key) => ((table.0, key.into()), None),
            Change::Clear(table) => ((table.0, Vec::new()), None),
        });
        let entries: Vec<Entry> = entries.collect();
        let mut slot = self.file.lock();
        let mut file =
            slot.take().ok_or_else(|| StoreError::Io("the journal has failed before".to_owned()))?;
        let json = serde_json::to_vec(&entries).map_err(|error| StoreError::Io(error.to_string()))?;
        let line = [checksum(&json).as_bytes(), &json, b"\n"].concat();
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        written.map_err(|error| StoreError::Io(error.to_string()))?;
        let mut next = self.newest.read().clone();
        next.change(entries); // On a copy of the map: readers and snapshots go on with the old one.
        *self.newest.write() = next;
        *slot = Some(file);
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.newest.read().get(table, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(self.newest.read().clone()))
    }

    fn is_volatile(&self) -> bool {
        false
    }

    fn size_bytes(&self) -> u64 {
        self.newest.read().0.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }
}

impl State {
    fn change(&mut self, entries: Vec<Entry>) {
        let map = Arc::make_mut(&mut self.0);
        for ((table, key), value) in entries {
            match value {
                Some(value) => drop(map.insert((table, key), value.into())),
                None if key.is_empty() => map.retain(|(of, _), _| *of != table),
                None => drop(map.remove(&(table, key))),
            }
        }
    }
}

impl Snapshot for State {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(&(table.0, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError> {
        let pairs = self.0.range((table.0, from.to_vec())..).take_while(|((of, _), _)| *of == table.0);
        let mut inside = pairs.take_while(|((_, key), _)| to.is_none_or(|to| key.as_slice() < to));
        let _ = inside.try_for_each(|((_, key), value)| visit(key, value));
        Ok(())
    }
}

/// Opens a journal and tells its size. A node takes a backend as `Store::open(Arc::new(journal))`.
fn main() -> io::Result<()> {
    let journal = Journal::open(&std::env::temp_dir().join("craq-example.journal"))?;
    writeln!(io::stdout(), "{} bytes", journal.size_bytes())
}
