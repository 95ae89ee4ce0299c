//! Replicas with disks, links and calls between them; what may happen next is a list of events, and whoever drives the
//! world picks one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use craq_proto::{Epoch, Incarnation, Key, NodeId, Seq, Time, View};
use uuid::Uuid;

use super::disk::Disk;
use crate::replica::{
    Config, Loader, Replica,
    event::{Input, LinkId, LinkKind, Message, Output, PersistId, Reply, StoreWrite, TailAnswer, Ticket},
};

/// A node: its disk outlives its process.
#[derive(Debug)]
pub(super) struct SimNode {
    pub(super) incarnation: Incarnation,
    pub(super) replica: Option<Replica>,
    pub(super) disk: Disk,
    pub(super) writes: VecDeque<(PersistId, StoreWrite)>,
}

/// What travels on a link.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    Offer,
    Message(Epoch, Message),
    Closed,
}

/// A link: two queues.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) opener: (NodeId, LinkId),
    pub(super) acceptor: (NodeId, LinkId),
    kind: LinkKind,
    epoch: Epoch,
    incarnation: Incarnation,
    pub(super) down: VecDeque<Parcel>,
    pub(super) up: VecDeque<Parcel>,
}

/// What else travels: one-way messages that stand for calls and their answers.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Ping { epoch: Epoch, sent: Time },
    Promise { epoch: Epoch, sent: Time },
    Refusal { epoch: Epoch },
    Release { epoch: Epoch },
    Question { question: u64, epoch: Epoch, keys: Vec<Key> },
    Answer { question: u64, answer: Option<TailAnswer> },
    FetchView,
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The node's oldest write is done.
    Persisted(NodeId),
    /// The oldest parcel of a wire arrives at its acceptor (down) or opener.
    Down(usize),
    Up(usize),
    /// A call arrives.
    Call(usize),
    /// The node's store reads the log.
    LogRead(usize),
    /// The node's timer.
    Deadline(NodeId),
    /// A node hears that a link it opened is closed.
    Closed(usize),
}

/// A caller's answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) ticket: Ticket,
    pub(super) reply: Reply,
    pub(super) under_lease: bool,
    pub(super) by: NodeId,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) config: Config,
    pub(super) nodes: BTreeMap<NodeId, SimNode>,
    pub(super) wires: BTreeMap<usize, Wire>,
    pub(super) calls: BTreeMap<usize, (NodeId, NodeId, Call)>,
    log_reads: BTreeMap<usize, (NodeId, LinkId, Seq, Seq, usize)>,
    /// Whoever opened a link hears of its end a little later, so that it isn't opened again in no time.
    closed: BTreeMap<usize, (NodeId, LinkId, Time)>,
    pings: BTreeMap<Ticket, (NodeId, NodeId, Epoch, Time)>,
    /// Pairs of nodes between which nothing arrives, by direction.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) answers: VecDeque<Answered>,
    /// The newest view, for those who ask.
    pub(super) newest: Option<View>,
    pub(super) halted: Vec<(NodeId, String)>,
    counter: usize,
    pub(super) trace: Vec<String>,
}

pub(super) fn node_id(name: char) -> NodeId {
    NodeId(Uuid::from_u128(name as u128))
}

