//! Clients that call under faults and take down all that they see: few keys, unique values, reads at each node.
//!
//! A write whose outcome is unknown stays open to the end of the history, and many of them for one key make it too hard
//! to judge. So two keys go together under a name, and after some unknown outcomes they get new names.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use craq_client::{
    Client, Error, Options, Range,
    check::{
        history::{Call, Change, Condition, Op, Recorder},
        random::Random,
    },
};
use craq_proto::Version;
use craq_tests::process::{Cluster, PATIENCE};
use futures::{TryStreamExt as _, future::join_all};
use parking_lot::Mutex;
use tokio::task::JoinSet;

const CLIENTS: u32 = 6;
/// Of two keys each.
const PAIRS: usize = 5;
/// After so many unknown outcomes a pair gets new names.
const UNKNOWN_MAX: u32 = 3;
/// How long a call may take; one that is bound to a node has nowhere else to go.
const TIMEOUT: Duration = Duration::from_secs(1);
const NODE_TIMEOUT: Duration = Duration::from_millis(300);
/// A pause after each call, so that the machine's cores are left to the cluster.
const PAUSE: Duration = Duration::from_millis(4);
/// Of the reads and writes in the end.
const LAST_CLIENT: u32 = 1_000_000;

/// The names that a pair of keys has at the moment.
#[derive(Clone, Copy, Default)]
struct Pair {
    generation: u32,
    unknown: u32,
}

struct Shared {
    recorder: Recorder,
    pairs: Mutex<[Pair; PAIRS]>,
    nodes: Vec<String>,
    stop: AtomicBool,
}

/// The keys of this pair, and of no other, begin so.
fn prefix(pair: usize, generation: u32) -> String {
    format!("pair-{pair}/{generation}/")
}

fn key(pair: usize, generation: u32, second: bool) -> String {
    format!("{}{}", prefix(pair, generation), u8::from(second))
}

impl Shared {
    fn generation(&self, pair: usize) -> u32 {
        self.pairs.lock()[pair].generation
    }

    /// A write of this pair has an unknown outcome.
    fn unknown(&self, pair: usize, generation: u32) {
        let now = &mut self.pairs.lock()[pair];
        if now.generation == generation {
            now.unknown += 1;
            if now.unknown >= UNKNOWN_MAX {
                *now = Pair { generation: generation + 1, unknown: 0 };
            }
        }
    }

    async fn read(&self, client: &Client, id: u32, key: &str, options: &Options) -> Result<Version, Error> {
        let pending = self.recorder.invoke(id, Call::read(key));
        let result = client.read_with(key.to_owned(), options).await;
        self.recorder.read(pending, &result);
        result.map(|read| if read.value.is_some() { read.version } else { Version::ZERO })
    }

    /// Both keys of a pair at one moment.
    async fn page(&self, client: &Client, id: u32, pair: usize, options: Options) {
        let generation = self.generation(pair);
        let keys = [key(pair, generation, false), key(pair, generation, true)];
        let pending = self.recorder.invoke(id, Call::page(keys));
        let pages = client.scan_pages(Range::prefix(prefix(pair, generation)), options);
        let result = pages.try_collect::<Vec<_>>().await;
        // Only what came in one piece shows one moment.
        if result.as_ref().is_ok_and(|pages| pages.len() > 1) {
            return;
        }
        let items = result.map(|pages| pages.into_iter().flat_map(|page| page.items).collect());
        self.recorder.page(pending, &items);
    }

    async fn change(
        &self,
        client: &Client,
        id: u32,
        change: Change,
        timeout: Duration,
    ) -> Result<Version, Error> {
        let Change { key, value, condition } = change.clone();
        let mut options = Options::new().timeout(timeout);
        if let Condition::Version(version) = condition {
            options = options.condition(craq_client::Condition::Version(Version(version)));
        }
        let pending = self.recorder.invoke(id, Call::from(change));
        let result = match value {
            Some(value) => client.write_with(key, value, &options).await,
            None => client.delete_with(key, &options).await,
        };
        self.recorder.wrote(pending, &result);
        result.map(|written| written.version)
    }

