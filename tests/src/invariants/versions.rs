//! Invariant 7: a key's versions are 1, 2, 3 … in commit order, without gaps, as long as its tombstone is kept.

use std::collections::BTreeMap;

use craq_proto::{Entry, Key, Version};

use super::{Checked, ensure, ledger::Place};

const NAME: &str = "versions";

/// Checks the versions of the next committed entry.
pub(super) fn committed(keys: &BTreeMap<Key, Vec<Place>>, entry: &Entry, tombstone_entries: u64) -> Checked {
    for mutation in &entry.mutations {
        let newest = keys.get(&mutation.key).and_then(|places| places.last());
        let expected = newest.map_or(Version::ZERO, |newest| newest.version).next();
        // Once its tombstone may be gone, a key begins anew.
        let begins_anew = mutation.version == Version(1)
            && newest.is_some_and(|newest| {
                newest.is_deleted && entry.seq.0 > newest.seq.0.saturating_add(tombstone_entries)
            });
        let (seq, key, version) = (entry.seq, &mutation.key, mutation.version);
        let is_next = version == expected || begins_anew;
        ensure!(is_next, NAME, "entry {seq} makes version {version} of key {key:?}; the next is {expected}");
        let times = entry.mutations.iter().filter(|other| other.key == mutation.key).count();
        ensure!(times == 1, NAME, "entry {seq} changes key {key:?} {times} times");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{
        ledger::Ledger,
        testing::{deletion, entry},
    };

    /// Whether these are committed one after the other without a violation.
    fn is_legal(entries: &[craq_proto::Entry]) -> bool {
        let mut ledger = Ledger::new(3);
        entries.iter().all(|entry| ledger.append(&Arc::new(entry.clone())).is_ok())
    }

    #[test]
    fn versions_grow_by_one() {
        assert!(is_legal(&[entry(1, 1, "a", 1), entry(2, 1, "b", 1), entry(3, 1, "a", 2)]));
        assert!(!is_legal(&[entry(1, 1, "a", 2)]));
        assert!(!is_legal(&[entry(1, 1, "a", 1), entry(2, 1, "a", 1)]));
        assert!(!is_legal(&[entry(1, 1, "a", 1), entry(2, 1, "a", 3)]));
        assert!(!is_legal(&[entry(1, 1, "a", 1), entry(3, 1, "a", 2)]), "a sequence is left out");
    }

    #[test]
    fn a_key_begins_anew_only_when_its_tombstone_may_be_gone() {
        let others = |seqs: std::ops::RangeInclusive<u64>| seqs.map(|seq| entry(seq, 1, "b", seq - 1));
        let history = |others_up_to: u64, version| {
            let mut entries = vec![deletion(1, 1, "a", 1)];
            entries.extend(others(2..=others_up_to));
            entries.push(entry(others_up_to + 1, 1, "a", version));
            entries
        };
        assert!(is_legal(&history(4, 1)) && is_legal(&history(4, 2)));
        assert!(!is_legal(&history(3, 1)) && is_legal(&history(3, 2)));
        assert!(!is_legal(&[
            entry(1, 1, "a", 1),
            entry(2, 1, "b", 1),
            entry(3, 1, "b", 2),
            entry(4, 1, "b", 3),
            entry(5, 1, "a", 1)
        ]));
    }
}
