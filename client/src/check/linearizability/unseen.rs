//! Which unknown writes that nobody saw have to be tried.
//!
//! Leaving one out is right if any order with it gives one without it. With tombstones kept, a write that nobody saw made
//! a version that is either told by nobody, and then higher than all that are told, so that nothing after it depends on
//! it; or one that is missing among those that are told. So all unseen writes of a key may go if no version is missing
//! there. That nobody can tell a tombstone's version from an answer that a key is absent is the exception.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::history::{Op, Outcome},
    Tombstones,
    problem::Names,
};

/// Which of the unknown writes that nobody saw may matter.
pub(super) fn kept<'a>(ops: &[&Op], seen: &[&Op], unseen: Vec<&'a Op>, names: &Names<'_>) -> Vec<&'a Op> {
    if names.tombstones == Tombstones::Collected {
        return unseen;
    }
    let mut keys = Told::of(ops, seen, names).doubtful(&unseen);
    let (mut kept, mut left) = (Vec::new(), unseen);
    loop {
        let touches = |op: &&Op| op.keys().any(|key| keys.contains(key));
        let (more, rest): (Vec<&Op>, Vec<&Op>) = left.into_iter().partition(touches);
        left = rest;
        if more.is_empty() {
            return kept;
        }
        // Its other keys may then have versions that nobody told.
        keys.extend(more.iter().flat_map(|op| op.keys().map(str::to_owned)));
        kept.extend(more);
    }
}

/// What is told of each key's versions.
#[derive(Default)]
struct Told {
    /// Versions whose write is known.
    made: BTreeMap<String, BTreeSet<u64>>,
    /// The highest version that is told.
    highest: BTreeMap<String, u64>,
    /// Keys that a write changed without a version being told.
    untold: BTreeSet<String>,
    /// Keys of which it was said that they do not exist, and not as which version.
    absent: BTreeSet<String>,
}

impl Told {
    fn of(ops: &[&Op], seen: &[&Op], names: &Names<'_>) -> Self {
        let mut told = Self::default();
        for op in ops {
            for (change, version) in op.applied() {
                told.made.entry(change.key.clone()).or_default().insert(version);
                told.raise(&change.key, version);
            }
            for (key, found) in op.found() {
                told.raise(key, found.version);
                if found.value.is_some() {
                    told.made.entry(key.to_owned()).or_default().insert(found.version);
                } else if found.version == 0 && op.keys().nth(1).is_some() {
                    told.absent.insert(key.to_owned());
                }
            }
            match &op.outcome {
                Outcome::ConditionFailed { key, observed: 0 } => _ = told.absent.insert(key.clone()),
                Outcome::ConditionFailed { key, observed } => told.raise(key, *observed),
                _ => {}
            }
        }
        for change in seen.iter().flat_map(|op| op.changes()) {
            if names.seen_of(change).is_none() {
                told.untold.insert(change.key.clone());
            }
        }
        told
    }

    fn raise(&mut self, key: &str, version: u64) {
        let highest = self.highest.entry(key.to_owned()).or_default();
        *highest = version.max(*highest);
    }

    /// Keys of which an unseen write may matter.
    fn doubtful(mut self, unseen: &[&Op]) -> BTreeSet<String> {
        let deleted: BTreeSet<&str> = unseen
            .iter()
            .flat_map(|op| op.changes())
            .filter(|change| change.value.is_none())
            .map(|change| change.key.as_str())
            .collect();
        let mut doubtful = self.untold;
        doubtful.extend(self.absent.into_iter().filter(|key| deleted.contains(key.as_str())));
        for (key, highest) in self.highest {
            let made = self
                .made
                .remove(&key)
                .map_or(0, |made| made.iter().filter(|version| **version > 0).count() as u64);
            if made < highest {
                doubtful.insert(key);
            }
        }
        doubtful
    }
}
