//! Does every backend keep the contract, also through kills, failing calls and torn disks?
//!
//! The conformance suite is `craq-storetest`'s; what needs a crash is in the modules below.

use std::{path::Path, sync::Arc};

#[cfg(feature = "fjall")]
use craq_node::store::Fjall;
use craq_node::store::{Backend, Memory, Redb};
use craq_storetest::{Subject, conformance};
use tempfile::TempDir;

#[path = "../examples/backend.rs"]
#[expect(dead_code, reason = "its main is for `cargo run --example`")]
mod example;
#[path = "store/failing.rs"]
mod failing;
#[cfg(feature = "fjall")]
#[path = "store/fjall.rs"]
mod fjall;
#[path = "store/killed.rs"]
mod killed;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/torn.rs"]
mod torn;

/// Small, so that tests also read what is not cached.
const CACHE_BYTES: usize = 1 << 20;

type Opener = fn(&Path) -> Arc<dyn Backend>;

/// The durable backends, and how each is opened.
const OPENERS: &[(&str, Opener)] = &[
    ("redb", |path| Arc::new(Redb::open(path, CACHE_BYTES).expect("open"))),
    #[cfg(feature = "fjall")]
    ("fjall", |path| Arc::new(Fjall::open(path, CACHE_BYTES).expect("open"))),
];

struct InMemory;

impl Subject for InMemory {
    fn open(&self) -> Arc<dyn Backend> {
        Arc::new(Memory::new())
    }
}

/// A file in a directory of its own.
struct OnDisk {
    directory: TempDir,
    open: Opener,
}

impl OnDisk {
    fn new(open: Opener) -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), open }
    }
}

impl Subject for OnDisk {
    fn open(&self) -> Arc<dyn Backend> {
        (self.open)(&self.directory.path().join("store"))
    }
}

conformance!(in_memory, InMemory);
conformance!(in_redb, OnDisk::new(|path| Arc::new(Redb::open(path, CACHE_BYTES).expect("open"))));
#[cfg(feature = "fjall")]
conformance!(in_fjall, OnDisk::new(|path| Arc::new(Fjall::open(path, CACHE_BYTES).expect("open"))));
conformance!(in_example, OnDisk::new(|path| Arc::new(example::Journal::open(path).expect("open"))));
