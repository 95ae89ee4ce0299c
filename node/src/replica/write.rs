//! The head's work: judging requests and conditions, giving sequences and versions (`protocol.md` 3.1 to 3.3).
//!
//! Only the head assigns; everyone else takes what it assigned. Never here: when a write is committed (see `commit`).

use std::sync::Arc;

use craq_proto::{
    CallError, Entry, ErrorKind, Mutation, Op, RequestId, Seq, Version, View,
    planted::{self, Bug},
};

use super::{
    Replica,
    commit::Pending,
    event::{Change, Condition, Output, Position, Reply, StoreWrite, Ticket, Write},
    outcomes::Judgement,
    versions::{KeyState, position},
};

/// A caller whose answer waits for the commit of an entry.
#[derive(Debug, Clone)]
pub(super) enum Waiter {
    /// It is the caller's own entry.
    Applied { ticket: Ticket, versions: Vec<Version> },
    /// The caller's condition was refused because of that entry.
    ConditionFailed { ticket: Ticket, error: CallError },
}

impl Waiter {
    /// What it is told when nobody here will ever know: `request` is that of the entry for which it waited.
    fn given_up(self, request: Option<RequestId>, why: &str) -> (Ticket, CallError) {
        match self {
            Self::Applied { ticket, .. } => (ticket, unknown(request, why)),
            Self::ConditionFailed { ticket, .. } => (ticket, CallError::unavailable(why)),
        }
    }
}

impl Replica {
    /// Whether this replica takes writes now.
    pub(super) fn may_write(&self) -> Result<(), CallError> {
        let Some(view) = &self.view else {
            return Err(CallError::unavailable("this node has no view of the chain yet"));
        };
        let is_planted = planted::is(Bug::WritesAtEveryMember) && self.role().is_member();
        if !self.role().is_head() && !is_planted {
            let head = view.head();
            let name = head.map_or_else(|| "nobody".to_owned(), |head| head.node.to_string());
            let message = format!("this node is {} in epoch {}; the head is {name}", self.role(), view.epoch);
            let mut error = CallError::new(ErrorKind::NotHead, message).with_view(Some(View::clone(view)));
            error.head = head.filter(|head| head.node != self.node).map(|head| head.address.as_str().into());
            return Err(error);
        }
        if !self.is_moving() || !self.is_level() {
            let message =
                format!("epoch {} has not begun: promises of the epoch before it still bind", view.epoch);
            return Err(CallError::unavailable(message).with_view(Some(View::clone(view))));
        }
        Ok(())
    }

    pub(super) fn on_write(&mut self, ticket: Ticket, write: Write, out: &mut Vec<Output>) {
        match self.judge(ticket, &write) {
            Verdict::Append(versions) => self.append_write(ticket, write, versions, out),
            Verdict::Answer { reply, under_lease } => out.push(Output::Reply { ticket, reply, under_lease }),
            Verdict::Wait(seq, waiter) => self.waiters.entry(seq).or_default().push(waiter),
        }
    }

    fn judge(&self, ticket: Ticket, write: &Write) -> Verdict {
        if let Err(error) = self.may_write() {
            return Verdict::refuse(error);
        }
        match self.outcomes.judge(&write.request) {
            Judgement::New => {}
            Judgement::Committed { seq, versions } => {
                return Verdict::Answer { reply: Reply::Applied { seq, versions }, under_lease: false };
            }
            Judgement::Dirty(seq) => {
                let entry = self.log.entry(seq).expect("a dirty request has its entry above the commit");
                let versions = entry.mutations.iter().map(|mutation| mutation.version).collect();
                if planted::is(Bug::RepeatAnsweredDirty) {
                    return Verdict::Answer { reply: Reply::Applied { seq, versions }, under_lease: false };
                }
                return Verdict::Wait(seq, Waiter::Applied { ticket, versions });
            }
            Judgement::GivenUp { floor } => {
                let number = write.request.number;
                let message = format!("request {number} is below the floor {floor} that its client gave");
                return Verdict::refuse(CallError::invalid(message));
            }
            Judgement::Forgotten => return Verdict::refuse(self.forgotten(write.request)),
        }
        if let Err(error) = self.has_room(write) {
            return Verdict::refuse(error);
        }
        let mut versions = Vec::with_capacity(write.changes.len());
        for change in &write.changes {
            let state = self.versions.state(change.key.as_ref());
            match condition_error(change, state) {
                None => {
                    let before =
                        if planted::is(Bug::VersionOfClean) { state.clean() } else { state.newest() };
                    versions.push(before.map_or(Version::ZERO, |before| before.version).next());
                }
                // protocol.md 3.2: a refused condition is a strong read; one that rests on a dirty version would reveal
                // what may yet be thrown away.
                Some(error) => {
                    return match state {
                        KeyState::Dirty { latest, .. } if !planted::is(Bug::RefusedOnDirty) => {
                            Verdict::Wait(latest.seq, Waiter::ConditionFailed { ticket, error })
                        }
                        _ => {
                            let under_lease = !planted::is(Bug::RefusedWithoutLease);
                            Verdict::Answer { reply: Reply::Refused(error), under_lease }
                        }
                    };
                }
            }
        }
        Verdict::Append(versions)
    }