    /// Each key of a pair under all its names: read at each node, written once more, and read at each node again.
    async fn last_calls(&self, client: &Client, pair: usize) -> usize {
        let id = LAST_CLIENT + u32::try_from(pair).unwrap();
        let mut keys = 0;
        for generation in 0..=self.generation(pair) {
            for key in [key(pair, generation, false), key(pair, generation, true)] {
                let mut write = Some(Change::put(&key, format!("last of {key}")));
                for node in self.nodes.iter().chain(&self.nodes) {
                    let options = Options::new().timeout(PATIENCE).node(node);
                    let read = self.read(client, id, &key, &options).await;
                    read.unwrap_or_else(|error| panic!("{node} of a whole chain, {key}: {error}"));
                    if node == self.nodes.last().unwrap()
                        && let Some(change) = write.take()
                    {
                        let written = self.change(client, id, change, PATIENCE).await;
                        written.unwrap_or_else(|error| panic!("a whole chain, {key}: {error}"));
                    }
                }
                keys += 1;
            }
        }
        keys
    }
}

/// Clients at work, until they are stopped.
pub(super) struct Clients {
    /// What they have seen so far.
    pub(super) recorder: Recorder,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Clients {
    pub(super) async fn start(cluster: &Cluster, seed: u64) -> Self {
        let recorder = Recorder::new();
        let shared = Arc::new(Shared {
            recorder: recorder.clone(),
            pairs: Mutex::default(),
            nodes: cluster.addresses(),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for id in 0..CLIENTS {
            let worker = Worker {
                id,
                client: cluster.client().await,
                random: Random::new(seed.wrapping_add(u64::from(id) + 1)),
                shared: Arc::clone(&shared),
                seen: BTreeMap::new(),
                written: 0,
            };
            tasks.spawn(worker.work());
        }
        Self { recorder, shared, tasks }
    }

    /// How many calls that were sent after this moment are answered.
    pub(super) fn answered_since(&self, from: Duration) -> usize {
        self.recorder.count(|op| op.is_ok() && op.invoked >= from)
    }

    /// Lets the calls that are under way end, calls each node once more about every key, and brings the history.
    /// The chain must be whole.
    pub(super) async fn stop(mut self, client: &Client) -> (Vec<Op>, usize) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client panicked");
        }
        let last = join_all((0..PAIRS).map(|pair| self.shared.last_calls(client, pair))).await;
        (self.recorder.ops(), last.into_iter().sum())
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
            if !self.call(alias).await {
                alias += CLIENTS;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One call of some kind. Brings whether it is over for certain.
    async fn call(&mut self, alias: u32) -> bool {
        let pair = self.random.index(PAIRS);
        let generation = self.shared.generation(pair);
        let key = key(pair, generation, self.random.below(2) == 1);
        let kind = self.random.below(100);
        let result = match kind {
            0..50 => {
                let mut options = Options::new().timeout(TIMEOUT);
                if kind < 40 {
                    let node = &self.shared.nodes[self.random.index(self.shared.nodes.len())];
                    options = Options::new().timeout(NODE_TIMEOUT).node(node);
                }
                self.shared.read(&self.client, alias, &key, &options).await
            }
            50..55 => {
                self.shared.page(&self.client, alias, pair, Options::new().timeout(TIMEOUT)).await;
                return true;
            }
            _ => {
                self.written += 1;
                let value = format!("{}-{}", self.id, self.written);
                let seen = self.seen.get(&key).map_or(0, |version| version.0);
                let change = match kind {
                    55..62 => Change::delete(&key),
                    62..74 => Change::put(&key, value).only_if(Condition::Version(seen)),
                    _ => Change::put(&key, value),
                };
                let is_deletion = change.value.is_none();
                let result = self.shared.change(&self.client, alias, change, TIMEOUT).await;
                result.map(|version| if is_deletion { Version::ZERO } else { version })
            }
        };
        match result {
            Ok(version) => drop(self.seen.insert(key, version)),
            Err(Error::ConditionFailed { observed }) => drop(self.seen.insert(key, observed)),
            Err(error) if !error.is_certain() => {
                self.shared.unknown(pair, generation);
                return false;
            }
            Err(_) => {}
        }
        true
    }
}
