//! A client: one call at a time, by the shipped client's routing, retries and request ids. It takes down what it saw.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use bytes::Bytes;
use craq_client::{
    Error, RequestToken,
    check::history::{self, Found, Op, Outcome},
    pure::{Failure, Next, READ_ATTEMPT_TIMEOUT, Requests, Retries, Routes, Ticket},
};
use craq_node::replica::event::{Change, Condition};
use craq_proto::{Epoch, ErrorKind, Key, Seq, Time, Value, Version, View, entry::checksum};
use rand::{RngExt, rngs::StdRng};
use uuid::Uuid;

use super::{
    call::{Failed, Question, Reply, Then},
    place::{End, Place},
    service::{Answer, Order, Wish},
    time::At,
    world::{self, World, note},
};

/// What happens to a client.
#[derive(Debug)]
pub(super) enum Event {
    /// It is time for the next call.
    Next,
    /// The call's next attempt, if it is still this one.
    Attempt(u64),
    /// The call takes long: its view may be old.
    Doubt(u64),
}

/// What a client asks for.
#[derive(Debug, Clone)]
enum Kind {
    Read(Vec<Name>),
    Write(Vec<(Name, Option<Bytes>, Condition)>),
}

#[derive(Debug)]
struct Running {
    id: u64,
    kind: Kind,
    invoked: At,
    until: At,
    retries: Retries,
    ticket: Option<Ticket>,
    /// Only this node is asked.
    fixed: Option<Place>,
    attempt: u64,
    target: Option<String>,
    sent_in: Epoch,
    repeats: u32,
}

/// A client of the store.
pub(super) struct Client {
    routes: Routes,
    requests: Requests,
    seen: Seq,
    running: Option<Running>,
    /// What it last saw of each key.
    versions: BTreeMap<Name, Version>,
    asked: Option<At>,
    /// What it still has to do at the end: everything at every node.
    pub(super) errands: VecDeque<(Place, Name)>,
    /// It begins no call of its own accord any more.
    pub(super) is_quiet: bool,
}

impl Client {
    pub(super) fn new(random: &mut StdRng) -> Self {
        Self {
            routes: Routes::default(),
            requests: Requests::new(Uuid::from_u128(random.random())),
            seen: Seq::ZERO,
            running: None,
            versions: BTreeMap::new(),
            asked: None,
            errands: VecDeque::new(),
            is_quiet: false,
        }
    }

    /// Whether it waits for nothing and wants nothing.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_none() && self.errands.is_empty()
    }
}

/// A call that takes so long makes its client ask for a newer view.
const DOUBT_AFTER: Duration = Duration::from_millis(500);
/// Two rounds of questions for views are at least so far apart.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// A key. Calls of several keys are calls of one pair, so that what has to be judged together stays small; and a pair of
/// which too many outcomes are unknown is used no more, since each of them may take effect at any later time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pair: usize,
    generation: usize,
    half: usize,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}g{:03}k{}", self.pair, self.generation, self.half)
    }
}

impl Name {
    fn key(self) -> Key {
        Key::new(self.to_string()).expect("short enough")
    }
}

/// The pairs of keys that are in use.
#[derive(Debug)]
pub(super) struct Pairs(Vec<Pair>);

#[derive(Debug, Default, Clone)]
struct Pair {
    generation: usize,
    unknown: usize,
}

/// So many unknown outcomes end the use of a pair.
const UNKNOWN_MAX: usize = 5;

impl Pairs {
    pub(super) fn new(keys: usize) -> Self {
        Self(vec![Pair::default(); keys.div_ceil(2)])
    }

    fn draw(&self, random: &mut StdRng) -> Name {
        let pair = random.random_range(0..self.0.len());
        Name { pair, generation: self.0[pair].generation, half: random.random_range(0..2) }
    }

    fn unknown(&mut self, name: Name) {
        let pair = &mut self.0[name.pair];
        pair.unknown += usize::from(pair.generation == name.generation);
        if pair.unknown >= UNKNOWN_MAX {
            *pair = Pair { generation: pair.generation + 1, unknown: 0 };
        }
    }

