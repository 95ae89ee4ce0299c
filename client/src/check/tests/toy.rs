//! Small random histories: of a toy store that executes each call at a random moment of its interval, and of nobody.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::check::{
    history::{Call, Change, Condition, Found, Op, Outcome},
    random::Random,
};

/// The dumb truth about a key: its value and its version; a deleted one keeps its version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) value: Option<Bytes>,
    pub(super) version: u64,
    pub(super) seq: u64,
}

impl Truth {
    /// What conditions see.
    pub(super) fn visible(&self) -> u64 {
        if self.value.is_some() { self.version } else { 0 }
    }
}

pub(super) type State = BTreeMap<String, Truth>;

/// How histories are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) ops: u64,
    pub(super) clients: u64,
    pub(super) keys: u64,
    /// The time in which the calls are sent, in milliseconds.
    pub(super) span: u64,
    /// The longest call.
    pub(super) longest: u64,
    /// In a hundred.
    pub(super) unknown: u64,
    pub(super) joined: u64,
    /// A write after a deletion begins again at version 1.
    pub(super) collected: bool,
}

impl Shape {
    pub(super) const SMALL: Self =
        Self { ops: 7, clients: 3, keys: 2, span: 12, longest: 8, unknown: 20, joined: 15, collected: false };
}

fn key(number: u64) -> String {
    format!("k{number}")
}

fn keys(random: &mut Random, shape: Shape) -> Vec<String> {
    let first = random.below(shape.keys);
    if shape.keys > 1 && random.below(100) < shape.joined {
        let second = (first + 1 + random.below(shape.keys - 1)) % shape.keys;
        return vec![key(first), key(second)];
    }
    vec![key(first)]
}

fn call(random: &mut Random, shape: Shape, number: u64) -> Call {
    let keys = keys(random, shape);
    if random.below(100) < 45 {
        return Call::Read { keys };
    }
    let change = |key: String| {
        if random.below(100) < 25 {
            return Change::delete(key);
        }
        let value = format!("{number}-{key}");
        let condition = match random.below(10) {
            0 => Condition::Version(0),
            1 => Condition::Version(1 + random.below(3)),
            2 => Condition::Exists,
            _ => Condition::Always,
        };
        Change::put(key, value).only_if(condition)
    };
    Call::Write { changes: keys.into_iter().map(change).collect() }
}

/// What the call answers in this state, and what it makes of it.
pub(super) fn execute(state: &mut State, call: &Call, seq: u64, collected: bool) -> Outcome {
    match call {
        Call::Read { keys } => {
            let is_page = keys.len() > 1;
            let found = |key: &String| {
                let Truth { value, version, seq } = state.get(key).cloned().unwrap_or_default();
                // A page does not tell of tombstones; a collected one is told by nobody.
                if value.is_none() && (is_page || collected) {
                    return Found::nothing();
                }
                Found { value, version, seq }
            };
            Outcome::Found(keys.iter().map(found).collect())
        }
        Call::Write { changes } => {
            for change in changes {
                let observed = state.get(&change.key).map_or(0, Truth::visible);
                if !change.condition.holds(observed) {
                    return Outcome::ConditionFailed { key: change.key.clone(), observed };
                }
            }
            let mut versions = vec![];
            for change in changes {
                let truth = state.entry(change.key.clone()).or_default();
                let again = collected && truth.value.is_none();
                *truth = Truth {
                    value: change.value.clone(),
                    version: if again { 1 } else { truth.version + 1 },
                    seq,
                };
                versions.push(truth.version);
            }
            Outcome::Applied { seq, versions }
        }
    }
}

/// A legal history.
pub(super) fn legal(random: &mut Random, shape: Shape) -> Vec<Op> {
    let mut ops: Vec<(Duration, Op)> = (0..shape.ops)
        .map(|number| {
            let invoked = random.below(shape.span);
            let length = random.below(shape.longest);
            let call = call(random, shape, number);
            let is_unknown = random.below(100) < shape.unknown;
            let outcome = if is_unknown {
                Outcome::Unknown("timeout".to_owned())
            } else {
                Outcome::NotApplied("no".to_owned())
            };
            let late = if is_unknown { shape.span } else { 0 };
            let point = micros(invoked * 10 + random.below((length + late) * 10 + 1));
            let client = u32::try_from(random.below(shape.clients)).unwrap();
            (
                point,
                Op { client, call, invoked: millis(invoked), returned: millis(invoked + length), outcome },
            )
        })
        .collect();
    ops.sort_by_key(|(point, _)| *point);
    let mut state = State::new();
    for (seq, (_, op)) in (1..).zip(&mut ops) {
        if matches!(op.outcome, Outcome::Unknown(_)) {
            if random.below(2) == 0 {
                execute(&mut state, &op.call, seq, shape.collected);
            }
        } else if op.is_write() && random.below(30) == 0 {
            // It stays certainly not applied.
        } else {
            op.outcome = execute(&mut state, &op.call, seq, shape.collected);
        }
    }
    let mut ops: Vec<Op> = ops.into_iter().map(|(_, op)| op).collect();
    ops.sort_by_key(|op| op.returned);
    ops
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Tenths of a millisecond.
fn micros(n: u64) -> Duration {
    Duration::from_micros(n * 100)
}

/// A history with a few answers changed into others: some are still legal.
pub(super) fn garbled(random: &mut Random, shape: Shape) -> Vec<Op> {
    let mut ops = legal(random, shape);
    for _ in 0..=random.below(3) {
        let at = random.index(ops.len());
        let other = random.index(ops.len());
        if random.below(3) == 0 {
            // Another time.
            let (invoked, length) = (random.below(shape.span), random.below(shape.longest));
            ops[at].invoked = millis(invoked);
            ops[at].returned = millis(invoked + length);
            continue;
        }
        let copied = ops[other].found().next().map(|(_, found)| found.clone());
        let value = ops[other].changes().first().and_then(|change| change.value.clone());
        let by = random.below(3);
        match &mut ops[at].outcome {
            Outcome::Found(found) => {
                let which = random.index(found.len());
                let found = &mut found[which];
                match (copied, value) {
                    (Some(copied), _) => *found = copied,
                    (None, Some(value)) => found.value = Some(value),
                    _ => *found = Found::nothing(),
                }
                if by == 0 {
                    found.version += 1;
                }
            }
            Outcome::Applied { versions, .. } => versions[0] = (versions[0] + by).max(2) - 1,
            Outcome::ConditionFailed { observed, .. } => *observed = by,
            outcome @ (Outcome::Unknown(_) | Outcome::NotApplied(_)) => {
                let is_unknown = matches!(outcome, Outcome::Unknown(_));
                *outcome = if is_unknown {
                    Outcome::NotApplied("no".to_owned())
                } else {
                    Outcome::Unknown("timeout".to_owned())
                };
            }
        }
    }
    ops
}
