//! The load of a check: few keys, so that calls meet; unique values; reads at each node in turn; and in the end a read of
//! each key at each node, so that nothing that was lost goes unseen.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use craq_client::{
    Client, Error, Item, Options, Range,
    check::{
        history::{Call, Change, Condition, Op, Recorder},
        random::Random,
    },
    proto::Version,
};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use crate::cli::{
    args::{Globals, LinearizabilityArgs},
    session::Session,
};

/// A pause after each call: the more calls meet, the better; the more there are, the longer they take to be judged.
const PAUSE: Duration = Duration::from_millis(3);
/// How long a read of one given node may take: it has nowhere else to go.
const NODE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the cluster may take in the end until each node has answered.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What was done.
pub(super) struct Run {
    pub(super) ops: Vec<Op>,
    /// Addresses of nodes, and how many reads each answered.
    pub(super) nodes: Vec<(String, usize)>,
}

/// What all clients share.
struct Shared {
    keys: Vec<String>,
    /// The prefix that all keys of this run have, and no others.
    prefix: String,
    nodes: Vec<String>,
    clients: u32,
    timeout: Duration,
    recorder: Recorder,
    stop: AtomicBool,
    reads: Mutex<BTreeMap<String, usize>>,
}

/// Runs the load, reads all keys in the end, and removes them.
pub(super) async fn run(globals: &Globals, args: &LinearizabilityArgs) -> anyhow::Result<Run> {
    let session = Session::open(globals).await?;
    let nodes = match globals.at_node.clone().filter(|node| !node.is_empty()) {
        Some(node) => vec![node],
        None => {
            let status = session.client.status(&session.options).await?;
            let members = status.chains.into_iter().flat_map(|chain| chain.members);
            members.map(|member| member.address).collect()
        }
    };
    ensure!(!nodes.is_empty(), "the chain has no members yet");
    // Keys that never were: earlier runs leave tombstones.
    let prefix = format!("{}{}/", args.prefix, uuid::Uuid::new_v4().simple());
    let shared = Arc::new(Shared {
        keys: (0..args.keys).map(|number| format!("{prefix}{number}")).collect(),
        prefix,
        nodes,
        clients: args.clients,
        timeout: globals.timeout,
        recorder: Recorder::new(),
        stop: AtomicBool::new(false),
        reads: Mutex::default(),
    });
    let seed = args.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("{} clients, {} keys, seed {seed}, nodes {}", args.clients, args.keys, shared.nodes.join(", "));
    let mut tasks = JoinSet::new();
    for id in 0..args.clients {
        let client = Session::open(globals).await?.client;
        let random = Random::new(seed.wrapping_add(id.into()));
        let worker =
            Worker { id, client, random, shared: Arc::clone(&shared), seen: BTreeMap::new(), written: 0 };
        tasks.spawn(worker.work());
    }
    progress(&shared.recorder, args.duration).await;
    shared.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    shared.read_all(&session.client).await;
    shared.clean_up(&session.client).await;
    let reads = shared.reads.lock();
    let nodes = shared
        .nodes
        .iter()
        .map(|node| (node.clone(), reads.get(node).copied().unwrap_or_default()))
        .collect();
    Ok(Run { ops: shared.recorder.ops(), nodes })
}

/// Waits until the time is over or somebody is impatient, and tells how it goes.
async fn progress(recorder: &Recorder, duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let next = (Instant::now() + PROGRESS_INTERVAL).min(end);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        let (ok, all) = (recorder.count(Op::is_ok), recorder.count(|_| true));
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        let (start, stop) = if std::io::stderr().is_terminal() { ("\r", "") } else { ("", "\n") };
        eprint!("{start}{ok} of {all} calls answered, {left} s left {stop}");
        let _ = std::io::stderr().flush();
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}

impl Shared {
    /// Reads a key, at this node or at any; takes down what it answers.
    async fn read(&self, client: &Client, id: u32, key: &str, node: Option<&str>) -> Result<Version, Error> {
        let options = match node {
            Some(node) => Options::new().timeout(NODE_TIMEOUT.min(self.timeout)).node(node),
            None => Options::new().timeout(self.timeout),
        };
        let pending = self.recorder.invoke(id, Call::read(key));
        let result = client.read_with(key.to_owned(), &options).await;
        self.recorder.read(pending, &result);
        let read = result?;
        *self.reads.lock().entry(read.node).or_default() += 1;
        Ok(if read.value.is_some() { read.version } else { Version::ZERO })
    }

