//! What became of requests, so that a repeated one is recognised (`protocol.md` 3.3).
//!
//! Outcomes derive from entries alone: equal on all replicas, rolled back with their entries. The store has them in the
//! rows of their entries; only when such a row is removed while its outcome may still be asked for, the outcome is
//! stored by itself. A client's floor drops what it will never repeat; beyond a limit, the head writes an entry that
//! forgets the oldest, and what can then no longer be judged is refused, never executed.

use std::collections::BTreeMap;

use craq_proto::{
    ClientId, Entry, Outcome, RequestId, Row, Seq, Version,
    planted::{self, Bug},
};

/// What the head knows of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Never executed, now or before.
    New,
    /// Executed and committed.
    Committed { seq: Seq, versions: Vec<Version> },
    /// Executed, its entry is not yet known to be committed.
    Dirty(Seq),
    /// The client has said that it would not send this number again.
    GivenUp { floor: u64 },
    /// It may have been executed, by this attempt or by a later one that overtook it, but what would tell is forgotten.
    Forgotten,
}

#[derive(Debug, Clone, Hash)]
struct Kept {
    seq: Seq,
    versions: Made,
    /// The store has the outcome by itself.
    stored: bool,
}

/// The versions that an entry has made. Most entries have one mutation.
#[derive(Debug, Clone, Hash)]
enum Made {
    One(Version),
    Other(Vec<Version>),
}

impl Made {
    fn push(&mut self, version: Version) {
        match self {
            Self::One(first) => *self = Self::Other(vec![*first, version]),
            Self::Other(versions) => versions.push(version),
        }
    }

    fn to_vec(&self) -> Vec<Version> {
        match self {
            Self::One(version) => vec![*version],
            Self::Other(versions) => versions.clone(),
        }
    }
}

impl From<Vec<Version>> for Made {
    fn from(versions: Vec<Version>) -> Self {
        match versions.as_slice() {
            [version] => Self::One(*version),
            _ => Self::Other(versions),
        }
    }
}

/// All outcomes that may still be asked for.
#[derive(Debug, Default, Clone, Hash)]
pub(super) struct Outcomes {
    by_request: BTreeMap<(ClientId, u64), Kept>,
    /// Of the clients of these outcomes.
    floors: BTreeMap<ClientId, u64>,
    by_seq: BTreeMap<Seq, (ClientId, u64)>,
    dirty: BTreeMap<(ClientId, u64), Seq>,
    dirty_floors: BTreeMap<ClientId, u64>,
    forgotten_through: Seq,
    /// Stored by themselves and no longer needed: for the next write.
    to_drop: Vec<Seq>,
}

impl Outcomes {
    pub(super) fn at(forgotten_through: Seq) -> Self {
        Self { forgotten_through, ..Self::default() }
    }

    pub(super) fn forgotten_through(&self) -> Seq {
        self.forgotten_through
    }

    /// How many committed outcomes are kept.
    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// How many outcomes of the client stay if it gives up all below `floor`; dirty ones not counted.
    pub(super) fn of_client_above(&self, client: ClientId, floor: u64) -> usize {
        self.by_request.range((client, floor)..=(client, u64::MAX)).count()
    }

    pub(super) fn judge(&self, request: &RequestId) -> Judgement {
        let RequestId { client, number, .. } = *request;
        if planted::is(Bug::RepeatExecuted) {
            return Judgement::New;
        }
        if let Some(seq) = self.dirty.get(&(client, number)) {
            return Judgement::Dirty(*seq);
        }
        if let Some(kept) = self.by_request.get(&(client, number)) {
            return Judgement::Committed { seq: kept.seq, versions: kept.versions.to_vec() };
        }
        let dirty_floor = self.dirty_floors.get(&client).copied().unwrap_or(0);
        let floor = self.floor(client).max(dirty_floor);
        if number < floor && !planted::is(Bug::GivenUpExecuted) {
            return Judgement::GivenUp { floor };
        }
        // What it made can only stand above `born`; what stands at or below the forgotten is not known any more. That it
        // is no repeat proves nothing: its repeat may have come before it.
        let bug = if request.retry { Bug::ForgottenExecuted } else { Bug::LateFirstExecuted };
        if request.born < self.forgotten_through && !planted::is(bug) {
            return Judgement::Forgotten;
        }
        Judgement::New
    }

    fn floor(&self, client: ClientId) -> u64 {
        self.floors.get(&client).copied().unwrap_or(0)
    }

    /// An entry was appended.
    pub(super) fn mark_dirty(&mut self, entry: &Entry) {
        if let Some(request) = &entry.request {
            self.dirty.insert((request.client, request.number), entry.seq);
            let floor = self.dirty_floors.entry(request.client).or_default();
            *floor = request.floor.max(*floor);
        }
    }

