//! Ids and numbers, each a type of its own so that none is taken for another.
//!
//! `version` belongs to a key, `epoch` to a chain, `seq` to a log (see `protocol.md` 1).

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// A node: one store. Made once, kept in the store.
    NodeId
}
uuid_id! {
    /// A cluster: one coordinator's state. What belongs to another cluster is refused.
    ClusterId
}
uuid_id! {
    /// A coordinator's process, as it signs its records in the log.
    HolderId
}
uuid_id! {
    /// A client that names its requests.
    ClientId
}

/// No number that comes from elsewhere (a message, a record) is above this, so whatever counts on from it never runs past
/// the end. No counter of a correct process gets here.
pub const NUMBER_MAX: u64 = u64::MAX / 2;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one before the first.
            pub const ZERO: Self = Self(0);

            /// The one after this. Panics at the end of `u64`, which no counter here reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a counter ran past the end of u64"))
            }

            /// The one before this; zero's is zero.
            #[must_use]
            pub fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Number of a chain's view; grows by one with every change, never falls.
    Epoch
}
number! {
    /// Number of a coordinator's leadership: grows by one with every change of the leader. Nodes refuse lower ones than
    /// they have seen.
    Term
}
number! {
    /// Position of an entry in its chain's log: 1, 2, 3 …; 0 is before the first.
    Seq
}
number! {
    /// Per-key counter: 1 for a key's first write, one more for each further one, deletions included; 0 means absent.
    Version
}
number! {
    /// Number of a node's process start, kept in its store.
    Incarnation
}

/// A chain's name: 1 to 64 of `[a-z0-9_-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(Arc<str>);

/// The text is no name of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a chain's name is 1 to 64 of a-z, 0-9, _ and -, not {0:?}")]
pub struct BadChainId(pub String);

impl ChainId {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// The chain `default`, which is used where none is named.
    #[must_use]
    pub fn default_chain() -> Self {
        Self("default".into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ChainId {
    type Error = BadChainId;

    fn try_from(name: String) -> Result<Self, BadChainId> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > Self::BYTES_MAX || !name.bytes().all(legal) {
            let shown = name.chars().take(80).collect();
            return Err(BadChainId(shown));
        }
        Ok(Self(name.into()))
    }
}

impl std::str::FromStr for ChainId {
    type Err = BadChainId;

    fn from_str(name: &str) -> Result<Self, BadChainId> {
        name.to_owned().try_into()
    }
}

impl From<ChainId> for String {
    fn from(id: ChainId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A point in time on this machine's own clock: what has passed since some start.
///
/// Counts while the machine sleeps (`CLOCK_BOOTTIME` on Linux). Never compared between machines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub Duration);

impl Time {
    /// The start.
    pub const ZERO: Self = Self(Duration::ZERO);
    /// Later than any time.
    pub const MAX: Self = Self(Duration::MAX);

    /// So many milliseconds after the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_id_refuses_what_is_no_name() {
        for bad in ["", "A", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<ChainId>().is_err(), "{bad:?} was taken");
        }
        for good in ["default", "a", "a-1_b", &"x".repeat(64)] {
            assert_eq!(good.parse::<ChainId>().unwrap().as_str(), good);
        }
    }
}
