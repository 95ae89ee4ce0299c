//! One round: so many clients, each in a loop, until the measured time is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use craq_client::{Client, Options};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::{
    counters::{self, Questions},
    figures::{Ended, Kind, LongestStalls, Stalls, Tally, Within},
    keys::Chooser,
    machine::{Ticks, Use},
    operation::Tools,
    plan::{Plan, Workload},
    progress::Progress,
    schedule::Queue,
    stop::Stop,
    window::Window,
};

/// A client's rest after an error, so that a dead cluster is not asked in a frenzy.
const PAUSE: Duration = Duration::from_millis(5);
/// What was due so shortly before the end, in nanoseconds, still begins after it: it has hardly waited.
const GRACE_NANOS: u64 = 10_000_000;
/// Tallies that the clients share: few, since a histogram is large; several, so that they seldom wait for each other.
const TALLIES: usize = 8;

/// What one round measured.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) clients: u32,
    pub(super) connections: u32,
    /// How long was measured.
    pub(super) measured: Duration,
    pub(super) ended_early: bool,
    pub(super) tally: Tally,
    pub(super) longest_stalls: LongestStalls,
    pub(super) machine: Option<Use>,
    /// What the nodes counted meanwhile; none if they can't be asked, or one was started again.
    pub(super) counted: Option<Questions>,
    /// `cas`, warmup included: increments that were acknowledged, and those whose outcome is unknown.
    pub(super) increments: (u64, u64),
}

/// What the clients of a round share.
struct Shared {
    workload: Workload,
    read_ratio: f64,
    window: Arc<Window>,
    queue: Option<Queue>,
    stalls: Stalls,
    tallies: Vec<Mutex<Tally>>,
    progress: Progress,
    incremented: AtomicU64,
    unclear: AtomicU64,
}

/// Runs a round on these instances of the client library. `nodes` are read from, by as many clients each; if empty, the
/// library chooses.
pub(super) async fn round(
    plan: &Plan,
    clients: u32,
    instances: &[Client],
    nodes: &[String],
    stop: &Stop,
    progress: Progress,
) -> anyhow::Result<Round> {
    let window = Arc::new(Window::starting_now(plan.warmup, plan.duration));
    let shared = Arc::new(Shared {
        workload: plan.workload,
        read_ratio: plan.read_ratio,
        queue: plan.rate.map(|rate| Queue::start(rate, Arc::clone(&window))),
        stalls: Stalls::starting(window.start(), plan.kinds()),
        tallies: (0..TALLIES).map(|_| Mutex::default()).collect(),
        progress: progress.clone(),
        incremented: AtomicU64::new(0),
        unclear: AtomicU64::new(0),
        window: Arc::clone(&window),
    });
    let mut lanes = JoinSet::new();
    let count = plan.lanes(clients);
    for number in 0..count {
        // The operations of one client share its connection.
        let instance = &instances[(number / plan.pipeline) as usize % instances.len()];
        let lane = Lane {
            number,
            tools: tools(plan, number, instance, of_client(nodes, number, count)),
            shared: Arc::clone(&shared),
        };
        lanes.spawn(lane.work());
    }
    let watching = tokio::spawn(progress.watch(Arc::clone(&window)));
    let (before, ticks) = tokio::select! {
        before = at_start(&window, &instances[0]) => before,
        () = stop.requested() => (None, None),
    };
    tokio::select! {
        () = sleep_until(window.instant(window.end())) => {}
        () = stop.requested() => window.end_now(),
    }
    let machine = Ticks::now().zip(ticks).and_then(|(now, before)| now.since(before));
    let after = counters::of_nodes(&instances[0]).await;
    while let Some(ended) = lanes.join_next().await {
        ended?;
    }
    watching.abort();
    let longest_stalls = shared.stalls.end(window.end());
    let mut tally = Tally::of(plan.kinds());
    for part in &shared.tallies {
        tally.merge(std::mem::take(&mut part.lock()));
    }
    Ok(Round {
        clients,
        connections: u32::try_from(instances.len())?,
        measured: window.measured(),
        ended_early: stop.is_requested(),
        tally,
        longest_stalls,
        machine,
        counted: before.zip(after).and_then(|(before, after)| counters::between(&before, &after)),
        increments: (shared.incremented.load(Ordering::Relaxed), shared.unclear.load(Ordering::Relaxed)),
    })
}

