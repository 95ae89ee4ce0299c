//! Has every call a moment in the log that explains it, in the order of time? In about `n log n`.
//!
//! The log orders all writes of a chain, of all keys. A write happens at its entry; a read sees the log up to some
//! entry, all of its keys up to the same one: then no key of it has a newer version that stands there. A call that was
//! sent after another one was answered sees at least what that one saw, whichever keys they are about.

use std::ops::Bound;

use super::{
    atomicity::{self, Entries, Log},
    history::{Found, Op, Outcome},
    text::line,
};

/// Judges a history.
pub fn check(ops: &[Op]) -> Result<(), String> {
    let log = atomicity::log(ops)?;
    let mut sent: Vec<&Op> = ops.iter().filter(|op| op.is_ok()).collect();
    let mut answered = sent.clone();
    sent.sort_by_key(|op| op.invoked);
    answered.sort_by_key(|op| op.returned);
    let ceilings = Ceilings::new(ops);
    let mut answered = answered.into_iter().peekable();
    let mut newest: Option<(u64, &Op)> = None;
    for op in sent {
        while let Some(earlier) = answered.next_if(|earlier| earlier.returned < op.invoked) {
            let least = least(earlier);
            if newest.is_none_or(|(newest, _)| newest < least) {
                newest = Some((least, earlier));
            }
        }
        moment(op, newest.map_or(0, |(least, _)| least), &log, ops)
            .and_then(|moment| ceilings.allow(op, moment))
            .map_err(|what| match newest {
                Some((_, before)) => format!("{what}\n  {}\n  came after\n  {}", line(op), line(before)),
                None => format!("{what}\n  {}", line(op)),
            })?;
    }
    Ok(())
}

/// The earliest entry up to which the call may have seen the log, by itself.
fn least(op: &Op) -> u64 {
    match &op.outcome {
        Outcome::Applied { seq, .. } => *seq,
        Outcome::Found(found) => found.iter().map(|found| found.seq).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The earliest entry up to which it may have seen the log, `floor` having been seen before it was sent.
fn moment(op: &Op, floor: u64, log: &Log<'_>, ops: &[Op]) -> Result<u64, String> {
    match &op.outcome {
        Outcome::Applied { seq, .. } if *seq <= floor => Err(format!(
            "a write stands at sequence {seq}, but sequence {floor} had been seen before it was sent"
        )),
        Outcome::Applied { seq, .. } => Ok(*seq),
        Outcome::Found(_) => of_read(op, floor.max(least(op)), log, ops),
        _ => Ok(floor),
    }
}

fn of_read(op: &Op, mut moment: u64, log: &Log<'_>, ops: &[Op]) -> Result<u64, String> {
    let none = Entries::new();
    let is_page = op.keys().nth(1).is_some();
    loop {
        let before = moment;
        for (key, found) in op.found() {
            let entries = log.get(key).unwrap_or(&none);
            if is_untold(found) {
                moment = until_deleted(op, key, moment, entries, ops)?;
            } else if let Some((newer, _)) =
                entries.range((Bound::Excluded(found.seq), Bound::Included(moment))).next()
            {
                let what = if is_page { "a page shows two moments" } else { "a read is stale" };
                return Err(format!(
                    "{what}: it shows {key} as of sequence {}, which is overwritten at {newer}, at a moment not before {moment}",
                    found.seq
                ));
            }
        }
        if moment == before {
            return Ok(moment);
        }
    }
}

/// Whether it says only that the key does not exist. That a key was never written is said like this too, and then holds
/// at any moment before its first entry.
fn is_untold(found: &Found) -> bool {
    found.value.is_none() && found.seq == 0
}

/// The first entry from this one on at which the key does not exist.
fn until_deleted(op: &Op, key: &str, moment: u64, entries: &Entries<'_>, ops: &[Op]) -> Result<u64, String> {
    if entries.range(..=moment).next_back().is_none_or(|(_, value)| value.is_none()) {
        return Ok(moment);
    }
    let may_delete = |other: &Op| {
        let is_unknown = matches!(other.outcome, Outcome::Unknown(_)) && other.invoked <= op.returned;
        is_unknown && other.changes().iter().any(|change| change.key == key && change.value.is_none())
    };
    // First: nobody knows where in the log a deletion of unknown outcome stands.
    if ops.iter().any(may_delete) {
        return Ok(moment);
    }
    if let Some((seq, _)) = entries.range(moment + 1..).find(|(_, value)| value.is_none()) {
        return Ok(*seq);
    }
    Err(format!("{key} is not found, though it exists from before sequence {moment} on"))
}

/// For each time, the first entry of all writes that were sent later.
struct Ceilings<'a>(Vec<(&'a Op, u64)>);

impl<'a> Ceilings<'a> {
    fn new(ops: &'a [Op]) -> Self {
        let mut writes: Vec<(&Op, u64)> = ops
            .iter()
            .filter_map(
                |op| if let Outcome::Applied { seq, .. } = op.outcome { Some((op, seq)) } else { None },
            )
            .collect();
        writes.sort_by_key(|(op, _)| op.invoked);
        let mut lowest = u64::MAX;
        for (_, seq) in writes.iter_mut().rev() {
            lowest = lowest.min(*seq);
            *seq = lowest;
        }
        Self(writes)
    }

    fn allow(&self, op: &Op, moment: u64) -> Result<(), String> {
        let later = self.0.partition_point(|(write, _)| write.invoked <= op.returned);
        match self.0.get(later) {
            Some((_, seq)) if *seq <= moment => Err(format!(
                "sequence {moment} is seen, though sequence {seq} was written by a call sent later"
            )),
            _ => Ok(()),
        }
    }
}
