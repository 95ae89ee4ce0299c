//! Whole clusters on one thread in virtual time, from one seed, under every fault.
//!
//! What runs is what is shipped: [`craq_node::replica::Replica`], [`craq_coordinator::cluster::Cluster`] and its log, the
//! chain store on a simulated disk (or the shipped redb on a simulated file), and the client's routing and retries. What
//! stands between them in the shipped programs, sockets and tasks, is replaced by one queue of events.
//!
//! A run has three parts: faults happen while clients call; then all faults end and the chain must become whole and
//! writable in time; then everything is read at every node. The invariants of the protocol are checked at every step
//! ([`crate::invariants`]), and what the clients saw is judged at the end ([`craq_client::check`]).
//!
//! Where to read on: [`setup`] says what a seed draws, [`fault`] what may go wrong. `world` has the queue; `machine`,
//! `peer`, `service` and `heartbeat` are a node, `coordinator` and `client` what they say; `pipe`, `call` and `network` is
//! how they reach each other; `nemesis` makes the faults, [`outage`](mod@outage) a long one; `trace` says how to read what happened.

mod call;
pub mod campaign;
mod client;
mod coordinator;
pub mod disk;
pub mod fault;
mod heartbeat;
#[cfg(feature = "planted")]
pub mod hunt;
mod machine;
mod nemesis;
mod network;
pub mod outage;
mod peer;
mod pipe;
mod place;
mod run;
mod service;
pub mod setup;
mod time;
mod trace;
mod world;

pub use campaign::{Campaign, Summary};
pub use fault::{Fault, Faults, Fired};
pub use outage::{Outage, outage};
pub use run::{Report, digest, run, trace};
pub use setup::Setup;
pub use world::Violation;
