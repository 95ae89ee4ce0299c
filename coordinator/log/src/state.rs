//! The log as far as it has been read: which record comes next, who leads, the newest view of each chain.
//!
//! Records name the one before them by its nonce. The newest [`KEPT`] are always there, so that a run of linked records
//! leads up to the newest; what is older may have been removed, and a number that was removed may have been made again by
//! a writer that stood still for long. Nobody is misled by such a record: of what is older than the run only the claim of
//! the present term is looked at, which is never removed, the views that it names, and the views of its term after it,
//! each of which names the one before. It does no input or output.

use std::{collections::BTreeMap, time::Duration};

use craq_proto::{ChainId, NUMBER_MAX, Term, View};
use uuid::Uuid;

use crate::{
    LogError,
    record::{Body, Holder, Place, Record},
};

/// So many of the newest records are never removed.
pub const KEPT: u64 = 32;

/// What the log says.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The number of the newest record.
    pub(crate) last: u64,
    /// Its nonce; none: the log is empty.
    pub(crate) newest: Option<Uuid>,
    pub(crate) term: Term,
    /// Who leads; none: nobody does.
    pub(crate) holder: Option<Holder>,
    /// The lease of the present term.
    pub(crate) lease: Duration,
    /// When the term began, for people.
    pub(crate) since: String,
    /// The number of its claim.
    pub(crate) claim: u64,
    pub(crate) views: BTreeMap<ChainId, View>,
    pub(crate) places: BTreeMap<ChainId, Place>,
    /// When each view was written, by number.
    pub(crate) written: BTreeMap<u64, String>,
}

impl State {
    /// The number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Checks that the record is the next one, and takes it over.
    pub(crate) fn take(&mut self, record: &Record) -> Result<(), LogError> {
        if record.previous != self.newest {
            return Err(corrupt(self.next(), "it follows another record than the one before it"));
        }
        self.apply(record)?;
        (self.last, self.newest) = (record.seq, Some(record.nonce));
        Ok(())
    }

    /// What the record says of terms and views; not where it stands.
    fn apply(&mut self, record: &Record) -> Result<(), LogError> {
        let refuse = |what: &str| Err(corrupt(record.seq, what));
        if let Body::Claim { lease_ms, views } = &record.body {
            if self.term.next() != record.term {
                return refuse(&format!("it claims term {} after term {}", record.term, self.term));
            }
            if *views != self.places {
                return refuse("it knows other views than those before it");
            }
            (self.term, self.claim) = (record.term, record.seq);
            self.holder.clone_from(&record.holder);
            self.lease = Duration::from_millis(*lease_ms);
            self.since.clone_from(&record.wall_time);
            return Ok(());
        }
        self.check_author(record)?;
        match &record.body {
            Body::Resign => self.holder = None,
            Body::View { view, follows } => {
                let newest = self.views.get(&view.chain).map(|view| view.epoch).unwrap_or_default();
                if view.epoch != newest.next() {
                    return refuse(&format!(
                        "epoch {} of chain {} does not follow epoch {newest}",
                        view.epoch, view.chain
                    ));
                }
                if record.term > Term::ZERO && *follows != self.places.get(&view.chain).copied() {
                    return refuse("it follows another view than the one before it");
                }
                self.adopt(record, view);
            }
            Body::Renew | Body::Claim { .. } => {}
        }
        Ok(())
    }

    fn check_author(&self, record: &Record) -> Result<(), LogError> {
        let holder = |of: &Option<Holder>| of.as_ref().map(|holder| holder.id);
        if record.term == self.term && holder(&record.holder) == holder(&self.holder) {
            return Ok(());
        }
        let what = format!("it is of term {}, and not by who leads term {}", record.term, self.term);
        Err(corrupt(record.seq, &what))
    }

    fn adopt(&mut self, record: &Record, view: &View) {
        self.views.insert(view.chain.clone(), view.clone());
        self.places.insert(view.chain.clone(), record.place());
        self.written.insert(record.seq, record.wall_time.clone());
    }

