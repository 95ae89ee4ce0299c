//! Every decoder of bytes from outside, each behind a function that takes any bytes and must not panic.
//!
//! What a decoder takes must be canonical: it is encoded again and must come out the same. The functions are called by
//! `tests/tests/bytes.rs` with seeded bytes, a few seconds each, and by the targets in `tests/fuzz/`, for as long as one likes.

mod command_line;
mod log;
mod mutate;
mod store;
mod text;
mod wire;

pub use mutate::Mutator;

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the name of its file in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Panics if the decoder does, or if what it takes is not canonical.
    pub body: fn(&[u8]),
    /// Inputs that decode, to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "messages", body: wire::messages, seeds: wire::message_seeds },
    Target { name: "link", body: wire::link, seeds: wire::link_seeds },
    Target { name: "node_message", body: wire::node_message, seeds: wire::node_message_seeds },
    Target { name: "error", body: wire::error, seeds: wire::error_seeds },
    Target { name: "row", body: store::row, seeds: store::row_seeds },
    Target { name: "store", body: store::store, seeds: store::store_seeds },
    Target { name: "log", body: log::log, seeds: log::log_seeds },
    Target { name: "command_line", body: command_line::command_line, seeds: command_line::seeds },
    Target { name: "text", body: text::text, seeds: text::seeds },
];

/// The target of this name, which must be one.
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("{name} is no target"))
}
