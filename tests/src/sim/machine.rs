//! A machine with a node's process: what the shipped driver does, in virtual time.
//!
//! The replica, the chain store and the backends are the shipped ones. What stands here instead of the shipped driver
//! carries out the replica's orders in their order, and may die between any two of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use craq_coordinator::cluster::Placement;
use craq_node::{
    replica::{
        Loader, Reader, Replica, Status,
        event::{Input, LinkId, Output, PersistId, StoreWrite, Ticket},
    },
    store::{Backend, Batch, ChainStore, Change, Store, StoreError, Table, writer::BATCH_WRITES_MAX},
};
use craq_proto::{
    ChainId, Incarnation, NodeId, Row, Time,
    planted::{self, Bug},
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use uuid::Uuid;

use super::{
    disk::Disk,
    fault::Fault,
    heartbeat::Heartbeat,
    place::{End, Place},
    service::Operation,
    setup::Setup,
    time::{At, Clock},
    world::{Event, ToNode, World, note},
};
use crate::invariants::{self, Fact};

/// The table of the only chain's view, commit and floors.
const META: Table = Table(2);

/// A machine; its disk and its clock outlive its processes.
pub(super) struct Machine {
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) process: Option<Process>,
    pub(super) paused_until: Option<At>,
    /// Whether somebody answers that nobody listens.
    pub(super) has_power: bool,
    /// It takes part: one that has left, or has not joined yet, stays down until it is wanted.
    pub(super) is_wanted: bool,
    /// It dies when so many more orders have been carried out.
    pub(super) dies_in: Option<u32>,
    /// Its disk needs so long for a batch beside its usual time.
    pub(super) disk_delay: Duration,
    /// It tells that it does not reach this node.
    pub(super) slanders: Option<NodeId>,
    /// Who it is, once it was started.
    pub(super) node: Option<NodeId>,
}

impl Machine {
    pub(super) fn new(setup: &Setup, index: usize, random: &mut StdRng) -> Self {
        let most = setup.clock_error_ppm;
        let error = match setup.slowest {
            Some(slowest) if slowest == index => -most,
            Some(_) => most,
            None if random.random_bool(0.3) => random.random_range(-most..=most),
            None => *[most, -most].choose(random).expect("not empty"),
        };
        Self {
            disk: Disk::new(setup.disk),
            clock: Clock::new(random.random_range(1_000_000_000..100_000_000_000), error),
            process: None,
            paused_until: None,
            has_power: true,
            is_wanted: true,
            dies_in: None,
            disk_delay: Duration::ZERO,
            slanders: None,
            node: None,
        }
    }
}

/// Who waits behind a ticket of the replica.
#[derive(Debug)]
pub(super) enum Waiter {
    /// An operation of a client.
    Operation(u64),
    /// The call of a pinging member.
    Pinger(u64),
}

/// A batch on its way to the disk.
pub(super) struct InFlight {
    batch: Batch,
    /// A planted bug: what goes to the disk by itself, before.
    before: Batch,
    writes: Vec<(PersistId, StoreWrite)>,
}

/// So many bytes of values that were read lately does a process keep: more than it ever reads, since it is not the seed that
/// decides what is dropped, and a look into the disk counts as one of its operations.
const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// A node's process.
pub(super) struct Process {
    pub(super) number: u64,
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) replica: Replica,
    pub(super) reader: Reader,
    pub(super) chain: ChainStore,
    backend: Arc<dyn Backend>,
    waiting: VecDeque<(PersistId, StoreWrite)>,
    in_flight: Option<InFlight>,
    pub(super) links: BTreeMap<LinkId, u64>,
    pub(super) tickets: u64,
    pub(super) accepted_links: u64,
    pub(super) waiters: BTreeMap<Ticket, Waiter>,
    pub(super) operations: BTreeMap<u64, Operation>,
    pub(super) heartbeat: Heartbeat,
    deadline: Option<At>,
    status: Status,
}

