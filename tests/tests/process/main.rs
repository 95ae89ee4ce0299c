//! Clusters of the real binaries, under load and under faults.
//!
//! One cluster at a time: every test takes its [`support::turn`] first, since times are judged. How many rounds a test
//! makes is set by `CRAQ_TEST_ROUNDS`; lines that begin with `figure:` are measured (`--nocapture` shows them).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, and helpers outside of a test function are tests too"
)]

mod bench;
mod check;
mod command_line;
mod coordinator;
mod disk;
mod hostile;
mod kills;
mod leaders;
mod limits;
mod membership;
mod nemesis;
mod partitions;
mod pauses;
mod pretenders;
mod regressions;
mod restarts;
mod sessions;
mod stops;
mod support;
mod transfer;
