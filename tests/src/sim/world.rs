//! The world: places, what is on its way between them, and what happens next.
//!
//! One queue of events, ordered by time and then by the order in which they were made. An event for a process that
//! stands still waits until it goes on; one for a process that is gone is forgotten.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use craq_client::check::history::Op;
use craq_node::replica::event::{Input, LinkId};
use craq_proto::{Seq, Term, View};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    call::{Call, Failed},
    client::{self, Client, Pairs},
    coordinator::{Coordinator, ObjectStorage},
    fault::Faults,
    machine::Machine,
    nemesis::{Move, Nemesis},
    network::Network,
    pipe::{Pipe, Side},
    place::{End, Place},
    setup::Setup,
    time::{At, Clock},
    trace::Trace,
};
use crate::invariants::{Fact, Invariants};

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// The next parcel of a pipe arrives on this side.
    Parcel(u64, Side),
    /// This side of a pipe notices that the connection is gone.
    Lost(u64, Side),
    /// A call arrives; its answer does; its caller waits no longer; it fails.
    Called(u64),
    Answered(u64),
    Expired(u64),
    CallFailed(u64, Failed),
    /// To a node's process.
    Node(End, ToNode),
    /// To a coordinator's process.
    Coordinator(End, super::coordinator::Event),
    /// To a client.
    Client(usize, client::Event),
    /// To whom makes the faults.
    Nemesis(Move),
}

/// What happens to a node's process by itself.
#[derive(Debug)]
pub(super) enum ToNode {
    /// The replica's deadline.
    Deadline,
    /// The batch on its way to the disk is done.
    BatchDone,
    /// The log is to be read.
    ReadLog { link: LinkId, after: Seq, up_to: Seq, bytes_max: usize },
    /// A fact for the replica.
    Tell(Input),
    /// A client's call goes on.
    Service(u64, super::service::Stage),
    /// It is time to tell the coordinator that the node lives.
    Beat,
    /// It is time to try the next coordinator.
    Connect,
    /// The newest view may be asked for again.
    MayFetch,
    /// The node has waited long enough to be let go.
    Leave,
}

#[derive(Debug)]
struct Scheduled {
    at: At,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What has been found to be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which check says so.
    pub check: String,
    /// What is wrong.
    pub what: String,
}

/// All of it.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) now: At,
    pub(super) random: StdRng,
    pub(super) machines: Vec<Machine>,
    pub(super) coordinators: Vec<Coordinator>,
    pub(super) storage: ObjectStorage,
    /// Who has claimed each term.
    pub(super) terms: BTreeMap<Term, usize>,
    pub(super) clients: Vec<Client>,
    pub(super) network: Network,
    pub(super) pipes: BTreeMap<u64, Pipe>,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) nemesis: Nemesis,
    pub(super) faults: Faults,
    pub(super) invariants: Invariants,
    pub(super) pairs: Pairs,
    pub(super) history: Vec<Op>,
    /// The newest view in the log.
    pub(super) newest: Option<Arc<View>>,
    pub(super) epochs: BTreeSet<u64>,
    pub(super) violation: Option<Violation>,
    pub(super) trace: Trace,
    pub(super) steps: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    counter: u64,
}

/// One line of the trace, made only if it is wanted.
macro_rules! note {
    ($world:expr, $place:expr, $what:literal, $($rest:tt)*) => {
        if $world.trace.is_on() {
            let (at, place) = ($world.now, $place);
            $world.trace.line(at, place, $what, format_args!($($rest)*));
        }
    };
}
pub(super) use note;

