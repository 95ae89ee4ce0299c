//! What a node does for clients: the shipped services' ways of a read, a page and a write, in virtual time.
//!
//! Between the plan of a read, its look into the store and the last check of its lease, time may pass: a process can be
//! paused between any two instructions.

use std::time::Duration;

use craq_node::{
    replica::{
        Look, PageLook, Permit, Strength,
        event::{Change, Input, Position, Reply, Ticket, Write},
    },
    store::{ChainSnapshot, History},
};
use craq_proto::{
    CallError, ErrorKind, Key, RequestId, Seq, Version, View,
    entry::Found,
    planted::{self, Bug},
};
use rand::RngExt;

use super::{
    call::{self, Failed},
    machine::Waiter,
    place::Place,
    time::At,
    world::{ToNode, World},
};

/// A write, as a client sends it or a node hands it on.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) request: RequestId,
    pub(super) changes: Vec<Change>,
    pub(super) handed_on: bool,
}

/// What a client wants.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Read(Key),
    /// All keys from the first to the second, exclusive.
    Page(Key, Key),
    Write(Order),
}

/// What was found of a key.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) value: Option<bytes::Bytes>,
    pub(super) version: Version,
    pub(super) seq: Seq,
}

/// What a client is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// Keys that exist (or, of one key, its tombstone), and the commit.
    Found(Vec<Item>, Seq),
    Written {
        seq: Seq,
        versions: Vec<Version>,
    },
}

/// Where an operation goes on.
#[derive(Debug)]
pub(super) enum Stage {
    /// Another attempt.
    Attempt,
    /// Look into the store.
    Look(Option<Position>, Permit, Seq),
    /// The store was looked into; check the lease, then answer.
    Check(Vec<Item>, Permit, Seq),
    /// Hand the write to the replica.
    Submit(Order),
    /// The call's time is over.
    Late,
}

/// A call of a client that a node works on.
#[derive(Debug)]
pub(super) struct Operation {
    call: u64,
    wish: Wish,
    until: At,
    wait: Duration,
    /// What the replica was asked, and under which permit.
    ticket: Option<Ticket>,
    permit: Option<Permit>,
    /// Taken before the look at the replica; and what was found of a key that was not read lately.
    history: History,
    news: Option<(Position, Found)>,
    /// The head to which the write was handed on.
    handed_to: Option<Place>,
    maybe_applied: bool,
}

