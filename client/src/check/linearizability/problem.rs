//! A group of calls in numbers, without the unknown writes that can't matter (see `unseen`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::history::{Change, Condition, Found, Op, Outcome},
    Tombstones,
    unseen::kept,
};

/// The value of a key that does not exist.
pub(super) const NOTHING: u32 = 0;
/// The value of all writes that nobody saw: they are alike.
const UNSEEN: u32 = u32::MAX;
/// The version of a value that nobody told.
const UNTOLD: u32 = u32::MAX;

/// One key's state: its value by number, and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) value: u32,
    pub(super) version: u32,
}

impl Slot {
    pub(super) const ABSENT: Self = Self { value: NOTHING, version: 0 };

    /// The version that conditions see, zero if the key does not exist; none if it can't be known.
    fn visible(self) -> Option<u64> {
        match self {
            Self { value: NOTHING, .. } => Some(0),
            Self { version: UNTOLD, .. } => None,
            Self { version, .. } => Some(version.into()),
        }
    }
}

/// What an answer tells of a key.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// This value, as this version.
    Value(u32, u32),
    /// That it does not exist; its tombstone's version, if that is told and means something.
    Absent(Option<u32>),
    /// The version that conditions see.
    Visible(u64),
}

/// What a write does to a key.
#[derive(Debug, Clone, Copy)]
struct Put {
    value: u32,
    /// The version that it made, if that is told and means something.
    version: Option<u32>,
    condition: Condition,
}

/// What a call does to the state, or says about it; key by key.
#[derive(Debug, Clone)]
enum Act {
    Look(Vec<(usize, Seen)>),
    Put(Vec<(usize, Put)>),
    /// An answer that no state explains.
    Never,
}

/// A call.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) call: Duration,
    /// Of no meaning for one that may never take effect.
    pub(super) until: Duration,
    act: Act,
    /// The one, of those that may never take effect, that goes first if both do.
    pub(super) twin: Option<usize>,
    /// Its keys, a bit each; beyond so many bits several share one.
    pub(super) keys: u64,
}

/// A group of calls.
pub(super) struct Problem {
    pub(super) keys: usize,
    /// Must have its place; in the order of their sending.
    pub(super) closed: Vec<Step>,
    /// May have one; in the order of their sending.
    pub(super) open: Vec<Step>,
    pub(super) tombstones: Tombstones,
    /// With tombstones kept: versions of keys whose write is known. No other write made them.
    made: HashSet<(usize, u32)>,
}

impl Step {
    /// With tombstones kept: which versions its keys have to have when it has its place, of those that it only looks at.
    pub(super) fn tells(&self) -> impl Iterator<Item = (usize, u32)> {
        let looks = if let Act::Look(looks) = &self.act { &looks[..] } else { &[] };
        looks.iter().filter_map(|(key, seen)| match seen {
            Seen::Value(_, version) | Seen::Absent(Some(version)) => Some((*key, *version)),
            Seen::Visible(version) if *version > 0 => Some((*key, short(*version))),
            Seen::Visible(_) | Seen::Absent(None) => None,
        })
    }

    /// The keys that it changes.
    pub(super) fn changes(&self) -> impl Iterator<Item = usize> {
        let puts = if let Act::Put(puts) = &self.act { &puts[..] } else { &[] };
        puts.iter().map(|(key, _)| *key)
    }

    /// Whether it leaves every state as it is.
    pub(super) fn is_look(&self) -> bool {
        !matches!(self.act, Act::Put(_))
    }
}

