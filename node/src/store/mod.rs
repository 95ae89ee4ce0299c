//! What a node keeps on stable storage.
//!
//! - [`backend`]: the contract of a storage backend; [`memory`], [`redb`] and `fjall` fulfil it, and `craq-storetest` checks it.
//! - [`directory`]: the node's one store: who it is, and which chains are in it.
//! - [`chain_store`]: one chain's log, meta records and request outcomes, laid out on any backend; [`recover`] and
//!   `walk` are how they are read back at a start.
//! - [`encoding`]: rows as bytes; `records`: everything else as bytes.
//! - [`writer`]: the one thread that writes.
//!
//! Never here: what is to be written and when (see [`crate::replica`]). A storage error is never tried again: the
//! [`writer`] reports it once, and the node ends.

pub mod backend;
pub mod chain_store;
pub mod directory;
pub mod encoding;
#[cfg(feature = "fjall")]
pub mod fjall;
mod guard;
pub mod memory;
mod recent;
mod records;
pub mod recover;
pub mod redb;
mod walk;
pub mod writer;

pub use backend::{Backend, Batch, Change, Snapshot, StoreError, Table};
pub use chain_store::{ChainSnapshot, ChainStore};
pub use directory::{Identity, Store};
#[cfg(feature = "fjall")]
pub use fjall::Fjall;
pub use memory::Memory;
pub use recent::History;
pub use recover::Meta;
pub use redb::Redb;
pub use writer::Writer;
