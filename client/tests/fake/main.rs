//! The client against processes that say what a test wants: what it asks, whom, and what it makes of the answers.
//!
//! Never a real node or coordinator: those meet the client in the whole-system tests.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

mod cli;
mod control;
mod process;
mod reads;
mod scans;
mod status;
mod writes;
