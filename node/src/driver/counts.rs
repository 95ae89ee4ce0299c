//! How reads were answered, counted: for an operator, and for who measures. Nothing depends on it.

use std::sync::atomic::{AtomicU64, Ordering};

use craq_proto::wire::{self, ReadPath};

/// Counts since the process started.
#[derive(Debug, Default)]
pub(crate) struct ReadCounts {
    clean: AtomicU64,
    asked_tail: AtomicU64,
    awaited_commit: AtomicU64,
    at_tail: AtomicU64,
    weak: AtomicU64,
    questions: AtomicU64,
}

impl ReadCounts {
    /// A read of one key was answered.
    pub(crate) fn answered(&self, path: ReadPath, strong: bool) {
        let count = match path {
            _ if !strong => &self.weak,
            ReadPath::AskedTail => &self.asked_tail,
            ReadPath::AwaitedCommit => &self.awaited_commit,
            ReadPath::AtTail => &self.at_tail,
            ReadPath::Clean | ReadPath::Unspecified => &self.clean,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A question goes to the tail.
    pub(crate) fn asked(&self) {
        self.questions.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now. Each is exact; taken while reads are answered, they are not of one moment.
    pub(crate) fn to_wire(&self) -> wire::ReadCounts {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        wire::ReadCounts {
            clean: now(&self.clean),
            asked_tail: now(&self.asked_tail),
            awaited_commit: now(&self.awaited_commit),
            at_tail: now(&self.at_tail),
            weak: now(&self.weak),
            questions: now(&self.questions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_read_is_counted_once_by_how_it_was_answered() {
        let counts = ReadCounts::default();
        let paths = [
            (ReadPath::Clean, 3),
            (ReadPath::AskedTail, 2),
            (ReadPath::AtTail, 1),
            (ReadPath::AwaitedCommit, 4),
        ];
        for (path, times) in paths {
            (0..times).for_each(|_| counts.answered(path, true));
        }
        counts.answered(ReadPath::Clean, false);
        counts.asked();
        let expected = wire::ReadCounts {
            clean: 3,
            asked_tail: 2,
            at_tail: 1,
            weak: 1,
            questions: 1,
            awaited_commit: 4,
        };
        assert_eq!(counts.to_wire(), expected);
    }
}
