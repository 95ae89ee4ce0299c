//! Which calls have to be judged together: those of keys that some call joins.

use std::collections::BTreeMap;

use super::super::history::{Op, Outcome};

/// Keys by number, and which group each belongs to.
#[derive(Default)]
struct Union<'a> {
    numbers: BTreeMap<&'a str, usize>,
    parents: Vec<usize>,
}

impl<'a> Union<'a> {
    fn number(&mut self, key: &'a str) -> usize {
        let next = self.parents.len();
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.parents.push(next);
        }
        number
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.parents[number] != number {
            self.parents[number] = self.parents[self.parents[number]];
            number = self.parents[number];
        }
        number
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a] = b;
    }
}

/// The calls that can matter, by group. Calls that certainly did nothing and tell nothing are in none.
pub(super) fn groups(ops: &[Op]) -> Vec<Vec<&Op>> {
    let mut union = Union::default();
    let counts = |op: &&Op| !matches!(op.outcome, Outcome::NotApplied(_)) && (op.is_write() || op.is_ok());
    for op in ops.iter().filter(counts) {
        let mut keys = op.keys();
        let Some(first) = keys.next() else { continue };
        let first = union.number(first);
        for key in keys {
            let other = union.number(key);
            union.join(first, other);
        }
    }
    let mut groups: BTreeMap<usize, Vec<&Op>> = BTreeMap::new();
    for op in ops.iter().filter(counts) {
        let Some(first) = op.keys().next() else { continue };
        let number = union.number(first);
        groups.entry(union.root(number)).or_default().push(op);
    }
    groups.into_values().collect()
}
