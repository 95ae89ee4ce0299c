//! What was reached while a model was explored: a model in which nothing interesting happens proves nothing.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// Something that has to happen somewhere in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// A write was acknowledged in an epoch after the first.
    AckedAfterChange,
    /// A read of a dirty key asked the tail, and was answered.
    AskedTheTail,
    /// A replica threw entries away.
    Truncated,
    /// A replica installed a view and had to wait for a promise to run out.
    GateWaited,
    /// A planned read was not answered, since the lease had ended or the epoch was another by then.
    ReadLapsed,
    /// A node that the newest view leaves out answered a read under its lease.
    ReadByOneLeftOut,
    /// A repeated write was recognised.
    RepeatRecognised,
    /// A tail was asked, and did not answer.
    TailDidNotAnswer,
    /// A node started again, with a suffix that was not known to be committed.
    RestartedDirty,
    /// A link was opened again in its epoch.
    LinkReopened,
    /// A link of an older epoch was offered, and refused.
    OlderEpochRefused,
    /// A chain came to rest with all writes answered.
    AtRest,
}

impl Sight {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::AckedAfterChange,
        Self::AskedTheTail,
        Self::Truncated,
        Self::GateWaited,
        Self::ReadLapsed,
        Self::ReadByOneLeftOut,
        Self::RepeatRecognised,
        Self::TailDidNotAnswer,
        Self::RestartedDirty,
        Self::LinkReopened,
        Self::OlderEpochRefused,
        Self::AtRest,
    ];
}

/// How often each was seen, over all steps that were taken.
#[derive(Debug, Default)]
pub struct Seen([AtomicU64; Sight::ALL.len()]);

impl Seen {
    pub(super) fn mark(&self, sight: Sight) {
        self.0[sight as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was seen.
    #[must_use]
    pub fn count(&self, sight: Sight) -> u64 {
        self.0[sight as usize].load(Ordering::Relaxed)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = Sight::ALL.into_iter().filter(|sight| self.count(*sight) > 0);
        let seen: Vec<_> = seen.map(|sight| format!("{sight:?} {}", self.count(sight))).collect();
        f.write_str(&seen.join(", "))
    }
}
