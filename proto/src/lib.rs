//! The vocabulary that craq's processes share.
//!
//! [`id`], [`key`], [`entry`] and [`view`] are the domain; [`wire`] is what prost and tonic generate from
//! `proto/craq/v1/*.proto`; [`convert`] leads from one to the other and is the only place that refuses malformed
//! messages; [`error`] is how an error crosses the network; [`planted`] has bugs for tests to find.
//! Never here: decisions of the protocol (see `craq_node::replica`), sockets, clocks.

pub mod convert;
pub mod entry;
pub mod error;
pub mod id;
pub mod key;
pub mod planted;
pub mod view;

pub use entry::{Entry, Mutation, Op, Outcome, RequestId, Row};
pub use error::{CallError, ErrorKind};
pub use id::{
    ChainId, ClientId, ClusterId, Epoch, HolderId, Incarnation, NUMBER_MAX, NodeId, Seq, Term, Time, Version,
};
pub use key::{Key, Value};
pub use view::{EXPELLED_MAX, Expelled, Learner, Member, Role, View};

/// The generated messages, clients and servers of package `craq.v1`. Documented in the `.proto` files.
pub mod wire {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated code")]
    #![allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "generated code"
    )]
    tonic::include_proto!("craq.v1");

    /// The descriptors of the package, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
