//! Who reaches whom, and how long it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};

use super::place::Place;

/// The pairs between which nothing arrives, by direction.
pub(super) type Cut = BTreeSet<(Place, Place)>;

/// The network between all places.
#[derive(Debug, Default)]
pub(super) struct Network {
    cuts: BTreeMap<u64, Cut>,
    slow: BTreeMap<u64, (Place, Place, Duration)>,
    delay_micros: (u64, u64),
    stragglers: f64,
}

impl Network {
    /// A network in which nothing is cut. Of most messages, the least and greatest delay in microseconds; and which part
    /// of them takes much longer.
    #[must_use]
    pub(super) fn new(delay_micros: (u64, u64), stragglers: f64) -> Self {
        Self { delay_micros, stragglers, ..Self::default() }
    }

    /// Begins a cut, or a part of several; it goes on until it is mended.
    pub(super) fn cut(&mut self, id: u64, pairs: Cut) {
        self.cuts.insert(id, pairs);
    }

    /// Makes messages between two places take so much longer, until it is mended.
    pub(super) fn slow(&mut self, id: u64, a: Place, b: Place, by: Duration) {
        self.slow.insert(id, (a, b, by));
    }

    /// Ends a cut, or a slowness.
    pub(super) fn mend(&mut self, id: u64) {
        self.cuts.remove(&id);
        self.slow.remove(&id);
    }

    /// Ends all of them; no message is a straggler any more.
    pub(super) fn mend_all(&mut self) {
        self.stragglers = 0.0;
        self.cuts.clear();
        self.slow.clear();
    }

    /// Whether messages from one place arrive at the other now.
    #[must_use]
    pub(super) fn is_open(&self, from: Place, to: Place) -> bool {
        self.cuts.values().all(|cut| !cut.contains(&(from, to)))
    }

    /// How long the next message takes.
    pub(super) fn delay(&self, random: &mut StdRng, from: Place, to: Place) -> Duration {
        let (least, most) = self.delay_micros;
        let mut micros = random.random_range(least..=most);
        if self.stragglers > 0.0 && random.random_bool(self.stragglers) {
            micros += random.random_range(most..=most.saturating_mul(100));
        }
        let slow = self.slow.values().filter(|(a, b, _)| (*a, *b) == (from, to) || (*b, *a) == (from, to));
        Duration::from_micros(micros) + slow.map(|(_, _, by)| *by).sum::<Duration>()
    }
}
