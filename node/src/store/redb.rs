//! The durable backend that is the default: a redb file. The only file that names redb.
//!
//! Every commit is immediate and two-phase, with quick repair: a file of any size opens at once after a crash. The mode is
//! never mixed, since redb guards a two-phase commit that follows a one-phase one by checksums alone.
//! Never here: what the tables hold; a second try after an error.

use std::{
    collections::{BTreeMap, btree_map},
    fs::{File, OpenOptions},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    StorageBackend, StorageError, TableDefinition, TableError, WriteTransaction,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::RwLock;

use super::{Backend, Batch, Change, Snapshot, StoreError, Table, backend::Visit};

/// How much of the file is kept in memory unless the caller says otherwise, in bytes.
pub const CACHE_BYTES_DEFAULT: usize = 256 * 1024 * 1024;

/// A backend in a redb file. Only one process can have the file open.
pub struct Redb {
    database: Database,
    /// The newest state, for all who read: opening a transaction and a table costs more than a lookup.
    newest: ArcSwap<Newest>,
    size: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What failed first; after that nothing is done any more.
    failed: OnceLock<String>,
}

impl Redb {
    /// Opens the file, or creates it; its directory must exist. The cache takes up to `cache_bytes` of memory.
    ///
    /// Fails with [`StoreError::Open`] if the file is not a redb file, is open in another process, or may not be written.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        #[cfg(feature = "fjall")]
        if super::fjall::is_store(path) {
            let shown = path.display();
            return Err(StoreError::Open(format!(
                "{shown} is a store of fjall: open it with --store fjall, or name another --file"
            )));
        }
        let database =
            if path.exists() { builder(cache_bytes).open(path) } else { create(path, cache_bytes) };
        let database = database.map_err(|error| refuse(path, error))?;
        let path = path.to_owned();
        let size = move || path.metadata().map_or(0, |metadata| metadata.len());
        Self::new(database, Box::new(size)).map_err(|error| translate(&error))
    }

    /// Opens what is stored there, or creates it. For storage that is no plain file, and for tests that let it fail.
    pub fn open_on<S: StorageBackend + Clone>(storage: S, cache_bytes: usize) -> Result<Self, StoreError> {
        let database = builder(cache_bytes).create_with_backend(storage.clone());
        let database = database.map_err(|error| refuse(Path::new("(storage)"), error))?;
        let size = move || storage.len().unwrap_or_default();
        Self::new(database, Box::new(size)).map_err(|error| translate(&error))
    }

    fn new(database: Database, size: Box<dyn Fn() -> u64 + Send + Sync>) -> Result<Self, ::redb::Error> {
        let newest = ArcSwap::from_pointee(Newest::of(&database)?);
        Ok(Self { database, newest, size, failed: OnceLock::new() })
    }

    /// Runs one operation, unless an earlier one has failed.
    fn run<T>(&self, operation: impl FnOnce() -> Result<T, ::redb::Error>) -> Result<T, StoreError> {
        if let Some(why) = self.failed.get() {
            return Err(StoreError::Io(format!("the database has failed before: {why}")));
        }
        operation().map_err(|error| {
            self.failed.get_or_init(|| error.to_string());
            translate(&error)
        })
    }
}

