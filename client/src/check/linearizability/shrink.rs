//! The few calls that make a history illegal.
//!
//! Only what leaves every legal history legal is done, so that what is shown is illegal because the whole is:
//! - what happened after the first answer that nothing explains is left out; writes that were under way then stay open;
//! - a read, or a refused condition, is left out;
//! - a write is allowed to take effect at any time whatever, or never, each of its changes by itself, whether its
//!   conditions are true or not. A write can't be left out like a read: later versions rest on it.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::history::{Call, Change, Condition, Found, Op, Outcome},
    Settings, Tombstones, Violation, judge, search,
};

/// How many searches it may take: a violation that is not as small as can be is still one.
const SEARCHES_MAX: usize = 600;
/// How much a search may take, so that one that leads nowhere is given up.
const STEPS_MAX: u64 = 20_000;

/// What is left of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All that was told.
    Whole,
    /// It had not been answered yet.
    Unanswered,
    /// Nothing of a read; of a write, that it may have happened.
    Hidden,
    /// It had not been sent yet.
    Unsent,
}

/// Makes an illegal group of calls as small as it can.
pub(super) fn shrink(group: &[&Op], settings: &Settings) -> Violation {
    let mut ops = group.to_vec();
    ops.sort_by_key(|op| (op.returned, op.invoked));
    let small = Settings { steps_max: settings.steps_max.min(STEPS_MAX), ..settings.clone() };
    let mut shrinking = Shrinking { ops, parts: Vec::new(), settings: small, searches: 0 };
    let culprit = shrinking.cut(settings);
    if shrinking.pair(culprit) {
        return shrinking.violation(culprit);
    }
    let mut size = shrinking.ops.len().next_power_of_two();
    while size > 0 && shrinking.searches < SEARCHES_MAX {
        let hid_some = shrinking.hide(size, culprit);
        // Once single calls are tried, as long as it helps: each hidden call may make another one needless.
        size = if size == 1 && hid_some { 1 } else { size / 2 };
    }
    shrinking.violation(culprit)
}

struct Shrinking<'a> {
    ops: Vec<&'a Op>,
    parts: Vec<Part>,
    settings: Settings,
    searches: usize,
}

impl<'a> Shrinking<'a> {
    /// Cuts the history after the first answer that makes it illegal; brings that call's place.
    fn cut(&mut self, settings: &Settings) -> usize {
        // Illegal with so many answers, legal or not known to be illegal with one less.
        let (mut legal, mut illegal) = (0, self.ops.len());
        while illegal - legal > 1 {
            let middle = legal.midpoint(illegal);
            self.parts = self.parts_at(middle);
            if self.is_illegal(settings) { illegal = middle } else { legal = middle }
        }
        self.parts = self.parts_at(illegal);
        illegal - 1
    }

    /// The history as it was when the first `answered` answers were there.
    fn parts_at(&self, answered: usize) -> Vec<Part> {
        let now = self.ops[answered - 1].returned;
        let part = |(number, op): (usize, &&Op)| match op {
            _ if number < answered => Part::Whole,
            op if op.invoked > now => Part::Unsent,
            op if op.is_write() => Part::Unanswered,
            _ => Part::Hidden,
        };
        self.ops.iter().enumerate().map(part).collect()
    }

    /// With tombstones kept, versions only grow and each is made once: looks for one call that contradicts the culprit, and
    /// hides all others if there is one.
    fn pair(&mut self, culprit: usize) -> bool {
        if self.settings.tombstones == Tombstones::Collected {
            return false;
        }
        let is_whole = |number: &usize| self.parts[*number] == Part::Whole && *number != culprit;
        let other =
            (0..culprit).rev().filter(is_whole).find(|n| contradicts(self.ops[*n], self.ops[culprit]));
        let Some(other) = other else { return false };
        for (number, part) in self.parts.iter_mut().enumerate() {
            if *part != Part::Unsent && number != culprit && number != other {
                *part = Part::Hidden;
            }
        }
        true
    }

    fn is_illegal(&mut self, settings: &Settings) -> bool {
        self.searches += 1;
        let now = self.ops.iter().zip(&self.parts).filter(|(_, part)| **part == Part::Whole);
        let now = now.map(|(op, _)| op.returned).max().unwrap_or_default();
        let left: Vec<Op> =
            self.ops.iter().zip(&self.parts).flat_map(|(op, part)| self.relaxed(op, *part, now)).collect();
        judge(&left.iter().collect::<Vec<_>>(), settings) == search::Found::None
    }