/// The counters of nodes and machine when the measured time begins.
async fn at_start(window: &Window, client: &Client) -> (Option<counters::Counted>, Option<Ticks>) {
    sleep_until(window.instant(window.start())).await;
    let ticks = Ticks::now();
    (counters::of_nodes(client).await, ticks)
}

/// The nodes that one of so many clients reads from: a single one, so that nobody who reads from one waits for another; all in
/// turn if there are too few clients.
fn of_client(nodes: &[String], number: u32, clients: u32) -> &[String] {
    let (number, clients) = (number as usize, clients as usize);
    if nodes.is_empty() || clients < nodes.len() {
        nodes
    } else {
        std::slice::from_ref(&nodes[number % nodes.len()])
    }
}

fn tools(plan: &Plan, number: u32, client: &Client, nodes: &[String]) -> Tools {
    let options = Options::new().consistency(plan.consistency).timeout(plan.timeout);
    let mut random =
        SmallRng::seed_from_u64(plan.seed.wrapping_mul(0x1_0000_0001).wrapping_add(number.into()));
    Tools {
        client: client.clone(),
        noise: plan.keys.noise(&mut random),
        keys: plan.keys.clone(),
        chooser: Chooser::new(plan.distribution, plan.keys.count),
        reads: match nodes {
            [] => vec![options],
            nodes => nodes.iter().map(|node| options.clone().node(node)).collect(),
        },
        turn: number as usize,
        batch: plan.batch,
        random,
    }
}

/// One operation after the other: a client has as many of these as its pipeline is deep.
struct Lane {
    number: u32,
    tools: Tools,
    shared: Arc<Shared>,
}

impl Lane {
    async fn work(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let began = match &shared.queue {
                Some(queue) => match queue.next().await {
                    Some(due) => due,
                    None => return,
                },
                None => shared.window.now(),
            };
            let kind = self.next_kind();
            let now = shared.window.now();
            let end = shared.window.end();
            if now >= end && shared.queue.is_none() {
                return;
            }
            // Due in time, and nobody was free.
            if now >= end && began + GRACE_NANOS < now {
                if shared.window.contains(began) {
                    self.tally().not_begun(kind, Duration::from_nanos(end - began));
                }
                continue;
            }
            let ended = self.operate(kind).await;
            self.take_down(kind, ended, began).await;
        }
    }

    fn next_kind(&mut self) -> Kind {
        match self.shared.workload {
            Workload::Write => Kind::Write,
            Workload::Read => Kind::Read,
            Workload::Scan => Kind::Scan,
            Workload::Cas => Kind::Cas,
            Workload::Mixed if self.tools.random.random_bool(self.shared.read_ratio) => Kind::Read,
            Workload::Mixed => Kind::Write,
        }
    }

    async fn operate(&mut self, kind: Kind) -> Ended {
        match kind {
            Kind::Read if self.tools.batch > 1 => self.tools.read_many().await,
            Kind::Read => self.tools.read().await,
            Kind::Write => self.tools.write().await,
            Kind::Scan => self.tools.scan().await,
            Kind::Cas => self.tools.increment().await,
        }
    }

    async fn take_down(&self, kind: Kind, ended: Ended, began: u64) {
        let shared = &self.shared;
        let now = shared.window.now();
        let within = Within { began: shared.window.contains(began), ended: shared.window.contains(now) };
        let is_bad = match &ended {
            Ended::Well(_) => {
                if within.ended {
                    shared.stalls.success(kind, now);
                }
                if kind == Kind::Cas {
                    shared.incremented.fetch_add(1, Ordering::Relaxed);
                }
                false
            }
            Ended::Conflict => false,
            Ended::Badly(trouble) => {
                if kind == Kind::Cas && trouble.kind == "outcome_unknown" {
                    shared.unclear.fetch_add(1, Ordering::Relaxed);
                }
                true
            }
        };
        shared.progress.count(is_bad);
        self.tally().add(kind, ended, Duration::from_nanos(now - began), within);
        if is_bad {
            sleep(PAUSE).await;
        }
    }

    fn tally(&self) -> parking_lot::MutexGuard<'_, Tally> {
        self.shared.tallies[self.number as usize % TALLIES].lock()
    }
}
