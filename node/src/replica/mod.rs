//! One replica of one chain: CRAQ as a state machine without clock, socket or disk.
//!
//! # The protocol in short
//!
//! A chain is an ordered list of replicas. The *head* gives each write the next sequence of the chain's log and the next
//! version of its key, and appends it. Every replica that appends an entry does two things at once: it hands the entry to
//! its store's writer, and sends it to its *successor*. With the entries travels how far the log is durable at all
//! replicas so far; the *tail* commits what is durable everywhere. The commit travels back towards the head, which
//! answers the client. So a committed write is on stable storage at every member.
//!
//! Between append and commit an entry is *dirty*. A replica answers a read of a clean key by itself; for a dirty one it
//! asks the tail which version is committed, and answers that one. So every replica serves strongly consistent reads, and
//! the tail is asked only about keys that are being written.
//!
//! The coordinator gives each chain a *view*: who its members are, in order, under an *epoch* that grows with every
//! change. A replica acts on no message of another epoch than its own. Replicas promise each other, for the length of a
//! *lease*, to take part in no epoch that leaves the other out: while a member holds such a promise from every other one,
//! no write can commit without it, and it may answer reads. A new epoch starts to move when the promises to those that it
//! left out have run out: its *gate*.
//!
//! # Where to read on
//!
//! [`event`] has everything that goes in and out. One concern each: `write` (the head's work), `commit` (durable and
//! committed), `link` (opening a link, appending), `transfer` (bringing up a learner), `read` and `question` (reads), `lease`
//! (promises and the gate), `reconfigure` (views), `outcomes` (repeated requests), `sweep` (removing what is overwritten),
//! `versions` and `log` (what is held in memory), `load` (start).
//! The contract is the project's protocol page; comments here cite its sections.
//!
//! Never here: a clock, a socket, a disk, a random number. [`Replica::step`] is total: it never fails and never blocks.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod event;

mod commit;
#[cfg(feature = "model")]
mod fork;
mod lease;
mod link;
mod load;
mod log;
mod outcomes;
mod own_key;
mod question;
mod read;
mod reconfigure;
mod slot;
mod sweep;
#[cfg(test)]
mod tests;
mod transfer;
mod versions;
mod write;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use craq_proto::{
    Epoch, Incarnation, NodeId, Role, Seq, Time, View,
    planted::{self, Bug},
};

use self::{
    commit::Pending,
    event::{Input, Output, PersistId},
    lease::Leases,
    link::{Down, Up},
    log::Log,
    outcomes::Outcomes,
    question::Questions,
    sweep::Sweep,
    versions::{Rights, Versions},
    write::Waiter,
};
pub use self::{
    event::Config,
    load::Loader,
    read::{Look, PageLook, Permit, Reader, Strength},
};

/// One replica of one chain. See the [module](self).
#[derive(Debug)]
pub struct Replica {
    config: Config,
    node: NodeId,
    incarnation: Incarnation,
    /// Shared with readers.
    versions: Arc<Versions>,

    /// The newest view. Persistent.
    view: Option<Arc<View>>,
    /// The view is on stable storage.
    view_durable: bool,
    /// When the last promise ends that the view's gate waits for; none: the gate has passed.
    gate: Option<Time>,
    /// The first entry of this epoch, once it is held: then the replica is level.
    first_entry: Option<Seq>,

    /// The uncommitted end of the log.
    log: Log,
    /// The highest sequence known to be committed; the log's commit follows as far as it is durable.
    commit_known: Seq,
    /// How far the log is durable at all members before this one; none: not known yet in this link.
    upstream_durable: Option<Seq>,
    outcomes: Outcomes,
    sweep: Sweep,

    /// Writes that are on their way to stable storage, in order.
    persisting: VecDeque<(PersistId, Pending)>,
    persists: u64,
    /// The commit and what is forgotten, as the newest of these writes has them.
    saved_commit: Seq,
    saved_forgotten: Seq,

    /// The link from the predecessor or source.
    up: Option<Up>,
    /// The link to the successor.
    down: Option<Down>,
    /// The links to those that this replica brings up.
    learners: BTreeMap<NodeId, Down>,
    links: u64,
    /// What the successor was last told of durability.
    durable_told: Seq,
    /// The predecessor is to be told the commit.
    ack_due: bool,
    /// A learner that has all but a small lag.
    caught_up: bool,
    transfer_rows: u64,
    transfer_bytes: u64,

    /// Callers whose answer waits for a commit.
    waiters: BTreeMap<Seq, Vec<Waiter>>,
    questions: Questions,
    leases: Leases,
    /// What the coordinator was last told of.
    reported: (Epoch, bool, bool),
    halted: bool,
}

/// What a replica tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The installed epoch.
    pub epoch: Epoch,
    /// Its place in the view.
    pub role: Role,
    /// The gate has passed, and the epoch's first entry is durable here.
    pub active: bool,
    /// A learner that is level with its source but for a small lag.
    pub caught_up: bool,
    /// The highest sequence known to be committed.
    pub commit: Seq,
    /// The highest sequence held.
    pub last: Seq,
    /// The highest sequence on stable storage.
    pub durable: Seq,
    /// Keys that exist.
    pub keys: u64,
    /// Strong reads are answered now.
    pub readable: bool,
    /// Writes are taken now.
    pub writable: bool,
    /// Bytes of rows received by catching up since the start.
    pub transfer_bytes: u64,
    /// Rows received by catching up since the start.
    pub transfer_rows: u64,
}

