//! What can be configured: each setting is a flag and an environment variable.

use std::{io, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The coordinator of a craq cluster: decides which nodes make up the chain, and in which order.
///
/// Start one coordinator, then nodes that are told its address. It notices when a node dies or comes back and changes
/// the chain accordingly; it is not needed to read or to write while the chain is whole. All that it knows is in its
/// data directory: start it again with the same one and it goes on where it was. Without the directory the cluster
/// cannot be changed any more, so keep it on a disk that lasts.
///
/// Logs go to stderr; RUST_LOG filters them (default: info), for instance RUST_LOG=craq_coordinator=debug.
#[derive(Debug, Clone, Parser)]
#[command(name = "craq-coordinator", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on, host:port. Without a host: all interfaces. Port 0: any free one, which is then logged.
    #[arg(short = 'a', long, env = "CRAQ_LISTEN", value_name = "ADDRESS", default_value = ":1234")]
    pub listen: String,

    /// Directory of the log of views. Made if it does not exist, readable for its owner only.
    #[arg(long, env = "CRAQ_DATA", value_name = "DIR", default_value = "craq-coordinator")]
    pub data: PathBuf,

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
}

impl Config {
    /// Whether the settings fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (heartbeat, failure) = (self.heartbeat_interval, self.failure_timeout);
        if heartbeat < Duration::from_millis(1) || heartbeat > failure / 3 {
            return Err(ConfigError::Heartbeat { heartbeat, failure });
        }
        Ok(())
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
}
