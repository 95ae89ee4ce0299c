//! The durable backend for many small writes: a directory of fjall's, an LSM tree. The only module that names fjall.
//!
//! Every batch is one batch of fjall's journal, synced (`fdatasync`) before it is done. Flushing and compaction happen in
//! threads of fjall's own. After a failed write or sync fjall takes no batch any more, and neither does this.
//!
//! All tables are in one key space of fjall's, so that one flush frees a whole journal. A table is cleared in one step, however
//! large it is: it goes on under a new generation, and what stood under the old one is removed piece by piece, along with
//! later batches.
//!
//! ```text
//! 00 | table: u32                          -> generation: u64   of a table that was ever cleared; others have 0
//! 01 | table: u32 | generation: u64        -> nothing           its keys are to be removed
//! 02 | table: u32 | generation: u64 | key  -> value
//! ```
//!
//! Numbers are big endian. Never here: what the tables hold; a second try after an error.

mod journal;
mod opening;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
};

use ::fjall::{Database, DatabaseBuilder, Keyspace, PersistMode, Readable};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

pub(super) use self::opening::is_store;
use super::{Backend, Batch, Change, Snapshot, StoreError, Table, backend::Visit};

/// Newest entries are in memory up to this size, in bytes; then they are flushed. While up to three such pieces wait for
/// their flush, writes go on.
const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;
/// How large the journals may grow before a flush is asked for, in bytes. One journal has 64 MiB.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// One thread flushes while the others compact. Of two, the first would spin while the second compacts: it puts back whatever is
/// to be compacted, and gets it again.
const THREADS_MIN: usize = 3;
const THREADS_MAX: usize = 4;
/// How many keys of cleared tables a batch takes along.
const PURGED_KEYS: usize = 512;

const GENERATION: u8 = 0;
const GARBAGE: u8 = 1;
const ROW: u8 = 2;
/// Tag, table and generation before a key.
const PREFIX_BYTES: usize = 13;

/// A backend in a directory. Only one process can have it open.
pub struct Fjall {
    keyspace: Keyspace,
    database: Database,
    tables: RwLock<Tables>,
    /// The tables' old generations that are still to be removed; changed by `apply` alone.
    garbage: Mutex<Vec<Garbage>>,
    path: PathBuf,
    /// What failed first; after that nothing is done any more.
    failed: OnceLock<String>,
    /// Locked; the last to be dropped.
    _mark: File,
}

type Generations = BTreeMap<Table, u64>;

/// Which generation each table has, in the newest state.
#[derive(Default)]
struct Tables {
    generations: Arc<Generations>,
    /// A batch is under way that changes them: what they are must be read where the rows are.
    are_changing: bool,
}

/// An old generation, and where its remaining keys begin.
#[derive(Clone)]
struct Garbage {
    table: Table,
    generation: u64,
    from: Bytes,
}