    async fn page(&self, client: &Client, id: u32, options: Options) {
        let range = Range::prefix(self.prefix.clone()).limit(self.keys.len() as u64);
        let pending = self.recorder.invoke(id, Call::page(&self.keys));
        let mut pages = std::pin::pin!(client.scan_pages(range, options));
        let mut found: Vec<Item> = Vec::new();
        let mut count = 0;
        let result = loop {
            match pages.try_next().await {
                Ok(Some(page)) => found.extend(page.items),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            count += 1;
        };
        // Only what came in one piece shows one moment.
        if count <= 1 {
            self.recorder.page(pending, &result.map(|()| found));
        }
    }

    /// Each key at each node that answers.
    async fn read_all(&self, client: &Client) {
        let until = Instant::now() + END_TIMEOUT;
        for node in &self.nodes {
            for key in &self.keys {
                while self.read(client, self.clients, key, Some(node)).await.is_err()
                    && Instant::now() < until
                {
                    tokio::time::sleep(NODE_TIMEOUT / 5).await;
                }
            }
        }
    }

    async fn clean_up(&self, client: &Client) {
        let mut left = 0;
        for key in &self.keys {
            let options = Options::new().timeout(END_TIMEOUT);
            match client.delete_with(key.clone(), &options).await {
                Ok(_) | Err(Error::NotFound) => {}
                Err(_) => left += 1,
            }
        }
        if left > 0 {
            eprintln!("{left} keys under {} could not be deleted", self.prefix);
        }
    }
}

struct Worker {
    id: u32,
    client: Client,
    random: Random,
    shared: Arc<Shared>,
    /// Versions that it has seen, for conditions that may be true.
    seen: BTreeMap<String, Version>,
    written: u64,
}

impl Worker {
    async fn work(mut self) {
        // A client whose call was given up goes on as another one: its call may still be under way.
        let mut alias = self.id;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let key = self.shared.keys[self.random.index(self.shared.keys.len())].clone();
            let is_over = match self.random.below(100) {
                0..40 => {
                    let node = self.shared.nodes[self.random.index(self.shared.nodes.len())].clone();
                    self.read(alias, &key, Some(&node)).await
                }
                40..50 => self.read(alias, &key, None).await,
                50..53 => {
                    let options = Options::new().timeout(self.shared.timeout);
                    self.shared.page(&self.client, alias, options).await;
                    true
                }
                53..60 => self.change(alias, Change::delete(key)).await,
                kind => {
                    self.written += 1;
                    let value = format!("{}-{}", self.id, self.written);
                    let condition = match kind {
                        60..70 => Condition::Version(self.seen.get(&key).map_or(0, |version| version.0)),
                        _ => Condition::Always,
                    };
                    self.change(alias, Change::put(key, value).only_if(condition)).await
                }
            };
            if !is_over {
                alias += self.shared.clients + 1;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read(&mut self, alias: u32, key: &str, node: Option<&str>) -> bool {
        let read = self.shared.read(&self.client, alias, key, node).await;
        if let Ok(version) = read {
            self.seen.insert(key.to_owned(), version);
        }
        true
    }

    /// Whether the call is over for certain.
    async fn change(&mut self, alias: u32, change: Change) -> bool {
        let Change { key, value, condition } = change.clone();
        let mut options = Options::new().timeout(self.shared.timeout);
        if let Condition::Version(version) = condition {
            options = options.condition(craq_client::Condition::Version(Version(version)));
        }
        let pending = self.shared.recorder.invoke(alias, Call::from(change));
        let result = match value {
            Some(value) => self.client.write_with(key.clone(), value, &options).await,
            None => self.client.delete_with(key.clone(), &options).await,
        };
        self.shared.recorder.wrote(pending, &result);
        if let Ok(written) = &result {
            self.seen.insert(key, written.version);
        }
        !matches!(result, Err(error) if !error.is_certain())
    }
}
