//! Values that were read lately: a hot key costs no look into the backend, no decoding and no checksum.
//!
//! Readers fill it with what they were allowed to answer, which is committed; and what is committed at a position stays
//! as it is. Only a replica that gives its whole history up may hold something else there one day. So what is kept belongs
//! to a [`History`]: a reader takes that before it looks where a value lies, and keeps the value after its permit was
//! checked. A wipe begins another one when the map of positions is empty already.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use craq_proto::{Key, Seq, entry::Found};
use quick_cache::{Weighter, sync::Cache};

use crate::replica::event::Position;

/// Bytes that a value takes beside itself and its key, about.
const OVERHEAD: usize = 200;
/// A value that would take more than this part of the memory is not kept.
const SHARE_MAX: usize = 64;

/// Which course of the log positions belong to: from one wipe to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct History(u64);

type Place = (History, Seq, u32);

#[derive(Debug, Clone)]
struct Kept {
    key: Bytes,
    found: Found,
}

/// How much memory it takes to keep this, in bytes, about.
fn weight(key: &[u8], found: &Found) -> usize {
    OVERHEAD + key.len() + found.value.len()
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Place, Kept> for ByBytes {
    fn weight(&self, _: &Place, kept: &Kept) -> u64 {
        weight(&kept.key, &kept.found) as u64
    }
}

/// The values of one chain.
#[derive(Debug)]
pub(super) struct Recent {
    history: AtomicU64,
    bytes_max: usize,
    values: Cache<Place, Kept, ByBytes>,
}

impl Recent {
    /// Takes up to about so many bytes of memory; zero: keeps nothing.
    pub(super) fn new(bytes_max: usize) -> Self {
        let values = Cache::with_weighter(bytes_max / (OVERHEAD + 500), bytes_max as u64, ByBytes);
        Self { history: AtomicU64::new(0), bytes_max, values }
    }

    pub(super) fn history(&self) -> History {
        History(self.history.load(Ordering::Acquire))
    }

    /// Nothing that was kept before is found any more.
    pub(super) fn begin_history(&self) {
        self.history.fetch_add(1, Ordering::AcqRel);
        self.values.clear();
    }

    pub(super) fn get(&self, history: History, key: &Key, position: Position) -> Option<Found> {
        if self.bytes_max == 0 {
            return None;
        }
        let kept = self.values.get(&(history, position.seq, position.index))?;
        (kept.key == key.as_bytes() && kept.found.version == position.version).then_some(kept.found)
    }

    /// Copied, since the bytes may be part of something larger.
    pub(super) fn keep(&self, history: History, key: &Key, position: Position, found: &Found) {
        let place = (history, position.seq, position.index);
        if weight(key.as_ref(), found) * SHARE_MAX > self.bytes_max {
            return;
        }
        let both = [key.as_bytes().as_ref(), &found.value].concat();
        let mut value = Bytes::from(both);
        let key = value.split_to(key.as_bytes().len());
        self.values.insert(place, Kept { key, found: Found { value, ..found.clone() } });
    }
}

#[cfg(test)]
mod tests {
    use craq_proto::Version;

    use super::*;

    fn key(name: &'static str) -> Key {
        Key::new(name).unwrap()
    }

    fn position(seq: u64, version: u64) -> Position {
        Position { seq: Seq(seq), index: 0, version: Version(version), deleted: false }
    }

    fn found(seq: u64, version: u64, value: &'static str) -> Found {
        Found { value: Bytes::from(value), version: Version(version), seq: Seq(seq), checksum: 7 }
    }

    #[test]
    fn what_is_kept_is_found_by_its_whole_name() {
        let recent = Recent::new(1 << 20);
        let history = recent.history();
        recent.keep(history, &key("a"), position(3, 1), &found(3, 1, "one"));
        assert_eq!(recent.get(history, &key("a"), position(3, 1)), Some(found(3, 1, "one")));
        assert_eq!(recent.get(history, &key("b"), position(3, 1)), None);
        assert_eq!(recent.get(history, &key("a"), position(3, 2)), None);
        assert_eq!(recent.get(history, &key("a"), position(4, 1)), None);
    }

    #[test]
    fn a_reader_of_the_history_before_leaves_nothing_to_the_next() {
        let recent = Recent::new(1 << 20);
        let before = recent.history();
        recent.keep(before, &key("a"), position(3, 1), &found(3, 1, "one"));
        recent.begin_history();
        recent.keep(before, &key("a"), position(3, 1), &found(3, 1, "late"));
        assert_eq!(recent.get(recent.history(), &key("a"), position(3, 1)), None);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_kept_without_any() {
        let recent = Recent::new(100_000);
        for seq in 1..=1_000 {
            recent.keep(recent.history(), &key("a"), position(seq, seq), &found(seq, seq, "value"));
        }
        assert!(recent.values.weight() <= 100_000 && recent.values.len() > 100);
        let huge = Found { value: Bytes::from(vec![0; 10_000]), ..found(1, 1, "") };
        recent.keep(recent.history(), &key("b"), position(9_999, 1), &huge);
        assert_eq!(recent.get(recent.history(), &key("b"), position(9_999, 1)), None);
        let none = Recent::new(0);
        none.keep(none.history(), &key("a"), position(3, 1), &found(3, 1, "one"));
        assert_eq!(none.get(none.history(), &key("a"), position(3, 1)), None);
    }
}