impl Fjall {
    /// Opens the directory, or makes it; the one above must exist. The cache of blocks takes up to `cache_bytes` of memory;
    /// what is not flushed yet takes up to 128 MiB more.
    ///
    /// Fails with [`StoreError::Open`] if the directory is not such a store, is open in another process, or may not be
    /// written, and with [`StoreError::Corrupt`] if it is damaged.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let opening::Opened { database, keyspace, mark } = opening::open(path, cache_bytes)?;
        let fjall = Self {
            keyspace,
            database,
            tables: RwLock::default(),
            garbage: Mutex::default(),
            path: path.to_owned(),
            failed: OnceLock::new(),
            _mark: mark,
        };
        let snapshot = fjall.database.snapshot();
        let generations = read_generations(&snapshot, &fjall.keyspace)?;
        fjall.tables.write().generations = Arc::new(generations);
        *fjall.garbage.lock() = read_garbage(&snapshot, &fjall.keyspace)?;
        drop(snapshot);
        Ok(fjall)
    }

    /// Runs one operation, unless an earlier one has failed.
    fn run<T>(&self, operation: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(why) = self.failed.get() {
            return Err(StoreError::Io(format!("the database has failed before: {why}")));
        }
        operation().inspect_err(|error| {
            self.failed.get_or_init(|| error.to_string());
        })
    }

    /// The newest state, and the tables' generations in it.
    fn hold(&self) -> Result<Still, StoreError> {
        let tables = self.tables.read();
        let snapshot = self.database.snapshot();
        let generations = match tables.are_changing {
            false => Arc::clone(&tables.generations),
            true => Arc::new(read_generations(&snapshot, &self.keyspace)?),
        };
        Ok(Still { snapshot, keyspace: self.keyspace.clone(), generations })
    }

    /// Writes the batch, durably.
    fn commit(&self, changes: BTreeMap<Bytes, Option<Bytes>>) -> Result<(), StoreError> {
        let mut batch = ::fjall::OwnedWriteBatch::with_capacity(self.database.clone(), changes.len())
            .durability(Some(PersistMode::SyncData));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        batch.commit().map_err(|error| translate(&error))
    }

    /// Adds the next keys of a cleared table to the changes; returns what remains of it.
    fn purge(
        &self,
        garbage: &Garbage,
        changes: &mut BTreeMap<Bytes, Option<Bytes>>,
    ) -> Result<Option<Garbage>, StoreError> {
        let end = end_of(garbage.table, garbage.generation);
        let range = garbage.from.clone()..end;
        for (count, pair) in self.database.snapshot().range(&self.keyspace, range).enumerate() {
            let key: Bytes = pair.key().map_err(|error| translate(&error))?.into();
            if count == PURGED_KEYS {
                return Ok(Some(Garbage { from: key, ..garbage.clone() }));
            }
            changes.insert(key, None);
        }
        changes.insert(garbage_key(garbage.table, garbage.generation), None);
        Ok(None)
    }

    fn apply_all(&self, batch: &[Change]) -> Result<(), StoreError> {
        let old = Arc::clone(&self.tables.read().generations);
        let Planned { mut changes, generations, cleared } = plan(batch, &old);
        let mut garbage = self.garbage.lock();
        let mut remains = None;
        if let Some(oldest) = garbage.first() {
            remains = Some(self.purge(oldest, &mut changes)?);
        }
        if let Some(generations) = generations {
            self.tables.write().are_changing = true;
            let done = self.commit(changes);
            if done.is_ok() {
                *self.tables.write() = Tables { generations: Arc::new(generations), are_changing: false };
            }
            done?;
        } else if !changes.is_empty() {
            self.commit(changes)?;
        }
        match remains {
            Some(Some(rest)) => garbage[0] = rest,
            Some(None) => drop(garbage.remove(0)),
            None => {}
        }
        garbage.extend(cleared);
        Ok(())
    }
}

impl Backend for Fjall {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.run(|| self.apply_all(&batch))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        // Not by the key space itself, which shows a batch while it is being put in, one key after the other.
        self.run(|| self.hold()?.get(table, key))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.run(|| Ok(Box::new(self.hold()?) as Box<dyn Snapshot>))
    }

    fn is_volatile(&self) -> bool {
        false
    }

    fn size_bytes(&self) -> u64 {
        bytes_on_disk(&self.path)
    }
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let garbage = self.garbage.lock().len();
        f.debug_struct("Fjall")
            .field("garbage", &garbage)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// A snapshot: a sequence of fjall's, from which on it keeps what is overwritten.
struct Still {
    snapshot: ::fjall::Snapshot,
    keyspace: Keyspace,
    generations: Arc<Generations>,
}

