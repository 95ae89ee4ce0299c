//! What a node is told when it starts: flags, the `CRAQ_*` variables behind them, and which combinations can work.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use craq_proto::{
    NodeId,
    key::{VALUE_BYTES_CEILING, VALUE_BYTES_MAX_DEFAULT},
};

use crate::{error::NodeError, replica::event as replica};

/// Where the node keeps its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In a file, by redb. The faster one to read, and the one that takes the same time for every write.
    Redb,
    /// In a directory, by fjall, an LSM tree. The faster one for small batches of writes; reads take longer.
    #[cfg(feature = "fjall")]
    Fjall,
    /// In memory. A restarted node comes back as a new one, from nothing.
    Memory,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

/// A craq node: one replica of each chain that it is part of.
///
/// Addresses are HOST:PORT; `:PORT` means all interfaces where the node listens, and localhost where it connects.
#[derive(Debug, Clone, Parser)]
#[command(name = "craq-node", version, max_term_width = 100)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    #[arg(short = 'a', long, env = "CRAQ_LISTEN", default_value = ":1235", value_name = "ADDR")]
    pub listen: String,
    /// Where the coordinator, the other nodes and the clients reach this node [default: where it listens].
    #[arg(short = 'p', long, env = "CRAQ_PUBLIC", value_name = "ADDR")]
    pub public: Option<String>,
    /// The coordinators: one, or all that there are; the node finds the one that leads.
    #[arg(
        short = 'c',
        long = "coordinator",
        env = "CRAQ_COORDINATOR",
        default_value = ":1234",
        value_name = "ADDR",
        value_delimiter = ','
    )]
    pub coordinators: Vec<String>,
    /// The store's file, or its directory [default with --store fjall: craq.fjall].
    #[arg(short = 'f', long, env = "CRAQ_FILE", default_value = "craq.redb")]
    #[cfg_attr(feature = "fjall", arg(default_value_if("store", "fjall", "craq.fjall")))]
    pub file: PathBuf,
    /// Where to keep the data. What one kind has written no other one opens.
    #[arg(long, env = "CRAQ_STORE", value_enum, default_value = "redb")]
    pub store: StoreKind,
    /// How much memory caches may use, like 256MiB: a quarter of it for values that were read lately, the rest for the
    /// store.
    #[arg(long, env = "CRAQ_CACHE_SIZE", default_value = "256MiB", value_parser = bytes, value_name = "SIZE")]
    pub cache_size: usize,
    /// Stand right after this node, if the node is new [default: at the tail].
    #[arg(long, env = "CRAQ_AFTER", value_name = "NODE", conflicts_with = "first")]
    pub after: Option<NodeId>,
    /// Stand at the head, if the node is new.
    #[arg(long, env = "CRAQ_FIRST")]
    pub first: bool,
    /// The coordinator's failure timeout: a member that cannot be reached for a quarter of it is reported, and the
    /// coordinator acts when the report has stood for all of it.
    #[arg(long, env = "CRAQ_FAILURE_TIMEOUT", default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub failure_timeout: Duration,
    /// How often the coordinator hears from this node.
    #[arg(long, env = "CRAQ_HEARTBEAT_INTERVAL", default_value = "200ms", value_parser = duration, value_name = "TIME")]
    pub heartbeat_interval: Duration,
    /// How long a member that answered a ping keeps out of epochs without the pinger. The same at all nodes.
    #[arg(long, env = "CRAQ_LEASE", default_value = "350ms", value_parser = duration, value_name = "TIME")]
    pub lease: Duration,
    /// How often the members ping each other.
    #[arg(long, env = "CRAQ_PING_INTERVAL", default_value = "80ms", value_parser = duration, value_name = "TIME")]
    pub ping_interval: Duration,
    /// Longest value, like 1MiB. The same at all nodes; at most 3MiB.
    #[arg(long, env = "CRAQ_VALUE_BYTES_MAX", default_value = "1MiB", value_parser = bytes, value_name = "SIZE")]
    pub value_bytes_max: usize,
    /// Nodes that are brought up are sent at most so many bytes a second by this node, like 20MiB, so that clients' calls
    /// keep their share. Must be more than clients write, or they never catch up [default: as fast as it goes].
    #[arg(long, env = "CRAQ_TRANSFER_RATE", value_parser = rate, value_name = "SIZE")]
    pub transfer_rate: Option<NonZeroUsize>,
    /// Most requests of clients in flight at once; more are refused.
    #[arg(long, env = "CRAQ_REQUESTS_MAX", default_value_t = 4096, value_name = "N")]
    pub requests_max: usize,
    /// Threads that serve [default: one for each core].
    #[arg(long, env = "CRAQ_WORKER_THREADS", value_name = "N")]
    pub worker_threads: Option<usize>,
    /// How log lines look (to stderr, filtered by RUST_LOG).
    #[arg(long, env = "CRAQ_LOG_FORMAT", value_enum, default_value = "plain")]
    pub log_format: LogFormat,
}

