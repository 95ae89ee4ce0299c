//! The node: a replica of each chain that it takes part in.

pub mod replica;
pub mod store;
