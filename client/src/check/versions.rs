//! Judges a history by the versions in it, in about `n log n`.
//!
//! The store tells with each answer which version of the key it is about, so the order of a key's writes need not be
//! searched for. A history is legal if
//! 1. a version has one value and one writer, a value one version; what was read was written, by a write that had been
//!    sent and was not certainly refused;
//! 2. for two operations on a key, `a` answered before `b` was sent: `version(b) >= version(a)`, and greater if `b` is a
//!    write;
//! 3. a key's entries stand in the log in the order of its versions, and every call has a moment in the log that is in
//!    the order of time, of all keys at once (see [`super::moments`], [`super::atomicity`]);
//! 4. there are no more versions than writes that made them: every acknowledged one, and of the unknown ones at most
//!    each one once;
//! 5. in the end every acknowledged write is there or superseded, at every replica that was asked.
//!
//! If tombstones are collected, versions begin again, and sequences stand in their place; rule 4 is not judged.
//! Trusts versions and sequences, which is what makes it fast; that they tell the truth is shown by the values.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use bytes::Bytes;

use super::{
    history::{Op, Outcome},
    linearizability::Tombstones,
    moments,
    text::{line, show, show_or},
    valid::validate,
};

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
    /// Writes whose condition was false, deletions of nothing among them.
    pub refused: usize,
    /// Writes whose outcome stayed unknown.
    pub unknown: usize,
    /// Calls that certainly did nothing.
    pub failed: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, read, refused, unknown, failed } = self;
        write!(
            f,
            "{acked} writes acknowledged, {refused} refused by their condition, {read} reads answered, "
        )?;
        write!(f, "{unknown} unknown, {failed} failed")
    }
}

/// What one replica has in the end: of each key the version, and the value if it exists.
pub type Contents = BTreeMap<String, Last>;

/// What one replica has of a key in the end: the version, and the value if it exists.
pub type Last = (u64, Option<Bytes>);

/// Judges the history and what the replicas have in the end, tombstones being kept.
pub fn check(ops: &[Op], finals: &[(String, Contents)]) -> Result<Counts, Vec<Violation>> {
    check_with(ops, finals, Tombstones::Kept)
}

/// Judges the history and what the replicas have in the end. All violations, at most one for each key and rule.
pub fn check_with(
    ops: &[Op],
    finals: &[(String, Contents)],
    tombstones: Tombstones,
) -> Result<Counts, Vec<Violation>> {
    let of_all = |what| Violation { key: "(all)".to_owned(), what };
    validate(ops).map_err(|what| vec![of_all(what)])?;
    let mut violations = Vec::new();
    for (name, key) in keys(ops, finals, tombstones) {
        let checks = [key.writers(), key.real_time(), key.log_order(), key.made(), key.superseded()];
        let wrong = checks.into_iter().filter_map(Result::err);
        violations.extend(wrong.map(|what| Violation { key: name.to_owned(), what }));
    }
    violations.extend(moments::check(ops).err().map(of_all));
    if violations.is_empty() { Ok(count(ops)) } else { Err(violations) }
}

/// How much is in a history.
#[must_use]
pub fn count(ops: &[Op]) -> Counts {
    let mut counts = Counts::default();
    for op in ops {
        match op.outcome {
            Outcome::Applied { .. } => counts.acked += 1,
            Outcome::Found(_) => counts.read += 1,
            Outcome::ConditionFailed { .. } => counts.refused += 1,
            Outcome::Unknown(_) if op.is_write() => counts.unknown += 1,
            Outcome::Unknown(_) | Outcome::NotApplied(_) => counts.failed += 1,
        }
    }
    counts
}

/// What an answer tells of a key.
#[derive(Clone, Copy)]
struct Told<'a> {
    op: &'a Op,
    version: u64,
    /// Zero: not told.
    seq: u64,
    /// None: not told. None inside: the key does not exist.
    value: Option<Option<&'a Bytes>>,
    /// Whether the call made it.
    made: bool,
}

/// What all answers tell of one key.
struct Key<'a> {
    tombstones: Tombstones,
    told: Vec<Told<'a>>,
    /// All writes of a value, however they ended.
    writes: Vec<(&'a Bytes, &'a Op)>,
    unknown: u64,
    /// Whether a deletion may have taken effect at any time.
    may_be_deleted: bool,
    finals: Vec<(&'a str, Option<&'a Last>)>,
}

