//! Did each write of several keys happen at one place of the log, with all of its changes?
//!
//! Also brings what is known of the log: which entries changed a key, and whether the key existed after each. A write
//! whose outcome is unknown tells by any of its values that was read where all of its changes stand.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{
    history::Op,
    text::{line, show, show_or},
};

/// What is known of one key: by sequence, the value that the entry made; none: a deletion.
pub type Entries<'a> = BTreeMap<u64, Option<&'a Bytes>>;

/// Of each key, the entries that are known to have changed it.
pub type Log<'a> = BTreeMap<&'a str, Entries<'a>>;

/// Puts together what all answers tell of the log; refuses writes that are torn apart, and answers that contradict
/// each other.
pub fn log(ops: &[Op]) -> Result<Log<'_>, String> {
    let mut log = Log::new();
    let mut seen: HashMap<(&str, &Bytes), u64> = HashMap::new();
    for op in ops {
        for (key, found) in op.found().filter(|(_, found)| found.seq > 0) {
            note(&mut log, key, found.seq, found.value.as_ref(), op)?;
            if let Some(value) = &found.value {
                seen.insert((key, value), found.seq);
            }
        }
    }
    for op in ops {
        let places = op.changes().iter().filter_map(|change| {
            let value = change.value.as_ref()?;
            Some((seen.get(&(change.key.as_str(), value)).copied()?, change))
        });
        let mut place =
            if let super::history::Outcome::Applied { seq, .. } = op.outcome { Some(seq) } else { None };
        for (seen, change) in places {
            let expected = *place.get_or_insert(seen);
            if seen != expected {
                let value = change.value.as_ref().map(show).unwrap_or_default();
                return Err(format!(
                    "a write is torn apart: {value} of {} stands at sequence {seen}, not at {expected}\n  {}",
                    change.key,
                    line(op)
                ));
            }
        }
        if let Some(place) = place {
            for change in op.changes() {
                note(&mut log, &change.key, place, change.value.as_ref(), op)?;
            }
        }
    }
    Ok(log)
}

fn note<'a>(
    log: &mut Log<'a>,
    key: &'a str,
    seq: u64,
    value: Option<&'a Bytes>,
    op: &Op,
) -> Result<(), String> {
    let known = *log.entry(key).or_default().entry(seq).or_insert(value);
    if known != value {
        let (known, value) = (show_or(known), show_or(value));
        return Err(format!("{key} is {known} and {value} at sequence {seq}\n  {}", line(op)));
    }
    Ok(())
}