    /// An entry was thrown away. The floors that it brought may stand too high until the client is seen again; they only
    /// refuse what the client has given up all the same.
    pub(super) fn roll_back(&mut self, entry: &Entry) {
        if let Some(request) = &entry.request {
            self.settle(request);
        }
    }

    fn settle(&mut self, request: &RequestId) {
        self.dirty.remove(&(request.client, request.number));
        let any_left = self.dirty.range((request.client, 0)..=(request.client, u64::MAX)).next().is_some();
        if !any_left {
            self.dirty_floors.remove(&request.client);
        }
    }

    /// An entry was committed.
    pub(super) fn commit(&mut self, entry: &Entry) {
        if let Some(request) = &entry.request {
            self.settle(request);
            let versions = entry.mutations.iter().map(|mutation| mutation.version).collect();
            let outcome = Outcome {
                client: request.client,
                number: request.number,
                floor: request.floor,
                seq: entry.seq,
                versions,
            };
            self.keep(outcome, false);
        }
        self.forget(entry.forget_through);
    }

    /// A row of the committed log was read: from the own store at start. Rows come rising.
    pub(super) fn row(&mut self, row: &Row) {
        self.forget(row.forget_through);
        let (Some(request), Some(mutation)) = (&row.request, &row.mutation) else { return };
        if row.seq <= self.forgotten_through {
            return;
        }
        match self.by_request.get_mut(&(request.client, request.number)) {
            // A further row of the same entry, or one whose outcome is stored by itself, whole.
            Some(kept) if kept.stored => {}
            Some(kept) => kept.versions.push(mutation.version),
            None => self.keep(
                Outcome {
                    client: request.client,
                    number: request.number,
                    floor: request.floor,
                    seq: row.seq,
                    versions: vec![mutation.version],
                },
                false,
            ),
        }
    }

    /// Keeps an outcome. One below its client's floor is dropped at once.
    pub(super) fn keep(&mut self, outcome: Outcome, stored: bool) {
        if outcome.seq <= self.forgotten_through {
            if stored {
                self.to_drop.push(outcome.seq);
            }
            return;
        }
        let Outcome { client, number, floor, seq, versions } = outcome;
        let known = self.floors.entry(client).or_default();
        *known = floor.max(*known);
        let floor = *known;
        self.by_seq.insert(seq, (client, number));
        self.by_request.insert((client, number), Kept { seq, versions: versions.into(), stored });
        while let Some((request, given_up)) = self.first_of(client, floor) {
            let (seq, stored) = (given_up.seq, given_up.stored);
            self.by_request.remove(&request);
            self.by_seq.remove(&seq);
            self.to_drop.extend(stored.then_some(seq));
        }
    }

    /// The client's first outcome below this number.
    fn first_of(&self, client: ClientId, below: u64) -> Option<((ClientId, u64), &Kept)> {
        let mut outcomes = self.by_request.range((client, 0)..(client, below));
        outcomes.next().map(|(request, kept)| (*request, kept))
    }

    fn forget(&mut self, through: Seq) {
        if through <= self.forgotten_through {
            return;
        }
        self.forgotten_through = through;
        let kept = self.by_seq.split_off(&through.next());
        for (seq, (client, number)) in std::mem::replace(&mut self.by_seq, kept) {
            if self.by_request.remove(&(client, number)).is_some_and(|kept| kept.stored) {
                self.to_drop.push(seq);
            }
            if self.first_of(client, u64::MAX).is_none() {
                self.floors.remove(&client);
            }
        }
    }

    /// The sequence through which to forget so that half of the outcomes are left.
    pub(super) fn older_half(&self) -> Option<Seq> {
        self.by_seq.keys().nth(self.by_seq.len() / 2).copied()
    }

    /// The row of this entry is about to be removed: the outcome that it alone holds, if it may still be asked for.
    pub(super) fn rescue(&mut self, seq: Seq) -> Option<Outcome> {
        let (client, number) = *self.by_seq.get(&seq)?;
        let floor = self.floor(client);
        let kept = self.by_request.get_mut(&(client, number))?;
        if kept.stored {
            return None;
        }
        kept.stored = true;
        Some(Outcome { client, number, floor, seq, versions: kept.versions.to_vec() })
    }

    /// Stored outcomes that are no longer needed.
    pub(super) fn take_dropped(&mut self) -> Vec<Seq> {
        std::mem::take(&mut self.to_drop)
    }