    /// Hides calls, so many at once, if it stays illegal without. Whether any was hidden.
    fn hide(&mut self, size: usize, culprit: usize) -> bool {
        let mut hid_some = false;
        let mut end = self.ops.len();
        // The latest first: what is oldest is what matters least, but it is what later versions rest on.
        while end > 0 && self.searches < SEARCHES_MAX {
            let start = end.saturating_sub(size);
            let before = self.parts[start..end].to_vec();
            for number in (start..end).filter(|number| *number != culprit) {
                if self.parts[number] != Part::Unsent {
                    self.parts[number] = Part::Hidden;
                }
            }
            if before != self.parts[start..end] {
                let settings = self.settings.clone();
                if self.is_illegal(&settings) {
                    hid_some = true;
                } else {
                    self.parts[start..end].copy_from_slice(&before);
                }
            }
            end = start;
        }
        hid_some
    }

    /// What a call is to the search when only a part of it is left.
    fn relaxed(&self, op: &Op, part: Part, now: Duration) -> Vec<Op> {
        let unknown = || Outcome::Unknown(String::new());
        match part {
            Part::Whole => vec![op.clone()],
            Part::Unanswered => vec![Op { outcome: unknown(), returned: now.max(op.invoked), ..op.clone() }],
            Part::Unsent => vec![],
            Part::Hidden if !op.is_write() || matches!(op.outcome, Outcome::ConditionFailed { .. }) => vec![],
            Part::Hidden => {
                let alone = |(number, change): (usize, &Change)| Op {
                    client: op.client,
                    call: Call::from(Change { condition: Condition::Always, ..change.clone() }),
                    invoked: Duration::ZERO,
                    returned: Duration::MAX,
                    // A version that is told leaves less to be tried.
                    outcome: match (&op.outcome, self.settings.tombstones) {
                        (Outcome::Applied { seq, versions }, Tombstones::Kept) if op.returned <= now => {
                            Outcome::Applied { seq: *seq, versions: vec![versions[number]] }
                        }
                        _ => unknown(),
                    },
                };
                op.changes().iter().enumerate().map(alone).collect()
            }
        }
    }

    fn violation(self, culprit: usize) -> Violation {
        let Self { ops, parts, .. } = self;
        let culprit = ops[culprit];
        let is_whole = |number: usize| matches!(parts[number], Part::Whole | Part::Unanswered);
        // Who wrote what is read, for those who look at it.
        let is_writer = |op: &Op| {
            op.changes().iter().any(|change| {
                let reads = ops.iter().enumerate().filter(|(number, _)| is_whole(*number));
                change.value.is_some()
                    && reads
                        .flat_map(|(_, read)| read.found())
                        .any(|(key, found)| key == change.key && found.value == change.value)
            })
        };
        let shown = ops.iter().enumerate().filter(|(number, op)| is_whole(*number) || is_writer(op));
        let mut shown: Vec<&Op> = shown.map(|(_, op)| *op).collect();
        shown.sort_by_key(|op| op.invoked);
        let last = culprit.returned;
        let writes = |op: &&&Op| op.is_write() && op.invoked <= last;
        let count = |ops: &[&Op]| ops.iter().filter(writes).count();
        let hidden = count(&ops).saturating_sub(count(&shown));
        let mut keys: Vec<String> = ops.iter().flat_map(|op| op.keys().map(str::to_owned)).collect();
        keys.sort_unstable();
        keys.dedup();
        let place = shown.iter().position(|op| std::ptr::eq(*op, culprit)).unwrap_or_default();
        Violation { keys, ops: shown.into_iter().cloned().collect(), culprit: place, hidden }
    }
}

/// What an answer tells of keys: version and value, and whether the call made them.
fn told(op: &Op) -> Vec<(&str, u64, Option<&Bytes>, bool)> {
    let made =
        op.applied().map(|(change, version)| (change.key.as_str(), version, change.value.as_ref(), true));
    let is_page = op.keys().nth(1).is_some();
    let is_told = |found: &Found| !is_page || found.value.is_some() || found.version > 0;
    let found = op.found().filter(|(_, found)| is_told(found));
    made.chain(found.map(|(key, found)| (key, found.version, found.value.as_ref(), false))).collect()
}

/// Whether the two can't both be right, the second one having been answered last.
fn contradicts(first: &Op, second: &Op) -> bool {
    told(first).iter().any(|(key, version, value, made)| {
        told(second).iter().filter(|(other, ..)| key == other).any(|(_, later, later_value, later_made)| {
            let is_after = first.returned < second.invoked;
            let goes_back = later < version || later == version && *later_made;
            is_after && goes_back || later == version && (value != later_value || *made && *later_made)
        })
    })
}
