//! The part of a chain's log that is not known to be committed, and how far the log is durable.
//!
//! Everything at or below `commit` lives in the store alone; what is above is held here too, since it may still have to
//! be sent, truncated or committed. Never touches the store: see `commit` for when a write counts as durable.

use std::{collections::VecDeque, sync::Arc};

use craq_proto::{
    Entry, Epoch, Seq,
    planted::{self, Bug},
};

use super::event::Run;

/// The uncommitted end of the log. Volatile; rebuilt from the store at start.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    /// Everything at or below is committed.
    pub(super) commit: Seq,
    /// The highest sequence held.
    pub(super) last: Seq,
    /// The highest sequence up to which all is on stable storage.
    pub(super) durable: Seq,
    /// The entries from `commit + 1` to `last`.
    suffix: VecDeque<Arc<Entry>>,
    /// Their weight.
    bytes: usize,
}

impl Log {
    /// A log that holds nothing above `commit`.
    pub(super) fn at(commit: Seq) -> Self {
        Self { commit, last: commit, durable: commit, suffix: VecDeque::new(), bytes: 0 }
    }

    /// Adds the next entry.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        assert_eq!(entry.seq, self.last.next(), "the log has a gap after {}", self.last);
        self.last = entry.seq;
        self.bytes += entry.weight();
        self.suffix.push_back(entry);
    }

    /// The entry at `seq`, if it is above the commit and held.
    pub(super) fn entry(&self, seq: Seq) -> Option<&Arc<Entry>> {
        let index = seq.0.checked_sub(self.commit.0 + 1)?;
        self.suffix.get(usize::try_from(index).ok()?)
    }

    /// The entries above `seq`, rising.
    pub(super) fn above(&self, seq: Seq) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        let skipped = usize::try_from(seq.0.saturating_sub(self.commit.0)).unwrap_or(usize::MAX);
        self.suffix.iter().skip(skipped)
    }

    /// How many entries are above the commit.
    pub(super) fn len(&self) -> usize {
        self.suffix.len()
    }

    /// Weight of the entries above the commit, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Raises the commit to `seq`, which must be held, and hands out the entries that became committed.
    pub(super) fn commit_to(&mut self, seq: Seq) -> Vec<Arc<Entry>> {
        assert!(seq >= self.commit, "the commit goes back from {} to {seq}", self.commit);
        assert!(seq <= self.last, "the commit {seq} is ahead of the log, which ends at {}", self.last);
        let count = usize::try_from(seq.0 - self.commit.0).expect("the suffix fits in memory");
        self.commit = seq;
        let committed: Vec<_> = self.suffix.drain(..count).collect();
        self.bytes -= committed.iter().map(|entry| entry.weight()).sum::<usize>();
        committed
    }

    /// Throws the entries above `seq` away and hands them out, newest first. Never below the commit.
    pub(super) fn truncate_to(&mut self, seq: Seq) -> Vec<Arc<Entry>> {
        assert!(seq >= self.commit, "truncating to {seq} would lose entries committed up to {}", self.commit);
        let mut dropped = Vec::new();
        while self.last > seq {
            let entry = self.suffix.pop_back().expect("the suffix reaches from the commit to the last entry");
            self.bytes -= entry.weight();
            self.last = self.last.previous();
            dropped.push(entry);
        }
        self.durable = self.durable.min(seq);
        dropped
    }

    /// The entries above the commit as runs of one epoch each.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for entry in &self.suffix {
            match runs.last_mut() {
                Some(run) if run.origin_epoch == entry.origin_epoch => run.last = entry.seq,
                _ => runs.push(Run { first: entry.seq, last: entry.seq, origin_epoch: entry.origin_epoch }),
            }
        }
        runs
    }

    /// The end of the longest prefix above `base` that this log shares with one that has `runs` above it.
    pub(super) fn common_prefix(&self, base: Seq, runs: &[Run]) -> Seq {
        let mut common = base;
        for entry in self.above(base) {
            let epoch = epoch_at(runs, entry.seq);
            let is_planted = planted::is(Bug::PrefixBySeqAlone) && epoch.is_some();
            if epoch != Some(entry.origin_epoch) && !is_planted {
                break;
            }
            common = entry.seq;
        }
        common
    }
}

fn epoch_at(runs: &[Run], seq: Seq) -> Option<Epoch> {
    runs.iter().find(|run| run.first <= seq && seq <= run.last).map(|run| run.origin_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, epoch: u64) -> Arc<Entry> {
        let (seq, origin_epoch) = (Seq(seq), Epoch(epoch));
        Arc::new(Entry { seq, origin_epoch, request: None, mutations: vec![], forget_through: Seq::ZERO })
    }

    fn log(commit: u64, epochs: &[u64]) -> Log {
        let mut log = Log::at(Seq(commit));
        for (i, epoch) in epochs.iter().enumerate() {
            log.push(entry(commit + 1 + i as u64, *epoch));
        }
        log
    }

    #[test]
    fn the_common_prefix_ends_where_epochs_differ() {
        let ours = log(10, &[1, 1, 2, 3]);
        let common = |commit, epochs: &[u64]| ours.common_prefix(Seq(10), &log(commit, epochs).runs()).0;
        assert_eq!(common(10, &[1, 1, 2, 3]), 14, "equal logs");
        assert_eq!(common(10, &[1, 1, 2, 4]), 13, "they part at the end");
        assert_eq!(common(10, &[2, 2]), 10, "they part at once");
        assert_eq!(common(10, &[]), 10, "theirs is empty");
        assert_eq!(common(8, &[1, 1, 1, 1, 2, 3, 3]), 14, "theirs begins earlier and ends later");
        assert_eq!(
            ours.common_prefix(Seq(12), &log(10, &[9, 9, 2, 3]).runs()).0,
            14,
            "below the base nothing counts"
        );
    }

    #[test]
    fn commit_and_truncate_keep_the_middle() {
        let mut log = log(0, &[1; 5]);
        log.durable = Seq(5);
        assert_eq!(log.commit_to(Seq(2)).len(), 2);
        let dropped: Vec<u64> = log.truncate_to(Seq(3)).iter().map(|entry| entry.seq.0).collect();
        assert_eq!(dropped, [5, 4]);
        assert_eq!((log.commit.0, log.last.0, log.durable.0, log.len()), (2, 3, 3, 1));
        assert_eq!(log.bytes(), entry(3, 1).weight());
        assert!(log.entry(Seq(2)).is_none() && log.entry(Seq(3)).is_some() && log.entry(Seq(4)).is_none());
    }

    #[test]
    #[should_panic(expected = "would lose entries committed")]
    fn a_truncation_below_the_commit_panics() {
        log(5, &[1]).truncate_to(Seq(4));
    }
}
