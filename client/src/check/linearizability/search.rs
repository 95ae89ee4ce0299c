//! The search for an order. No recursion; a call that only looks is never tried a second time in another place, since
//! whatever comes after it does not depend on it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    Settings, Tombstones,
    problem::{Problem, Slot, Step},
};

/// What a search found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An order.
    Order,
    /// That there is none.
    None,
    /// That it would take too much.
    TooMuch(String),
}

/// What a memo entry takes besides its words, about.
const ENTRY_BYTES: usize = 64;

/// Looks for an order of all closed calls and any of the open ones.
pub(super) fn search(problem: &Problem, settings: &Settings) -> Found {
    Search::new(problem).run(settings)
}

/// Where to look for the next call: a node of the list, or an open call that was sent by the time `until`.
#[derive(Debug, Clone, Copy)]
enum Cursor {
    Listed(usize),
    Open { number: usize, until: Duration },
}

/// A call in its place, and how to take it back.
struct Placed {
    cursor: Cursor,
    before: Vec<Slot>,
    run: u64,
    /// It only looks: where it can be, it may be.
    is_look: bool,
}

struct Search<'a> {
    problem: &'a Problem,
    list: List,
    state: Vec<Slot>,
    /// Closed calls that have their place.
    done: Bits,
    done_count: usize,
    /// Open calls that have one.
    used: Bits,
    /// The keys of the open calls that were placed since the last closed one: these are there for the next closed one.
    run: u64,
    /// With tombstones kept: how many closed calls without a place look at a key's version.
    looks_left: HashMap<(usize, u32), u32>,
    /// Open calls of several keys.
    joining: Vec<usize>,
    memo: HashSet<Box<[u64]>>,
    memo_bytes: usize,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem) -> Self {
        let mut looks_left = HashMap::new();
        if problem.tombstones == Tombstones::Kept {
            for told in problem.closed.iter().flat_map(Step::tells) {
                *looks_left.entry(told).or_default() += 1;
            }
        }
        Self {
            problem,
            looks_left,
            list: List::new(&problem.closed),
            state: vec![Slot::ABSENT; problem.keys],
            done: Bits::new(problem.closed.len()),
            done_count: 0,
            used: Bits::new(problem.open.len()),
            run: 0,
            joining: (0..problem.open.len()).filter(|n| problem.open[*n].keys.count_ones() > 1).collect(),
            memo: HashSet::new(),
            memo_bytes: 0,
        }
    }

    fn run(mut self, settings: &Settings) -> Found {
        let mut placed: Vec<Placed> = Vec::new();
        let mut cursor = Cursor::Listed(self.list.first());
        let mut after = Vec::new();
        let mut steps = 0_u64;
        while self.done_count < self.problem.closed.len() {
            steps += 1;
            if steps > settings.steps_max {
                return Found::TooMuch(format!("it takes more than {} steps", settings.steps_max));
            }
            if self.memo_bytes > settings.memo_bytes_max {
                return Found::TooMuch(format!("it takes more than {} bytes", settings.memo_bytes_max));
            }
            let Some(step) = self.at(&mut cursor) else {
                let Some(last) = self.take_back(&mut placed) else { return Found::None };
                cursor = last;
                continue;
            };
            if !self.problem.apply(step, &self.state, &mut after) || self.leaves_behind(step) {
                cursor = self.next(cursor);
                continue;
            }
            let is_look = step.is_look();
            let run = self.run;
            self.run = match cursor {
                Cursor::Listed(_) if self.run & !self.reach(step.keys, self.run) != 0 => {
                    cursor = self.next(cursor);
                    continue;
                }
                Cursor::Listed(_) => 0,
                Cursor::Open { .. } => run | step.keys,
            };
            self.place(cursor);
            std::mem::swap(&mut self.state, &mut after);
            if self.is_new() {
                placed.push(Placed { cursor, before: std::mem::take(&mut after), run, is_look });
                cursor = Cursor::Listed(self.list.first());
            } else {
                std::mem::swap(&mut self.state, &mut after);
                self.run = run;
                self.unplace(cursor);
                // Where a look leads has been tried: whatever else may come first, it may come there.
                cursor = if is_look {
                    Cursor::Open { number: usize::MAX, until: Duration::ZERO }
                } else {
                    self.next(cursor)
                };
            }
        }
        Found::Order
    }

    /// The call at the cursor, or the next one that may come first now.
    fn at(&self, cursor: &mut Cursor) -> Option<&'a Step> {
        if let Cursor::Listed(node) = *cursor {
            match self.list.entries[node] {
                Entry::Call(number) => return Some(&self.problem.closed[number]),
                // Whatever was sent later than this was answered can't come before it; open calls come last, since
                // they need not come at all.
                Entry::Answer(number) => {
                    *cursor = Cursor::Open { number: 0, until: self.problem.closed[number].until };
                }
                Entry::End => return None,
            }
        }
        let Cursor::Open { number, until } = cursor else { return None };
        while let Some(step) = self.problem.open.get(*number).filter(|step| step.call <= *until) {
            // Of calls that do the same, the earlier one goes first.
            let is_next = !self.used.has(*number) && step.twin.is_none_or(|twin| self.used.has(twin));
            if is_next && self.is_of_use(self.run | step.keys) {
                return Some(step);
            }
            *number += 1;
        }
        None
    }

    /// Whether a call without a place looks at what this one overwrites: it would never have one.
    fn leaves_behind(&self, step: &Step) -> bool {
        step.changes().any(|key| {
            let told = (key, self.state[key].version);
            self.looks_left.get(&told).is_some_and(|left| *left > 0)
        })
    }

    fn look(&mut self, number: usize, is_placed: bool) {
        for told in self.problem.closed[number].tells() {
            if let Some(left) = self.looks_left.get_mut(&told) {
                if is_placed { *left -= 1 } else { *left += 1 }
            }
        }
    }

    /// Whether open calls of these keys may be there for a call that comes next. An open call can wait until right before
    /// one that has a key of it, and makes no difference to others; so open calls are placed only for what comes next.
    fn is_of_use(&self, run: u64) -> bool {
        let mut node = self.list.first();
        while let Entry::Call(number) = self.list.entries[node] {
            if run & !self.reach(self.problem.closed[number].keys, run) == 0 {
                return true;
            }
            node = self.list.next[node];
        }
        false
    }

    /// These keys, and those that open calls of several keys join them with.
    fn reach(&self, mut keys: u64, run: u64) -> u64 {
        loop {
            let before = keys;
            for number in &self.joining {
                let joined = self.problem.open[*number].keys;
                let may_count = !self.used.has(*number) || joined & !run == 0;
                if may_count && joined & keys != 0 {
                    keys |= joined;
                }
            }
            if keys == before {
                return keys;
            }
        }
    }

    fn next(&self, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::Listed(node) => Cursor::Listed(self.list.next[node]),
            Cursor::Open { number, until } => Cursor::Open { number: number + 1, until },
        }
    }

    fn place(&mut self, cursor: Cursor) {
        match cursor {
            Cursor::Listed(node) => {
                let Entry::Call(number) = self.list.entries[node] else { return };
                self.list.lift(node);
                self.look(number, true);
                self.done.set(number, true);
                self.done_count += 1;
            }
            Cursor::Open { number, .. } => self.used.set(number, true),
        }
    }

    fn unplace(&mut self, cursor: Cursor) {
        match cursor {
            Cursor::Listed(node) => {
                let Entry::Call(number) = self.list.entries[node] else { return };
                self.list.unlift(node);
                self.look(number, false);
                self.done.set(number, false);
                self.done_count -= 1;
            }
            Cursor::Open { number, .. } => self.used.set(number, false),
        }
    }

    /// Takes the last call back, with all looks that led to it; brings where to go on.
    fn take_back(&mut self, placed: &mut Vec<Placed>) -> Option<Cursor> {
        loop {
            let Placed { cursor, before, run, is_look } = placed.pop()?;
            self.run = run;
            self.unplace(cursor);
            self.state = before;
            if !is_look {
                return Some(self.next(cursor));
            }
        }
    }

    /// Whether these calls have never been in place with this state. What all calls before the first one without a place
    /// have, need not be said one by one.
    fn is_new(&mut self) -> bool {
        let Entry::Call(base) = self.list.entries[self.list.first()] else { return true };
        let mut key = vec![base as u64, self.run];
        let mut above = self.done_count - base;
        for (number, word) in self.done.0.iter().enumerate().skip(base / 64) {
            if above == 0 {
                break;
            }
            let below = if number == base / 64 { (1_u64 << (base % 64)) - 1 } else { 0 };
            key.push(word & !below);
            above -= (word & !below).count_ones() as usize;
        }
        // The base has bits to spare: the number of words after it makes the key unambiguous.
        key[0] |= (key.len() as u64) << 40;
        let used = self.used.0.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        key.extend_from_slice(&self.used.0[..used]);
        key.extend(self.state.iter().map(|slot| u64::from(slot.value) << 32 | u64::from(slot.version)));
        let bytes = ENTRY_BYTES + key.len() * size_of::<u64>();
        let is_new = self.memo.insert(key.into_boxed_slice());
        self.memo_bytes += if is_new { bytes } else { 0 };
        is_new
    }
}