impl Backend for Redb {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.run(|| {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_quick_repair(true);
            write(&transaction, &batch)?;
            transaction.commit()?;
            self.newest.store(Arc::new(Newest::of(&self.database)?));
            Ok(())
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.run(|| self.newest.load().get(table, key))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.run(|| Ok(Box::new(Still(self.newest.load_full())) as Box<dyn Snapshot>))
    }

    fn is_volatile(&self) -> bool {
        false
    }

    fn size_bytes(&self) -> u64 {
        (self.size)()
    }
}

impl std::fmt::Debug for Redb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redb").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// A state, with the tables that have been read in it.
struct Newest {
    transaction: ReadTransaction,
    tables: RwLock<BTreeMap<Table, ReadOnlyTable<Key, Key>>>,
}

impl Newest {
    fn of(database: &Database) -> Result<Self, ::redb::Error> {
        Ok(Self { transaction: database.begin_read()?, tables: RwLock::default() })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ::redb::Error> {
        let copy = |found: &ReadOnlyTable<Key, Key>| {
            Ok(found.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
        };
        if let Some(open) = self.tables.read().get(&table) {
            return copy(open);
        }
        let Some(open) = readable(&self.transaction, table)? else { return Ok(None) };
        let found = copy(&open);
        self.tables.write().insert(table, open);
        found
    }
}

/// A snapshot: a state whose pages are not used again as long as this is there.
struct Still(Arc<Newest>);

impl Snapshot for Still {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key).map_err(|error| translate(&error))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError> {
        scan(&self.0.transaction, table, from, to, visit).map_err(|error| translate(&error))
    }
}

type Key = &'static [u8];
type Writable<'a> = ::redb::Table<'a, Key, Key>;

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Creates the file under another name first, so that a crash on the way leaves no half-made file under this one, and
/// makes its name durable: what is acknowledged later must not vanish with its directory entry.
fn create(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    let unfinished = unfinished(path);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&unfinished)?;
    if file.try_lock().is_err() {
        return Err(DatabaseError::DatabaseAlreadyOpen);
    }
    if path.exists() {
        // Another process has finished it since.
        return builder(cache_bytes).open(path);
    }
    file.set_len(0)?;
    let database = builder(cache_bytes).create_file(file)?;
    std::fs::rename(&unfinished, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(database)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn write(transaction: &WriteTransaction, batch: &[Change]) -> Result<(), ::redb::Error> {
    let mut open: BTreeMap<Table, Writable<'_>> = BTreeMap::new();
    for change in batch {
        match change {
            Change::Put(table, key, value) => {
                writable(&mut open, transaction, *table)?.insert(key.as_ref(), value.as_ref())?;
            }
            Change::Delete(table, key) => {
                writable(&mut open, transaction, *table)?.remove(key.as_ref())?;
            }
            Change::Clear(table) => {
                drop(open.remove(table));
                transaction.delete_table(definition(&name(*table)))?;
            }
        }
    }
    Ok(())
}

fn writable<'a, 'txn>(
    open: &'a mut BTreeMap<Table, Writable<'txn>>,
    transaction: &'txn WriteTransaction,
    table: Table,
) -> Result<&'a mut Writable<'txn>, ::redb::Error> {
    match open.entry(table) {
        btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
        btree_map::Entry::Vacant(entry) => {
            Ok(entry.insert(transaction.open_table(definition(&name(table)))?))
        }
    }
}

/// The table in this state; none: it was never written.
fn readable(
    transaction: &ReadTransaction,
    table: Table,
) -> Result<Option<ReadOnlyTable<Key, Key>>, ::redb::Error> {
    match transaction.open_table(definition(&name(table))) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn scan(
    transaction: &ReadTransaction,
    table: Table,
    from: &[u8],
    to: Option<&[u8]>,
    visit: Visit<'_>,
) -> Result<(), ::redb::Error> {
    let Some(table) = readable(transaction, table)? else { return Ok(()) };
    let pairs = match to {
        // redb takes a range that ends before it begins for a mistake.
        Some(to) if to <= from => return Ok(()),
        Some(to) => table.range(from..to)?,
        None => table.range(from..)?,
    };
    for pair in pairs {
        let (key, value) = pair?;
        if visit(key.value(), value.value()) == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}

fn name(table: Table) -> String {
    table.0.to_string()
}

fn definition(name: &str) -> TableDefinition<'_, Key, Key> {
    TableDefinition::new(name)
}

/// Why a file was not opened, in the operator's words.
fn refuse(path: &Path, error: DatabaseError) -> StoreError {
    let shown = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::Open(format!("{shown} is open already, in this process or in another one"))
        }
        DatabaseError::UpgradeRequired(format) => StoreError::Open(format!(
            "{shown} has file format {format}, which this version of redb does not read"
        )),
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData => StoreError::Open(format!("{shown} is not a redb file: {error}")),
            io::ErrorKind::NotFound => StoreError::Open(format!("the directory of {shown} does not exist")),
            _ => StoreError::Open(format!("{shown}: {error}")),
        },
        DatabaseError::Storage(StorageError::Corrupted(why)) => {
            StoreError::Corrupt(format!("{shown}: {why}"))
        }
        error => StoreError::Open(format!("{shown}: {error}")),
    }
}

fn translate(error: &::redb::Error) -> StoreError {
    match error {
        ::redb::Error::Corrupted(why) => StoreError::Corrupt(why.clone()),
        error => StoreError::Io(error.to_string()),
    }
}