impl Snapshot for Still {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = row_key(table, generation(&self.generations, table), key);
        let value = self.snapshot.get(&self.keyspace, key).map_err(|error| translate(&error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let generation = generation(&self.generations, table);
        let begin = row_key(table, generation, from);
        let end = to.map_or_else(|| end_of(table, generation), |to| row_key(table, generation, to));
        for pair in self.snapshot.range(&self.keyspace, begin..end) {
            let (key, value) = pair.into_inner().map_err(|error| translate(&error))?;
            if visit(&key[PREFIX_BYTES..], &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

/// What a batch comes to: the last change of each key, in the keys of fjall.
struct Planned {
    changes: BTreeMap<Bytes, Option<Bytes>>,
    /// If the batch changes them.
    generations: Option<Generations>,
    cleared: Vec<Garbage>,
}

fn plan(batch: &[Change], old: &Generations) -> Planned {
    let mut changes = BTreeMap::new();
    let mut generations: Option<Generations> = None;
    let mut cleared = Vec::new();
    for change in batch {
        let now = |table| generation(generations.as_ref().unwrap_or(old), table);
        match change {
            Change::Put(table, key, value) => {
                changes.insert(row_key(*table, now(*table), key), Some(value.clone()));
            }
            Change::Delete(table, key) => {
                changes.insert(row_key(*table, now(*table), key), None);
            }
            Change::Clear(table) => {
                let before = now(*table);
                let next = before + 1;
                changes.insert(generation_key(*table), Some(Bytes::copy_from_slice(&next.to_be_bytes())));
                changes.insert(garbage_key(*table, before), Some(Bytes::new()));
                cleared.push(Garbage {
                    table: *table,
                    generation: before,
                    from: row_key(*table, before, &[]),
                });
                generations.get_or_insert_with(|| old.clone()).insert(*table, next);
            }
        }
    }
    Planned { changes, generations, cleared }
}

fn generation(generations: &Generations, table: Table) -> u64 {
    generations.get(&table).copied().unwrap_or_default()
}

fn generation_key(table: Table) -> Bytes {
    Bytes::from([&[GENERATION][..], &table.0.to_be_bytes()].concat())
}

fn garbage_key(table: Table, generation: u64) -> Bytes {
    Bytes::from([&[GARBAGE][..], &table.0.to_be_bytes(), &generation.to_be_bytes()].concat())
}

fn row_key(table: Table, generation: u64, key: &[u8]) -> Bytes {
    Bytes::from([&[ROW][..], &table.0.to_be_bytes(), &generation.to_be_bytes(), key].concat())
}

/// Above every row of this generation. There is always a next one: a generation begins with a batch of its own.
fn end_of(table: Table, generation: u64) -> Bytes {
    row_key(table, generation + 1, &[])
}

fn read_generations(snapshot: &::fjall::Snapshot, keyspace: &Keyspace) -> Result<Generations, StoreError> {
    let mut generations = Generations::new();
    for pair in snapshot.prefix(keyspace, [GENERATION]) {
        let (key, value) = pair.into_inner().map_err(|error| translate(&error))?;
        let table = key[1..].try_into().map(u32::from_be_bytes);
        let generation = value[..].try_into().map(u64::from_be_bytes);
        let (Ok(table), Ok(generation)) = (table, generation) else { return Err(malformed(&key)) };
        generations.insert(Table(table), generation);
    }
    Ok(generations)
}

fn read_garbage(snapshot: &::fjall::Snapshot, keyspace: &Keyspace) -> Result<Vec<Garbage>, StoreError> {
    let mut garbage = Vec::new();
    for pair in snapshot.prefix(keyspace, [GARBAGE]) {
        let key = pair.key().map_err(|error| translate(&error))?;
        let numbers = key[1..].split_first_chunk().map(|(table, generation)| {
            (Table(u32::from_be_bytes(*table)), generation.try_into().map(u64::from_be_bytes))
        });
        let Some((table, Ok(generation))) = numbers else { return Err(malformed(&key)) };
        garbage.push(Garbage { table, generation, from: row_key(table, generation, &[]) });
    }
    Ok(garbage)
}

fn malformed(key: &[u8]) -> StoreError {
    StoreError::Corrupt(format!("the table record {} is no such record", key.escape_ascii()))
}

/// fjall, as it is wanted here.
fn config(builder: DatabaseBuilder<Database>, cache_bytes: usize) -> DatabaseBuilder<Database> {
    let cores = thread::available_parallelism().map_or(THREADS_MIN, usize::from);
    builder
        .cache_size(cache_bytes as u64)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(cores.clamp(THREADS_MIN, THREADS_MAX))
}

/// What the files take, not how long they are: a new journal is long and empty.
fn bytes_on_disk(path: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_on_disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
        // It has been compacted away since.
        Err(_) => 0,
    });
    sizes.sum()
}

fn translate(error: &::fjall::Error) -> StoreError {
    use ::fjall::{Error, LsmError};
    match error {
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => StoreError::Io(error.to_string()),
        Error::Poisoned => StoreError::Io("fjall has failed in the background; the log says how".to_owned()),
        Error::Locked | Error::KeyspaceDeleted => StoreError::Io(error.to_string()),
        damaged => StoreError::Corrupt(damaged.to_string()),
    }
}