    /// All keys that are, or were, in use.
    pub(super) fn all(&self) -> Vec<Name> {
        let names = self.0.iter().enumerate().flat_map(|(pair, state)| {
            (0..=state.generation)
                .flat_map(move |generation| (0..2).map(move |half| Name { pair, generation, half }))
        });
        names.collect()
    }
}

impl World {
    fn client_now(&self) -> Time {
        Time(Duration::from_nanos(self.now.0))
    }

    pub(super) fn on_client(&mut self, index: usize, what: Event) {
        match what {
            Event::Next => self.begin(index),
            Event::Attempt(attempt) => {
                if self.clients[index].running.as_ref().is_some_and(|call| call.attempt == attempt) {
                    self.attempt_call(index);
                }
            }
            Event::Doubt(attempt) => {
                if self.clients[index].running.as_ref().is_some_and(|call| call.attempt == attempt) {
                    self.doubt(index);
                    self.schedule(DOUBT_AFTER, world::Event::Client(index, Event::Doubt(attempt)));
                }
            }
        }
    }

    /// The next call, if the one before is done.
    fn begin(&mut self, index: usize) {
        if self.clients[index].running.is_some() {
            return;
        }
        let (kind, fixed) = match self.clients[index].errands.pop_front() {
            Some((place, wanted)) => (Kind::Read(vec![wanted]), Some(place)),
            None if self.clients[index].is_quiet => return,
            None => {
                let kind = self.draw(index);
                // A refused condition is a read too.
                let reads = match &kind {
                    Kind::Read(_) => true,
                    Kind::Write(changes) => changes.iter().any(|change| change.2 != Condition::Always),
                };
                let is_fixed = reads && self.random.random_bool(self.setup.fixed_reads);
                let fixed = if is_fixed { Some(self.favourite(index)) } else { None };
                (kind, fixed)
            }
        };
        self.launch(index, kind, fixed);
    }

    /// Writes a key, whatever else it wanted: shows that the chain takes writes.
    pub(super) fn write_now(&mut self, index: usize, wanted: Name) {
        let value = self.value(index);
        self.launch(index, Kind::Write(vec![(wanted, Some(value), Condition::Always)]), None);
    }

    fn launch(&mut self, index: usize, kind: Kind, fixed: Option<Place>) {
        let id = self.next_id();
        let client = &mut self.clients[index];
        let ticket = matches!(kind, Kind::Write(_)).then(|| client.requests.begin(client.seen));
        let retries = match &ticket {
            Some(ticket) => Retries::of_write(ticket.token()),
            None => Retries::of_read(),
        };
        let (invoked, until) = (self.now, self.now.after(self.setup.patience));
        note!(self, Place::Client(index), "calls", "{id}: {kind:?}");
        self.faults.call(self.now);
        self.clients[index].running = Some(Running {
            id,
            kind,
            invoked,
            until,
            retries,
            ticket,
            fixed,
            attempt: id,
            target: None,
            sent_in: Epoch::ZERO,
            repeats: 0,
        });
        self.attempt_call(index);
    }

    fn value(&mut self, index: usize) -> Bytes {
        let number = self.next_id();
        Bytes::from(format!("u{index}-{number}"))
    }

    /// A node that this client asks; half of the time the one that had the last fault.
    fn favourite(&mut self, index: usize) -> Place {
        let machine = if self.random.random_bool(0.5) { self.nemesis.victim } else { index };
        Place::Node(machine % self.machines.len())
    }