    /// All outcomes, by sequence.
    pub(super) fn all(&self) -> impl Iterator<Item = Outcome> + '_ {
        self.by_seq.iter().filter_map(|(seq, (client, number))| {
            let versions = self.by_request.get(&(*client, *number))?.versions.to_vec();
            let floor = self.floor(*client);
            Some(Outcome { client: *client, number: *number, floor, seq: *seq, versions })
        })
    }

    /// Takes over a source's outcomes in place of the own committed ones; the store gets them by themselves.
    /// Returns those that the store has and that are none any more.
    pub(super) fn replace(&mut self, outcomes: &[Outcome], forgotten_through: Seq) -> Vec<Seq> {
        let stored = self.by_request.values().filter(|kept| kept.stored);
        let mut obsolete: Vec<Seq> = stored.map(|kept| kept.seq).collect();
        obsolete.append(&mut self.to_drop);
        *self = Self::at(forgotten_through);
        for outcome in outcomes {
            self.keep(outcome.clone(), true);
        }
        obsolete.retain(|seq| !self.by_seq.contains_key(seq));
        obsolete
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use craq_proto::{Epoch, Key, Mutation, Op};

    fn request(client: u128, number: u64, floor: u64) -> RequestId {
        RequestId { client: ClientId(Uuid::from_u128(client)), number, floor, born: Seq::ZERO, retry: true }
    }

    fn entry(seq: u64, request: Option<RequestId>, forget: u64) -> Entry {
        let mutation =
            Mutation { key: Key::new("k").unwrap(), version: Version(seq), op: Op::Delete, checksum: 0 };
        let (seq, forget_through) = (Seq(seq), Seq(forget));
        Entry { seq, origin_epoch: Epoch(1), request, mutations: vec![mutation], forget_through }
    }

    #[test]
    fn a_request_is_dirty_then_committed_then_given_up() {
        let mut outcomes = Outcomes::default();
        let first = request(1, 1, 1);
        assert_eq!(outcomes.judge(&first), Judgement::New);
        outcomes.mark_dirty(&entry(5, Some(first), 0));
        assert_eq!(outcomes.judge(&first), Judgement::Dirty(Seq(5)));
        outcomes.roll_back(&entry(5, Some(first), 0));
        assert_eq!(outcomes.judge(&first), Judgement::New);
        outcomes.mark_dirty(&entry(5, Some(first), 0));
        outcomes.commit(&entry(5, Some(first), 0));
        assert_eq!(outcomes.judge(&first), Judgement::Committed { seq: Seq(5), versions: vec![Version(5)] });
        outcomes.commit(&entry(6, Some(request(1, 2, 2)), 0));
        assert_eq!(outcomes.judge(&first), Judgement::GivenUp { floor: 2 });
        assert_eq!(outcomes.len(), 1);
    }

    #[test]
    fn what_is_forgotten_is_refused_unless_it_must_be_newer() {
        let mut outcomes = Outcomes::default();
        for seq in 1..=10 {
            outcomes.commit(&entry(seq, Some(request(u128::from(seq), 1, 1)), 0));
        }
        assert_eq!(outcomes.older_half(), Some(Seq(6)));
        outcomes.commit(&entry(11, None, 6));
        assert_eq!(outcomes.len(), 4);
        assert_eq!(outcomes.judge(&request(3, 1, 1)), Judgement::Forgotten);
        let late = RequestId { retry: false, ..request(3, 1, 1) };
        assert_eq!(outcomes.judge(&late), Judgement::Forgotten, "its repeat may have overtaken it");
        let young = RequestId { born: Seq(6), ..request(3, 1, 1) };
        assert_eq!(outcomes.judge(&young), Judgement::New, "what it made would stand above the forgotten");
        assert!(matches!(outcomes.judge(&request(7, 1, 1)), Judgement::Committed { .. }));
    }

    #[test]
    fn outcomes_survive_the_removal_of_their_rows() {
        let mut outcomes = Outcomes::default();
        outcomes.commit(&entry(5, Some(request(1, 1, 1)), 0));
        let rescued = outcomes.rescue(Seq(5)).unwrap();
        assert_eq!(outcomes.rescue(Seq(5)), None, "once is enough");
        let mut reloaded = Outcomes::default();
        reloaded.keep(rescued, true);
        assert_eq!(reloaded.judge(&request(1, 1, 1)), outcomes.judge(&request(1, 1, 1)));
        reloaded.commit(&entry(6, Some(request(1, 2, 2)), 0));
        assert_eq!(reloaded.take_dropped(), [Seq(5)]);
    }

    #[test]
    fn a_learner_takes_over_exactly_its_sources_outcomes() {
        let mut source = Outcomes::default();
        source.commit(&entry(5, Some(request(1, 1, 1)), 0));
        source.commit(&entry(9, Some(request(2, 4, 3)), 0));
        let mut learner = Outcomes::default();
        learner.keep(
            Outcome {
                client: ClientId(Uuid::from_u128(3)),
                number: 1,
                floor: 1,
                seq: Seq(2),
                versions: vec![],
            },
            true,
        );
        let all: Vec<_> = source.all().collect();
        assert_eq!(learner.replace(&all, Seq(1)), [Seq(2)]);
        assert_eq!(learner.all().collect::<Vec<_>>(), all);
        assert_eq!(learner.judge(&request(3, 1, 1)), Judgement::Forgotten);
    }
}
