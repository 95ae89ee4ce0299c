//! A node whose disk can be made to fail: `craq-node-on-failing-disk NODE-BINARY FLAGS…` is `craq-node FLAGS…`, but once a
//! file `FILE.fails` stands beside its store, every write to that is answered with EIO.
//!
//! Never here: anything else than the shipped node does.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use bytes::Bytes;
use clap::Parser;
use craq_node::{
    Config,
    store::{Backend, Batch, Redb, Snapshot, StoreError, Table},
};

struct FailingDisk {
    disk: Redb,
    mark: PathBuf,
}

impl Backend for FailingDisk {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if self.mark.exists() {
            const EIO: i32 = 5;
            return Err(StoreError::Io(std::io::Error::from_raw_os_error(EIO).to_string()));
        }
        self.disk.apply(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.disk.get(table, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.disk.snapshot()
    }

    fn is_volatile(&self) -> bool {
        self.disk.is_volatile()
    }

    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let config = Config::parse_from(std::env::args().skip(1));
    let disk = Redb::open(&config.file, config.cache_size).expect("the store opens");
    let mark = config.file.with_extension("fails");
    match craq_node::run(config, Arc::new(FailingDisk { disk, mark })).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(1)),
    }
}