impl World {
    pub(super) fn clock(&self, machine: usize) -> Time {
        self.machines[machine].clock.read(self.now)
    }

    pub(super) fn process(&mut self, machine: usize) -> Option<&mut Process> {
        self.machines[machine].process.as_mut()
    }

    /// Something for the process that runs there now, after a time.
    pub(super) fn later(&mut self, machine: usize, after: Duration, what: ToNode) {
        if let Some(end) = self.end_at(Place::Node(machine)) {
            self.schedule(after, Event::Node(end, what));
        }
    }

    /// Starts the machine's process on what its disk has. False: the disk did not let it.
    pub(super) fn start(&mut self, machine: usize) -> bool {
        self.machines[machine].has_power = true;
        if self.machines[machine].process.is_some() {
            return true;
        }
        let number = self.next_id();
        match self.load(machine, number) {
            Ok((mut process, rows)) => {
                process.heartbeat.placement = self.placement();
                let (node, incarnation) = (process.node, process.incarnation);
                let place = Place::Node(machine);
                note!(self, place, "start", "node {node} incarnation {incarnation} {:?}", process.status);
                let view = process.replica.view().cloned();
                let (commit, last) = (process.status.commit, process.status.last);
                self.machines[machine].node = Some(node);
                self.machines[machine].process = Some(process);
                let view = view.as_ref();
                self.fact(Fact::Started { node, incarnation, view, commit, last, rows: &rows });
                self.later(machine, Duration::ZERO, ToNode::Connect);
                self.after_step(machine);
                true
            }
            Err(error) => {
                note!(self, Place::Node(machine), "no start", "{error}");
                self.machines[machine].disk.crash(&mut self.random, None, true);
                false
            }
        }
    }

    /// Where a process wants to be: at the tail, as it comes, or anywhere.
    fn placement(&mut self) -> Placement {
        if !self.random.random_bool(self.setup.placed) {
            return Placement::Tail;
        }
        let others: Vec<NodeId> = self.machines.iter().filter_map(|machine| machine.node).collect();
        match others.choose(&mut self.random).filter(|_| self.random.random_bool(0.5)) {
            Some(other) => Placement::After(*other),
            None => Placement::First,
        }
    }

    /// The process, and what its disk holds.
    fn load(&mut self, machine: usize, number: u64) -> Result<(Process, Vec<Row>), StoreError> {
        let fresh = NodeId(Uuid::from_u128(self.random.random()));
        let now = self.clock(machine);
        let backend = self.machines[machine].disk.mount()?;
        let store = Store::open_with(backend, || fresh)?;
        let chain = store.chain(&ChainId::default_chain())?.with_recent(RECENT_BYTES);
        let identity = store.identity();
        let (node, incarnation) = (identity.node, identity.incarnation);
        let mut loader = Loader::new(self.setup.replica.clone(), node, incarnation, chain.meta()?);
        chain.walk(&mut |_| (), &mut |row| loader.row(row))?;
        let replica = loader.finish(now);
        let rows = invariants::contents(&chain)?;
        let process = Process {
            number,
            node,
            incarnation,
            reader: replica.reader(),
            status: replica.status(now),
            replica,
            chain,
            backend: store.backend(),
            waiting: VecDeque::new(),
            in_flight: None,
            links: BTreeMap::new(),
            tickets: 0,
            accepted_links: 1,
            waiters: BTreeMap::new(),
            operations: BTreeMap::new(),
            heartbeat: Heartbeat::default(),
            deadline: None,
        };
        Ok((process, rows))
    }

    /// The process ends this instant. `power`: the machine loses power too.
    pub(super) fn crash(&mut self, machine: usize, power: bool, why: &str) {
        let Some(end) = self.end_at(Place::Node(machine)) else { return };
        let Some(process) = self.machines[machine].process.take() else { return };
        note!(self, end.place, "crash", "{why}{}", if power { ", power lost" } else { "" });
        let body = &mut self.machines[machine];
        (body.paused_until, body.dies_in, body.has_power) = (None, None, !power);
        body.disk.crash(&mut self.random, process.in_flight.map(|in_flight| in_flight.batch), power);
        let noticed = if power { 500..1_500 } else { 0..20 };
        let noticed = Duration::from_millis(noticed.start)..Duration::from_millis(noticed.end);
        self.pipes_of_dead(end, &noticed);
        self.calls_of_dead(end, !power);
        self.fact(Fact::Ended { node: process.node });
    }