    /// A repeat's earlier attempt may have been applied; of a first attempt that is for the sender to say.
    fn forgotten(&self, request: RequestId) -> CallError {
        if request.retry {
            let why = "what became of the request is forgotten: it is too long ago to be repeated";
            return unknown(Some(request), why);
        }
        let born = self.outcomes.forgotten_through();
        let message = format!(
            "the request was born at sequence {}, and what became of requests is known from {born} on",
            request.born
        );
        CallError { born, ..CallError::new(ErrorKind::Forgotten, message) }
    }

    /// The limits of the dirty suffix and of outcomes: refused, never dropped.
    fn has_room(&self, write: &Write) -> Result<(), CallError> {
        let full = |what: String| Err(CallError::new(ErrorKind::ResourceExhausted, what));
        let weight: usize = write.changes.iter().map(weight).sum();
        if self.log.len() >= self.config.dirty_entries_max {
            return full(format!("{} writes wait for their commit, which is the limit", self.log.len()));
        }
        if self.log.bytes() + weight > self.config.dirty_bytes_max {
            let (bytes, max) = (self.log.bytes(), self.config.dirty_bytes_max);
            return full(format!("{bytes} bytes of writes wait for their commit; {max} are allowed"));
        }
        let kept = self.outcomes.of_client_above(write.request.client, write.request.floor);
        if kept >= self.config.client_outcomes_max {
            return full(format!(
                "the client may still repeat {kept} requests, which is the limit: it must raise its floor"
            ));
        }
        Ok(())
    }

    fn append_write(&mut self, ticket: Ticket, write: Write, versions: Vec<Version>, out: &mut Vec<Output>) {
        let seq = self.log.last.next();
        let mutation = |(change, version): (Change, &Version)| Mutation {
            key: change.key,
            version: *version,
            op: change.value.map_or(Op::Delete, Op::Put),
            checksum: change.checksum,
        };
        let entry = Entry {
            seq,
            origin_epoch: self.epoch(),
            request: Some(write.request),
            mutations: write.changes.into_iter().zip(&versions).map(mutation).collect(),
            forget_through: Seq::ZERO,
        };
        if planted::is(Bug::AckBeforeCommit) {
            out.push(Output::Reply { ticket, reply: Reply::Applied { seq, versions }, under_lease: false });
        } else {
            self.waiters.entry(seq).or_default().push(Waiter::Applied { ticket, versions });
        }
        self.append_own(entry, out);
    }

    /// protocol.md 3.1: with this entry a head begins its epoch.
    pub(super) fn append_first_entry(&mut self, out: &mut Vec<Output>) {
        if !planted::is(Bug::NoFirstEntry) {
            self.append_bare(Seq::ZERO, out);
        }
    }

    /// Beyond the limit the oldest outcomes are forgotten, by an entry, so that all replicas forget the same.
    pub(super) fn maybe_forget(&mut self, out: &mut Vec<Output>) {
        if self.outcomes.len() <= self.config.outcomes_max || self.may_write().is_err() {
            return;
        }
        let is_under_way = self.log.above(self.log.commit).any(|entry| entry.forget_through > Seq::ZERO);
        if let Some(through) = self.outcomes.older_half().filter(|_| !is_under_way) {
            self.append_bare(through, out);
        }
    }

    fn append_bare(&mut self, forget_through: Seq, out: &mut Vec<Output>) {
        let (seq, origin_epoch) = (self.log.last.next(), self.epoch());
        self.append_own(
            Entry { seq, origin_epoch, request: None, mutations: Vec::new(), forget_through },
            out,
        );
    }

    fn append_own(&mut self, entry: Entry, out: &mut Vec<Output>) {
        let entry = Arc::new(entry);
        self.hold(&entry);
        let through = entry.seq;
        let write = StoreWrite { entries: vec![Arc::clone(&entry)], ..StoreWrite::default() };
        self.persist(write, Pending::Entries { through }, out);
        self.forward(vec![entry], out);
    }

    /// Takes an entry, the replica's own or its predecessor's, into the log and marks its keys dirty.
    pub(super) fn hold(&mut self, entry: &Arc<Entry>) {
        self.log.push(Arc::clone(entry));
        if entry.origin_epoch == self.epoch() && self.first_entry.is_none() {
            self.first_entry = Some(entry.seq);
        }
        for (index, mutation) in entry.mutations.iter().enumerate() {
            let latest = position(entry.seq, index, mutation.version, mutation.is_delete());
            self.versions.mark_dirty(mutation.key.as_ref(), latest);
        }
        self.outcomes.mark_dirty(entry);
    }