    fn draw(&mut self, index: usize) -> Kind {
        let wanted = self.pairs.draw(&mut self.random);
        let names_versions = !self.setup.collects_tombstones;
        let known = self.clients[index].versions.get(&wanted).copied().unwrap_or_default();
        let named = if names_versions { known } else { Version::ZERO };
        let value = Some(self.value(index));
        match self.random.random_range(0..100) {
            0..40 => return Kind::Read(vec![wanted]),
            40..46 => return Kind::Read(vec![Name { half: 0, ..wanted }, Name { half: 1, ..wanted }]),
            _ => {}
        }
        if self.random.random_bool(self.setup.deletions) {
            let is_named = named > Version::ZERO && self.random.random_bool(0.2);
            let condition = if is_named { Condition::Version(named) } else { Condition::Exists };
            return Kind::Write(vec![(wanted, None, condition)]);
        }
        match self.random.random_range(0..10) {
            0..7 => Kind::Write(vec![(wanted, value, Condition::Always)]),
            7 => Kind::Write(vec![(wanted, value, Condition::Version(named))]),
            _ => {
                let is_conditional = self.random.random_bool(0.3);
                let first = if is_conditional { Condition::Version(named) } else { Condition::Always };
                let other = Name { half: 1 - wanted.half, ..wanted };
                Kind::Write(vec![(wanted, value, first), (other, Some(self.value(index)), Condition::Always)])
            }
        }
    }

    fn attempt_call(&mut self, index: usize) {
        let now = self.client_now();
        let attempt = self.next_id();
        let client = &mut self.clients[index];
        let Some(call) = client.running.as_mut() else { return };
        call.attempt = attempt;
        call.sent_in = client.routes.epoch();
        let left = call.until.since(self.now);
        let (target, patience) = match (&call.kind, call.fixed) {
            (_, Some(place)) => (Some(place.to_string()), left),
            (Kind::Read(_), None) => (client.routes.reader(now, false), left.min(READ_ATTEMPT_TIMEOUT)),
            (Kind::Write(_), None) => (client.routes.writer(now), left),
        };
        let wish = match &call.kind {
            Kind::Read(keys) if keys.len() == 1 => Wish::Read(keys[0].key()),
            Kind::Read(keys) => Wish::Page(keys[0].key(), Name { half: 2, ..keys[0] }.key()),
            Kind::Write(changes) => {
                let (Some(ticket), Some(request)) = (&call.ticket, call.retries.request()) else { return };
                let request = ticket.id(request);
                Wish::Write(Order {
                    request,
                    changes: changes.iter().map(change).collect(),
                    handed_on: false,
                })
            }
        };
        call.target.clone_from(&target);
        let Some((target, place)) = target.and_then(|target| Some((target.clone(), Place::of(&target)?)))
        else {
            self.doubt(index);
            let failure = Failure::no_route("no view of the chain", true);
            return self.attempt_failed(index, failure);
        };
        note!(self, Place::Client(index), "tries", "{target}");
        let from = End { place: Place::Client(index), process: 0 };
        self.call(from, place, patience, Question::Serve(wish), Then::Client { attempt });
        self.schedule(DOUBT_AFTER, world::Event::Client(index, Event::Doubt(attempt)));
    }

    pub(super) fn client_is_answered(
        &mut self,
        index: usize,
        to: Place,
        attempt: u64,
        result: Result<Reply, Failed>,
    ) {
        let client = &mut self.clients[index];
        if client.running.as_ref().is_none_or(|call| call.attempt != attempt) {
            return;
        }
        let target = to.to_string();
        let failure = match result {
            Ok(Reply::Served(Ok(answer))) => {
                client.routes.forgive(&target);
                return self.settle(index, answer);
            }
            Ok(Reply::Served(Err(error))) => Failure::told(&target, error),
            Ok(_) => Failure::no_answer(&target, "no answer to what was asked"),
            Err(Failed::NotConnected) => Failure::not_connected(&target, "refused"),
            Err(Failed::Broken) => Failure::no_answer(&target, "the connection broke"),
            Err(Failed::TimedOut) => Failure::no_answer(&target, "no answer in time"),
        };
        self.attempt_failed(index, failure);
    }

