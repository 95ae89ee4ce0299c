//! Calls and values in words, one call a line.

use bytes::Bytes;

use super::history::{Call, Change, Condition, Found, Op, Outcome};

/// A call in one line.
#[must_use]
pub fn line(op: &Op) -> String {
    let Op { client, invoked, returned, .. } = op;
    let returned = if matches!(op.outcome, Outcome::Unknown(_)) && op.is_write() {
        "open".to_owned()
    } else {
        format!("{returned:?}")
    };
    format!("[{invoked:?} to {returned}] client {client}: {}: {}", call(op), outcome(op))
}

/// What was asked for.
#[must_use]
pub fn call(op: &Op) -> String {
    match &op.call {
        Call::Read { keys } => format!("read {}", keys.join(", ")),
        Call::Write { changes } => changes.iter().map(change).collect::<Vec<_>>().join(", "),
    }
}

fn change(Change { key, value, condition }: &Change) -> String {
    let what = match value {
        Some(value) => format!("write {key} = {}", show(value)),
        None => format!("delete {key}"),
    };
    match condition {
        Condition::Always => what,
        Condition::Exists if value.is_none() => what,
        Condition::Exists => format!("{what} if it exists"),
        Condition::Version(0) => format!("{what} if absent"),
        Condition::Version(version) => format!("{what} if version {version}"),
    }
}

/// What came of it.
#[must_use]
pub fn outcome(op: &Op) -> String {
    match &op.outcome {
        Outcome::Applied { seq, versions } => {
            let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
            format!("version {} at sequence {seq}", versions.join(", "))
        }
        Outcome::Found(found) => found.iter().map(one).collect::<Vec<_>>().join("; "),
        Outcome::ConditionFailed { key, observed: 0 } => format!("refused: {key} does not exist"),
        Outcome::ConditionFailed { key, observed } => format!("refused: {key} has version {observed}"),
        Outcome::NotApplied(why) => format!("not applied: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

fn one(Found { value, version, seq }: &Found) -> String {
    match value {
        None if *version == 0 => "nothing".to_owned(),
        _ => format!("{} as version {version} at sequence {seq}", show_or(value.as_ref())),
    }
}

/// A value, or that there is none.
#[must_use]
pub fn show_or(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "nothing".to_owned(), show)
}

/// The beginning of a value, escaped.
#[must_use]
pub fn show(value: &Bytes) -> String {
    value[..value.len().min(40)].escape_ascii().to_string()
}