impl Problem {
    pub(super) fn new(ops: &[&Op], tombstones: Tombstones) -> Self {
        let mut names = Names { tombstones, ..Names::default() };
        for op in ops {
            names.note(op);
        }
        let is_unknown = |op: &&&Op| op.is_write() && matches!(op.outcome, Outcome::Unknown(_));
        let (seen, unseen): (Vec<&Op>, Vec<&Op>) =
            ops.iter().copied().filter(|op| is_unknown(&op)).partition(|op| names.first_seen(op).is_some());
        let closed = ops.iter().filter(|op| !is_unknown(op) && !is_loose(op));
        let mut closed: Vec<Step> = closed.map(|op| names.step(op, op.returned)).collect();
        // What was read had taken effect by then.
        closed.extend(seen.iter().map(|op| names.step(op, names.first_seen(op).unwrap_or(op.returned))));
        closed.sort_by_key(|step| step.call);
        let mut open: Vec<&Op> = kept(ops, &seen, unseen, &names);
        open.extend(ops.iter().filter(|op| is_loose(op)));
        open.sort_by_key(|op| (op.invoked, op.applied().map(|(_, version)| version).max()));
        let mut newest = HashMap::new();
        let open = open.into_iter().enumerate().map(|(number, op)| {
            let twin = newest.insert(names.signature(op), number);
            Step { twin, ..names.step(op, op.returned) }
        });
        let open = open.collect();
        Self { keys: names.keys.len(), closed, open, tombstones, made: names.made }
    }

    /// The state after the call; none if the call can't have its place here.
    pub(super) fn apply(&self, step: &Step, state: &[Slot], after: &mut Vec<Slot>) -> bool {
        match &step.act {
            Act::Never => false,
            Act::Look(looks) => {
                let fits = looks.iter().all(|(key, seen)| self.fits(state[*key], *seen));
                after.clear();
                after.extend_from_slice(state);
                fits
            }
            Act::Put(puts) => {
                after.clear();
                after.extend_from_slice(state);
                puts.iter().all(|(key, put)| self.put(*key, &mut after[*key], *put))
            }
        }
    }

    fn fits(&self, slot: Slot, seen: Seen) -> bool {
        match seen {
            Seen::Value(value, version) => {
                slot.value == value && (slot.version == version || slot.version == UNTOLD)
            }
            Seen::Absent(version) => {
                let is_same =
                    self.tombstones == Tombstones::Collected || version.is_none_or(|v| v == slot.version);
                slot.value == NOTHING && is_same
            }
            Seen::Visible(0) => slot.value == NOTHING,
            Seen::Visible(version) => {
                slot.value != NOTHING && slot.visible().is_none_or(|visible| visible == version)
            }
        }
    }

    fn put(&self, key: usize, slot: &mut Slot, put: Put) -> bool {
        let holds = match (slot.visible(), put.condition) {
            (Some(version), condition) => condition.holds(version),
            // It exists, as a version that nobody told.
            (None, condition) => condition != Condition::Version(0),
        };
        let version = match self.tombstones {
            Tombstones::Kept => slot.version.saturating_add(1),
            Tombstones::Collected if put.value == NOTHING => 0,
            Tombstones::Collected => put.version.unwrap_or(UNTOLD),
        };
        let is_as_told = match (self.tombstones, put.version) {
            (Tombstones::Collected, _) => true,
            (Tombstones::Kept, Some(told)) => told == version,
            (Tombstones::Kept, None) => !self.made.contains(&(key, version)),
        };
        *slot = Slot { value: put.value, version };
        holds && is_as_told
    }
}

