//! A craq node: one replica of each chain that it is part of, and everything around it.
//!
//! - [`replica`]: the protocol, as a state machine without clock, socket or disk.
//! - [`store`]: what it keeps, and the backends that keep it.
//! - `driver`: the loop that owns a replica; `peers`: the way to the other nodes; `heartbeat`: the conversation with the
//!   coordinator; `service`: gRPC, for clients and nodes. None of these decides anything about the protocol.
//! - [`config`]: flags; `limits`: every other number of the network side; `clock`, `logging`, `fatal`: time, log lines, the end.
//!
//! A node is a process: [`start`] is all of it. [`run`] is the same on a backend of one's own.

mod clock;
pub mod config;
#[doc(hidden)]
pub mod decode;
mod driver;
pub mod error;
mod fatal;
mod heartbeat;
mod identity;
mod limits;
mod logging;
mod node;
mod peers;
pub mod replica;
mod service;
mod startup;
mod status;
mod stop;
pub mod store;

pub use config::Config;
pub use error::NodeError;
pub use startup::{run, start};