impl Default for Config {
    /// All flags at their defaults; looks at no variable and no argument.
    fn default() -> Self {
        Self {
            listen: ":1235".into(),
            public: None,
            coordinators: vec![":1234".into()],
            file: "craq.redb".into(),
            store: StoreKind::Redb,
            cache_size: 256 * 1024 * 1024,
            after: None,
            first: false,
            failure_timeout: Duration::from_secs(1),
            heartbeat_interval: Duration::from_millis(200),
            lease: Duration::from_millis(350),
            ping_interval: Duration::from_millis(80),
            value_bytes_max: VALUE_BYTES_MAX_DEFAULT,
            transfer_rate: None,
            requests_max: 4096,
            worker_threads: None,
            log_format: LogFormat::Plain,
        }
    }
}

impl Config {
    /// Refuses what cannot work, with the flags in the text.
    pub fn check(&self) -> Result<(), NodeError> {
        let refuse = |text: String| Err(NodeError::Config(text));
        if self.ping_interval.is_zero() || self.ping_interval * 3 > self.lease {
            return refuse(format!(
                "--ping-interval {:?} must be above zero and at most a third of --lease {:?}: two lost pings would end \
                 the read lease",
                self.ping_interval, self.lease
            ));
        }
        if self.lease > LEASE_MAX {
            return refuse(format!(
                "--lease {:?} is longer than {LEASE_MAX:?}: after a failure no write succeeds for so long",
                self.lease
            ));
        }
        if self.heartbeat_interval.is_zero() || self.heartbeat_interval * 2 > self.failure_timeout {
            return refuse(format!(
                "--heartbeat-interval {:?} must be above zero and at most half of --failure-timeout {:?}: one late \
                 heartbeat would end the membership",
                self.heartbeat_interval, self.failure_timeout
            ));
        }
        if self.value_bytes_max > VALUE_BYTES_CEILING {
            return refuse(format!(
                "--value-bytes-max {} is above {VALUE_BYTES_CEILING}, the most that fits in a message",
                self.value_bytes_max
            ));
        }
        if self.requests_max == 0 || self.requests_max > REQUESTS_CEILING {
            return refuse(format!("--requests-max {} is not in 1 to {REQUESTS_CEILING}", self.requests_max));
        }
        if self.worker_threads == Some(0) {
            return refuse("--worker-threads 0: at least one is needed".into());
        }
        let coordinators = self.coordinators.iter().map(|address| ("--coordinator", address));
        let own = [("--listen", &self.listen)].into_iter().chain(self.public.iter().map(|p| ("--public", p)));
        for (flag, address) in coordinators.chain(own) {
            if !is_address(address) {
                return refuse(format!("{flag} {address:?} is no HOST:PORT or :PORT"));
            }
        }
        Ok(())
    }

    /// The times and limits of the replicas.
    #[must_use]
    pub fn replica(&self) -> replica::Config {
        replica::Config { lease: self.lease, ping_interval: self.ping_interval, ..Default::default() }
    }

    /// The address that the others are told, once it is known which port was bound.
    #[must_use]
    pub fn public_address(&self, bound: SocketAddr) -> String {
        if let Some(public) = &self.public {
            let public = connectable(public);
            // Port 0 was asked for here too: the one that was bound is meant.
            return match public.rsplit_once(':') {
                Some((host, "0")) => format!("{host}:{}", bound.port()),
                _ => public,
            };
        }
        let host = self.listen.rsplit_once(':').map_or("", |(host, _)| host);
        let is_everywhere = bound.ip().is_unspecified() || host.is_empty();
        format!("{}:{}", if is_everywhere { "localhost" } else { host }, bound.port())
    }
}

const LEASE_MAX: Duration = Duration::from_secs(60);
const REQUESTS_CEILING: usize = 1_000_000;