    pub(super) fn on_node(&mut self, machine: usize, what: ToNode) {
        match what {
            ToNode::Deadline => {
                let now = self.clock(machine);
                let Some(process) = self.process(machine) else { return };
                process.deadline = None;
                if process.replica.next_deadline().is_some_and(|due| due <= now) {
                    self.step(machine, Input::DeadlinePassed);
                } else {
                    self.watch_deadline(machine);
                }
            }
            ToNode::BatchDone => self.on_batch_done(machine),
            ToNode::ReadLog { link, after, up_to, bytes_max } => {
                let Some(process) = self.process(machine) else { return };
                match process.chain.read_log(after, up_to, bytes_max) {
                    Ok((rows, through)) => self.step(machine, Input::LogRead { link, rows, through }),
                    Err(error) => self.crash(machine, false, &error.to_string()),
                }
            }
            ToNode::Tell(input) => self.step(machine, input),
            ToNode::Service(operation, stage) => self.go_on(machine, operation, stage),
            ToNode::Beat => self.on_beat(machine),
            ToNode::Connect => self.connect(machine),
            ToNode::MayFetch => self.on_may_fetch(machine),
            ToNode::Leave => self.stop_at_last(machine),
        }
    }

    /// Steps the replica, and carries out what it orders.
    pub(super) fn step(&mut self, machine: usize, input: Input) {
        let now = self.clock(machine);
        self.steps += 1;
        if self.trace.is_on() {
            let text = format!("{input:?}");
            note!(self, Place::Node(machine), "in", "{text}");
        }
        let Some(end) = self.end_at(Place::Node(machine)) else { return };
        let Some(process) = self.process(machine) else { return };
        let mut outputs = Vec::new();
        process.replica.step(now, input, &mut outputs);
        let node = process.node;
        for output in outputs {
            if self.trace.is_on() {
                let text = format!("{output:?}");
                note!(self, Place::Node(machine), "out", "{text}");
            }
            if let Output::Persist { write, .. } = &output {
                self.fact(Fact::Ordered { node, write });
            }
            self.carry_out(machine, output);
            self.maybe_die(machine);
            if !self.is_alive(end) {
                return;
            }
        }
        self.after_step(machine);
    }

