//! The verdict of all checkers on one history: a pass only if all of them judged it, and there was something to judge.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    history::{Op, Outcome},
    linearizability::{self, Settings, Tombstones, Violation},
    versions::{self, Counts},
};

/// A store of ours keeps a tombstone for at least so many entries.
const TOMBSTONE_ENTRIES: u64 = 100_000;

/// What is known of a history.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Every answer is explained.
    Linearizable,
    /// Some answer is not.
    Violation {
        /// In words.
        what: String,
        /// The few calls that show it, if the search found it.
        shown: Option<Box<Violation>>,
    },
    /// Nothing is known: never to be taken for a pass.
    Unknown {
        /// What kept it from being judged.
        why: String,
    },
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Violation { .. } => "violation",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// How much is in a history.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Calls by how they ended.
    pub counts: Counts,
    /// The longest call that was answered.
    pub longest: Duration,
    /// Calls by kind.
    pub kinds: BTreeMap<&'static str, usize>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; the longest call took {:?}", self.counts, self.longest)
    }
}

/// Judges a history by all checkers. Less than `least` acknowledged writes, or answered reads, is no evidence.
#[must_use]
pub fn judge(ops: &[Op], least: usize) -> Verdict {
    let tombstones = tombstones(ops);
    let settings = Settings { tombstones, ..Settings::default() };
    let by_search = linearizability::check(ops, &settings);
    let by_versions = versions::check_with(ops, &[], tombstones);
    match (by_search, by_versions) {
        (linearizability::Verdict::Violation(shown), _) => {
            Verdict::Violation { what: shown.to_string(), shown: Some(shown) }
        }
        // What is no history at all is no evidence against the store either.
        (linearizability::Verdict::Unknown { why }, _) if super::valid::validate(ops).is_err() => {
            Verdict::Unknown { why }
        }
        (_, Err(violations)) => {
            let what = violations.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join("\n");
            Verdict::Violation { what, shown: None }
        }
        (linearizability::Verdict::Unknown { why }, _) => Verdict::Unknown { why },
        (linearizability::Verdict::Linearizable, Ok(counts)) => {
            if counts.acked < least || counts.read < least {
                let why =
                    format!("too little happened to show anything, {least} of each are needed: {counts}");
                return Verdict::Unknown { why };
            }
            Verdict::Linearizable
        }
    }
}

/// Whether versions can have begun again within the history: then by their log, else by versions.
fn tombstones(ops: &[Op]) -> Tombstones {
    let seqs = || {
        ops.iter()
            .filter_map(|op| if let Outcome::Applied { seq, .. } = op.outcome { Some(seq) } else { None })
    };
    let span = seqs().max().unwrap_or_default() - seqs().min().unwrap_or_default();
    if span < TOMBSTONE_ENTRIES { Tombstones::Kept } else { Tombstones::Collected }
}

/// How much is in a history.
#[must_use]
pub fn summary(ops: &[Op]) -> Summary {
    let mut kinds = BTreeMap::new();
    for op in ops {
        *kinds.entry(kind(op)).or_default() += 1;
    }
    let answered = ops.iter().filter(|op| op.is_ok());
    let longest = answered.map(|op| op.returned.saturating_sub(op.invoked)).max().unwrap_or_default();
    Summary { counts: versions::count(ops), longest, kinds }
}

fn kind(op: &Op) -> &'static str {
    use super::history::Condition::Always;
    match op.changes() {
        [] if op.keys().nth(1).is_some() => "page",
        [] => "read",
        [change] if change.value.is_none() => "delete",
        [change] if change.condition == Always => "write",
        [_] => "conditional write",
        _ => "write of several keys",
    }
}