    /// Throws the entries above `seq` away: log, versions, outcomes, store. Whoever waited for one of them is told that the
    /// outcome is unknown: a member further down may hold the entry still, and commit it one day as the head of a chain.
    pub(super) fn throw_away_above(&mut self, seq: Seq, why: &str, out: &mut Vec<Output>) {
        let dropped = self.log.truncate_to(seq);
        if dropped.is_empty() {
            return;
        }
        self.forget_durability_above(seq);
        for entry in &dropped {
            if !planted::is(Bug::OutcomesNotRolledBack) {
                self.outcomes.roll_back(entry);
            }
            for mutation in &entry.mutations {
                self.versions.roll_back(mutation.key.as_ref(), self.newest_dirty(mutation.key.as_ref()));
            }
            let stays = planted::is(Bug::WaiterBySeqAlone);
            let waiters = if stays { None } else { self.waiters.remove(&entry.seq) };
            for waiter in waiters.unwrap_or_default() {
                let (ticket, error) = waiter.given_up(entry.request, why);
                let reply = Reply::Refused(error);
                out.push(Output::Reply { ticket, reply, under_lease: false });
            }
        }
        if self.first_entry.is_some_and(|first| first > seq) {
            self.first_entry = None;
        }
        if planted::is(Bug::TruncationNotStored) {
            return;
        }
        let rows =
            |entry: &Arc<Entry>| (0..entry.row_count()).map(|index| (entry.seq, index)).collect::<Vec<_>>();
        let remove_rows = dropped.iter().rev().flat_map(rows).collect();
        self.persist(StoreWrite { remove_rows, ..StoreWrite::default() }, Pending::Nothing, out);
    }

    fn newest_dirty(&self, key: &[u8]) -> Option<Position> {
        let in_entry = |entry: &Arc<Entry>| {
            let (index, mutation) =
                entry.mutations.iter().enumerate().rfind(|(_, mutation)| mutation.key.as_ref() == key)?;
            Some(position(entry.seq, index, mutation.version, mutation.is_delete()))
        };
        self.log.above(self.log.commit).rev().find_map(in_entry)
    }

    /// Nobody can be told any more what became of their writes: this replica has left the chain's course.
    pub(super) fn give_up_waiters(&mut self, why: &str, out: &mut Vec<Output>) {
        let view = self.view.as_deref().cloned();
        for (seq, waiters) in std::mem::take(&mut self.waiters) {
            let request = self.log.entry(seq).and_then(|entry| entry.request);
            for waiter in waiters {
                let (ticket, error) = waiter.given_up(request, why);
                let reply = Reply::Refused(error.with_view(view.clone()));
                out.push(Output::Reply { ticket, reply, under_lease: false });
            }
        }
    }
}

enum Verdict {
    Append(Vec<Version>),
    Answer { reply: Reply, under_lease: bool },
    Wait(Seq, Waiter),
}

impl Verdict {
    fn refuse(error: CallError) -> Self {
        Self::Answer { reply: Reply::Refused(error), under_lease: false }
    }
}

fn weight(change: &Change) -> usize {
    change.key.as_bytes().len() + change.value.as_ref().map_or(0, |value| value.as_bytes().len())
}

/// Why the change may not be done, judged by the newest version, dirty ones included.
fn condition_error(change: &Change, state: KeyState) -> Option<CallError> {
    let judged = if planted::is(Bug::ConditionOfClean) { state.clean() } else { state.newest() };
    let existing = judged.filter(|newest| !newest.deleted);
    let observed = existing.map_or(Version::ZERO, |existing| existing.version);
    let (kind, message) = match change.condition {
        Condition::Always => return None,
        Condition::Exists if existing.is_some() => return None,
        Condition::Version(wanted) if wanted == observed => return None,
        Condition::Exists => (ErrorKind::NotFound, format!("key {:?} doesn't exist", change.key)),
        Condition::Version(wanted) => {
            let is =
                if existing.is_some() { format!("has version {observed}") } else { "is absent".to_owned() };
            let wanted =
                if wanted == Version::ZERO { "absent".to_owned() } else { format!("version {wanted}") };
            (ErrorKind::ConditionFailed, format!("key {:?} {is}, wanted {wanted}", change.key))
        }
    };
    Some(CallError { observed_version: observed, ..CallError::new(kind, message) })
}

fn unknown(request: Option<RequestId>, why: &str) -> CallError {
    let is_planted = planted::is(Bug::LostWaiterRefused);
    let kind = if is_planted { ErrorKind::Unavailable } else { ErrorKind::OutcomeUnknown };
    CallError { request, ..CallError::new(kind, why) }
}