    /// A crash between two orders of one step.
    fn maybe_die(&mut self, machine: usize) {
        let Some(left) = self.machines[machine].dies_in.as_mut() else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            let until = self.now.after(Duration::from_secs(1));
            self.faults.fire(Fault::CrashAtStep, until);
            let power = self.random.random_bool(0.5);
            self.crash(machine, power, "planned, between two orders");
            self.restart_later(machine);
        }
    }

    fn after_step(&mut self, machine: usize) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let (node, before) = (process.node, process.status);
        let status = process.replica.status(now);
        process.status = status;
        let view = (status.epoch != before.epoch).then(|| process.replica.view().cloned()).flatten();
        if let Some(view) = view {
            self.fact(Fact::Installed { node, view: &view });
            self.head_may_have_moved(machine, &view);
        }
        if status.commit != before.commit {
            self.fact(Fact::Committed { node, epoch: status.epoch, commit: status.commit });
        }
        self.fact(Fact::Status { node, status: &status });
        self.maybe_write(machine);
        self.watch_deadline(machine);
    }

    /// Sees to it that the replica's deadline is not missed.
    fn watch_deadline(&mut self, machine: usize) {
        let body = &mut self.machines[machine];
        let Some(process) = body.process.as_mut() else { return };
        let Some(due) = process.replica.next_deadline() else { return };
        let at = body.clock.when(due).max(self.now);
        if process.deadline.is_none_or(|set| at < set) {
            process.deadline = Some(at);
            let end = End { place: Place::Node(machine), process: process.number };
            self.schedule_at(at, Event::Node(end, ToNode::Deadline));
        }
    }

    fn carry_out(&mut self, machine: usize, output: Output) {
        match output {
            Output::Persist { id, write } => {
                if let Some(process) = self.process(machine) {
                    process.waiting.push_back((id, write));
                }
            }
            Output::ReadLog { link, after, up_to, bytes_max } => {
                let delay = self.disk_time(machine);
                self.later(machine, delay, ToNode::ReadLog { link, after, up_to, bytes_max });
            }
            Output::Reply { ticket, reply, under_lease } => {
                self.on_reply(machine, ticket, reply, under_lease);
            }
            Output::Promise { ticket, refused } => self.on_promise(machine, ticket, refused),
            Output::Report => self.beat(machine),
            Output::FetchView => self.fetch_view(machine),
            Output::Halt { reason } => {
                self.wrong("halt", format!("n{machine} stops for good: {reason}"));
            }
            Output::OpenLink { .. }
            | Output::Send { .. }
            | Output::CloseLink { .. }
            | Output::Ping { .. }
            | Output::Release { .. }
            | Output::AskTail { .. } => self.reach_out(machine, output),
        }
    }

    fn disk_time(&mut self, machine: usize) -> Duration {
        let (least, most) = self.setup.disk_micros;
        let usual = Duration::from_micros(self.random.random_range(least..=most));
        usual + self.machines[machine].disk_delay
    }

    /// All that waits goes into the next batch, when the one before is done: what the shipped writer does.
    fn maybe_write(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        if process.in_flight.is_some() || process.waiting.is_empty() {
            return;
        }
        let many = process.waiting.len().min(BATCH_WRITES_MAX);
        let writes: Vec<_> = process.waiting.drain(..many).collect();
        let mut batch = Batch::new();
        for (_, write) in &writes {
            process.chain.encode(write, &mut batch);
        }
        let is_meta = |change: &Change| planted::is(Bug::MetaBeforeData) && is_of(change, META);
        let (before, batch) = batch.into_iter().partition(is_meta);
        process.in_flight = Some(InFlight { batch, before, writes });
        let delay = self.disk_time(machine);
        self.later(machine, delay, ToNode::BatchDone);
    }

    fn on_batch_done(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        let Some(InFlight { batch, before, writes }) = process.in_flight.take() else { return };
        let node = process.node;
        if !before.is_empty() && process.backend.apply(before).is_ok() {
            process.in_flight = Some(InFlight { batch, before: Batch::new(), writes });
            let delay = self.disk_time(machine);
            return self.later(machine, delay, ToNode::BatchDone);
        }
        if let Err(error) = process.backend.apply(batch)
            && !planted::is(Bug::StorageErrorIgnored)
        {
            self.crash(machine, false, &error.to_string());
            return self.restart_later(machine);
        }
        let Some(end) = self.end_at(Place::Node(machine)) else { return };
        for (_, write) in &writes {
            self.fact(Fact::Stored { node, write });
        }
        for (id, _) in writes {
            self.step(machine, Input::Persisted { id });
            if !self.is_alive(end) {
                return;
            }
        }
        self.maybe_write(machine);
    }

    /// A view without it, or the end of its patience, lets a node go that wanted to leave.
    pub(super) fn stop_at_last(&mut self, machine: usize) {
        if self.process(machine).is_some_and(|process| process.heartbeat.is_leaving) {
            self.machines[machine].is_wanted = false;
            self.crash(machine, false, "has left");
        }
    }
}

impl Process {
    pub(super) fn ticket(&mut self, waiter: Waiter) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiters.insert(ticket, waiter);
        ticket
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }
}

fn is_of(change: &Change, wanted: Table) -> bool {
    let (Change::Put(table, ..) | Change::Delete(table, _) | Change::Clear(table)) = change;
    *table == wanted
}
