//! What can be configured: each setting is a flag and an environment variable.

use std::{io, net::SocketAddr, time::Duration};

use clap::{Parser, ValueEnum};
use craq_log::Location;
use tracing_subscriber::EnvFilter;

use crate::leadership::{Timing, TimingError};

/// The lease of leaders whose log is in a directory or in memory.
const DISK_LEASE: Duration = Duration::from_secs(2);
/// The lease of leaders whose log is on an object store.
const CLOUD_LEASE: Duration = Duration::from_secs(10);

/// The coordinator of a craq cluster: decides which nodes make up the chain, and in which order.
///
/// Start one coordinator, or three with the same --data, then nodes that are told their addresses. One of them leads: it
/// notices when a node dies or comes back and changes the chain accordingly; another one takes over when it dies. None is
/// needed to read or to write while the chain is whole. All that they know is in --data: whoever is started with the same
/// goes on where the last one was, on any machine. Without it the cluster cannot be changed any more, so keep it where it
/// lasts.
///
/// Object stores take their credentials from the usual variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
/// GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and so on).
///
/// Logs go to stderr; RUST_LOG filters them (default: info), for instance RUST_LOG=craq_coordinator=debug.
#[derive(Debug, Clone, Parser)]
#[command(name = "craq-coordinator", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on, host:port. Without a host: all interfaces. Port 0: any free one, which is then logged.
    #[arg(short = 'a', long, env = "CRAQ_LISTEN", value_name = "ADDRESS", default_value = ":1234")]
    pub listen: String,

    /// Where the other coordinators, the nodes and the clients reach this one [default: where it listens].
    #[arg(short = 'p', long, env = "CRAQ_PUBLIC", value_name = "ADDRESS")]
    pub public: Option<String>,

    /// Where the log is: a directory (made if it does not exist, readable for its owner only), file:///DIR,
    /// s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or memory:// for tests. The same for all
    /// coordinators of a cluster.
    #[arg(long, env = "CRAQ_DATA", value_name = "DIR|URL", default_value = "craq-coordinator")]
    pub data: Location,

    /// URL of an object store that is not the provider's own (for S3 also: AWS_ENDPOINT_URL).
    #[arg(long, env = "CRAQ_DATA_ENDPOINT", value_name = "URL")]
    pub data_endpoint: Option<String>,

    /// For so long every view is kept, for `craq topology history`.
    #[arg(long, env = "CRAQ_HISTORY", value_name = "TIME", default_value = "30d",
          value_parser = humantime::parse_duration)]
    pub history: Duration,

    /// A leading coordinator that was not heard of in the log for so long is replaced [default: 2s in a directory, 10s on
    /// an object store]. The same for all coordinators of a cluster.
    #[arg(long, env = "CRAQ_LEADER_LEASE", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub leader_lease: Option<Duration>,

    /// How often the leading coordinator writes into the log [default: a quarter of its lease].
    #[arg(long, env = "CRAQ_LEADER_RENEW", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub leader_renew: Option<Duration>,

    /// A coordinator that could not write for so long leads no longer [default: 65% of its lease].
    #[arg(long, env = "CRAQ_LEADER_STEP_DOWN", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub leader_step_down: Option<Duration>,

    /// A node that is silent for so long is taken out of its chain. Shorter: failures are noticed sooner, and a busy
    /// machine is taken for a dead one more often.
    #[arg(long, env = "CRAQ_FAILURE_TIMEOUT", value_name = "TIME", default_value = "1s",
          value_parser = humantime::parse_duration)]
    pub failure_timeout: Duration,

    /// How often nodes say that they are alive. At most a third of the failure timeout.
    #[arg(long, env = "CRAQ_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "200ms",
          value_parser = humantime::parse_duration)]
    pub heartbeat_interval: Duration,

    /// How log lines look.
    #[arg(long, env = "CRAQ_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Plain)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

/// A setting is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nodes would be taken for dead between two heartbeats.
    #[error(
        "the heartbeat interval ({heartbeat:?}) must be above zero and at most a third of the failure timeout ({failure:?})"
    )]
    Heartbeat {
        /// The heartbeat interval.
        heartbeat: Duration,
        /// The failure timeout.
        failure: Duration,
    },
    /// The times of the leadership do not fit together.
    #[error("--leader-lease, --leader-renew, --leader-step-down: {0}")]
    Leader(#[from] TimingError),
}

impl Config {
    /// Whether the settings fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (heartbeat, failure) = (self.heartbeat_interval, self.failure_timeout);
        if heartbeat < Duration::from_millis(1) || heartbeat > failure / 3 {
            return Err(ConfigError::Heartbeat { heartbeat, failure });
        }
        Ok(self.timing().check()?)
    }

    /// The times of the leadership.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let fitting = if self.data.is_cloud() { CLOUD_LEASE } else { DISK_LEASE };
        let fitting = Timing::of_lease(self.leader_lease.unwrap_or(fitting));
        Timing {
            renew_interval: self.leader_renew.unwrap_or(fitting.renew_interval),
            step_down: self.leader_step_down.unwrap_or(fitting.step_down),
            ..fitting
        }
    }

    /// The address that the others are told, once it is known which port was bound.
    #[must_use]
    pub fn public_address(&self, bound: SocketAddr) -> String {
        match &self.public {
            // A port of this machine.
            Some(public) if public.starts_with(':') => format!("localhost{public}"),
            Some(public) => public.clone(),
            None if bound.ip().is_unspecified() => format!("localhost:{}", bound.port()),
            None => bound.to_string(),
        }
    }

    /// Sets up the process's log, as configured.
    pub fn start_log(&self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        match self.log_format {
            LogFormat::Plain => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
            LogFormat::Json => log.json().init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Config {
        Config::parse_from([&["craq-coordinator"], arguments].concat())
    }

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(parse(&[]).check(), Ok(()));
    }

    #[test]
    fn a_heartbeat_above_a_third_of_the_failure_timeout_is_refused() {
        assert!(parse(&["--heartbeat-interval", "334ms"]).check().is_err());
        assert!(parse(&["--heartbeat-interval", "0s"]).check().is_err());
        assert!(parse(&["--heartbeat-interval", "1s", "--failure-timeout", "3s"]).check().is_ok());
    }

    #[test]
    fn the_lease_fits_where_the_log_is_and_times_that_do_not_fit_are_refused() {
        let timing = |arguments: &[&str]| parse(arguments).timing();
        assert_eq!(timing(&[]).lease, DISK_LEASE);
        assert_eq!(timing(&["--data", "s3://bucket/a"]).lease, CLOUD_LEASE);
        assert!(parse(&["--data", "gs://bucket/a"]).check().is_ok());
        for bad in [
            &["--leader-renew", "1s"][..],
            &["--leader-renew", "0s"],
            &["--leader-step-down", "2s"],
            &["--leader-step-down", "1600ms"],
            &["--leader-lease", "1500ms", "--leader-step-down", "1300ms"],
            &["--leader-lease", "0s"],
        ] {
            let refused = parse(bad).check().expect_err("it does not fit").to_string();
            assert!(refused.starts_with("--leader-lease"), "{bad:?}: {refused}");
        }
        assert!(parse(&["--leader-lease", "800ms"]).check().is_ok());
        assert!(Config::try_parse_from(["craq-coordinator", "--data", "ftp://x"]).is_err());
    }
}
