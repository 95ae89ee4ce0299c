//! Clients that read and write at once, and take down all that they see.
//!
//! Few keys, so that calls meet; unique values, so that no wrong answer looks right; readers that are bound to one node
//! each, so that a stale replica has somebody to show it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use craq_client::{
    Client, Options,
    check::history::{Call, Op, Recorder},
};
use tokio::task::JoinSet;

/// What the load is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients that write, each to keys of its own and to those that all share.
    pub writers: u32,
    /// Clients that read at whichever node the library chooses.
    pub readers: u32,
    /// Addresses of nodes; to each a client is bound that reads there and nowhere else.
    pub pinned: Vec<String>,
    /// Keys that only one writer writes, for each writer.
    pub own_keys: u32,
    /// Keys that all writers write.
    pub shared_keys: u32,
    /// How long a call may take.
    pub timeout: Duration,
    /// How long a call of a pinned reader may take: it has nowhere else to go.
    pub pinned_timeout: Duration,
    /// A pause after each call, so that the machine's cores are left to the cluster.
    pub pause: Duration,
    /// Length of the values, at least.
    pub value_bytes: usize,
    /// Whether one write in twenty to a shared key is a deletion.
    pub deletes: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            writers: 3,
            readers: 2,
            pinned: vec![],
            own_keys: 2,
            shared_keys: 4,
            timeout: Duration::from_secs(10),
            pinned_timeout: Duration::from_millis(300),
            pause: Duration::from_millis(3),
            value_bytes: 32,
            deletes: true,
        }
    }
}

impl Plan {
    /// All keys of the load.
    fn keys(&self) -> Vec<String> {
        let own = (0..self.writers).flat_map(|writer| (0..self.own_keys).map(move |n| own_key(writer, n)));
        own.chain((0..self.shared_keys).map(shared_key)).collect()
    }
}

fn own_key(writer: u32, n: u32) -> String {
    format!("own-{writer}-{n}")
}

fn shared_key(n: u32) -> String {
    format!("shared-{n}")
}

/// A load that runs until it is stopped.
pub struct Load {
    /// What it has seen so far.
    pub recorder: Recorder,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts it. Three clients share the work, so that what one knows of the views does not help another.
    #[must_use]
    pub fn start(clients: [Client; 3], plan: Plan) -> Self {
        let recorder = Recorder::new();
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let [writes, reads, pinned] = clients;
        let plan = Arc::new(plan);
        let worker = |id, client: &Client| Worker {
            id,
            client: client.clone(),
            plan: Arc::clone(&plan),
            recorder: recorder.clone(),
            stop: Arc::clone(&stop),
        };
        for writer in 0..plan.writers {
            tasks.spawn(worker(writer, &writes).write());
        }
        for reader in 0..plan.readers {
            tasks.spawn(worker(100 + reader, &reads).read(Options::new().timeout(plan.timeout)));
        }
        for (node, address) in (0..).zip(&plan.pinned) {
            let options = Options::new().timeout(plan.pinned_timeout).node(address);
            tasks.spawn(worker(200 + node, &pinned).read(options));
        }
        Self { recorder, stop, tasks }
    }

    /// Sends so many reads at once to one node and takes down what it answers, whenever that is.
    pub fn burst(&mut self, client: &Client, plan: &Plan, address: &str, reads: usize) {
        let keys = plan.keys();
        for number in 0..reads {
            let (client, recorder, key) =
                (client.clone(), self.recorder.clone(), keys[number % keys.len()].clone());
            let options = Options::new().timeout(plan.timeout).node(address);
            self.tasks.spawn(async move {
                let pending = recorder.invoke(BURST_CLIENT, Call::read(&key));
                let result = client.read_with(key, &options).await;
                recorder.read(pending, &result);
            });
        }
    }

    /// Lets the calls that are under way end, and brings the history.
    pub async fn stop(mut self) -> Vec<Op> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client of the load panicked");
        }
        self.recorder.ops()
    }
}

/// The client of all reads of a burst.
pub const BURST_CLIENT: u32 = 999;

/// Whether an operation is of a reader that is bound to a node, and fails with it.
#[must_use]
pub fn is_pinned(op: &Op) -> bool {
    op.client >= 200
}

struct Worker {
    id: u32,
    client: Client,
    plan: Arc<Plan>,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
}

impl Worker {
    async fn write(self) {
        let options = Options::new().timeout(self.plan.timeout);
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let own = self.plan.shared_keys == 0 || rand::random_range(0..2) == 0;
            let key = if own {
                own_key(self.id, rand::random_range(0..self.plan.own_keys))
            } else {
                shared_key(rand::random_range(0..self.plan.shared_keys))
            };
            if !own && self.plan.deletes && rand::random_range(0..20) == 0 {
                let pending = self.recorder.invoke(self.id, Call::delete(&key));
                let result = self.client.delete_with(key, &options).await;
                self.recorder.wrote(pending, &result);
            } else {
                let value = format!("{}-{number}-{key}", self.id);
                let value = format!("{value:.<width$}", width = self.plan.value_bytes);
                let pending = self.recorder.invoke(self.id, Call::put(&key, value.clone()));
                let result = self.client.write_with(key, value, &options).await;
                self.recorder.wrote(pending, &result);
            }
            tokio::time::sleep(self.plan.pause).await;
        }
    }

    async fn read(self, options: Options) {
        let keys = self.plan.keys();
        while !self.stop.load(Ordering::Relaxed) {
            let key = &keys[rand::random_range(0..keys.len())];
            let pending = self.recorder.invoke(self.id, Call::read(key));
            let result = self.client.read_with(key.clone(), &options).await;
            self.recorder.read(pending, &result);
            tokio::time::sleep(self.plan.pause).await;
        }
    }
}
