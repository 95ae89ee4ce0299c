//! Decoders of bytes from outside that no other public item reaches, for tests of hostile bytes. Not part of the API.
//!
//! What stands on disk is reached through [`store`](crate::store) on a backend in memory, and flags through
//! [`Config`](crate::Config).

use craq_proto::{convert::Malformed, wire::link_message::Body};

use crate::{peers, replica::event::Message};

/// What was said on a link, as the replica gets it.
pub fn link_message(body: Option<Body>) -> Result<Message, Malformed> {
    peers::from_wire(body)
}

/// The message as it travels; none: what is in it does not match its checksum.
#[must_use]
pub fn link_body(message: Message) -> Option<Body> {
    peers::to_wire(message).ok()
}