impl Replica {
    /// Takes in a fact and orders what follows from it. `now` never goes back from one call to the next.
    pub fn step(&mut self, now: Time, input: Input, outputs: &mut Vec<Output>) {
        if self.halted {
            return;
        }
        self.dispatch(now, input, outputs);
        if self.halted {
            return;
        }
        self.maybe_pass_gate(now, outputs);
        self.maybe_commit(outputs);
        self.maybe_open_links(outputs);
        self.maybe_tell_durable(outputs);
        self.maybe_ack(outputs);
        self.maybe_forget(outputs);
        self.maybe_sweep(now, outputs);
        self.publish(now);
        self.maybe_ask(now, outputs);
        self.maybe_report(outputs);
    }

    fn dispatch(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::View(view) => self.on_view(now, view, out),
            Input::Write { ticket, write } => self.on_write(ticket, write, out),
            Input::Read { ticket, key } => self.on_read(now, ticket, key, out),
            Input::ReadPage { ticket } => self.on_read_page(now, ticket, out),
            Input::Abandoned { ticket } => self.questions.abandon(ticket),
            Input::Persisted { id } => self.on_persisted(now, id, out),
            Input::LinkOffered { link, from, incarnation, epoch, kind } => {
                self.on_link_offered(link, from, incarnation, epoch, kind, out);
            }
            Input::Received { link, epoch, message } => self.on_received(now, link, epoch, message, out),
            Input::LinkClosed { link } => self.on_link_closed(link),
            Input::LogRead { link, rows, through } => self.on_log_read(link, rows, through, out),
            Input::Pinged { ticket, from, epoch } => self.on_pinged(now, ticket, from, epoch, out),
            Input::Promised { by, epoch, sent } => self.on_promised(now, by, epoch, sent),
            Input::Released { by, epoch } => self.on_released(by, epoch),
            Input::NewerEpoch { epoch } => self.on_newer_epoch(epoch, out),
            Input::TailAnswered { question, answer } => self.on_tail_answered(question, answer, out),
            Input::DeadlinePassed => self.on_deadline_passed(now, out),
        }
    }

    /// When [`Input::DeadlinePassed`] is due; none: not before something else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let gate = self.gate.filter(|_| self.view_durable);
        [gate, self.next_ping(), self.sweep.due(), self.questions.due()].into_iter().flatten().min()
    }

    /// What it tells of itself.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        let rights = self.versions.rights();
        Status {
            epoch: self.epoch(),
            role: self.role(),
            active: self.is_active(),
            caught_up: self.caught_up,
            commit: self.log.commit,
            last: self.log.last,
            durable: self.log.durable,
            keys: self.versions.live_keys(),
            readable: rights.readable && rights.has_lease(now),
            writable: self.may_write().is_ok(),
            transfer_bytes: self.transfer_bytes,
            transfer_rows: self.transfer_rows,
        }
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.view.as_deref()
    }

    /// The reading side.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.versions))
    }

    fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(Epoch::ZERO, |view| view.epoch)
    }

    /// The place in the view. A process that the view does not name takes no part (protocol.md 4).
    fn role(&self) -> Role {
        match &self.view {
            Some(view) if self.is_named_by(view) => view.role(self.node),
            _ => Role::None,
        }
    }

    fn is_named_by(&self, view: &View) -> bool {
        let is_planted = planted::is(Bug::IncarnationIgnored);
        is_planted || view.incarnation(self.node) == Some(self.incarnation)
    }

    fn is_in_sync(&self) -> bool {
        let member = self.view.as_ref().and_then(|view| view.member(self.node));
        self.role().is_member() && member.is_some_and(|member| member.in_sync)
    }

    fn is_level(&self) -> bool {
        self.first_entry.is_some() || (planted::is(Bug::NoFirstEntry) && self.is_moving())
    }

    fn is_settled(&self) -> bool {
        let is_planted = planted::is(Bug::NoFirstEntry) && self.is_moving();
        is_planted || self.first_entry.is_some_and(|first| self.log.commit >= first)
    }

    /// Part of the chain, with everything in place to take part in its epoch.
    fn is_moving(&self) -> bool {
        self.view_durable && self.gate.is_none() && self.role() != Role::None
    }

    fn is_active(&self) -> bool {
        let first_is_durable =
            planted::is(Bug::NoFirstEntry) || self.first_entry.is_some_and(|first| self.log.durable >= first);
        self.is_moving() && self.role().is_member() && first_is_durable
    }

    /// Gives readers the rights that follow from the present state.
    fn publish(&self, now: Time) {
        let role = self.role();
        let holds_all = self.is_in_sync() || self.is_level() || planted::is(Bug::ReadsWhenNotLevel);
        let readable = role.is_member() && holds_all;
        let is_settled = self.is_settled() || planted::is(Bug::UnsettledTailAnswers);
        let is_authority = role.is_tail() && self.is_moving() && is_settled;
        let lease = match self.lease_until() {
            until if planted::is(Bug::LeaseJudgedAtStep) && until > now => Time::MAX,
            until => until,
        };
        let rights = self.versions.rights();
        let same_view = rights.epoch == self.epoch() && rights.view.is_some() == self.view.is_some();
        if same_view && (rights.role, rights.readable, rights.is_authority) == (role, readable, is_authority)
        {
            rights.set_lease(lease);
        } else {
            self.versions.set_rights(Rights::new(self.view.clone(), role, readable, is_authority, lease));
        }
    }

    fn maybe_report(&mut self, out: &mut Vec<Output>) {
        let state = (self.epoch(), self.is_active(), self.caught_up);
        if state != self.reported {
            self.reported = state;
            out.push(Output::Report);
        }
    }

    fn halt(&mut self, reason: String, out: &mut Vec<Output>) {
        self.halted = true;
        out.push(Output::Halt { reason });
    }
}