    /// What the shipped client learns from a failure, and what it does then.
    fn attempt_failed(&mut self, index: usize, failure: Failure) {
        let now = self.client_now();
        let error = &failure.error;
        let is_retryable = error.kind.is_retryable();
        let epoch = self.clients[index].routes.epoch();
        let mut news = error.view.as_deref().cloned().is_some_and(|view| self.install(index, view));
        let client = &mut self.clients[index];
        client.seen = client.seen.max(error.born);
        if error.kind == ErrorKind::NotHead
            && let Some(head) = &error.head
        {
            news |= client.routes.hint_head(head);
        }
        if let Some(target) = &failure.target
            && !news
            && matches!(error.kind, ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Corrupt)
        {
            client.routes.avoid(target, now, !failure.connected);
        }
        let new_route = news || client.routes.epoch() > epoch;
        let random = self.random.random_range(0.0..1.0);
        let left = self.clients[index].running.as_ref().map(|call| call.until.since(self.now));
        let Some(left) = left else { return };
        note!(self, Place::Client(index), "fails", "{:?}: {}", error.kind, error.message);
        let Some(call) = self.clients[index].running.as_mut() else { return };
        match call.retries.on_failure(failure, new_route, left, random) {
            Next::Retry { after } => {
                call.attempt = 0;
                let attempt = self.next_id();
                if let Some(call) = self.clients[index].running.as_mut() {
                    call.attempt = attempt;
                }
                // Never at once without end: even an instant answer takes some time.
                let after = after.max(Duration::from_micros(50));
                self.schedule(after, world::Event::Client(index, Event::Attempt(attempt)));
            }
            Next::GiveUp(error) => self.give_up(index, error),
        }
        if !news && is_retryable {
            self.doubt(index);
        }
    }

    /// Asks everybody for the views.
    fn doubt(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        if client.asked.is_some_and(|asked| now.since(asked) < ASK_INTERVAL) {
            return;
        }
        client.asked = Some(now);
        let mut places: Vec<Place> = (0..self.coordinators.len()).map(Place::Coordinator).collect();
        places.extend(client.routes.addresses().iter().filter_map(|address| Place::of(address)));
        let from = End { place: Place::Client(index), process: 0 };
        for place in places {
            self.call(from, place, Duration::from_secs(1), Question::View, Then::ClientView);
        }
    }

    pub(super) fn client_learns(&mut self, index: usize, view: View) {
        let is_news = self.install(index, view);
        let client = &mut self.clients[index];
        let (Some(call), Some(view)) = (&client.running, client.routes.view().cloned()) else { return };
        if !is_news || call.fixed.is_some() || !matches!(call.kind, Kind::Write(_)) {
            return;
        }
        if let Some(target) = call.target.clone()
            && Routes::head_moved(&view, call.sent_in, &target)
        {
            let failure = Failure::no_answer(&target, "given up, since the head moved");
            self.attempt_failed(index, failure);
        }
    }

    fn install(&mut self, index: usize, view: View) -> bool {
        self.clients[index].routes.install(view).is_some()
    }

    fn settle(&mut self, index: usize, answer: Answer) {
        let client = &mut self.clients[index];
        let Some(call) = client.running.take() else { return };
        let outcome = match (answer, &call.kind) {
            (Answer::Written { seq, versions }, Kind::Write(changes)) => {
                client.seen = client.seen.max(seq);
                for ((key, ..), version) in changes.iter().zip(&versions) {
                    client.versions.insert(*key, *version);
                }
                Outcome::Applied { seq: seq.0, versions: versions.iter().map(|v| v.0).collect() }
            }
            (Answer::Found(items, commit), Kind::Read(keys)) => {
                client.seen = client.seen.max(commit);
                let found = |name: &Name| {
                    let name = name.key();
                    let item = items.iter().find(|item| item.key == name);
                    item.map_or_else(Found::nothing, |item| Found {
                        value: item.value.clone(),
                        version: item.version.0,
                        seq: item.seq.0,
                    })
                };
                let found: Vec<Found> = keys.iter().map(found).collect();
                for (key, found) in keys.iter().zip(&found) {
                    let version = if found.value.is_some() { found.version } else { 0 };
                    client.versions.insert(*key, Version(version));
                }
                Outcome::Found(found)
            }
            (answer, kind) => {
                let what = format!("{kind:?} was answered with {answer:?}");
                return self.wrong("answer", what);
            }
        };
        self.record(index, &call, outcome);
    }

