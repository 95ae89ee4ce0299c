//! Decoders of what nodes say, for tests of hostile bytes. Not part of the API.
//!
//! Records of the log are reached through `craq_log::Log` on a store in memory.

use craq_proto::{
    convert::{Header, Malformed},
    wire,
};

use crate::{
    cluster::{Registration, Replicas, Suspicion},
    convert,
};

/// A node's first message.
pub fn registration(header: &Header, register: wire::Register) -> Result<Registration, Malformed> {
    convert::registration(header, register)
}

/// A node's further messages.
pub fn heartbeat(heartbeat: wire::Heartbeat) -> Result<(Replicas, Vec<Suspicion>), Malformed> {
    Ok((convert::replicas(heartbeat.replicas)?, convert::suspicions(heartbeat.suspicions)?))
}
