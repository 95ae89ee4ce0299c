//! What the map says of one key, in 16 bytes where it can: there is one of these for each key.
//!
//! Never here: which versions are committed, and what a reader makes of it (see `versions` and `read`).

use std::num::NonZeroU64;

use craq_proto::{Seq, Version};

use super::{event::Position, versions::KeyState};

/// What is held of a key: its newest committed version, its newest uncommitted one, or both.
#[derive(Debug)]
pub(super) struct Slot(Held);

#[derive(Debug)]
enum Held {
    /// Most keys: a committed version alone.
    Clean(Packed),
    Other(Box<Other>),
}

#[derive(Debug)]
struct Other {
    clean: Option<Position>,
    latest: Option<Position>,
}

impl Slot {
    /// None: there is nothing to be held.
    pub(super) fn of(clean: Option<Position>, latest: Option<Position>) -> Option<Self> {
        match (clean, latest) {
            (None, None) => None,
            (Some(clean), None) => Some(Self::clean(clean)),
            (clean, latest) => Some(Self(Held::Other(Box::new(Other { clean, latest })))),
        }
    }

    /// Of a key whose newest version is committed.
    pub(super) fn clean(position: Position) -> Self {
        let other = || Held::Other(Box::new(Other { clean: Some(position), latest: None }));
        Self(Packed::of(position).map_or_else(other, Held::Clean))
    }

    /// Of a key whose newest version is not known to be committed.
    pub(super) fn dirty(clean: Option<Position>, latest: Position) -> Self {
        Self(Held::Other(Box::new(Other { clean, latest: Some(latest) })))
    }

    /// The newest committed version.
    pub(super) fn committed(&self) -> Option<Position> {
        match &self.0 {
            Held::Clean(packed) => Some(packed.position()),
            Held::Other(other) => other.clean,
        }
    }

    /// The newest version, if it is dirty.
    pub(super) fn latest(&self) -> Option<Position> {
        match &self.0 {
            Held::Clean(_) => None,
            Held::Other(other) => other.latest,
        }
    }

    pub(super) fn state(&self) -> KeyState {
        match (self.committed(), self.latest()) {
            (None, None) => KeyState::Absent,
            (Some(clean), None) => KeyState::Clean(clean),
            (clean, Some(latest)) => KeyState::Dirty { clean, latest },
        }
    }
}

const INDEX_BITS: u32 = 23;
/// Those left beside the index and whether it is a deletion.
const VERSION_BITS: u32 = 64 - INDEX_BITS - 1;

/// A position whose version and index are small enough: below 2^40 and 2^23.
#[derive(Debug, Clone, Copy)]
struct Packed {
    seq: u64,
    /// From the highest bits: version, index, whether it is a deletion. A version is never zero.
    rest: NonZeroU64,
}

impl Packed {
    fn of(position: Position) -> Option<Self> {
        let Position { seq, index, version, deleted } = position;
        if version.0 >> VERSION_BITS != 0 || index >> INDEX_BITS != 0 {
            return None;
        }
        let rest = (version.0 << INDEX_BITS | u64::from(index)) << 1 | u64::from(deleted);
        NonZeroU64::new(rest).map(|rest| Self { seq: seq.0, rest })
    }

    fn position(self) -> Position {
        let rest = self.rest.get();
        let index = rest >> 1 & ((1 << INDEX_BITS) - 1);
        Position {
            seq: Seq(self.seq),
            index: u32::try_from(index).expect("an index has 23 bits"),
            version: Version(rest >> (INDEX_BITS + 1)),
            deleted: rest & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_no_more_than_it_is_said_to() {
        assert_eq!(size_of::<Slot>(), 16);
    }

    #[test]
    fn every_position_comes_out_as_it_went_in() {
        let numbers = |bits: u32| [0, 1, (1 << bits) - 1, 1 << bits, u64::MAX / 2];
        for version in numbers(VERSION_BITS).map(Version) {
            for index in numbers(INDEX_BITS).map(|index| u32::try_from(index).unwrap_or(u32::MAX)) {
                for (seq, deleted) in [(Seq(0), false), (Seq(7), true), (Seq(u64::MAX / 2), true)] {
                    let position = Position { seq, index, version, deleted };
                    assert_eq!(Slot::clean(position).state(), KeyState::Clean(position));
                    let is_small = version.0 < 1 << VERSION_BITS && index < 1 << INDEX_BITS;
                    let is_zero = version.0 == 0 && index == 0 && !deleted;
                    assert_eq!(Packed::of(position).is_some(), is_small && !is_zero, "{position:?}");
                }
            }
        }
    }

    #[test]
    fn a_dirty_key_has_both_its_versions() {
        let at = |seq| Position { seq: Seq(seq), index: 0, version: Version(seq), deleted: false };
        assert!(Slot::of(None, None).is_none());
        let slot = Slot::of(Some(at(1)), Some(at(2))).unwrap();
        assert_eq!(slot.state(), KeyState::Dirty { clean: Some(at(1)), latest: at(2) });
        assert_eq!((slot.committed(), slot.latest()), (Some(at(1)), Some(at(2))));
        assert_eq!(Slot::dirty(None, at(2)).state(), KeyState::Dirty { clean: None, latest: at(2) });
    }
}
