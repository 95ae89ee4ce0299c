//! What may stand on the command line, with its help. Flags of all commands may stand before or after the command.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use craq_client::{Consistency, RequestToken};
use craq_log::Location;

use super::bench::args::BenchArgs;

const EXAMPLES: &str = "\
Examples:
  craq write hello world                 write the value 'world'
  craq read hello                        read it from any replica, strongly consistent
  craq -n :1235 read hello               read it from exactly this node
  craq write k new --if-version 3        only if nobody wrote it since version 3
  craq list user/ --keys-only            the keys that begin with 'user/'
  craq status                            who makes up the chain
  craq playground                        a whole cluster on this machine, to try things

Exit codes:
  0  done
  1  the key was not found
  2  wrong usage
  3  not reachable or unavailable; certainly not applied
  4  outcome unknown; the message names the request id with which repeating is safe (`check`: no verdict)
  6  the condition was false
  7  refused: too large, or overloaded; certainly not applied
  8  a check found a history that is not linearizable
  9  a value does not match its checksum";

/// Reads and writes a craq cluster: a replicated key-value store with strongly consistent reads from every replica.
#[derive(Debug, Parser)]
#[command(name = "craq", version, max_term_width = 100, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of all commands.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Flags of all commands")]
pub(crate) struct Globals {
    /// Coordinators to start from; nodes will do as well [default: :1234, or the node if only one is given].
    #[arg(
        short = 'c',
        long = "coordinator",
        env = "CRAQ_COORDINATOR",
        value_name = "ADDR[,ADDR]",
        global = true,
        value_delimiter = ','
    )]
    pub(crate) coordinators: Vec<String>,
    /// Read from exactly this node. Without a coordinator given, everything starts from it. (`bench`: with `all`, each
    /// member is read from by as many clients.)
    #[arg(short = 'n', long = "node", env = "CRAQ_NODE", value_name = "ADDR", global = true)]
    pub(crate) at_node: Option<String>,
    /// How long the command may take (`list`: each page; `bench`: each operation).
    #[arg(long, env = "CRAQ_TIMEOUT", value_name = "TIME", default_value = "5s", global = true,
          value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// How results are printed [default: plain; `status` on a terminal: table].
    #[arg(short = 'o', long = "output", env = "CRAQ_OUTPUT", value_name = "FORMAT", global = true)]
    pub(crate) format: Option<Format>,
    /// Keys and values are hex digits, as arguments and in the output. (stdin and files are always taken as they are.)
    #[arg(long, global = true, conflicts_with = "base64")]
    pub(crate) hex: bool,
    /// Keys and values are base64, as arguments and in the output.
    #[arg(long, global = true)]
    pub(crate) base64: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For scripts: bytes as they are, fields separated by tabs.
    Plain,
    /// One JSON object a line. What is not UTF-8 is base64, and says so.
    Json,
    /// For people.
    Table,
    /// For spreadsheets: `bench` only.
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a key. Prints `OK version=N`.
    ///
    /// The words of the value are joined by one space. With `-` or without a value it is read from stdin, byte for
    /// byte. A value that begins with `-` needs `--` before it: `craq write key -- -1`.
    #[command(after_help = "Examples:
  craq write hello world
  craq write motd several words are joined
  echo -n secret | craq write token
  craq write logo --file logo.png
  craq write lock me --if-absent
  craq write order paid --request-id order-17    takes effect once, if it is repeated soon")]
    Write(WriteArgs),
    /// Read a key. Prints the value and a newline; exits with 1 if the key does not exist.
    #[command(after_help = "Examples:
  craq read hello
  craq read logo --raw > logo.png
  craq read hello --meta
  craq read hello --consistency bounded:500ms
  craq -n :1235 read hello --consistency eventual")]
    Read(ReadArgs),
    /// Delete a key. Prints `OK version=N`; exits with 1 if the key does not exist.
    #[command(after_help = "Examples:
  craq delete hello
  craq delete hello --if-version 3")]
    Delete(DeleteArgs),
    /// List keys and values in the order of the keys, page by page.
    ///
    /// A line is the key, a tab, and the value, as they are; `-o json` is safe whatever they contain.
    #[command(
        alias = "readall",
        after_help = "Examples:
  craq list
  craq list user/ --limit 20
  craq list user/ --keys-only
  craq list -o json > all.ndjson"
    )]
    List(ListArgs),
    /// Show who makes up the chain. Works without a coordinator too, from any node (-n).
    ///
    /// Plain output has one line for each member and learner: chain, epoch, role, node, address, in_sync, alive and
    /// commit, separated by tabs.
    #[command(after_help = "Examples:
  craq status
  craq status -o json
  craq -n :1235 status                           as the nodes know it, with the coordinator away")]
    Status,
    /// Admin: nodes.
    Node(NodeArgs),
    /// Admin: chains.
    Chain(ChainArgs),
    /// Who made up the chains in the past, and why that changed.
    Topology(TopologyArgs),
    /// Admin: coordinators.
    Coordinator(CoordinatorArgs),
    /// Check what the cluster promises.
    Check(CheckArgs),
    /// Measure how fast the cluster is.
    ///
    /// Runs clients in a loop for a fixed time and tells throughput, latencies, errors, the longest stall, how reads were
    /// answered, and what the machine was busy with.
    Bench(BenchArgs),
    /// Start a cluster on this machine, check it, and keep it running until Ctrl-C.
    ///
    /// Starts coordinators and nodes from the binaries beside this one, on free ports. Writes a key, reads it at every
    /// node, and prints what to try next.
    #[command(after_help = "Examples:
  craq playground
  craq playground --nodes 5
  craq playground --coordinators 3   kill the one that leads: another one takes over
  craq playground --data ./play      keeps the data; start it again with the same directory
  craq playground --once             exits after the check")]
    Playground(PlaygroundArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:
  craq completions bash > ~/.local/share/bash-completion/completions/craq")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// The key: 1 to 4096 bytes.
    pub(crate) key: OsString,
    /// The value; `-` or none: stdin.
    #[arg(conflicts_with = "file")]
    pub(crate) value: Vec<OsString>,
    /// Take the value from this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Only if the key has this version; 0: only if it does not exist.
    #[arg(long, value_name = "N", conflicts_with = "if_absent")]
    pub(crate) if_version: Option<u64>,
    /// Only if the key does not exist.
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// The id of an earlier attempt, as its message printed it, or 1 to 64 characters of your own. Writes with the same
    /// id take effect at most once: always with the id of an earlier attempt; with your own as long as the chain knows of
    /// it, which is for at least 100,000 further writes.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<RequestToken>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// The key.
    pub(crate) key: OsString,
    /// The value alone, without a newline.
    #[arg(long, conflicts_with = "meta")]
    pub(crate) raw: bool,
    /// A line with version, seq, commit, epoch, path and node before the value.
    #[arg(long)]
    pub(crate) meta: bool,
    /// strong, eventual, or bounded:TIME (heard from the chain within this time).
    #[arg(long, value_name = "MODE", default_value = "strong", value_parser = consistency)]
    pub(crate) consistency: Consistency,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// The key.
    pub(crate) key: OsString,
    /// Only if the key has this version.
    #[arg(long, value_name = "N")]
    pub(crate) if_version: Option<u64>,
    /// As with `write`.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<RequestToken>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only keys that begin with this.
    pub(crate) prefix: Option<OsString>,
    /// At most so many keys.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Leave the values out.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// strong, eventual, or bounded:TIME.
    #[arg(long, value_name = "MODE", default_value = "strong", value_parser = consistency)]
    pub(crate) consistency: Consistency,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Take a node out of the chain, until its process starts anew. Prints `OK epoch=N`.
    Remove {
        /// The node: its id, or its address as `craq status` shows it.
        which: String,
        /// Even if it is the last that holds every committed write. What only it holds is lost.
        #[arg(long, action = ArgAction::SetTrue)]
        accept_data_loss: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChainArgs {
    #[command(subcommand)]
    pub(crate) command: ChainCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChainCommand {
    /// Put the members of the chain into another order. Prints `OK epoch=N`.
    Reorder {
        /// All members, head first: ids, or addresses as `craq status` shows them.
        #[arg(required = true, value_name = "NODE")]
        order: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopologyArgs {
    #[command(subcommand)]
    pub(crate) command: TopologyCommand,
}

/// Where the log is read, if not by a coordinator.
#[derive(Debug, clap::Args)]
pub(crate) struct LogPlace {
    /// Read the coordinators' log itself, as `craq-coordinator --data` names it. Works with every coordinator away.
    #[arg(long, env = "CRAQ_DATA", value_name = "DIR|URL")]
    pub(crate) data: Option<Location>,
    /// As `craq-coordinator --data-endpoint`.
    #[arg(long, env = "CRAQ_DATA_ENDPOINT", value_name = "URL", requires = "data")]
    pub(crate) data_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopologyCommand {
    /// Every view of every chain that is kept, oldest first, with its reason.
    ///
    /// Plain output has one line for each: chain, epoch, time, term, coordinator, nodes from head to tail and reason,
    /// separated by tabs. A node with `?` was not in sync, one in brackets caught up.
    #[command(after_help = "Examples:
  craq topology history
  craq topology history --data s3://bucket/prefix")]
    History {
        #[command(flatten)]
        place: LogPlace,
    },
    /// The view of an epoch, or those of a time.
    #[command(after_help = "Examples:
  craq topology show --epoch 17
  craq topology show --at 2026-11-21T12:00:00Z
  craq topology show --at '10m ago' --data ./coordinator -o json")]
    #[group(id = "when", required = true, multiple = false, args = ["epoch", "at"])]
    Show {
        #[command(flatten)]
        place: LogPlace,
        /// The epoch.
        #[arg(long, value_name = "N")]
        epoch: Option<u64>,
        /// The time: RFC 3339, UTC unless it says otherwise; or how long ago.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CoordinatorArgs {
    #[command(subcommand)]
    pub(crate) command: CoordinatorCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Who leads, since when, and how late the log's store answers: one line for each address given by -c.
    #[command(after_help = "Example:
  craq -c a:1234,b:1234,c:1234 coordinator list")]
    List,
    /// Have the coordinator that leads give up, and another one take over.
    Transfer,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(subcommand)]
    pub(crate) command: CheckCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Load the cluster with clients at all nodes, take down all that they see, and judge it.
    ///
    /// Writes, deletes and reads keys of its own, and deletes them in the end. Break what you like meanwhile: kill, pause,
    /// cut off. A run in which too little happened, or that can't be judged, is no pass: it exits with 4, a violation with 8.
    #[command(after_help = "Examples:
  craq check linearizability
  craq check linearizability --duration 5m --clients 16 --history all.ndjson
  craq check linearizability --html violation.html       a picture, if there is a violation")]
    Linearizability(LinearizabilityArgs),
    /// Judge a history that `check linearizability --history` has saved.
    History(HistoryArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct LinearizabilityArgs {
    /// How long; Ctrl-C ends it earlier.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How many clients at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) clients: u32,
    /// How many keys: few, so that calls meet.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) keys: u16,
    /// What its keys begin with; a random name of the run follows.
    #[arg(long, value_name = "TEXT", default_value = "craq-check/")]
    pub(crate) prefix: String,
    /// Which calls are made comes from this number [default: a random one, which is told].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Save all that the clients saw here, a line of JSON for each call.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Draw a violation here.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The saved history.
    pub(crate) file: PathBuf,
    /// Draw a violation here.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlaygroundArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) nodes: u16,
    /// How many coordinators, all on one log.
    #[arg(id = "how_many_coordinators", long = "coordinators", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) coordinators: u16,
    /// Keep the data here [default: a temporary directory, removed in the end].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Exit after the check.
    #[arg(long)]
    pub(crate) once: bool,
    /// Where the nodes keep their data.
    #[arg(long, value_enum, default_value = "redb")]
    pub(crate) store: Store,
}

/// Where nodes keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// On disk, for many reads.
    Redb,
    /// On disk, for many small writes.
    Fjall,
    /// In memory.
    Memory,
}

impl Store {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Memory => "memory",
        }
    }
}

pub(super) fn consistency(text: &str) -> Result<Consistency, String> {
    let expected = || "expected strong, eventual, or bounded:TIME such as bounded:500ms".to_owned();
    match text.split_once(':') {
        None if text == "strong" || text == "linearizable" => Ok(Consistency::Strong),
        None if text == "eventual" => Ok(Consistency::Eventual),
        Some(("bounded", bound)) => match humantime::parse_duration(bound) {
            Ok(bound) if bound.as_millis() > 0 => Ok(Consistency::Bounded(bound)),
            Ok(_) => Err("the bound is at least 1ms".to_owned()),
            Err(error) => Err(format!("{}: {error}", expected())),
        },
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for line in ["craq -c a:1,b:2 --timeout 1s read k", "craq read k -c a:1,b:2 --timeout 1s"] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.globals.coordinators, ["a:1", "b:2"]);
            assert_eq!(args.globals.timeout, Duration::from_secs(1));
        }
    }

    #[test]
    fn modes_are_read() {
        assert_eq!(consistency("strong"), Ok(Consistency::Strong));
        assert_eq!(consistency("bounded:500ms"), Ok(Consistency::Bounded(Duration::from_millis(500))));
        for bad in ["", "bounded", "bounded:", "bounded:0ms", "weak", "eventual:1s"] {
            assert!(consistency(bad).is_err(), "{bad:?} was taken");
        }
    }
}
