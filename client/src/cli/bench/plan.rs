//! A load that makes sense: what stands on the command line, checked as a whole before anything runs.

use std::{path::PathBuf, time::Duration};

use craq_client::{Consistency, proto::key::VALUE_BYTES_CEILING};

use super::{
    args::LoadArgs,
    figures::Kind,
    keys::{COUNTED_BYTES_MIN, Distribution, Keys},
};
use crate::cli::args::Globals;

/// Streams that a node takes on one connection.
const STREAMS_MAX: u32 = 256;
/// Operations under way that one connection gets unless told otherwise.
const STREAMS_DEFAULT: u32 = 64;
/// Operations under way, all clients together.
const LANES_MAX: u64 = 100_000;
const KEYS_MAX: u64 = 100_000_000;
/// Keys that a node puts into one page: what is read at one moment, in one answer.
const BATCH_MAX: u64 = 1_000;
const BATCH_DEFAULT: u64 = 100;
const READ_RATIO_DEFAULT: f64 = 0.9;
const ROUNDS_MAX: u32 = 1_000;
const PREFIX_BYTES_MAX: usize = 4_000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    Write,
    Read,
    Mixed,
    Scan,
    Cas,
}

impl Workload {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Mixed => "mixed",
            Self::Scan => "scan",
            Self::Cas => "cas",
        }
    }

    fn has_free_reads(self) -> bool {
        matches!(self, Self::Read | Self::Mixed | Self::Scan)
    }
}

/// Where reads go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nodes {
    /// Where the client library sends them.
    Any,
    /// To one node.
    One(String),
    /// To each member of the chain, by as many clients each.
    All,
}

/// A load.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) workload: Workload,
    pub(super) clients: Vec<u32>,
    pub(super) connections: Option<u32>,
    pub(super) keys: Keys,
    /// The share of reads.
    pub(super) read_ratio: f64,
    pub(super) distribution: Distribution,
    /// Operations per second that are due; none: closed loop.
    pub(super) rate: Option<u64>,
    pub(super) pipeline: u32,
    /// Keys of a scan.
    pub(super) batch: u64,
    pub(super) duration: Duration,
    pub(super) warmup: Duration,
    pub(super) rounds: u32,
    pub(super) consistency: Consistency,
    pub(super) nodes: Nodes,
    pub(super) seed: u64,
    /// How long one call may take.
    pub(super) timeout: Duration,
    /// The keys are written first.
    pub(super) load: bool,
    /// The keys stay.
    pub(super) keep: bool,
    pub(super) plot: Option<PathBuf>,
}

impl Plan {
    /// Refuses what makes no sense, with the reason.
    pub(super) fn new(workload: Workload, args: &LoadArgs, globals: &Globals) -> Result<Self, String> {
        check_counts(args)?;
        check_fits(workload, args, globals)?;
        check_values(workload, args)?;
        let node = globals.at_node.clone().filter(|node| !node.is_empty());
        let nodes = match node.as_deref() {
            None => Nodes::Any,
            Some("all") => Nodes::All,
            Some(node) => Nodes::One(node.to_owned()),
        };
        let plan = Self {
            workload,
            clients: args.clients.clone(),
            connections: args.connections,
            keys: Keys { prefix: args.prefix.clone(), count: args.keys, value_bytes: args.value_size },
            read_ratio: match workload {
                Workload::Write | Workload::Cas => 0.0,
                Workload::Read | Workload::Scan => 1.0,
                Workload::Mixed => args.read_ratio.unwrap_or(READ_RATIO_DEFAULT),
            },
            distribution: args.distribution,
            rate: args.rate,
            pipeline: args.pipeline,
            batch: match workload {
                Workload::Scan => args.batch.unwrap_or(BATCH_DEFAULT.min(args.keys)),
                _ => args.batch.unwrap_or(1),
            },
            duration: args.duration,
            warmup: args.warmup,
            rounds: args.rounds,
            consistency: args.consistency.unwrap_or_default(),
            nodes,
            seed: args.seed,
            timeout: globals.timeout,
            load: !args.no_load,
            keep: args.keep || args.no_load,
            plot: args.plot.clone(),
        };
        plan.check_connections()?;
        Ok(plan)
    }

    /// The kinds of its operations.
    pub(super) fn kinds(&self) -> &'static [Kind] {
        match self.workload {
            Workload::Write => &[Kind::Write],
            Workload::Read => &[Kind::Read],
            Workload::Mixed => &[Kind::Read, Kind::Write],
            Workload::Scan => &[Kind::Scan],
            Workload::Cas => &[Kind::Cas],
        }
    }

    /// Operations under way at once with so many clients.
    pub(super) fn lanes(&self, clients: u32) -> u32 {
        clients * self.pipeline
    }

    /// Instances of the client library that so many clients share.
    pub(super) fn connections(&self, clients: u32) -> u32 {
        self.connections.unwrap_or_else(|| self.lanes(clients).div_ceil(STREAMS_DEFAULT)).min(clients)
    }

    fn check_connections(&self) -> Result<(), String> {
        for clients in &self.clients {
            let connections = self.connections(*clients);
            if let Some(given) = self.connections
                && given > *clients
            {
                return Err(format!("{given} connections cannot be shared by {clients} clients"));
            }
            let most = clients.div_ceil(connections) * self.pipeline;
            if most > STREAMS_MAX {
                return Err(format!(
                    "{most} operations under way on one connection: a node takes {STREAMS_MAX}; give more --connections, or a \
                     smaller --pipeline"
                ));
            }
        }
        Ok(())
    }
}

