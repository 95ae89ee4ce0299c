//! Judges a history by the versions in it, in about `n log n`.
//!
//! The store tells with each answer which version of the key it is about, so the order of a key's writes need not be
//! searched for. A history is legal if
//! 1. a version has one value and one writer, a value one version; what was read was written, by a write that had been
//!    sent and was not certainly refused;
//! 2. for two operations on a key, `a` answered before `b` was sent: `version(b) >= version(a)`, and greater if `b` is a
//!    write;
//! 3. a key's entries stand in the log in the order of its versions, and a write that was sent after another one (of any
//!    key) was answered stands after it in the log;
//! 4. there are no more versions than writes that made them: every acknowledged one, and of the unknown ones at most
//!    each one once;
//! 5. in the end every acknowledged write is there or superseded, at every replica that was asked.
//!
//! Trusts versions, which is what makes it fast; that they tell the truth is shown by the values.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use bytes::Bytes;

use crate::history::{Call, Op, Outcome};

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which key.
    pub key: String,
    /// What happened that can't.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.key, self.what)
    }
}

/// How much a legal history has in it: a history of nothing is legal too, and shows nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes and deletions that were acknowledged.
    pub acked: usize,
    /// Reads that were answered.
    pub read: usize,
    /// Writes whose outcome stayed unknown.
    pub unknown: usize,
    /// Calls that certainly did nothing.
    pub failed: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, read, unknown, failed } = self;
        write!(f, "{acked} writes acknowledged, {read} reads answered, {unknown} unknown, {failed} failed")
    }
}

/// What one replica has in the end: of each key the version, and the value if it exists.
pub type Contents = BTreeMap<String, (u64, Option<Bytes>)>;

/// Judges the history and what the replicas have in the end. All violations, at most one for each key and rule.
pub fn check(ops: &[Op], finals: &[(String, Contents)]) -> Result<Counts, Vec<Violation>> {
    let mut keys: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        keys.entry(&op.key).or_default().push(op);
    }
    let mut violations = Vec::new();
    for (key, ops) in &keys {
        let checks = [
            writers(ops, finals, key),
            real_time(ops),
            log_order(ops),
            finals.iter().try_for_each(|(node, contents)| superseded(ops, node, contents.get(*key))),
        ];
        let wrong = checks.into_iter().filter_map(Result::err);
        violations.extend(wrong.map(|what| Violation { key: (*key).to_owned(), what }));
    }
    if let Err(what) = sequence_order(ops) {
        violations.push(Violation { key: "(all)".to_owned(), what });
    }
    if violations.is_empty() { Ok(count(ops)) } else { Err(violations) }
}

/// How much is in a history.
#[must_use]
pub fn count(ops: &[Op]) -> Counts {
    let mut counts = Counts::default();
    for op in ops {
        match op.outcome {
            Outcome::Applied { .. } => counts.acked += 1,
            Outcome::Found { .. } => counts.read += 1,
            Outcome::Unknown(_) => counts.unknown += 1,
            Outcome::NotApplied(_) => counts.failed += 1,
        }
    }
    counts
}

/// Rules 1 and 4.
fn writers(ops: &[&Op], finals: &[(String, Contents)], key: &str) -> Result<(), String> {
    let mut writes: HashMap<&Bytes, &Op> = HashMap::new();
    for op in ops {
        if let Call::Write(value) = &op.call
            && writes.insert(value, op).is_some()
        {
            return Err(format!("the test wrote {} twice", show(value)));
        }
    }
    let mut versions: BTreeMap<u64, Option<&Bytes>> = BTreeMap::new();
    let mut by_writer = BTreeSet::new();
    for op in ops {
        let Outcome::Applied { version, .. } = op.outcome else { continue };
        if version == 0 || !by_writer.insert(version) {
            return Err(format!("version {version} was made by two writes, or by none"));
        }
        let value = if let Call::Write(value) = &op.call { Some(value) } else { None };
        versions.insert(version, value);
    }
    let mut seen: Vec<(u64, Option<&Bytes>, Duration)> = Vec::new();
    for op in ops {
        if let Outcome::Found { value, version, .. } = &op.outcome {
            seen.push((*version, value.as_ref(), op.returned));
        }
    }
    for (version, value) in finals.iter().filter_map(|(_, contents)| contents.get(key)) {
        seen.push((*version, value.as_ref(), Duration::MAX));
    }
    for (version, value, at) in seen {
        if version == 0 && value.is_none() {
            continue;
        }
        let known = versions.entry(version).or_insert(value);
        if *known != value {
            return Err(format!("version {version} is {} and {}", show_or(*known), show_or(value)));
        }
        let Some(value) = value else { continue };
        let write = writes.get(value).ok_or_else(|| format!("{} was never written", show(value)))?;
        if let Outcome::NotApplied(why) = &write.outcome {
            return Err(format!("{} was read, but its write had not been applied: {why}", show(value)));
        }
        if write.invoked > at {
            return Err(format!("{} was read before it was written", show(value)));
        }
    }
    let mut values: HashMap<&Bytes, u64> = HashMap::new();
    for (version, value) in &versions {
        if let Some(value) = value
            && let Some(other) = values.insert(value, *version)
        {
            return Err(format!("{} took effect twice, as versions {other} and {version}", show(value)));
        }
    }
    let newest = versions.keys().next_back().copied().unwrap_or_default();
    let acked = by_writer.len() as u64;
    let unknown = ops.iter().filter(|op| matches!(op.outcome, Outcome::Unknown(_))).count() as u64;
    if newest > acked + unknown {
        return Err(format!(
            "it has {newest} versions, but only {acked} acknowledged writes and {unknown} unknown ones"
        ));
    }
    Ok(())
}

