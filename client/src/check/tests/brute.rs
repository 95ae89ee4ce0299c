//! The dumb checker: tries every order, remembers nothing, leaves nothing out. For a handful of calls.

use std::collections::HashMap;

use bytes::Bytes;

use super::toy::{State, Truth};
use crate::check::{
    history::{Change, Condition, Found, Op, Outcome},
    linearizability::Tombstones,
};

/// Whether some order explains all answers.
pub(super) fn is_linearizable(ops: &[Op], tombstones: Tombstones) -> bool {
    Brute { ops, tombstones, told: told(ops) }.goes_on(&mut vec![false; ops.len()], &State::new())
}

struct Brute<'a> {
    ops: &'a [Op],
    tombstones: Tombstones,
    /// With tombstones collected: which version each value is, by the key too.
    told: HashMap<(String, Bytes), u64>,
}

fn told(ops: &[Op]) -> HashMap<(String, Bytes), u64> {
    let mut told = HashMap::new();
    for op in ops {
        for (change, version) in op.applied() {
            if let Some(value) = &change.value {
                told.insert((change.key.clone(), value.clone()), version);
            }
        }
    }
    for op in ops {
        for (key, found) in op.found() {
            if let Some(value) = &found.value {
                told.entry((key.to_owned(), value.clone())).or_insert(found.version);
            }
        }
    }
    told
}

/// Whether the call has to have its place.
fn is_due(op: &Op) -> bool {
    op.is_ok()
}

/// Whether it may have one.
fn may_count(op: &Op) -> bool {
    op.is_ok() || op.is_write() && matches!(op.outcome, Outcome::Unknown(_))
}

impl Brute<'_> {
    fn goes_on(&self, placed: &mut Vec<bool>, state: &State) -> bool {
        let left: Vec<usize> =
            (0..self.ops.len()).filter(|n| !placed[*n] && may_count(&self.ops[*n])).collect();
        if left.iter().all(|n| !is_due(&self.ops[*n])) {
            return true;
        }
        left.iter().any(|n| {
            let op = &self.ops[*n];
            let is_late =
                left.iter().any(|m| m != n && is_due(&self.ops[*m]) && self.ops[*m].returned < op.invoked);
            let mut after = state.clone();
            if is_late || !self.explains(op, &mut after) {
                return false;
            }
            placed[*n] = true;
            let is_found = self.goes_on(placed, &after);
            placed[*n] = false;
            is_found
        })
    }

    fn explains(&self, op: &Op, state: &mut State) -> bool {
        let truth = |state: &State, key: &str| state.get(key).cloned().unwrap_or_default();
        match &op.outcome {
            Outcome::Found(found) => {
                let is_page = found.len() > 1;
                op.keys().zip(found).all(|(key, found)| self.shows(&truth(state, key), found, is_page))
            }
            Outcome::ConditionFailed { key, observed } => {
                let change = op.changes().iter().find(|change| change.key == *key).unwrap();
                !change.condition.holds(*observed) && self.sees(&truth(state, key), *observed)
            }
            Outcome::Applied { versions, .. } if versions.contains(&0) => false,
            Outcome::Applied { .. } | Outcome::Unknown(_) => {
                let told =
                    if let Outcome::Applied { versions, .. } = &op.outcome { Some(versions) } else { None };
                op.changes().iter().enumerate().all(|(n, change)| {
                    let before = truth(state, &change.key);
                    let may = self.may(&before, change.condition);
                    let after = self.after(&before, change);
                    let fits = match (self.tombstones, told) {
                        (Tombstones::Kept, Some(told)) => told[n] == after.version,
                        _ => true,
                    };
                    state.insert(change.key.clone(), after);
                    may && fits
                })
            }
            Outcome::NotApplied(_) => false,
        }
    }

    fn after(&self, before: &Truth, change: &Change) -> Truth {
        let version = match (self.tombstones, &change.value) {
            (Tombstones::Kept, _) => before.version + 1,
            (Tombstones::Collected, None) => 0,
            // A version that nobody told fits any.
            (Tombstones::Collected, Some(value)) => {
                self.told.get(&(change.key.clone(), value.clone())).copied().unwrap_or(u64::MAX)
            }
        };
        Truth { value: change.value.clone(), version, seq: 0 }
    }

    fn may(&self, before: &Truth, condition: Condition) -> bool {
        match condition {
            Condition::Version(wanted) if wanted > 0 => self.sees(before, wanted),
            _ => condition.holds(before.visible()),
        }
    }

    fn sees(&self, truth: &Truth, version: u64) -> bool {
        truth.visible() == version || truth.value.is_some() && version > 0 && truth.version == u64::MAX
    }

    fn shows(&self, truth: &Truth, found: &Found, is_page: bool) -> bool {
        let is_no_version = found.value.is_some() && found.version == 0;
        if truth.value != found.value || is_no_version {
            return false;
        }
        match (&found.value, self.tombstones) {
            (None, Tombstones::Collected) => true,
            (None, Tombstones::Kept) if is_page && found.version == 0 => true,
            _ => truth.version == found.version,
        }
    }
}