fn keys<'a>(
    ops: &'a [Op],
    finals: &'a [(String, Contents)],
    tombstones: Tombstones,
) -> BTreeMap<&'a str, Key<'a>> {
    let mut keys = BTreeMap::new();
    for op in ops {
        for name in op.keys() {
            let of_node = |(node, contents): &'a (String, Contents)| (node.as_str(), contents.get(name));
            let new = || Key {
                tombstones,
                told: vec![],
                writes: vec![],
                unknown: 0,
                may_be_deleted: false,
                finals: finals.iter().map(of_node).collect(),
            };
            keys.entry(name).or_insert_with(new);
        }
        note(op, tombstones, &mut keys);
    }
    keys
}

fn note<'a>(op: &'a Op, tombstones: Tombstones, keys: &mut BTreeMap<&'a str, Key<'a>>) {
    for change in op.changes() {
        let Some(key) = keys.get_mut(change.key.as_str()) else { continue };
        let is_unknown = matches!(op.outcome, Outcome::Unknown(_));
        key.unknown += u64::from(is_unknown);
        key.may_be_deleted |= is_unknown && change.value.is_none();
        key.writes.extend(change.value.as_ref().map(|value| (value, op)));
    }
    if let Outcome::Applied { seq, .. } = op.outcome {
        for (change, version) in op.applied() {
            let told = Told { op, version, seq, value: Some(change.value.as_ref()), made: true };
            keys.entry(&change.key).and_modify(|key| key.told.push(told));
        }
    }
    let is_page = op.keys().nth(1).is_some();
    for (name, found) in op.found() {
        // A page does not tell of tombstones; one that is collected is told by nobody.
        let is_untold = found.value.is_none() && found.version == 0;
        if !(is_untold && (is_page || tombstones == Tombstones::Collected)) {
            let (version, seq) = (found.version, found.seq);
            let told = Told { op, version, seq, value: Some(found.value.as_ref()), made: false };
            keys.entry(name).and_modify(|key| key.told.push(told));
        }
    }
    if let Outcome::ConditionFailed { key, observed } = &op.outcome
        && *observed > 0
        && tombstones == Tombstones::Kept
    {
        let told = Told { op, version: *observed, seq: 0, value: None, made: false };
        keys.entry(key).and_modify(|key| key.told.push(told));
    }
}

impl<'a> Key<'a> {
    /// What orders a key's writes.
    fn place(&self, told: &Told<'_>) -> u64 {
        if self.tombstones == Tombstones::Kept { told.version } else { told.seq }
    }

    /// Rule 1.
    fn writers(&self) -> Result<(), String> {
        let writes: HashMap<&Bytes, &Op> = self.writes.iter().copied().collect();
        let mut made = BTreeSet::new();
        let mut values: BTreeMap<u64, Option<&Bytes>> = BTreeMap::new();
        for told in &self.told {
            let place = self.place(told);
            if told.made && (place == 0 || !made.insert(place)) {
                return Err(format!(
                    "version {place} was made by two writes, or by none\n  {}",
                    line(told.op)
                ));
            }
            let Some(value) = told.value else { continue };
            let known = *values.entry(place).or_insert(value);
            if known != value || place == 0 && value.is_some() {
                return Err(format!("version {place} is {} and {}", show_or(known), show_or(value)));
            }
            written(value, told.op.returned, &writes)?;
        }
        for (version, value) in self.finals.iter().filter_map(|(_, last)| *last) {
            let value = value.as_ref();
            written(value, Duration::MAX, &writes)?;
            if self.tombstones == Tombstones::Kept {
                let known = *values.entry(*version).or_insert(value);
                if known != value {
                    return Err(format!("version {version} is {} and {}", show_or(known), show_or(value)));
                }
            }
        }
        let mut places: HashMap<&Bytes, u64> = HashMap::new();
        for (place, value) in &values {
            if let Some(value) = value
                && let Some(other) = places.insert(value, *place)
            {
                return Err(format!("{} took effect twice, as versions {other} and {place}", show(value)));
            }
        }
        Ok(())
    }