    /// The state after all of these records, of which old ones may be missing.
    pub(crate) fn rebuild(records: &BTreeMap<u64, Record>) -> Result<Self, LogError> {
        let Some((last, newest)) = records.last_key_value() else { return Ok(Self::default()) };
        let run = run(records, *last)?;
        let mut state = Self::default();
        let mut from = 1;
        if newest.term > Term::ZERO {
            let of_term =
                |record: &&Record| record.term == newest.term && matches!(record.body, Body::Claim { .. });
            let claim = records.values().rev().find(of_term);
            let missing = || corrupt(*last, &format!("the claim of its term {} is missing", newest.term));
            let claim = claim.ok_or_else(missing)?;
            state.begin_with(claim, records)?;
            from = claim.seq + 1;
        } else if run > 1 {
            return Err(corrupt(run - 1, "it is missing, though later ones are there"));
        }
        for record in records.range(from..).map(|(_, record)| record) {
            match &record.body {
                // The view before it may be gone.
                Body::View { view, .. } if record.term == newest.term => {
                    state.check_author(record)?;
                    state.adopt(record, view);
                }
                // Before the run, what is of another term is what somebody came too late with.
                _ if record.seq >= run => state.apply(record)?,
                _ => {}
            }
        }
        for (chain, place) in &state.places {
            if !state.views.contains_key(chain) {
                let what = format!(
                    "it is not the view of chain {chain} that the claim of term {} names",
                    newest.term
                );
                return Err(corrupt(place.seq, &what));
            }
        }
        (state.last, state.newest) = (*last, Some(newest.nonce));
        state.written = history(records, &state.places).map(|r| (r.seq, r.wall_time.clone())).collect();
        Ok(state)
    }

    /// The state just after the claim. Views that it names may be gone, if there are later ones.
    fn begin_with(&mut self, claim: &Record, records: &BTreeMap<u64, Record>) -> Result<(), LogError> {
        let Body::Claim { views, .. } = &claim.body else { return Ok(()) };
        self.places.clone_from(views);
        for (chain, place) in views {
            let record = records.get(&place.seq).filter(|record| record.nonce == place.nonce);
            if let Some(Body::View { view, .. }) = record.map(|record| &record.body)
                && view.chain == *chain
            {
                self.views.insert(chain.clone(), view.clone());
            }
        }
        self.term = claim.term.previous();
        self.apply(claim)
    }
}

/// The first number of the run of linked records up to the newest.
fn run(records: &BTreeMap<u64, Record>, last: u64) -> Result<u64, LogError> {
    let mut first = last;
    let needed = last.saturating_sub(KEPT - 1).max(1);
    while first > 1 {
        let Some(before) = records.get(&(first - 1)) else {
            if first > needed {
                return Err(corrupt(first - 1, "it is missing, though later ones are there"));
            }
            break;
        };
        if records.get(&first).and_then(|record| record.previous) != Some(before.nonce) {
            if first > needed {
                return Err(corrupt(first, "it follows another record than the one before it"));
            }
            break;
        }
        first -= 1;
    }
    Ok(first)
}

/// The records of all views that are still there, of all chains, newest first for each.
pub(crate) fn history<'a>(
    records: &'a BTreeMap<u64, Record>,
    places: &BTreeMap<ChainId, Place>,
) -> impl Iterator<Item = &'a Record> {
    let mut found: Vec<&Record> = Vec::new();
    for (chain, place) in places {
        let mut next = Some(*place);
        let mut oldest = place.seq;
        while let Some(place) = next {
            let Some(record) = records.get(&place.seq).filter(|record| record.nonce == place.nonce) else {
                break;
            };
            let Body::View { follows, .. } = &record.body else { break };
            found.push(record);
            oldest = record.seq;
            // A damaged log may have a circle.
            next = follows.filter(|before| before.seq < record.seq && record.term > Term::ZERO);
        }
        let of_chain = |record: &&Record| match &record.body {
            Body::View { view, .. } => view.chain == *chain && record.term == Term::ZERO,
            _ => false,
        };
        found.extend(records.range(..oldest).map(|(_, record)| record).filter(of_chain));
    }
    found.into_iter()
}

/// A record that cannot be right.
pub(crate) fn corrupt(seq: u64, what: &str) -> LogError {
    LogError::corrupt(&path_of(seq), what.to_owned())
}

/// The folder of the records.
pub(crate) const FOLDER: &str = "log";

/// The object of a record.
pub(crate) fn path_of(seq: u64) -> String {
    format!("{FOLDER}/{seq:020}")
}

/// The number of the record that an object is.
pub(crate) fn number_of(path: &str) -> Result<u64, LogError> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let number = Some(name).filter(|name| name.len() == 20).and_then(|name| name.parse().ok());
    number.filter(|number| (1..=NUMBER_MAX).contains(number)).ok_or_else(|| {
        LogError::corrupt(path, "its name is no record's: is this a coordinator's directory?".to_owned())
    })
}