/// Rule 2: walks the calls in the order in which they were sent, and knows the newest version answered before each.
fn real_time(ops: &[&Op]) -> Result<(), String> {
    let mut sent: Vec<&&Op> = ops.iter().filter(|op| op.is_ok()).collect();
    let mut answered = sent.clone();
    sent.sort_by_key(|op| op.invoked);
    answered.sort_by_key(|op| op.returned);
    let mut answered = answered.into_iter().peekable();
    let mut newest: Option<&&Op> = None;
    for op in sent {
        while let Some(earlier) = answered.next_if(|earlier| earlier.returned < op.invoked) {
            if newest.is_none_or(|newest| newest.version() < earlier.version()) {
                newest = Some(earlier);
            }
        }
        let Some(before) = newest else { continue };
        let is_right =
            if op.is_write() { op.version() > before.version() } else { op.version() >= before.version() };
        if !is_right {
            return Err(format!("{}\n  came after\n  {}", line(op), line(before)));
        }
    }
    Ok(())
}

/// Rule 3 within a key: versions and sequences grow together.
fn log_order(ops: &[&Op]) -> Result<(), String> {
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    for op in ops {
        let (version, seq) = match op.outcome {
            Outcome::Applied { version, seq } | Outcome::Found { version, seq, .. } => (version, seq),
            _ => continue,
        };
        let known = *places.entry(version).or_insert(seq);
        if known != seq {
            return Err(format!("version {version} stands at sequence {known} and at {seq}"));
        }
    }
    let mut last: Option<(u64, u64)> = None;
    for (version, seq) in places {
        if let Some((older, before)) = last
            && before >= seq
        {
            return Err(format!("version {older} stands at sequence {before}, version {version} at {seq}"));
        }
        last = Some((version, seq));
    }
    Ok(())
}

/// Rule 3 across keys.
fn sequence_order(ops: &[Op]) -> Result<(), String> {
    let seq = |op: &Op| if let Outcome::Applied { seq, .. } = op.outcome { seq } else { 0 };
    let mut sent: Vec<&Op> = ops.iter().filter(|op| seq(op) > 0).collect();
    let mut answered = sent.clone();
    sent.sort_by_key(|op| op.invoked);
    answered.sort_by_key(|op| op.returned);
    let mut answered = answered.into_iter().peekable();
    let mut newest: Option<&Op> = None;
    for op in sent {
        while let Some(earlier) = answered.next_if(|earlier| earlier.returned < op.invoked) {
            if newest.is_none_or(|newest| seq(newest) < seq(earlier)) {
                newest = Some(earlier);
            }
        }
        if let Some(before) = newest
            && seq(op) <= seq(before)
        {
            return Err(format!("{}\n  came after\n  {}", line(op), line(before)));
        }
    }
    Ok(())
}

/// Rule 5 for one replica.
fn superseded(ops: &[&Op], node: &str, last: Option<&(u64, Option<Bytes>)>) -> Result<(), String> {
    let acked = ops.iter().filter(|op| matches!(op.outcome, Outcome::Applied { .. }));
    let Some(newest) = acked.max_by_key(|op| op.version()) else { return Ok(()) };
    let version = last.map(|(version, _)| *version);
    // A tombstone may have been collected; a value that was acknowledged last may not.
    if version < newest.version() && (newest.call != Call::Delete || last.is_some_and(|(_, v)| v.is_some())) {
        return Err(format!("{node} has version {version:?} in the end; lost is\n  {}", line(newest)));
    }
    Ok(())
}

fn line(op: &Op) -> String {
    let Op { client, call, invoked, returned, outcome, key } = op;
    let call = match call {
        Call::Read => "read".to_owned(),
        Call::Write(value) => format!("write {}", show(value)),
        Call::Delete => "delete".to_owned(),
    };
    let outcome = match outcome {
        Outcome::Applied { version, seq } => format!("version {version} at sequence {seq}"),
        Outcome::Found { value, version, seq } => {
            format!("{} as version {version} at sequence {seq}", show_or(value.as_ref()))
        }
        Outcome::NotApplied(why) => format!("not applied: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    };
    format!("[{invoked:?} to {returned:?}] client {client}, {key}: {call}: {outcome}")
}

fn show_or(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "nothing".to_owned(), show)
}

fn show(value: &Bytes) -> String {
    value[..value.len().min(40)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