/// A process that goes on meets what has come meanwhile in the order of each connection, but one connection may be
/// looked at much later than another.
fn lag(event: &Event, resumes: At) -> Duration {
    let line = match event {
        Event::Parcel(pipe, _) | Event::Lost(pipe, _) => *pipe,
        Event::Called(call) | Event::Answered(call) | Event::Expired(call) | Event::CallFailed(call, _) => {
            *call
        }
        _ => return Duration::ZERO,
    };
    let mixed = (line ^ resumes.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Duration::from_micros(match mixed % 8 {
        0..4 => 0,
        4..7 => mixed / 8 % 3_000,
        _ => mixed / 8 % 100_000,
    })
}

impl World {
    pub(super) fn new(setup: Setup, trace: Trace) -> Self {
        // Not the stream of numbers from which the setup was drawn.
        let mut random = StdRng::seed_from_u64(setup.seed ^ 0x9e37_79b9_7f4a_7c15);
        let machines = (0..setup.machines).map(|index| Machine::new(&setup, index, &mut random)).collect();
        let network = Network::new(setup.delay_micros, setup.stragglers);
        let clients = (0..setup.clients).map(|_| Client::new(&mut random)).collect();
        Self {
            invariants: Invariants::new(&setup.replica),
            now: At(0),
            machines,
            // One more than run all the time.
            coordinators: (0..=setup.coordinators).map(|_| Coordinator::new(Clock::new(0, 0))).collect(),
            storage: ObjectStorage::new(),
            terms: BTreeMap::new(),
            clients,
            network,
            pipes: BTreeMap::new(),
            calls: BTreeMap::new(),
            nemesis: Nemesis::default(),
            faults: Faults::default(),
            pairs: Pairs::new(setup.keys),
            history: Vec::new(),
            newest: None,
            epochs: BTreeSet::new(),
            violation: None,
            trace,
            steps: 0,
            queue: BinaryHeap::new(),
            counter: 0,
            random,
            setup,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now.after(after), event);
    }

    pub(super) fn schedule_at(&mut self, at: At, event: Event) {
        let order = self.next_id();
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), order, event }));
    }

    /// Lets the world go on until this moment, or until something is wrong.
    pub(super) fn run_until(&mut self, end: At) {
        while self.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= end => {}
                _ => break,
            }
            let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else { break };
            self.now = at;
            if let Some(resumes) = self.paused_until(&event) {
                self.schedule_at(resumes.after(lag(&event, resumes)), event);
                continue;
            }
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Parcel(pipe, side) => self.on_parcel(pipe, side),
            Event::Lost(pipe, side) => self.on_lost(pipe, side),
            Event::Called(call) => self.on_called(call),
            Event::Answered(call) => self.on_answered(call),
            Event::Expired(call) => self.fail_call(call, Failed::TimedOut),
            Event::CallFailed(call, failed) => self.fail_call(call, failed),
            Event::Node(end, what) => {
                if self.is_alive(end)
                    && let Place::Node(machine) = end.place
                {
                    self.on_node(machine, what);
                }
            }
            Event::Coordinator(end, what) => {
                if self.is_alive(end)
                    && let Place::Coordinator(index) = end.place
                {
                    self.on_coordinator(index, what);
                }
            }
            Event::Client(client, what) => self.on_client(client, what),
            Event::Nemesis(what) => self.on_move(what),
        }
    }

    /// Until when the process that the event is for stands still.
    fn paused_until(&self, event: &Event) -> Option<At> {
        let place = match event {
            Event::Parcel(pipe, side) | Event::Lost(pipe, side) => self.pipes.get(pipe)?.end(*side)?.place,
            Event::Called(call) => self.calls.get(call)?.to,
            Event::Answered(call) | Event::Expired(call) | Event::CallFailed(call, _) => {
                self.calls.get(call)?.from.place
            }
            Event::Node(end, _) | Event::Coordinator(end, _) => end.place,
            Event::Client(..) | Event::Nemesis(_) => return None,
        };
        let until = match place {
            Place::Node(machine) => self.machines[machine].paused_until,
            Place::Coordinator(index) => self.coordinators[index].paused_until,
            Place::Client(_) | Place::World => None,
        };
        until.filter(|until| *until > self.now)
    }

    /// The process that runs at the place now.
    pub(super) fn end_at(&self, place: Place) -> Option<End> {
        let process = match place {
            Place::Node(machine) => self.machines.get(machine)?.process.as_ref()?.number,
            Place::Coordinator(index) => self.coordinators.get(index)?.process.as_ref()?.number,
            Place::Client(_) => 0,
            Place::World => return None,
        };
        Some(End { place, process })
    }

    pub(super) fn is_alive(&self, end: End) -> bool {
        self.end_at(end.place) == Some(end)
    }

    /// Tells the invariants.
    pub(super) fn fact(&mut self, fact: Fact<'_>) {
        if let Err(violation) = self.invariants.fact(fact) {
            self.wrong(violation.invariant, violation.what);
        }
    }

    /// Something is wrong: the first such thing ends the run.
    pub(super) fn wrong(&mut self, check: &str, what: String) {
        note!(self, Place::World, "WRONG", "{check}: {what}");
        if self.violation.is_none() {
            self.violation = Some(Violation { check: check.to_owned(), what });
        }
    }
}
