//! Clusters of the real binaries on this machine: spawned on free ports in a temporary directory, killed, paused,
//! restarted, asked. All of them die with the test.
//!
//! [`Cluster`] is the whole; [`child`] one process; [`ask`] what a process tells of itself; [`wait`] polls with a
//! deadline, since no test takes a pause for a proof that something has happened.

pub mod ask;
pub mod child;
mod cluster;
mod spec;
pub mod wait;

pub use child::{Child, Exit};
pub use cluster::{Cluster, Node, PATIENCE};
pub use spec::{Binaries, Builder, NodeSpec, Store, free_address};