    /// Rule 2: walks the calls in the order in which they were sent, and knows the newest version answered before each.
    fn real_time(&self) -> Result<(), String> {
        let mut sent: Vec<&Told<'_>> = self.told.iter().collect();
        let mut answered = sent.clone();
        sent.sort_by_key(|told| told.op.invoked);
        answered.sort_by_key(|told| told.op.returned);
        let mut answered = answered.into_iter().peekable();
        let mut newest: Option<&Told<'_>> = None;
        for told in sent {
            while let Some(earlier) = answered.next_if(|earlier| earlier.op.returned < told.op.invoked) {
                if newest.is_none_or(|newest| self.place(newest) < self.place(earlier)) {
                    newest = Some(earlier);
                }
            }
            let Some(before) = newest else { continue };
            let (place, least) = (self.place(told), self.place(before));
            if place < least || told.made && place == least {
                return Err(format!("{}\n  came after\n  {}", line(told.op), line(before.op)));
            }
        }
        Ok(())
    }

    /// Rule 3 within the key: versions and sequences grow together, or a sequence has one version.
    fn log_order(&self) -> Result<(), String> {
        let is_kept = self.tombstones == Tombstones::Kept;
        let mut pairs: BTreeMap<u64, u64> = BTreeMap::new();
        for told in self.told.iter().filter(|told| told.value.is_some()) {
            let (place, other) = if is_kept { (told.version, told.seq) } else { (told.seq, told.version) };
            let known = *pairs.entry(place).or_insert(other);
            if known != other {
                let (a, b) = if is_kept { ("version", "sequence") } else { ("sequence", "version") };
                return Err(format!("{a} {place} stands at {b} {known} and at {other}"));
            }
        }
        let mut pairs = pairs.into_iter().filter(|_| is_kept);
        let Some(mut last) = pairs.next() else { return Ok(()) };
        for (version, seq) in pairs {
            let (older, before) = last;
            if before >= seq {
                return Err(format!(
                    "version {older} stands at sequence {before}, version {version} at {seq}"
                ));
            }
            last = (version, seq);
        }
        Ok(())
    }

    /// Rule 4.
    fn made(&self) -> Result<(), String> {
        let told = self.told.iter().map(|told| told.version);
        let newest =
            told.chain(self.finals.iter().filter_map(|(_, last)| last.map(|(version, _)| *version))).max();
        let (newest, unknown) = (newest.unwrap_or_default(), self.unknown);
        let acked = self.told.iter().filter(|told| told.made).count() as u64;
        if self.tombstones == Tombstones::Kept && newest > acked + unknown {
            return Err(format!(
                "it has {newest} versions, but only {acked} acknowledged writes and {unknown} unknown ones"
            ));
        }
        Ok(())
    }

    /// Rule 5.
    fn superseded(&self) -> Result<(), String> {
        let Some(newest) = self.told.iter().filter(|told| told.made).max_by_key(|told| self.place(told))
        else {
            return Ok(());
        };
        let is_deletion = newest.value == Some(None);
        for (node, last) in &self.finals {
            let place = last.and_then(|(version, value)| match self.tombstones {
                Tombstones::Kept => Some(*version),
                // The value tells; one that nobody told anything about may be newer.
                Tombstones::Collected => {
                    let of_value = |told: &&Told<'_>| told.value == Some(value.as_ref());
                    Some(self.told.iter().find(of_value).map_or(u64::MAX, |told| told.seq))
                }
            });
            // A tombstone may have been collected; a value that was acknowledged last may not, unless an unknown
            // deletion came after it.
            let is_gone = place < Some(self.place(newest));
            let exists = last.is_some_and(|(_, value)| value.is_some());
            let may_be_tombstone = last.is_none() && self.may_be_deleted;
            if is_gone && (!is_deletion || exists) && !may_be_tombstone {
                let version = last.map(|(version, _)| version);
                return Err(format!(
                    "{node} has version {version:?} in the end; lost is\n  {}",
                    line(newest.op)
                ));
            }
        }
        Ok(())
    }
}

/// What was read was written, by a write that had been sent and was not certainly refused.
fn written(value: Option<&Bytes>, at: Duration, writes: &HashMap<&Bytes, &Op>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let write = writes.get(value).ok_or_else(|| format!("{} was never written", show(value)))?;
    if let Outcome::NotApplied(_) | Outcome::ConditionFailed { .. } = write.outcome {
        return Err(format!(
            "{} was read, but its write had not been applied\n  {}",
            show(value),
            line(write)
        ));
    }
    if write.invoked > at {
        return Err(format!("{} was read before it was written\n  {}", show(value), line(write)));
    }
    Ok(())
}
