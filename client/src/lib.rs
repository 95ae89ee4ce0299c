//! The client library of craq, a replicated key-value store.
//!
//! A [`Client`] starts from any coordinator or node, follows the views of its chain, spreads strong reads over all
//! in-sync replicas and sends writes straight to the head. It repeats what is safe to repeat until the call's timeout,
//! writes under one request id, so that each takes effect at most once. In the end it says truly what is known: a
//! write is applied (`Ok`), certainly not applied, or [`Error::OutcomeUnknown`] with the id under which repeating it is
//! safe.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use craq_client::{Client, Condition, Consistency, Error, Options, Range};
//! use futures::TryStreamExt as _;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Error> {
//! // Coordinators, nodes, or both: whoever answers tells who makes up the chain.
//! let client = Client::connect([":1234", ":1235"]).await?;
//!
//! let written = client.write("greeting", "hello").await?;
//! let read = client.read("greeting").await?;
//! assert_eq!(read.value.as_deref(), Some(&b"hello"[..]));
//!
//! // Only if nobody wrote it in between.
//! match client.write_if("greeting", "goodbye", Condition::Version(written.version)).await {
//!     Ok(outcome) => println!("version {}", outcome.version),
//!     Err(Error::ConditionFailed { observed }) => println!("somebody was faster: version {observed}"),
//!     Err(Error::OutcomeUnknown { request, .. }) => {
//!         // It may have happened. Repeating it under the same id is safe.
//!         let options = Options::new().condition(Condition::Version(written.version)).request(request);
//!         client.write_with("greeting", "goodbye", &options).await?;
//!     }
//!     Err(error) => return Err(error),
//! }
//!
//! // Many keys at once, each read for itself.
//! let reads = client.read_many(["greeting", "farewell"], &Options::new()).await?;
//! assert_eq!(reads.len(), 2);
//!
//! // From any replica that heard from the chain lately.
//! let options = Options::new().consistency(Consistency::Bounded(Duration::from_millis(500)));
//! let read = client.read_with("greeting", &options).await?;
//! println!("found: {}", read.is_found());
//!
//! let items: Vec<_> = client.scan(Range::prefix("gree").limit(10), Options::new()).try_collect().await?;
//! println!("{} keys", items.len());
//! # Ok(())
//! # }
//! ```
//!
//! Never here: keeping values (a read always asks), or printing. Where to read on: `call` has the one loop of all
//! calls, `retry` and `routing` decide and are pure, `failure` says what a failed attempt proves.

mod address;
mod admin;
mod batch;
mod call;
mod channels;
pub mod check;
mod client;
mod coordinators;
mod error;
mod failure;
mod follow;
mod kv;
mod options;
mod outcome;
mod request;
mod retry;
mod routing;
mod scan;
mod session;
mod shared;
mod status;

/// Decoders that no other public item reaches, for tests of hostile bytes. Not part of the API.
#[doc(hidden)]
pub mod decode {
    /// `host:port` as it can be connected to.
    pub fn address(text: &str) -> Result<String, crate::Error> {
        crate::address::dial(text)
    }
}

pub use client::{Builder, Client};
pub use coordinators::{CoordinatorStatus, PastView};
pub use error::Error;
pub use options::{Condition, Consistency, Options, TIMEOUT_DEFAULT};
pub use outcome::{Item, Page, ReadOutcome, ReadPath, WriteOutcome};
pub use request::{BadRequestToken, REQUEST_TEXT_CHARS_MAX, RequestToken};
pub use scan::Range;
pub use status::{ChainStatus, MemberStatus, ReadCounts, SpareStatus, Status, json_number};

/// The half of the client that decides: where a request goes, whether it goes again, what is known of it in the end.
/// For simulations, which drive it in virtual time; no stable interface.
#[doc(hidden)]
pub mod pure {
    pub use crate::{
        failure::Failure,
        kv::READ_ATTEMPT_TIMEOUT,
        request::{Requests, Ticket},
        retry::{Next, Retries},
        routing::Routes,
    };
}

/// The vocabulary of the store: ids, numbers, views.
pub use craq_proto as proto;