    fn give_up(&mut self, index: usize, error: Error) {
        let is_repeated = self.random.random_bool(0.5);
        let wait = Duration::from_millis(self.random.random_range(1..3_000));
        let fresh = Uuid::from_u128(self.random.random());
        let now = self.now;
        let client = &mut self.clients[index];
        let Some(mut call) = client.running.take() else { return };
        let first_name = match &call.kind {
            Kind::Write(changes) => changes[0].0,
            Kind::Read(keys) => keys[0],
        };
        let first = first_name.to_string();
        let outcome = match error {
            Error::ConditionFailed { observed } => {
                Outcome::ConditionFailed { key: first, observed: observed.0 }
            }
            Error::NotFound => Outcome::ConditionFailed { key: first, observed: 0 },
            Error::OutcomeUnknown { request, message } => {
                if let Some(ticket) = call.ticket.take() {
                    client.requests.keep(ticket, fresh);
                }
                if is_repeated && call.repeats < 3 && !client.is_quiet {
                    self.repeat(index, call, request, now.after(wait));
                    return;
                }
                self.pairs.unknown(first_name);
                Outcome::Unknown(message)
            }
            error => Outcome::NotApplied(error.to_string()),
        };
        // At the end everything is read everywhere, however often it takes.
        if let (Some(place), Kind::Read(names)) = (call.fixed, &call.kind) {
            self.clients[index].errands.push_front((place, names[0]));
        }
        self.record(index, &call, outcome);
    }

    /// The same request once more, as a user may who was told that its outcome is unknown.
    fn repeat(&mut self, index: usize, call: Running, request: RequestToken, at: At) {
        let attempt = self.next_id();
        let until = at.after(self.setup.patience);
        note!(self, Place::Client(index), "repeats", "{}", call.id);
        self.clients[index].running = Some(Running {
            until,
            retries: Retries::of_write(request.repeated()),
            ticket: Some(Ticket::of(request.repeated())),
            attempt,
            repeats: call.repeats + 1,
            ..call
        });
        self.schedule_at(at, world::Event::Client(index, Event::Attempt(attempt)));
    }

    fn record(&mut self, index: usize, call: &Running, outcome: Outcome) {
        note!(self, Place::Client(index), "ends", "{}: {outcome:?}", call.id);
        let asked = match &call.kind {
            Kind::Read(keys) => history::Call::Read { keys: keys.iter().map(ToString::to_string).collect() },
            Kind::Write(changes) => {
                let change = |(key, value, condition): &(Name, Option<Bytes>, Condition)| history::Change {
                    key: key.to_string(),
                    value: value.clone(),
                    condition: match condition {
                        Condition::Always => history::Condition::Always,
                        Condition::Version(version) => history::Condition::Version(version.0),
                        Condition::Exists => history::Condition::Exists,
                    },
                };
                history::Call::Write { changes: changes.iter().map(change).collect() }
            }
        };
        self.history.push(Op {
            client: u32::try_from(index).unwrap_or(u32::MAX),
            call: asked,
            invoked: Duration::from_nanos(call.invoked.0),
            returned: Duration::from_nanos(self.now.0),
            outcome,
        });
        let think = self.setup.think.as_secs_f64() * -self.random.random_range(0.001..1.0_f64).ln();
        let think = if self.clients[index].is_quiet { 0.001 } else { think };
        self.schedule(Duration::from_secs_f64(think), world::Event::Client(index, Event::Next));
    }
}

fn change((name, value, condition): &(Name, Option<Bytes>, Condition)) -> Change {
    let key = name.key();
    let value = value.clone().map(|value| Value::new(value, 1_000).expect("short enough"));
    let checksum = checksum(key.as_ref(), value.as_ref().map_or(&[][..], |value| value.as_bytes()));
    Change { key, value, condition: *condition, checksum }
}
