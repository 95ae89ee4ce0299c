//! Compares the durable backends on this machine's disk: the table in the README.
//!
//! `cargo run --profile bench -p craq-node --example stores [DIRECTORY]`. Takes about a minute and half a gigabyte. Each
//! backend is written to by a process of its own, which dies at the end without closing anything.
#![allow(clippy::print_stdout, reason = "it is made to print")]

use std::{
    env,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "fjall")]
use craq_node::store::Fjall;
use craq_node::{
    replica::event::StoreWrite,
    store::{Backend, ChainStore, Redb, Store, StoreError},
};
use craq_proto::{ChainId, Seq};
use craq_storetest::rows::{entry, mutation};

const CACHE_BYTES: usize = 256 * 1024 * 1024;
const VALUE_BYTES: u64 = 500;
/// How many rows there are; each further one sweeps the oldest.
const ROWS: u64 = 200_000;
/// How long each size of batch is written.
const WRITING: Duration = Duration::from_secs(5);
const GETS: u64 = 200_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [kind, path, word] = arguments.as_slice()
        && word == "--write"
    {
        write(kind, Path::new(path));
        std::process::abort();
    }
    let place = arguments.first().map_or_else(env::temp_dir, Into::into);
    for kind in ["redb", "fjall"] {
        let directory = tempfile::tempdir_in(&place).expect("a directory");
        let path = directory.path().join("store");
        let mut writer = Command::new(env::current_exe().expect("this program"));
        let ended = writer.arg(kind).arg(&path).arg("--write").status().expect("it starts");
        assert!(!ended.success(), "it dies");
        reopen(kind, &path);
    }
}

fn open(kind: &str, path: &Path) -> Result<Arc<dyn Backend>, StoreError> {
    match kind {
        #[cfg(feature = "fjall")]
        "fjall" => Ok(Arc::new(Fjall::open(path, CACHE_BYTES)?)),
        _ => Ok(Arc::new(Redb::open(path, CACHE_BYTES)?)),
    }
}

/// A store with one chain, written in the way of a replica.
struct Stage {
    store: Store,
    chain: ChainStore,
    last: u64,
}

impl Stage {
    /// Appends so many entries, and removes as many old ones, in one batch; returns how long it took.
    fn batch(&mut self, entries: u64) -> Duration {
        let first = self.last + 1;
        self.last += entries;
        let write = StoreWrite {
            entries: (first..=self.last).map(new_entry).collect(),
            remove_rows: (first..=self.last)
                .filter(|seq| *seq > ROWS)
                .map(|seq| (Seq(seq - ROWS), 0))
                .collect(),
            commit: Some(Seq(self.last)),
            ..StoreWrite::default()
        };
        let mut batch = Vec::new();
        self.chain.encode(&write, &mut batch);
        let began = Instant::now();
        self.store.backend().apply(batch).expect("apply");
        began.elapsed()
    }
}

/// An entry with one key, and a value that cannot be compressed.
fn new_entry(seq: u64) -> Arc<craq_proto::Entry> {
    let noise = |i: u64| ((seq * VALUE_BYTES + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let value: Vec<u8> = (0..VALUE_BYTES).map(noise).collect();
    entry(seq, vec![mutation(format!("key-{:012}", seq % ROWS).as_bytes(), seq, Some(&value))])
}

fn write(kind: &str, path: &Path) {
    let store = Store::open(open(kind, path).expect("open")).expect("open");
    let chain = store.chain(&ChainId::default_chain()).expect("chain");
    let mut stage = Stage { store, chain, last: 0 };
    println!("{kind}");
    while stage.last < ROWS {
        stage.batch(2000);
    }
    for entries in [1, 64, 512] {
        let mut took = Vec::new();
        let began = Instant::now();
        while began.elapsed() < WRITING {
            took.push(stage.batch(entries));
        }
        let seconds = took.iter().sum::<Duration>().as_secs_f64();
        took.sort();
        println!(
            "  batches of {entries:3}: {:7.0} a second, {:7.0} entries a second; 99% within {:?}, all within {:?}",
            took.len() as f64 / seconds,
            (took.len() as u64 * entries) as f64 / seconds,
            took[took.len() * 99 / 100],
            took[took.len() - 1],
        );
    }
    let began = Instant::now();
    for turn in 0..GETS {
        let seq = stage.last - turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ROWS;
        assert!(stage.chain.get(Seq(seq), 0).expect("get").is_some(), "a row that was written");
    }
    println!("  exact gets: {:.0} a second", GETS as f64 / began.elapsed().as_secs_f64());
    println!(
        "  {ROWS} rows of {VALUE_BYTES} bytes, after {} were swept: {} MB",
        stage.last - ROWS,
        stage.store.size_bytes() / 1_000_000
    );
}

fn reopen(kind: &str, path: &Path) {
    let began = Instant::now();
    let store = Store::open(open(kind, path).expect("open")).expect("open");
    let opened = began.elapsed();
    let chain = store.chain(&ChainId::default_chain()).expect("chain");
    let began = Instant::now();
    let rows = chain.walk(&mut |_| {}, &mut |_| {}).expect("walk");
    assert_eq!(rows, ROWS, "all is there");
    println!("  open after a kill: {opened:?}; the walk of all rows: {:?}", began.elapsed());
}
