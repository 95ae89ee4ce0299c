//! What may stand after `craq bench`, with its help; `plan` checks it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use craq_client::Consistency;

use super::{
    super::args::{Store, consistency},
    keys::Distribution,
};

const EXAMPLES: &str = "\
Examples:
  craq bench read
  craq bench mixed --read-ratio 0.95 --distribution zipf:0.99 --duration 30s
  craq bench read --clients 1,8,64 --rounds 3 --plot read.svg
  craq bench write --rate 2000             open loop: latency counts from the scheduled moment
  craq bench read -n all                   each node by as many clients, whatever the client library would do
  craq bench read --keep && craq bench read --no-load --keys 10000
  craq bench mixed -o csv > figures.csv

What the figures mean:
  ops/s counts operations that ended within the measured time. Latencies are those of every operation that
  began in it (with --rate: that was scheduled in it), stragglers included. The longest stall is the longest
  time in which nothing succeeded. Client cores, host busy and stolen tell whether the load generator, the
  host or its neighbours were the limit; when the host is all but busy, the figure is one of CPU per operation.
  Nodes count reads since their start, whoever asks: keep other clients away while measuring.

Exit codes: as all commands; 9 if a read brought a wrong value or none, or a counted write was lost.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Writes, each of one key.
    Write(LoadArgs),
    /// Reads, each of one key, or of `--batch` keys; every value is verified.
    Read(LoadArgs),
    /// Reads and writes, `--read-ratio` of them reads.
    Mixed(LoadArgs),
    /// Scans of `--batch` neighbouring keys; every value is verified.
    Scan(LoadArgs),
    /// Counters: read one, then write it plus one on condition that its version is still the same.
    ///
    /// A condition that is false is a conflict, not an error. In the end all counters are added up: an increment that was
    /// acknowledged and is missing, or is there twice, is told and exits with 9.
    Cas(LoadArgs),
    /// The measurements of the CRAQ paper (figures 4 to 9), on clusters of its own on this machine.
    ///
    /// Every node gets the same small share of CPU by a cgroup, since nodes that share a host's cores have nothing to gain
    /// from each other. Writes DIR/paper.md and pictures. Where no cgroup can be made, it refuses; root can.
    Paper(PaperArgs),
}

/// Settings of a load.
#[derive(Debug, Args, Clone)]
pub(crate) struct LoadArgs {
    /// How many clients at once; a list (1,8,64) makes the rounds with each.
    #[arg(long, value_name = "N[,N]", value_delimiter = ',', default_value = "64")]
    pub(crate) clients: Vec<u32>,
    /// Instances of the client library that the clients share; each has one connection to each node, and at most 256
    /// operations under way [default: one for every 64 operations under way].
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<u32>,
    /// How many keys.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) keys: u64,
    /// Bytes of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 500)]
    pub(crate) value_size: usize,
    /// `mixed`: the share of reads, 0 to 1 [default: 0.9].
    #[arg(long, value_name = "SHARE")]
    pub(crate) read_ratio: Option<f64>,
    /// Which keys: uniform, or zipf:THETA (0.99: a few are far more popular).
    #[arg(long, value_name = "NAME", default_value = "uniform")]
    pub(crate) distribution: Distribution,
    /// Open loop: so many operations begin each second, all clients together, whether or not earlier ones have ended.
    /// Latency counts from the moment an operation was due, so that a stall is not hidden. What was due and found no free
    /// client counts as waiting until the end [default: closed loop, each client begins when its last one has ended].
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u64>,
    /// So many operations of each client are under way at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) pipeline: u32,
    /// `scan`: keys of a scan, up to 1000 [default: 100]. `read`: keys of a call, up to 1000 [default: 1]; latencies are
    /// those of whole calls then. Other calls have one key each.
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<u64>,
    /// The measured time of each round; Ctrl-C ends it earlier and still prints the figures.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// The same load before that, not measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Duration,
    /// How often each number of clients is measured; the round with the median ops/s is told.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) rounds: u32,
    /// Reads: strong, eventual, or bounded:TIME [default: strong].
    #[arg(long, value_name = "MODE", value_parser = consistency)]
    pub(crate) consistency: Option<Consistency>,
    /// Draw throughput and latency against the number of clients here, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Which keys are chosen comes from this number; which call meets which does not.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// What its keys begin with; a number follows. Whatever was under these names before is overwritten, and deleted in the
    /// end. Two runs at once need two prefixes.
    #[arg(long, value_name = "TEXT", default_value = "craq-bench/")]
    pub(crate) prefix: String,
    /// Do not write every key once before the first round: they are there already, from a run with --keep and the same
    /// --prefix, --keys and --value-size. They stay.
    #[arg(long)]
    pub(crate) no_load: bool,
    /// Leave the keys there [default: they are deleted in the end, after Ctrl-C and after errors too].
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PaperArgs {
    /// Where paper.md and the pictures go; made if it is missing.
    #[arg(value_name = "DIR", default_value = "paper")]
    pub(crate) directory: PathBuf,
    /// Lengths of the chains.
    #[arg(long, value_name = "N[,N]", value_delimiter = ',', default_value = "1,3,5,7")]
    pub(crate) nodes: Vec<u16>,
    /// The share of one core that each node gets, in percent, at least 10 [default: a third of this machine's cores, divided
    /// among the longest chain].
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cap: Option<u32>,
    /// The measured time of each figure.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Readers for each node at once, and writers at once.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) clients: u32,
    /// Where the nodes keep their data; the paper's kept it in memory.
    #[arg(long, value_enum, default_value = "memory")]
    pub(crate) store: Store,
    /// A smoke run: chains of 1 and 3, half a second for each figure. Its figures say nothing.
    #[arg(long)]
    pub(crate) quick: bool,
}
