//! The contract of a storage backend: ordered keys in tables, atomic durable batches, snapshots to scan.
//!
//! A backend knows nothing of chains, entries or commits; `chain_store` lays those out on top, once for all backends.
//! What every backend owes is checked by the crate `craq-storetest`, which runs on one line of code.
//!
//! # The contract
//!
//! - **Tables.** A [`Table`] is named by a number and exists as soon as something is put into it. One never written is
//!   empty; that is no error. Keys and values are bytes of any content; a key has 1 to 64 bytes, a value up to 4 MiB.
//! - **Order.** Keys of a table are ordered as unsigned bytes. A scan yields each key once, rising.
//! - **Atomicity.** [`Backend::apply`] does the whole batch or nothing, also across a crash at any instruction.
//!   Operations of one batch take effect in their order: the last one on a key wins.
//! - **Durability.** When `apply` returns, the batch is on stable storage, and so is every batch before it. A backend that
//!   says it [is volatile](Backend::is_volatile) is exempt: it loses all at the end of the process.
//! - **Isolation.** A [`Snapshot`] shows one state: all of the batches that had returned before it was taken, none
//!   that began after, however long it lives. Readers never wait for the writer.
//! - **One writer.** `apply` is called by one thread at a time; `get` and `snapshot` by any number at once.
//! - **Errors.** A backend that has failed once is not to be trusted again: after an error of `apply` no call may report
//!   success for data that is not durable. The caller stops the process; it never tries again.

use std::ops::ControlFlow;

use bytes::Bytes;

/// One ordered key space of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u32);

/// One change within a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key gets this value, whether it exists or not.
    Put(Table, Bytes, Bytes),
    /// The key is removed; nothing happens if it doesn't exist.
    Delete(Table, Bytes),
    /// All keys of the table are removed.
    Clear(Table),
}

/// Changes that are done together or not at all, in this order.
pub type Batch = Vec<Change>;

/// What went wrong in a store. None of these is worth a second try.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage below failed: EIO, ENOSPC, a closed database.
    #[error("storage failed: {0}")]
    Io(String),
    /// What is stored is not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The file is of another program or of a format that this version doesn't know, or another process has it open.
    #[error("cannot open the store: {0}")]
    Open(String),
}

/// A storage backend. See the [module's contract](self).
pub trait Backend: Send + Sync + 'static {
    /// Does all of the batch, durably, or nothing.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// The key's value in the newest state.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The newest state, held still.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Whether everything is lost when the process ends.
    fn is_volatile(&self) -> bool;

    /// Bytes that the store takes on disk or in memory, for people.
    fn size_bytes(&self) -> u64;
}

/// What a scan calls for each key and value; `Break` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// One state of a backend, held still.
pub trait Snapshot: Send + Sync {
    /// The key's value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `visit` with each key from `from` (inclusive) to `to` (exclusive; `None`: to the end), rising.
    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError>;
}