/// The longest that a call takes here.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn serve(&mut self, machine: usize, call: u64, patience: Duration, wish: Wish) {
        let time = patience.min(CALL_TIME_MAX);
        let until = self.now.after(time - (time / 10).min(Duration::from_millis(50)));
        let id = self.next_id();
        let Some(process) = self.process(machine) else { return };
        let operation = Operation {
            call,
            wish,
            until,
            wait: Duration::from_millis(4),
            ticket: None,
            permit: None,
            history: process.chain.history(),
            news: None,
            handed_to: None,
            maybe_applied: false,
        };
        process.operations.insert(id, operation);
        self.later(machine, until.since(self.now), ToNode::Service(id, Stage::Late));
        self.attempt(machine, id);
    }

    pub(super) fn go_on(&mut self, machine: usize, id: u64, stage: Stage) {
        match stage {
            Stage::Attempt => self.attempt(machine, id),
            Stage::Look(position, permit, commit) => self.look(machine, id, position, permit, commit),
            Stage::Check(items, permit, commit) => self.check(machine, id, items, permit, commit),
            Stage::Submit(order) => {
                let write = Write { request: order.request, changes: order.changes };
                self.ask(machine, id, |ticket| Input::Write { ticket, write });
            }
            Stage::Late => self.late(machine, id),
        }
    }

    fn operation(&mut self, machine: usize, id: u64) -> Option<&mut Operation> {
        self.process(machine)?.operations.get_mut(&id)
    }

    fn attempt(&mut self, machine: usize, id: u64) {
        let now = self.clock(machine);
        let Some(operation) = self.operation(machine, id) else { return };
        operation.ticket = None;
        operation.permit = None;
        operation.news = None;
        match operation.wish.clone() {
            Wish::Read(key) => {
                let Some(process) = self.process(machine) else { return };
                let history = process.chain.history();
                if let Some(operation) = process.operations.get_mut(&id) {
                    operation.history = history;
                }
                match process.reader.strong(now, key.as_ref()) {
                    Look::Serve { position, permit, commit, .. } => {
                        self.soon(machine, id, Stage::Look(position, permit, commit));
                    }
                    Look::Dirty => self.ask(machine, id, |ticket| Input::Read { ticket, key }),
                    Look::Refused(error) => self.again(machine, id, error, false),
                }
            }
            Wish::Page(start, end) => self.page(machine, id, &start, &end, Strength::Strong),
            Wish::Write(order) => self.attempt_write(machine, id, order),
        }
    }

    /// The next stage, mostly at once.
    fn soon(&mut self, machine: usize, id: u64, stage: Stage) {
        if self.random.random_bool(0.8) {
            return self.go_on(machine, id, stage);
        }
        let delay = if self.random.random_bool(0.9) { 100 } else { 20_000 };
        let delay = Duration::from_micros(self.random.random_range(0..delay));
        self.later(machine, delay, ToNode::Service(id, stage));
    }

    /// Asks the replica on the operation's behalf. A read's permit is taken before.
    fn ask(&mut self, machine: usize, id: u64, input: impl FnOnce(Ticket) -> Input) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let permit = process.reader.permit(now);
        let ticket = process.ticket(Waiter::Operation(id));
        let input = input(ticket);
        if !matches!(input, Input::Write { .. } | Input::ReadPage { .. })
            && let Err(error) = permit
        {
            return self.again(machine, id, error, false);
        }
        let Some(operation) = self.operation(machine, id) else { return };
        operation.ticket = Some(ticket);
        operation.permit = permit.ok();
        self.step(machine, input);
    }

    fn look(&mut self, machine: usize, id: u64, position: Option<Position>, permit: Permit, commit: Seq) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        // protocol.md 5: the lease is checked after the value is read; this plants the contrary.
        if planted::is(Bug::LeaseCheckedBeforeRead) && !process.reader.holds(now, permit) {
            let error = CallError::unavailable("the read lease lapsed");
            return self.again(machine, id, error, false);
        }
        let Some(operation) = process.operations.get_mut(&id) else { return };
        let Wish::Read(key) = &operation.wish else { return };
        let (key, history) = (key.clone(), operation.history);
        let none = Item { key: key.clone(), value: None, version: Version::ZERO, seq: Seq::ZERO };
        let item = match position {
            None => none,
            Some(place) if place.deleted => Item { version: place.version, seq: place.seq, ..none },
            Some(place) => {
                let recent = process.chain.recent(history, &key, place);
                let found =
                    match recent.map_or_else(|| process.chain.find(&key, place), |found| Ok(Some(found))) {
                        Err(error) => return self.crash(machine, false, &error.to_string()),
                        Ok(Some(found)) => found,
                        Ok(None) => {
                            let error = CallError::unavailable("overwritten and swept while it was read");
                            return self.again(machine, id, error, false);
                        }
                    };
                operation.news = Some((place, found.clone()));
                Item { key, value: Some(found.value), version: place.version, seq: place.seq }
            }
        };
        self.soon(machine, id, Stage::Check(vec![item], permit, commit));
    }

    fn page(&mut self, machine: usize, id: u64, start: &Key, end: &Key, strength: Strength) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let mut snapshot = None;
        let chain = &process.chain;
        let mut pin = || snapshot = Some(chain.snapshot());
        let look = process.reader.page(now, start.as_ref(), Some(end.as_ref()), 1_000, strength, &mut pin);
        match look {
            PageLook::Serve { positions, permit, seq, .. } => {
                let items = match snapshot {
                    Some(Ok(snapshot)) => items(&snapshot, positions),
                    Some(Err(error)) => return self.crash(machine, false, &error.to_string()),
                    None => Err(CallError::unavailable("no snapshot")),
                };
                match items {
                    Ok(items) => self.soon(machine, id, Stage::Check(items, permit, seq)),
                    Err(error) => self.again(machine, id, error, false),
                }
            }
            PageLook::Dirty => self.ask(machine, id, |ticket| Input::ReadPage { ticket }),
            PageLook::Refused(error) => self.again(machine, id, error, false),
        }
    }

    fn check(&mut self, machine: usize, id: u64, items: Vec<Item>, permit: Permit, commit: Seq) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let is_read = process.operations.get(&id).is_some_and(|op| matches!(op.wish, Wish::Read(_)));
        let is_planted = is_read && planted::is(Bug::LeaseCheckedBeforeRead);
        if !is_planted && !process.reader.holds(now, permit) {
            let error = CallError::unavailable("the read lease lapsed while the store was read");
            return self.again(machine, id, error, false);
        }
        if let Some(operation) = process.operations.get_mut(&id)
            && let Wish::Read(key) = &operation.wish
            && let Some((place, found)) = operation.news.take()
        {
            process.chain.keep(operation.history, key, place, &found);
        }
        self.end_operation(machine, id, Ok(Answer::Found(items, commit)));
    }

    fn attempt_write(&mut self, machine: usize, id: u64, order: Order) {
        let now = self.now;
        let Some(process) = self.process(machine) else { return };
        let view = process.reader.view();
        let head = view.as_ref().and_then(|view| view.head());
        match head {
            Some(head) if head.node != process.node => {
                if order.handed_on {
                    let view = view.as_deref().cloned();
                    let error = CallError::new(ErrorKind::NotHead, "this node is not the head");
                    let error = CallError {
                        head: view.as_ref().and_then(View::head).map(|head| head.address.as_str().into()),
                        ..error.with_view(view)
                    };
                    return self.again(machine, id, error, false);
                }
                let (Some(place), Some(from)) = (Place::of(&head.address), self.end_at(Place::Node(machine)))
                else {
                    return;
                };
                let Some(operation) = self.operation(machine, id) else { return };
                operation.handed_to = Some(place);
                let patience = operation.until.since(now);
                self.hand_on(from, place, patience, Order { handed_on: true, ..order }, id);
            }
            // The view may be another one when the replica takes it.
            _ => self.soon(machine, id, Stage::Submit(order)),
        }
    }

    /// The replica answers.
    pub(super) fn on_reply(&mut self, machine: usize, ticket: Ticket, reply: Reply, under_lease: bool) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let Some(Waiter::Operation(id)) = process.waiters.remove(&ticket) else { return };
        let Some(operation) = process.operations.get_mut(&id) else { return };
        if operation.ticket != Some(ticket) {
            return;
        }
        operation.ticket = None;
        let permit = operation.permit.take();
        if under_lease && let Err(error) = process.reader.permit(now) {
            return self.again(machine, id, error, false);
        }
        match (reply, permit) {
            (Reply::Applied { seq, versions }, _) => {
                self.acked(machine, id, seq, &versions);
                self.end_operation(machine, id, Ok(Answer::Written { seq, versions }));
            }
            (Reply::Serve { position, commit, .. }, Some(permit)) => {
                self.soon(machine, id, Stage::Look(position, permit, commit));
            }
            (Reply::ServePage, _) => {
                let Some(operation) = self.operation(machine, id) else { return };
                if let Wish::Page(start, end) = operation.wish.clone() {
                    self.page(machine, id, &start, &end, Strength::StrongAtOwnCommit);
                }
            }
            (Reply::Refused(error), _) => {
                let maybe = !error.kind.is_certain();
                self.again(machine, id, error, maybe);
            }
            (Reply::Serve { .. }, None) => {}
        }
    }

    /// The head that a write was handed to has answered, or not.
    pub(super) fn handed_on_answered(
        &mut self,
        machine: usize,
        id: u64,
        answered: Result<Result<Answer, CallError>, Failed>,
    ) {
        let Some(operation) = self.operation(machine, id) else { return };
        if operation.handed_to.take().is_none() {
            return;
        }
        match answered {
            Ok(Ok(answer)) => self.end_operation(machine, id, Ok(answer)),
            Ok(Err(error)) => {
                if let Some(view) = error.view.clone() {
                    self.later(machine, Duration::ZERO, ToNode::Tell(Input::View(*view)));
                }
                let maybe = !error.kind.is_certain();
                self.again(machine, id, error, maybe);
            }
            Err(Failed::NotConnected) => {
                self.again(machine, id, CallError::unavailable("the head is not reached"), false);
            }
            Err(Failed::Broken | Failed::TimedOut) => {
                let error = CallError::unavailable("the head did not say what became of it");
                self.again(machine, id, error, true);
            }
        }
    }

    /// A newer view: whoever waits for another head than its one waits no longer.
    pub(super) fn head_may_have_moved(&mut self, machine: usize, view: &View) {
        let head = view.head().and_then(|head| Place::of(&head.address));
        let Some(process) = self.process(machine) else { return };
        let waiting =
            process.operations.iter().filter(|(_, op)| op.handed_to.is_some() && op.handed_to != head);
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(operation) = self.operation(machine, id) {
                operation.handed_to = None;
            }
            self.again(machine, id, CallError::unavailable("the head was replaced"), true);
        }
        let is_out = |process: &mut super::machine::Process| view.address(process.node).is_none();
        let may_go = self.process(machine).is_some_and(|p| p.heartbeat.is_leaving && is_out(p));
        if may_go {
            self.later(machine, Duration::ZERO, ToNode::Leave);
        }
    }

    /// An attempt has failed: another one after a while, if there is time and the chain may answer otherwise.
    fn again(&mut self, machine: usize, id: u64, error: CallError, maybe_applied: bool) {
        let now = self.now;
        let Some(operation) = self.operation(machine, id) else { return };
        operation.maybe_applied |= maybe_applied;
        let may_pass = match (&mut operation.wish, error.kind) {
            (Wish::Write(order), kind) => {
                order.request.retry |= maybe_applied;
                match kind {
                    ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::WrongEpoch => true,
                    ErrorKind::NotHead => !order.handed_on,
                    _ => false,
                }
            }
            (_, kind) => kind == ErrorKind::Unavailable,
        };
        let wait = operation.wait;
        if may_pass && now.after(wait) < operation.until {
            operation.wait = (wait * 2).min(Duration::from_millis(60));
            self.later(machine, wait, ToNode::Service(id, Stage::Attempt));
        } else {
            self.refuse(machine, id, error);
        }
    }

    fn late(&mut self, machine: usize, id: u64) {
        let Some(operation) = self.operation(machine, id) else { return };
        let is_under_way = operation.ticket.is_some() || operation.handed_to.is_some();
        operation.maybe_applied |= matches!(operation.wish, Wish::Write(_)) && is_under_way;
        let ticket = operation.ticket.take();
        self.refuse(machine, id, CallError::unavailable("the chain did not answer in time"));
        if let Some(ticket) = ticket {
            if let Some(process) = self.process(machine) {
                process.waiters.remove(&ticket);
            }
            self.step(machine, Input::Abandoned { ticket });
        }
    }

    /// What is told at last is what is known: once it may have been applied, no refusal makes that certain again.
    fn refuse(&mut self, machine: usize, id: u64, error: CallError) {
        use ErrorKind::{NotHead, OutcomeUnknown, Unavailable, WrongEpoch};
        let Some(process) = self.process(machine) else { return };
        let newest = process.reader.view();
        let maybe = process.operations.get(&id).is_some_and(|operation| operation.maybe_applied);
        let mut error = error;
        if matches!(error.kind, NotHead | OutcomeUnknown | Unavailable | WrongEpoch)
            && let Some(view) = newest
            && error.view.as_ref().is_none_or(|known| known.epoch < view.epoch)
        {
            error = error.with_view(Some(View::clone(&view)));
        }
        if maybe {
            error.kind = OutcomeUnknown;
        }
        self.end_operation(machine, id, Err(error));
    }

    fn end_operation(&mut self, machine: usize, id: u64, result: Result<Answer, CallError>) {
        let Some(process) = self.process(machine) else { return };
        if let Some(operation) = process.operations.remove(&id) {
            self.answer(operation.call, call::Reply::Served(result));
        }
    }

    fn acked(&mut self, machine: usize, id: u64, seq: Seq, versions: &[Version]) {
        let Some(process) = self.process(machine) else { return };
        let Some(Operation { wish: Wish::Write(order), .. }) = process.operations.get(&id) else { return };
        let (request, node) = (order.request, process.node);
        self.fact(crate::invariants::Fact::Acked { node, request, seq, versions });
    }
}

fn items(snapshot: &ChainSnapshot, positions: Vec<(Key, Position)>) -> Result<Vec<Item>, CallError> {
    let item = |(key, position): (Key, Position)| match snapshot.find(&key, position).ok().flatten() {
        Some(found) => {
            Ok(Item { key, value: Some(found.value), version: position.version, seq: position.seq })
        }
        None => Err(CallError::unavailable("overwritten and swept while its page was read")),
    };
    positions.into_iter().map(item).collect()
}