/// The address in the form that one connects to: `:1234` is a port of this machine.
#[must_use]
pub fn connectable(address: &str) -> String {
    let address = address.trim();
    if address.starts_with(':') { format!("localhost{address}") } else { address.to_owned() }
}

fn is_address(address: &str) -> bool {
    let port = address.trim().rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    matches!(port, Some(Ok(_)))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write it like 350ms or 1s"))
}

fn bytes(text: &str) -> Result<usize, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(format!("{unit} is no unit: write it like 65536, 64KiB or 256MiB")),
    };
    let number: usize = number.parse().map_err(|_| "write it like 65536, 64KiB or 256MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

fn rate(text: &str) -> Result<NonZeroUsize, String> {
    NonZeroUsize::new(bytes(text)?).ok_or_else(|| "nothing would ever arrive".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["craq-node"], args].concat())
    }

    #[test]
    fn the_flags_are_consistent_and_their_defaults_work() {
        Config::command().debug_assert();
        let parsed = parse(&[]).unwrap();
        parsed.check().unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn the_short_flags_of_the_ancestor_work() {
        let config = parse(&["-a", ":7", "-p", "h:8", "-c", ":9,h:10", "-f", "x.db"]).unwrap();
        assert_eq!(config.listen, ":7");
        assert_eq!(config.public.as_deref(), Some("h:8"));
        assert_eq!(config.coordinators, [":9", "h:10"]);
        assert_eq!(config.file, PathBuf::from("x.db"));
    }

    #[cfg(feature = "fjall")]
    #[test]
    fn each_durable_store_has_a_name_of_its_own() {
        let file = |args: &[&str]| parse(args).unwrap().file;
        assert_eq!(file(&["--store", "redb"]), PathBuf::from("craq.redb"));
        assert_eq!(file(&["--store", "fjall"]), PathBuf::from("craq.fjall"));
        assert_eq!(file(&["--store", "fjall", "-f", "x"]), PathBuf::from("x"));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_in_the_text() {
        let cases: &[(&[&str], &str)] = &[
            (&["--lease", "100ms"], "--ping-interval"),
            (&["--ping-interval", "0s"], "--ping-interval"),
            (&["--lease", "61s"], "--lease"),
            (&["--heartbeat-interval", "600ms"], "--heartbeat-interval"),
            (&["--value-bytes-max", "4MiB"], "--value-bytes-max"),
            (&["--requests-max", "0"], "--requests-max"),
            (&["--worker-threads", "0"], "--worker-threads"),
            (&["-c", ""], "--coordinator"),
            (&["-c", ":1,db"], "--coordinator"),
            (&["-a", "localhost"], "--listen"),
            (&["-p", "db1:http"], "--public"),
        ];
        for (args, named) in cases {
            let refused = parse(args).unwrap().check().unwrap_err();
            assert!(refused.to_string().starts_with(named), "{args:?}: {refused}");
            assert_eq!(refused.exit_code(), 2);
        }
        assert!(parse(&["--first", "--after", "00000000-0000-0000-0000-000000000001"]).is_err());
        assert!(parse(&["--lease", "fast"]).is_err());
        assert!(parse(&["--cache-size", "1XB"]).is_err());
        assert!(parse(&["--transfer-rate", "0MiB"]).is_err());
        assert_eq!(
            parse(&["--transfer-rate", "2KiB"]).unwrap().transfer_rate.map(NonZeroUsize::get),
            Some(2048)
        );
        assert!(
            parse(&["--value-bytes-max", "3MiB"]).unwrap().check().is_ok(),
            "the ceiling itself is allowed"
        );
    }

    #[test]
    fn the_public_address_is_one_that_can_be_connected_to() {
        let bound: SocketAddr = "[::]:4321".parse().unwrap();
        let public = |args: &[&str], bound| parse(args).unwrap().public_address(bound);
        assert_eq!(public(&["-a", ":0"], bound), "localhost:4321");
        assert_eq!(public(&["-a", "0.0.0.0:0"], bound), "localhost:4321");
        assert_eq!(public(&["-a", "127.0.0.1:0"], "127.0.0.1:77".parse().unwrap()), "127.0.0.1:77");
        assert_eq!(public(&["-a", "[::1]:0"], "[::1]:77".parse().unwrap()), "[::1]:77");
        assert_eq!(public(&["-p", "db1:9"], bound), "db1:9");
        assert_eq!(public(&["-p", ":9"], bound), "localhost:9");
        assert_eq!(public(&["-p", "db1:0"], bound), "db1:4321");
    }
}
