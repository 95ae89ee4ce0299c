//! Where a process runs. Addresses in views are the names of places.

use std::fmt;

/// A machine with a node, a coordinator, or a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A machine that runs a node.
    Node(usize),
    /// A coordinator.
    Coordinator(usize),
    /// A client.
    Client(usize),
    /// What happens to the world itself.
    World,
}

impl Place {
    /// The place that an address names.
    #[must_use]
    pub(super) fn of(address: &str) -> Option<Self> {
        let index = address.get(1..)?.parse().ok()?;
        match address.as_bytes()[0] {
            b'n' => Some(Self::Node(index)),
            b'c' => Some(Self::Coordinator(index)),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Node(index) => format!("n{index}"),
            Self::Coordinator(index) => format!("c{index}"),
            Self::Client(index) => format!("u{index}"),
            Self::World => "*".to_owned(),
        };
        f.pad(&text)
    }
}

/// One process at a place: what is meant for it is not for the next one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    /// Where.
    pub(super) place: Place,
    /// Which of the processes that ever ran there.
    pub(super) process: u64,
}
