//! What do the storage backends take for what a chain asks of them?
//!
//! `cargo bench -p craq-node --bench store`. The files are made in the directory for temporary ones (`TMPDIR`): on a file
//! system in memory nothing is durable, and the figures mean nothing.
#![allow(missing_docs, reason = "made by a macro of criterion")]

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
#[cfg(feature = "fjall")]
use craq_node::store::Fjall;
use craq_node::{
    replica::event::StoreWrite,
    store::{Backend, ChainStore, Memory, Redb, Store},
};
use craq_proto::{ChainId, Entry, Seq};
use craq_storetest::rows::{entry, mutation};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const CACHE_BYTES: usize = 256 * 1024 * 1024;
const VALUE_BYTES: u64 = 500;
/// Rows that are there when reads and starts are measured.
const ROWS: u64 = 100_000;
/// An entry is swept when so many newer ones are there.
const KEPT: u64 = 20_000;

type Open = fn(&Path) -> Arc<dyn Backend>;

const BACKENDS: &[(&str, Open)] = &[
    ("memory", |_| Arc::new(Memory::new())),
    ("redb", |path| Arc::new(Redb::open(path, CACHE_BYTES).expect("open"))),
    #[cfg(feature = "fjall")]
    ("fjall", |path| Arc::new(Fjall::open(path, CACHE_BYTES).expect("open"))),
];

/// A chain on a backend, and where its log ends.
struct Stage {
    store: Store,
    chain: ChainStore,
    last: u64,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new(open: Open) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(open(&directory.path().join("store"))).expect("open");
        let chain = store.chain(&ChainId::default_chain()).expect("chain");
        Self { store, chain, last: 0, _directory: directory }
    }

    /// One batch: new entries, the commit, and the removal of as many old ones.
    fn write(&mut self, entries: Vec<Arc<Entry>>) {
        let first = self.last + 1;
        self.last += entries.len() as u64;
        let old = (first..=self.last).filter_map(|seq| seq.checked_sub(KEPT));
        let write = StoreWrite {
            remove_rows: old.map(|seq| (Seq(seq), 0)).collect(),
            commit: Some(Seq(self.last)),
            entries,
            ..StoreWrite::default()
        };
        let mut batch = Vec::new();
        self.chain.encode(&write, &mut batch);
        self.store.backend().apply(batch).expect("apply");
    }

    /// The next entries of the log, each with one key and a value that cannot be compressed.
    fn next(&self, count: u64) -> Vec<Arc<Entry>> {
        (self.last + 1..=self.last + count).map(new_entry).collect()
    }

    fn fill(&mut self, rows: u64) {
        while self.last < rows {
            let entries = self.next(1000.min(rows - self.last));
            let write = StoreWrite { entries, ..StoreWrite::default() };
            let mut batch = Vec::new();
            self.chain.encode(&write, &mut batch);
            self.store.backend().apply(batch).expect("apply");
            self.last += write.entries.len() as u64;
        }
    }
}

fn new_entry(seq: u64) -> Arc<Entry> {
    let noise = |i: u64| ((seq * VALUE_BYTES + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let value: Bytes = (0..VALUE_BYTES).map(noise).collect();
    entry(seq, vec![mutation(format!("key-{:012}", seq % KEPT).as_bytes(), seq, Some(&value))])
}

/// Whether this is the test run of the benches, in which figures don't count.
fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable batch");
    for (name, open) in BACKENDS {
        for entries in [1, 64, 512] {
            let mut stage = Stage::new(*open);
            group.throughput(Throughput::Elements(entries));
            group.bench_function(BenchmarkId::new(*name, entries), |bencher| {
                bencher.iter(|| stage.write(stage.next(entries)));
            });
        }
    }
    group.finish();
}

fn lookups(criterion: &mut Criterion) {
    let rows = if is_test() { 1000 } else { ROWS };
    let mut group = criterion.benchmark_group("exact get");
    group.throughput(Throughput::Elements(1));
    for (name, open) in BACKENDS {
        let mut stage = Stage::new(*open);
        stage.fill(rows);
        let mut turn = 0_u64;
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                turn += 1;
                let seq = Seq(1 + turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % rows);
                black_box(stage.chain.get(seq, 0).expect("get").expect("a row that was written"))
            });
        });
    }
    group.finish();
}

fn walks(criterion: &mut Criterion) {
    let rows = if is_test() { 1000 } else { ROWS };
    let mut group = criterion.benchmark_group("walk at the start");
    group.throughput(Throughput::Elements(rows)).sample_size(10);
    for (name, open) in BACKENDS {
        let mut stage = Stage::new(*open);
        stage.fill(rows);
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                assert_eq!(stage.chain.walk(&mut |_| {}, &mut |row| _ = black_box(row)).expect("walk"), rows)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = batches, lookups, walks
}
criterion_main!(benches);
