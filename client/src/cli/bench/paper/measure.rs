//! What is measured on one chain.

use std::time::Duration;

use craq_client::{Client, Consistency};
use serde::Serialize;

use crate::cli::bench::{
    keys::{Distribution, Keys},
    load,
    plan::{Nodes, Plan, Workload},
    progress::Progress,
    report::RoundReport,
    setup,
    stop::Stop,
};

/// The paper's object.
const VALUE_BYTES: usize = 500;
const PREFIX: &str = "craq-bench-paper/";
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the busiest writer may write, in shares of what the chain takes at most.
const SHARES: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 1.0];
const SHARES_QUICK: [f64; 2] = [0.2, 1.0];
/// Clients for each connection.
const SHARED_BY: u32 = 32;

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) duration: Duration,
    /// Readers of each node, and writers.
    pub(super) clients: u32,
    pub(super) quick: bool,
}

/// Reads while writes are going on.
#[derive(Debug, Serialize)]
pub(super) struct Mixed {
    /// Writes per second that were due.
    pub(super) due_per_s: u64,
    pub(super) reads: RoundReport,
    pub(super) writes: RoundReport,
}

/// All figures of one chain. The names of the fields are a contract.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) nodes: u16,
    /// Many readers at all nodes, no writes.
    pub(super) reads: RoundReport,
    /// As many readers at the tail alone, as in chain replication.
    pub(super) reads_at_tail: RoundReport,
    /// Many writers.
    pub(super) writes: RoundReport,
    /// One client that increments a counter.
    pub(super) test_and_set: RoundReport,
    /// One reader, nothing else.
    pub(super) idle_reads: RoundReport,
    /// One writer, nothing else.
    pub(super) idle_writes: RoundReport,
    /// Many readers at all nodes, and writes at a rate.
    pub(super) reads_under_writes: Vec<Mixed>,
    /// The same with all reads at the tail.
    pub(super) reads_at_tail_under_writes: Vec<Mixed>,
}

/// Measures a chain of these members. All on one key, as in the paper. Each reader reads from one node: if it went from node
/// to node, a node that has used up its share of CPU would hold all readers up, and so the other nodes.
pub(super) async fn figures(
    coordinator: &str,
    nodes: u16,
    members: &[String],
    settings: Settings,
    stop: &Stop,
) -> anyhow::Result<Figures> {
    let many = settings.clients * u32::from(nodes);
    let readers = instances(coordinator, many).await?;
    let writers = instances(coordinator, settings.clients).await?;
    let tail = members.last().cloned().into_iter().collect();
    let chain = Chain { readers, writers, members: members.to_vec(), tail, many, settings, stop };
    let plan = |workload| plan(workload, settings.duration);
    anyhow::ensure!(setup::load(&plan(Workload::Cas), &chain.writers[0], stop).await?, "ended early");
    let test_and_set = chain.round("test-and-set, one client", &plan(Workload::Cas), 1, &[]).await?;
    let idle_writes = chain.round("writes, one client", &plan(Workload::Write), 1, &[]).await?;
    let idle_reads = chain.round("reads, one client", &plan(Workload::Read), 1, &[]).await?;
    let reads = chain.round("reads at all nodes", &plan(Workload::Read), many, &chain.members).await?;
    let reads_at_tail = chain.round("reads at the tail", &plan(Workload::Read), many, &chain.tail).await?;
    let writes = chain.round("writes", &plan(Workload::Write), settings.clients, &[]).await?;
    let most = writes.all.ops_per_s;
    Ok(Figures {
        nodes,
        reads_under_writes: chain.under_writes(most, &chain.members).await?,
        reads_at_tail_under_writes: chain.under_writes(most, &chain.tail).await?,
        reads,
        reads_at_tail,
        writes,
        test_and_set,
        idle_reads,
        idle_writes,
    })
}

/// Instances of the client library for so many clients.
async fn instances(coordinator: &str, clients: u32) -> anyhow::Result<Vec<Client>> {
    let mut instances = Vec::new();
    for _ in 0..clients.div_ceil(SHARED_BY) {
        instances.push(Client::builder([coordinator]).timeout(TIMEOUT).connect().await?);
    }
    Ok(instances)
}

/// A load on one key.
fn plan(workload: Workload, duration: Duration) -> Plan {
    Plan {
        workload,
        clients: vec![],
        connections: None,
        keys: Keys { prefix: PREFIX.to_owned(), count: 1, value_bytes: VALUE_BYTES },
        read_ratio: 0.0,
        distribution: Distribution::Uniform,
        rate: None,
        pipeline: 1,
        batch: 1,
        duration,
        warmup: duration / 4,
        rounds: 1,
        consistency: Consistency::Strong,
        nodes: Nodes::Any,
        seed: 0,
        timeout: TIMEOUT,
        load: true,
        keep: true,
        plot: None,
    }
}

struct Chain<'a> {
    readers: Vec<Client>,
    writers: Vec<Client>,
    members: Vec<String>,
    tail: Vec<String>,
    /// All readers.
    many: u32,
    settings: Settings,
    stop: &'a Stop,
}

impl Chain<'_> {
    async fn round(
        &self,
        what: &str,
        plan: &Plan,
        clients: u32,
        nodes: &[String],
    ) -> anyhow::Result<RoundReport> {
        let round = load::round(plan, clients, &self.readers, nodes, self.stop, Progress::hidden());
        let round = Box::pin(round).await?;
        anyhow::ensure!(!self.stop.is_requested(), "ended early");
        let report = RoundReport::new(round, 1);
        eprintln!(
            "chain of {}: {what}: {:.0}/s, {} errors",
            self.members.len(),
            report.all.ops_per_s,
            report.errors
        );
        Ok(report)
    }

    async fn under_writes(&self, most: f64, nodes: &[String]) -> anyhow::Result<Vec<Mixed>> {
        let shares = if self.settings.quick { &SHARES_QUICK[..] } else { &SHARES };
        let mut all = Vec::new();
        for share in shares {
            // At full load every free client writes, so that what is due never piles up.
            let rate = (*share < 1.0).then_some((most * share).round().max(1.0) as u64);
            let writing = Plan { rate, ..plan(Workload::Write, self.settings.duration) };
            let reading = plan(Workload::Read, self.settings.duration);
            let (reads, writes) = futures::try_join!(
                Box::pin(load::round(
                    &reading,
                    self.many,
                    &self.readers,
                    nodes,
                    self.stop,
                    Progress::hidden()
                )),
                Box::pin(load::round(
                    &writing,
                    self.settings.clients,
                    &self.writers,
                    &[],
                    self.stop,
                    Progress::hidden()
                )),
            )?;
            anyhow::ensure!(!self.stop.is_requested(), "ended early");
            let (reads, writes) = (RoundReport::new(reads, 1), RoundReport::new(writes, 1));
            let at = if nodes == self.members { "all nodes" } else { "the tail" };
            eprintln!(
                "chain of {}: reads at {at}: {:.0}/s beside {:.0} writes/s",
                self.members.len(),
                reads.all.ops_per_s,
                writes.all.ops_per_s
            );
            all.push(Mixed { due_per_s: rate.unwrap_or(most as u64), reads, writes });
        }
        Ok(all)
    }
}