pub(super) fn name(node: NodeId) -> char {
    u32::try_from(node.0.as_u128()).ok().and_then(char::from_u32).unwrap_or('?')
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        Self {
            now: Time::from_millis(1_000),
            config,
            nodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            calls: BTreeMap::new(),
            log_reads: BTreeMap::new(),
            closed: BTreeMap::new(),
            pings: BTreeMap::new(),
            cut: BTreeSet::new(),
            answers: VecDeque::new(),
            newest: None,
            halted: Vec::new(),
            counter: 0,
            trace: Vec::new(),
        }
    }

    fn next_id(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        Ticket(self.next_id() as u64)
    }

    /// Starts the node's process, on what its disk has.
    pub(super) fn start(&mut self, node: NodeId) {
        let (config, now) = (self.config.clone(), self.now);
        let fresh = || SimNode {
            incarnation: Incarnation::ZERO,
            replica: None,
            disk: Disk::default(),
            writes: VecDeque::new(),
        };
        let sim = self.nodes.entry(node).or_insert_with(fresh);
        sim.incarnation = sim.incarnation.next();
        let mut loader = Loader::new(config, node, sim.incarnation, sim.disk.meta());
        for row in sim.disk.rows.values() {
            loader.row(row.clone());
        }
        sim.replica = Some(loader.finish(now));
    }

    /// The node's process ends; writes that were not done are lost, and so are its connections.
    pub(super) fn crash(&mut self, node: NodeId) {
        if let Some(sim) = self.nodes.get_mut(&node) {
            sim.replica = None;
            sim.writes.clear();
        }
        self.calls.retain(|_, (from, to, _)| *from != node && *to != node);
        self.log_reads.retain(|_, (reader, ..)| *reader != node);
        self.closed.retain(|_, (opener, ..)| *opener != node);
        let wires: Vec<usize> = self.wires.keys().copied().collect();
        for id in wires {
            self.close(id, node);
        }
    }

    /// One side of a wire is gone; the other hears of it after what is on its way.
    fn close(&mut self, id: usize, side: NodeId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if wire.opener.0 == side {
            wire.up.clear();
            wire.down.push_back(Parcel::Closed);
        } else if wire.acceptor.0 == side {
            wire.down.clear();
            wire.up.push_back(Parcel::Closed);
        }
    }

    /// A connection breaks: both sides hear of it, what is on its way is lost.
    pub(super) fn break_wire(&mut self, id: usize) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.up = VecDeque::from([Parcel::Closed]);
            wire.down = VecDeque::from([Parcel::Closed]);
        }
    }

    pub(super) fn input(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        let Some(replica) = self.nodes.get_mut(&node).and_then(|sim| sim.replica.as_mut()) else { return };
        let mut outputs = Vec::new();
        replica.step(now, input, &mut outputs);
        for output in outputs {
            self.output(node, output);
        }
    }

    fn call(&mut self, from: NodeId, to: NodeId, call: Call) {
        let id = self.next_id();
        self.calls.insert(id, (from, to, call));
    }

    fn output(&mut self, node: NodeId, output: Output) {
        if let Some(line) = super::script::describe(node, &output) {
            self.trace.push(line);
        }
        match output {
            Output::Persist { id, write } => {
                if let Some(sim) = self.nodes.get_mut(&node) {
                    sim.writes.push_back((id, write));
                }
            }
            Output::OpenLink { link, to, kind, epoch, .. } => self.open(node, link, to, kind, epoch),
            Output::Send { link, epoch, message } => self.send(node, link, Parcel::Message(epoch, message)),
            Output::CloseLink { link } => {
                let found = self
                    .wires
                    .iter()
                    .find(|(_, wire)| wire.opener == (node, link) || wire.acceptor == (node, link));
                if let Some(id) = found.map(|(id, _)| *id) {
                    self.close(id, node);
                }
            }
            Output::ReadLog { link, after, up_to, bytes_max } => {
                let id = self.next_id();
                self.log_reads.insert(id, (node, link, after, up_to, bytes_max));
            }
            Output::Ping { to, epoch } => {
                let sent = self.now;
                for (to, _) in to {
                    self.call(node, to, Call::Ping { epoch, sent });
                }
            }
            Output::Release { to, epoch } => {
                for (to, _) in to {
                    self.call(node, to, Call::Release { epoch });
                }
            }
            Output::Promise { ticket, refused } => {
                let Some((from, to, epoch, sent)) = self.pings.remove(&ticket) else { return };
                let answer = refused.map_or(Call::Promise { epoch, sent }, |epoch| Call::Refusal { epoch });
                self.call(to, from, answer);
            }
            Output::AskTail { question, tail, epoch, keys } => {
                self.call(node, tail.0, Call::Question { question, epoch, keys });
            }
            Output::Reply { ticket, reply, under_lease } => {
                self.answers.push_back(Answered { ticket, reply, under_lease, by: node });
            }
            Output::FetchView => self.call(node, node, Call::FetchView),
            Output::Report => {}
            Output::Halt { reason } => self.halted.push((node, reason)),
        }
    }

    fn open(&mut self, node: NodeId, link: LinkId, to: NodeId, kind: LinkKind, epoch: Epoch) {
        let id = self.next_id();
        let wire = Wire {
            opener: (node, link),
            acceptor: (to, LinkId(2 * id as u64 + 1)),
            kind,
            epoch,
            incarnation: self.nodes[&node].incarnation,
            down: VecDeque::from([Parcel::Offer]),
            up: VecDeque::new(),
        };
        self.wires.insert(id, wire);
    }

    fn send(&mut self, node: NodeId, link: LinkId, parcel: Parcel) {
        for wire in self.wires.values_mut() {
            if wire.opener == (node, link) {
                wire.down.push_back(parcel);
                return;
            }
            if wire.acceptor == (node, link) {
                wire.up.push_back(parcel);
                return;
            }
        }
    }

    /// The oldest reading of the log that the node has ordered.
    pub(super) fn log_read(&self, node: NodeId) -> Option<Event> {
        self.log_reads.iter().find(|(_, read)| read.0 == node).map(|(id, _)| Event::LogRead(*id))
    }

    /// All that may happen next, in a fixed order.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (node, sim) in &self.nodes {
            if !sim.writes.is_empty() {
                events.push(Event::Persisted(*node));
            }
        }
        let is_open = |from: NodeId, to: NodeId| !self.cut.contains(&(from, to));
        for (id, wire) in &self.wires {
            if !wire.down.is_empty() && is_open(wire.opener.0, wire.acceptor.0) {
                events.push(Event::Down(*id));
            }
            if !wire.up.is_empty() && is_open(wire.acceptor.0, wire.opener.0) {
                events.push(Event::Up(*id));
            }
        }
        let arriving = self.calls.iter().filter(|(_, (from, to, _))| is_open(*from, *to));
        events.extend(arriving.map(|(id, _)| Event::Call(*id)));
        events.extend(self.log_reads.keys().map(|id| Event::LogRead(*id)));
        let heard = self.closed.iter().filter(|(_, (_, _, at))| *at <= self.now);
        events.extend(heard.map(|(id, _)| Event::Closed(*id)));
        for (node, sim) in &self.nodes {
            let due = sim.replica.as_ref().and_then(Replica::next_deadline);
            if due.is_some_and(|due| due <= self.now) {
                events.push(Event::Deadline(*node));
            }
        }
        events
    }

    pub(super) fn run(&mut self, event: Event) {
        match event {
            Event::Persisted(node) => {
                let Some(sim) = self.nodes.get_mut(&node) else { return };
                if let Some((id, write)) = sim.writes.pop_front() {
                    sim.disk.apply(write);
                    self.input(node, Input::Persisted { id });
                }
            }
            Event::Down(id) => self.arrive(id, true),
            Event::Up(id) => self.arrive(id, false),
            Event::Call(id) => {
                if let Some((from, to, call)) = self.calls.remove(&id) {
                    self.answer(from, to, call);
                }
            }
            Event::LogRead(id) => {
                let Some((node, link, after, up_to, bytes_max)) = self.log_reads.remove(&id) else { return };
                let (rows, through) = self.nodes[&node].disk.read_log(after, up_to, bytes_max);
                self.input(node, Input::LogRead { link, rows, through });
            }
            Event::Deadline(node) => self.input(node, Input::DeadlinePassed),
            Event::Closed(id) => {
                if let Some((node, link, _)) = self.closed.remove(&id) {
                    self.input(node, Input::LinkClosed { link });
                }
            }
        }
    }

    fn arrive(&mut self, id: usize, is_down: bool) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (to, from) = if is_down { (wire.acceptor, wire.opener) } else { (wire.opener, wire.acceptor) };
        let queue = if is_down { &mut wire.down } else { &mut wire.up };
        let Some(parcel) = queue.pop_front() else { return };
        let (link, epoch, kind, incarnation) = (to.1, wire.epoch, wire.kind, wire.incarnation);
        let is_alive = self.nodes.get(&to.0).is_some_and(|sim| sim.replica.is_some());
        match parcel {
            _ if !is_alive => {
                // Nobody there: the other side is told, and the wire is gone.
                self.wires.remove(&id);
                if is_down {
                    self.hear_later(from);
                } else {
                    self.input(from.0, Input::LinkClosed { link: from.1 });
                }
            }
            Parcel::Offer => {
                self.input(to.0, Input::LinkOffered { link, from: from.0, incarnation, epoch, kind });
            }
            Parcel::Message(epoch, message) => self.input(to.0, Input::Received { link, epoch, message }),
            Parcel::Closed => {
                let other = if is_down { &wire.up } else { &wire.down };
                if !other.iter().any(|parcel| matches!(parcel, Parcel::Closed)) {
                    self.wires.remove(&id);
                }
                if is_down {
                    self.input(to.0, Input::LinkClosed { link });
                } else {
                    self.hear_later(to);
                }
            }
        }
    }

    fn hear_later(&mut self, opener: (NodeId, LinkId)) {
        let id = self.next_id();
        self.closed.insert(id, (opener.0, opener.1, self.now + std::time::Duration::from_millis(10)));
    }

    fn answer(&mut self, from: NodeId, to: NodeId, call: Call) {
        match call {
            Call::Ping { epoch, sent } => {
                let ticket = self.ticket();
                self.pings.insert(ticket, (from, to, epoch, sent));
                self.input(to, Input::Pinged { ticket, from, epoch });
            }
            Call::Promise { epoch, sent } => self.input(to, Input::Promised { by: from, epoch, sent }),
            Call::Refusal { epoch } => self.input(to, Input::NewerEpoch { epoch }),
            Call::Release { epoch } => self.input(to, Input::Released { by: from, epoch }),
            Call::Question { question, epoch, keys } => {
                let now = self.now;
                let replica = self.nodes.get(&to).and_then(|sim| sim.replica.as_ref());
                let look = replica.map(|replica| replica.reader().latest_versions(now, epoch, &keys));
                let answer = look.and_then(Result::ok).map(|(answer, _)| answer);
                self.call(to, from, Call::Answer { question, answer });
            }
            Call::Answer { question, answer } => self.input(to, Input::TailAnswered { question, answer }),
            Call::FetchView => {
                if let Some(view) = self.newest.clone() {
                    self.input(to, Input::View(view));
                }
            }
        }
    }

    /// Runs all that can happen without time going on.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some(event) = self.events().first().copied() else { return };
            self.run(event);
        }
        panic!("the world does not come to rest: {:?}", self.events());
    }

    pub(super) fn replica(&self, node: NodeId) -> Option<&Replica> {
        self.nodes.get(&node).and_then(|sim| sim.replica.as_ref())
    }
}