/// Numbers, each in or out.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    fn set(&mut self, number: usize, is_in: bool) {
        let bit = 1 << (number % 64);
        if is_in {
            self.0[number / 64] |= bit;
        } else {
            self.0[number / 64] &= !bit;
        }
    }
}

/// A node of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// The sending of a closed call. Sorts before answers: two equal stamps tell no order.
    Call(usize),
    /// Its answer.
    Answer(usize),
    /// Of the list.
    End,
}

/// Sendings and answers of the closed calls without a place, by time. The first node is before all, the last the end.
struct List {
    entries: Vec<Entry>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of a call's node, its answer's.
    answers: Vec<usize>,
}

impl List {
    fn new(closed: &[Step]) -> Self {
        let calls = closed.iter().enumerate().map(|(number, step)| (step.call, Entry::Call(number)));
        let answers = closed.iter().enumerate().map(|(number, step)| (step.until, Entry::Answer(number)));
        let mut events: Vec<_> = calls.chain(answers).collect();
        events.sort_unstable();
        let mut entries = vec![Entry::End];
        entries.extend(events.into_iter().map(|(_, entry)| entry));
        entries.push(Entry::End);
        let last = entries.len() - 1;
        let mut of_answers = vec![0; closed.len()];
        for (node, entry) in entries.iter().enumerate() {
            if let Entry::Answer(number) = entry {
                of_answers[*number] = node;
            }
        }
        let answer = |entry: &Entry| if let Entry::Call(number) = entry { of_answers[*number] } else { 0 };
        Self {
            answers: entries.iter().map(answer).collect(),
            next: (0..entries.len()).map(|node| (node + 1).min(last)).collect(),
            previous: (0..entries.len()).map(|node| node.saturating_sub(1)).collect(),
            entries,
        }
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn lift(&mut self, call: usize) {
        for node in [call, self.answers[call]] {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    fn unlift(&mut self, call: usize) {
        for node in [self.answers[call], call] {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = node;
            self.previous[next] = node;
        }
    }
}