fn check_counts(args: &LoadArgs) -> Result<(), String> {
    let positive = [
        ("--clients", args.clients.iter().all(|clients| *clients > 0) && !args.clients.is_empty()),
        ("--connections", args.connections != Some(0)),
        ("--keys", args.keys > 0),
        ("--rate", args.rate != Some(0)),
        ("--pipeline", args.pipeline > 0),
        ("--batch", args.batch != Some(0)),
        ("--duration", args.duration > Duration::ZERO),
        ("--rounds", args.rounds > 0),
    ];
    if let Some((option, _)) = positive.iter().find(|(_, is)| !is) {
        return Err(format!("{option} must be above zero"));
    }
    let lanes = args.clients.iter().map(|clients| u64::from(*clients) * u64::from(args.pipeline)).max();
    if lanes > Some(LANES_MAX) {
        return Err(format!("more than {LANES_MAX} operations under way at once"));
    }
    if args.keys > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} keys"));
    }
    if args.rounds > ROUNDS_MAX {
        return Err(format!("more than {ROUNDS_MAX} rounds"));
    }
    Ok(())
}

fn check_fits(workload: Workload, args: &LoadArgs, globals: &Globals) -> Result<(), String> {
    let name = workload.as_str();
    if args.read_ratio.is_some() && workload != Workload::Mixed {
        return Err(format!("--read-ratio is for `mixed`, not for `{name}`"));
    }
    if args.read_ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
        return Err("--read-ratio is a share from 0 to 1".to_owned());
    }
    if args.batch.is_some() && !matches!(workload, Workload::Scan | Workload::Read) {
        return Err(format!("--batch is for `read` and `scan`: a call of `{name}` has one key"));
    }
    if let Some(batch) = args.batch {
        if batch > BATCH_MAX {
            return Err(format!("--batch is at most {BATCH_MAX}"));
        }
        if batch > args.keys {
            return Err(format!("--batch {batch} is more than there are keys ({})", args.keys));
        }
    }
    if args.consistency.is_some_and(|mode| mode != Consistency::Strong) && !workload.has_free_reads() {
        return Err(format!("--consistency is for reads: `{name}` is strong"));
    }
    if globals.at_node.as_deref() == Some("all") && !workload.has_free_reads() {
        return Err(format!("--node all is for reads: writes of `{name}` go to the head"));
    }
    Ok(())
}

fn check_values(workload: Workload, args: &LoadArgs) -> Result<(), String> {
    if args.value_size > VALUE_BYTES_CEILING {
        return Err(format!("--value-size is at most {VALUE_BYTES_CEILING} bytes"));
    }
    if args.prefix.is_empty() || args.prefix.len() > PREFIX_BYTES_MAX {
        return Err(format!("--prefix has 1 to {PREFIX_BYTES_MAX} bytes"));
    }
    if workload == Workload::Cas && args.value_size < COUNTED_BYTES_MIN {
        return Err(format!(
            "--value-size is at least {COUNTED_BYTES_MIN} bytes for `cas`: a counter must fit"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{
        args::{Args, Command},
        bench::args::BenchCommand,
    };

    fn plan(line: &str) -> Result<Plan, String> {
        let args = Args::try_parse_from(format!("craq bench {line}").split_whitespace()).unwrap();
        let Command::Bench(bench) = args.command else { panic!("another command") };
        let (workload, load) = match &bench.command {
            BenchCommand::Write(load) => (Workload::Write, load),
            BenchCommand::Read(load) => (Workload::Read, load),
            BenchCommand::Mixed(load) => (Workload::Mixed, load),
            BenchCommand::Scan(load) => (Workload::Scan, load),
            BenchCommand::Cas(load) => (Workload::Cas, load),
            BenchCommand::Paper(_) => panic!("no load"),
        };
        Plan::new(workload, load, &args.globals)
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_option_in_the_text() {
        for (line, says) in [
            ("read --clients 0", "--clients"),
            ("read --clients 1,0", "--clients"),
            ("read --connections 0", "--connections"),
            ("read --clients 2 --connections 3", "3 connections"),
            ("read --clients 1 --pipeline 257", "257 operations"),
            ("read --clients 512 --connections 1", "512 operations"),
            ("read --clients 65536 --pipeline 65536", "at once"),
            ("read --keys 0", "--keys"),
            ("read --rate 0", "--rate"),
            ("read --duration 0s", "--duration"),
            ("read --rounds 0", "--rounds"),
            ("read --read-ratio 0.5", "--read-ratio"),
            ("mixed --read-ratio 1.5", "--read-ratio"),
            ("mixed --read-ratio NaN", "--read-ratio"),
            ("write --batch 10", "--batch"),
            ("scan --batch 1001", "--batch"),
            ("scan --batch 11 --keys 10", "--batch"),
            ("write --consistency eventual", "--consistency"),
            ("cas --consistency eventual", "--consistency"),
            ("write -n all", "--node"),
            ("cas -n all", "--node"),
            ("cas --value-size 15", "--value-size"),
            ("write --value-size 3145729", "--value-size"),
            ("write --prefix=", "--prefix"),
        ] {
            let refused = plan(line).expect_err(line);
            assert!(refused.contains(says), "{line}: {refused}");
        }
    }

    #[test]
    fn a_plan_says_what_is_left_unsaid() {
        let read = plan("read --clients 1,64,200").unwrap();
        assert_eq!([1, 64, 200].map(|clients| read.connections(clients)), [1, 1, 4]);
        assert_eq!((read.read_ratio, read.batch, read.load, read.keep), (1.0, 1, true, false));
        assert_eq!(plan("mixed").unwrap().read_ratio, 0.9);
        assert_eq!(plan("scan --keys 7").unwrap().batch, 7);
        assert_eq!(plan("scan -n all --consistency eventual").unwrap().nodes, Nodes::All);
        let again = plan("read --no-load").unwrap();
        assert!(again.keep && !again.load, "what another run has left there stays");
    }
}
