//! Whether a history says what a history can say at all. One that doesn't is no evidence of anything.

use std::collections::{BTreeSet, HashSet};

use super::{
    history::{Call, Op, Outcome},
    text::{line, show},
};

/// Refuses calls that are answered as no call of their kind can be, and a value that two writes of a key have.
pub fn validate(ops: &[Op]) -> Result<(), String> {
    let mut values = HashSet::new();
    for op in ops {
        one(op).map_err(|what| format!("{what}: {}", line(op)))?;
        for change in op.changes() {
            let Some(value) = &change.value else { continue };
            if !values.insert((&change.key, value)) {
                return Err(format!("the value {} was written to {} by two calls", show(value), change.key));
            }
        }
    }
    Ok(())
}

fn one(op: &Op) -> Result<(), &'static str> {
    if op.returned < op.invoked {
        return Err("a call was answered before it was sent");
    }
    let mut keys = BTreeSet::new();
    if !op.keys().all(|key| keys.insert(key)) || keys.is_empty() {
        return Err("a call has a key twice, or none");
    }
    let fits = match (&op.call, &op.outcome) {
        (Call::Write { changes }, Outcome::Applied { versions, .. }) => versions.len() == changes.len(),
        (Call::Write { .. }, Outcome::ConditionFailed { key, .. }) => keys.contains(key.as_str()),
        (Call::Read { keys }, Outcome::Found(found)) => found.len() == keys.len(),
        (_, Outcome::NotApplied(_) | Outcome::Unknown(_)) => true,
        (Call::Write { .. }, Outcome::Found(_))
        | (Call::Read { .. }, Outcome::Applied { .. } | Outcome::ConditionFailed { .. }) => false,
    };
    if fits { Ok(()) } else { Err("an answer does not fit its call") }
}