/// Keys and values by number, and what is told of them.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub(super) tombstones: Tombstones,
    keys: BTreeMap<&'a str, usize>,
    values: HashMap<(usize, &'a Bytes), u32>,
    /// When a value was first answered to a read.
    seen: HashMap<(usize, &'a Bytes), Duration>,
    /// Which version a value was first told to be.
    told: HashMap<u32, u32>,
    made: HashSet<(usize, u32)>,
}

/// Versions beyond all counting are all alike: no key gets there.
fn short(version: u64) -> u32 {
    u32::try_from(version).unwrap_or(UNTOLD).min(UNTOLD - 1)
}

impl<'a> Names<'a> {
    fn note(&mut self, op: &'a Op) {
        for key in op.keys() {
            let next = self.keys.len();
            self.keys.entry(key).or_insert(next);
        }
        for (change, version) in op.applied() {
            self.made.insert((self.keys[change.key.as_str()], short(version)));
        }
        for (number, change) in op.changes().iter().enumerate() {
            let Some(value) = &change.value else { continue };
            let value = self.value(&change.key, value);
            if let Outcome::Applied { versions, .. } = &op.outcome {
                // The writer knows best.
                self.told.insert(value, short(versions[number]));
            }
        }
        for (key, found) in op.found() {
            let Some(value) = &found.value else { continue };
            let number = self.value(key, value);
            self.told.entry(number).or_insert(short(found.version));
            self.made.insert((self.keys[key], short(found.version)));
            let first = self.seen.entry((self.keys[key], value)).or_insert(op.returned);
            *first = op.returned.min(*first);
        }
    }

    fn value(&mut self, key: &str, value: &'a Bytes) -> u32 {
        // Zero is nothing.
        let next = u32::try_from(self.values.len() + 1).unwrap_or(UNSEEN - 1);
        *self.values.entry((self.keys[key], value)).or_insert(next)
    }

    /// When a value of this write was first answered to a read.
    fn first_seen(&self, op: &Op) -> Option<Duration> {
        op.changes().iter().filter_map(|change| self.seen_of(change)).min()
    }

    pub(super) fn seen_of(&self, change: &Change) -> Option<Duration> {
        self.seen.get(&(self.keys[change.key.as_str()], change.value.as_ref()?)).copied()
    }

    fn step(&self, op: &Op, until: Duration) -> Step {
        let keys = op.keys().fold(0, |bits, key| bits | 1_u64 << (self.keys[key] % 64));
        Step { call: op.invoked, until: until.max(op.invoked), act: self.act(op), twin: None, keys }
    }

    fn act(&self, op: &Op) -> Act {
        match &op.outcome {
            // What exists has a version.
            Outcome::Found(found) if found.iter().any(|one| one.value.is_some() && one.version == 0) => {
                Act::Never
            }
            Outcome::Applied { versions, .. } if versions.contains(&0) => Act::Never,
            Outcome::Found(_) => {
                let is_page = op.keys().nth(1).is_some();
                Act::Look(
                    op.found().map(|(key, found)| (self.keys[key], self.look(key, found, is_page))).collect(),
                )
            }
            Outcome::ConditionFailed { key, observed } => {
                let change = op.changes().iter().find(|change| change.key == *key);
                if change.is_none_or(|change| change.condition.holds(*observed)) {
                    return Act::Never;
                }
                Act::Look(vec![(self.keys[key.as_str()], Seen::Visible(*observed))])
            }
            _ => {
                let puts = op.changes().iter().enumerate();
                Act::Put(
                    puts.map(|(number, c)| (self.keys[c.key.as_str()], self.put(op, number, c))).collect(),
                )
            }
        }
    }

    fn look(&self, key: &str, Found { value, version, .. }: &Found, is_page: bool) -> Seen {
        match value {
            Some(value) => Seen::Value(self.values[&(self.keys[key], value)], short(*version)),
            // A page need not tell of tombstones.
            None if is_page && *version == 0 => Seen::Absent(None),
            None => Seen::Absent(Some(short(*version))),
        }
    }

    fn put(&self, op: &Op, number: usize, change: &Change) -> Put {
        let told =
            if let Outcome::Applied { versions, .. } = &op.outcome { versions.get(number) } else { None };
        let is_unseen = told.is_none() && self.seen_of(change).is_none();
        let value = match &change.value {
            None => NOTHING,
            Some(_) if is_unseen => UNSEEN,
            Some(value) => self.values[&(self.keys[change.key.as_str()], value)],
        };
        let known = || self.told.get(&value).copied();
        let version = match self.tombstones {
            Tombstones::Kept => told.map(|version| short(*version)).or_else(known),
            Tombstones::Collected => known(),
        };
        Put { value, version, condition: change.condition }
    }

    /// Of open writes with the same one the earlier goes first: those that nobody saw and that do the same, since they are
    /// alike; and loose ones of a key, in the order of their versions.
    fn signature(&self, op: &Op) -> (bool, Vec<(usize, bool, Condition)>) {
        let is_loose = is_loose(op);
        let one = |c: &Change| (self.keys[c.key.as_str()], !is_loose && c.value.is_none(), c.condition);
        (is_loose, op.changes().iter().map(one).collect())
    }
}

/// Whether it is a write that made a version that is told, but may have made it at any time, or never: see `shrink`.
fn is_loose(op: &Op) -> bool {
    op.is_applied() && op.returned == Duration::MAX
}
