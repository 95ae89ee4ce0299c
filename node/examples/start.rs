//! Measures a node's start on a large store: how long until the replica is loaded, and what it takes in memory.
//!
//! `cargo run --profile bench -p craq-node --example start -- --keys 1000000 --backend fjall`. Makes a store of as many keys,
//! one committed row for each, in a process that dies at the end without closing anything; then loads it as a node does, in
//! a process of its own for each round. Memory is the process's resident set (`/proc/self/status`) after the load, less what
//! it was when the store was open. The cache of the backend is part of it; `--cache-mib 0` leaves it out.
#![allow(clippy::print_stdout, reason = "it is made to print")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
#[cfg(feature = "fjall")]
use craq_node::store::Fjall;
use craq_node::{
    replica::{
        Loader, Replica,
        event::{Config, StoreWrite},
    },
    store::{Backend, Redb, Store, StoreError},
};
use craq_proto::{ChainId, ClientId, Entry, Epoch, RequestId, Seq, Time};
use craq_storetest::rows::mutation;
use uuid::Uuid;

/// How many entries are written at once.
const BATCH: u64 = 5_000;
/// As in a node: beyond, the head writes an entry that forgets the older half.
const OUTCOMES_MAX: u64 = 200_000;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Redb,
    #[cfg(feature = "fjall")]
    Fjall,
}

/// Who wrote the rows: an outcome is kept for each client, and for each request that it has not given up.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Clients {
    /// One, that gives up each request before the next: one outcome is kept.
    One,
    /// One for each row: as many outcomes are kept as a head lets stand.
    Each,
}

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, value_enum, default_value = "redb")]
    backend: Kind,
    /// How many keys, of 16 bytes, written in random order.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Length of each value, in bytes.
    #[arg(long, default_value_t = 500)]
    value_bytes: usize,
    /// Who wrote the rows.
    #[arg(long, value_enum, default_value = "one")]
    clients: Clients,
    /// How much memory the backend may use as its cache, in MiB.
    #[arg(long, default_value_t = 256)]
    cache_mib: usize,
    /// How often the store is loaded.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the store is made, and removed at the end.
    #[arg(long = "in", default_value_os_t = env::temp_dir())]
    directory: PathBuf,
    /// Runs as one of the processes, on the store in this place.
    #[arg(long, hide = true)]
    part: Option<Part>,
    #[arg(long, hide = true, default_value = ".")]
    path: PathBuf,
}

/// What one process does.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Write,
    Load,
}

fn main() {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Write) => {
            write(&arguments);
            std::process::abort();
        }
        Some(Part::Load) => load(&arguments),
        None => measure(&arguments),
    }
}

/// Runs this program on the store in `path`; returns whether it ended well.
fn run(part: &str, path: &Path) -> bool {
    let mut process = Command::new(env::current_exe().expect("this program"));
    process.args(env::args_os().skip(1)).args(["--part", part]).arg("--path").arg(path);
    process.status().expect("it starts").success()
}

fn measure(arguments: &Arguments) {
    let directory = tempfile::tempdir_in(&arguments.directory).expect("a directory");
    let (empty, full) = (directory.path().join("empty"), directory.path().join("full"));
    assert!(!run("write", &full), "it dies");
    println!("an empty store:");
    assert!(run("load", &empty));
    println!("{} keys:", arguments.keys);
    for _ in 0..arguments.rounds {
        assert!(run("load", &full));
    }
}

fn open(arguments: &Arguments) -> Result<Arc<dyn Backend>, StoreError> {
    let cache_bytes = arguments.cache_mib * 1024 * 1024;
    match arguments.backend {
        Kind::Redb => Ok(Arc::new(Redb::open(&arguments.path, cache_bytes)?)),
        #[cfg(feature = "fjall")]
        Kind::Fjall => Ok(Arc::new(Fjall::open(&arguments.path, cache_bytes)?)),
    }
}

/// Appends all entries, a batch at a time.
fn write(arguments: &Arguments) {
    let store = Store::open(open(arguments).expect("open")).expect("open");
    let chain = store.chain(&ChainId::default_chain()).expect("chain");
    let mut last = 0;
    while last < arguments.keys {
        let first = last + 1;
        last = arguments.keys.min(last + BATCH);
        let entries: Vec<_> = (first..=last).map(|seq| Arc::new(entry(seq, arguments))).collect();
        let write = StoreWrite {
            commit: Some(Seq(last)),
            forgotten_through: entries.iter().map(|entry| entry.forget_through).max().filter(|seq| seq.0 > 0),
            entries,
            ..StoreWrite::default()
        };
        let mut batch = Vec::new();
        chain.encode(&write, &mut batch);
        store.backend().apply(batch).expect("apply");
    }
}

/// A row of its own key, with a value that cannot be compressed.
fn entry(seq: u64, arguments: &Arguments) -> Entry {
    let scatter = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value: Vec<u8> =
        (0..arguments.value_bytes).map(|i| (scatter(seq << 20 | i as u64) >> 56) as u8).collect();
    let key = format!("{:016x}", scatter(seq));
    let (client, number) = match arguments.clients {
        Clients::One => (1, seq),
        Clients::Each => (u128::from(scatter(seq)), 1),
    };
    let client = ClientId(Uuid::from_u128(client));
    let half = OUTCOMES_MAX / 2;
    let forget_through = if seq.is_multiple_of(half) { seq.saturating_sub(half) } else { 0 };
    Entry {
        seq: Seq(seq),
        origin_epoch: Epoch(1),
        request: Some(RequestId { client, number, floor: number, born: Seq(seq - 1), retry: false }),
        mutations: vec![mutation(key.as_bytes(), 1, Some(&value))],
        forget_through: Seq(forget_through),
    }
}

/// What a node does at its start, with the time that each part took.
fn load(arguments: &Arguments) {
    let began = Instant::now();
    let store = Store::open(open(arguments).expect("open")).expect("open");
    let opened = began.elapsed();
    let rss = resident_kib();
    let walking = Instant::now();
    let (rows, replica) = replica(&store).expect("a store that is whole");
    let walked = walking.elapsed();
    let keys = replica.status(Time::ZERO).keys;
    let grown = resident_kib();
    println!(
        "  loaded in {:.2?}: open {opened:.2?}, walk {walked:.2?} ({:.0} rows/s); {:.2?} of the processors",
        began.elapsed(),
        per_second(rows, walked),
        processors(),
    );
    let since = grown.saturating_sub(rss);
    let each = (since * 1024).checked_div(keys).unwrap_or(0);
    println!(
        "  resident: {} MiB, {} MiB of it since the open: {each} bytes for each of {keys} keys",
        grown / 1024,
        since / 1024,
    );
}

fn replica(store: &Store) -> Result<(u64, Replica), StoreError> {
    let chain = store.chain(&ChainId::default_chain())?;
    let identity = store.identity();
    let mut loader = Loader::new(Config::default(), identity.node, identity.incarnation, chain.meta()?);
    let rows = chain.walk(&mut |_| {}, &mut |row| loader.row(row))?;
    Ok((rows, loader.finish(Time::ZERO)))
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// How long this process has kept the processors busy: on a machine with other work the surer figure.
fn processors() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The program's name, in parentheses, may have spaces in it.
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<u32>().expect("a number"));
    TICK * ticks.sum::<u32>()
}

/// The resident set of this process, in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
