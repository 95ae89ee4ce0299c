//! A node's conversation with the coordinators: who it is, that it lives, whom it cannot reach; and the views that come.

use std::{collections::BTreeMap, time::Duration};

use craq_coordinator::cluster::{Placement, Registration, ReplicaState, Replicas, Suspicion};
use craq_node::replica::Status;
use craq_proto::{ChainId, Epoch, Incarnation, NodeId, Time};
use rand::RngExt;

use super::{
    call::{Question, Then},
    pipe::{Parcel, Side},
    place::Place,
    world::{ToNode, World, note},
};

/// How long a question for the newest view may take.
const INQUIRY_PATIENCE: Duration = Duration::from_millis(300);
/// Two rounds of such questions are at least so far apart.
const FETCH_INTERVAL: Duration = Duration::from_millis(20);
/// A node that asked to leave waits so long for a view without it.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// Since when a member was not reached.
#[derive(Debug)]
struct Missed {
    incarnation: Incarnation,
    since: Time,
    refused: bool,
}

/// What a process knows of its coordinator and its peers.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// The conversation, and whether the coordinator has taken the registration.
    pipe: Option<u64>,
    is_registered: bool,
    /// How many coordinators were tried.
    tried: usize,
    missed: BTreeMap<NodeId, Missed>,
    /// Pings under way, and the epoch in which the next is wanted.
    pings: BTreeMap<NodeId, Option<Epoch>>,
    /// The next regular word is due already.
    beat_set: bool,
    is_fetching: bool,
    fetch_again: bool,
    pub(super) is_leaving: bool,
    /// Where in the chain it wants to be.
    pub(super) placement: Placement,
}

impl Heartbeat {
    /// True: the ping may be sent now; false: one is under way, and this one follows it.
    pub(super) fn begin_ping(&mut self, node: NodeId, epoch: Epoch) -> bool {
        if let Some(next) = self.pings.get_mut(&node) {
            *next = Some(epoch);
            return false;
        }
        self.pings.insert(node, None);
        true
    }

    /// The epoch in which the next one is wanted.
    pub(super) fn end_ping(&mut self, node: NodeId) -> Option<Epoch> {
        self.pings.remove(&node).flatten()
    }

    pub(super) fn reached(&mut self, node: NodeId) {
        self.missed.remove(&node);
    }

    pub(super) fn missed(&mut self, node: NodeId, meant: Option<Incarnation>, refused: bool, now: Time) {
        let Some(incarnation) = meant else { return };
        let fresh = || Missed { incarnation, since: now, refused: false };
        let entry = self.missed.entry(node).or_insert_with(fresh);
        if entry.incarnation != incarnation {
            *entry = fresh();
        }
        entry.refused |= refused;
    }
}

fn state(status: &Status) -> ReplicaState {
    ReplicaState {
        epoch: status.epoch,
        active: status.active,
        caught_up: status.caught_up,
        commit: status.commit.0,
        last: status.last.0,
        durable: status.durable.0,
        keys: status.keys,
        readable: status.readable,
        writable: status.writable,
        role: status.role.as_str().to_owned(),
        transfer_bytes: status.transfer_bytes,
        transfer_rows: status.transfer_rows,
    }
}

impl World {
    fn replicas(&self, machine: usize) -> Replicas {
        let process = self.machines[machine].process.as_ref();
        process.map(|process| (ChainId::default_chain(), state(process.status()))).into_iter().collect()
    }

    /// Presents itself to the next coordinator.
    pub(super) fn connect(&mut self, machine: usize) {
        let Some(from) = self.end_at(Place::Node(machine)) else { return };
        let replicas = self.replicas(machine);
        let coordinators = self.coordinators.len();
        let Some(process) = self.process(machine) else { return };
        if process.heartbeat.pipe.is_some() {
            return;
        }
        let to = process.heartbeat.tried % coordinators;
        process.heartbeat.tried += 1;
        let registration = Registration {
            node: process.node,
            incarnation: process.incarnation,
            address: from.place.to_string(),
            placement: process.heartbeat.placement,
            replicas,
        };
        let pipe = self.open_pipe(from, Place::Coordinator(to), None, Parcel::Register(registration));
        if let Some(process) = self.process(machine) {
            process.heartbeat.pipe = Some(pipe);
            process.heartbeat.is_registered = false;
        }
    }

    pub(super) fn on_registered(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        process.heartbeat.is_registered = true;
        let is_leaving = process.heartbeat.is_leaving;
        if is_leaving {
            self.say(machine, Parcel::Leave);
        }
        self.later(machine, self.setup.heartbeat_interval(), ToNode::Beat);
    }

    /// Another coordinator leads: that one is tried next.
    pub(super) fn on_not_leader(&mut self, machine: usize, leader: Option<&str>) {
        if let Some(Place::Coordinator(index)) = leader.and_then(Place::of)
            && let Some(process) = self.process(machine)
        {
            process.heartbeat.tried = index;
        }
    }

    /// The conversation has ended: the next coordinator is tried after a while.
    pub(super) fn conversation_ended(&mut self, machine: usize, pipe: u64) {
        let wait = Duration::from_millis(self.random.random_range(20..300));
        let Some(process) = self.process(machine) else { return };
        if process.heartbeat.pipe == Some(pipe) {
            process.heartbeat.pipe = None;
            process.heartbeat.is_registered = false;
            self.later(machine, wait, ToNode::Connect);
        }
    }

    fn say(&mut self, machine: usize, parcel: Parcel) {
        let pipe = self
            .process(machine)
            .and_then(|process| process.heartbeat.pipe.filter(|_| process.heartbeat.is_registered));
        if let Some(pipe) = pipe {
            self.send(pipe, Side::Acceptor, parcel);
        }
    }

    /// It is time for the next regular word.
    pub(super) fn on_beat(&mut self, machine: usize) {
        if let Some(process) = self.process(machine) {
            process.heartbeat.beat_set = false;
        }
        self.beat(machine);
    }

    /// Tells the coordinator, now and then and whenever the state has changed.
    pub(super) fn beat(&mut self, machine: usize) {
        let now = self.clock(machine);
        let patience = self.setup.failure_timeout / 4;
        let slandered = self.machines[machine].slanders;
        let replicas = self.replicas(machine);
        let interval = self.setup.heartbeat_interval();
        let Some(process) = self.process(machine) else { return };
        if !process.heartbeat.is_registered {
            return;
        }
        let mut suspicions = Vec::new();
        if let Some(view) = process.replica.view()
            && view.incarnation(process.node) == Some(process.incarnation)
        {
            for member in view.members.iter().filter(|member| member.node != process.node) {
                let missed = process.heartbeat.missed.get(&member.node);
                let missed = missed.filter(|missed| missed.incarnation == member.incarnation);
                let is_late = |missed: &Missed| missed.refused || now.since(missed.since) >= patience;
                let suspected = missed.filter(|missed| is_late(missed)).map(|missed| missed.refused);
                let slander = (slandered == Some(member.node)).then_some(false);
                if let Some(refused) = suspected.or(slander) {
                    let (chain, epoch) = (view.chain.clone(), view.epoch);
                    let (node, incarnation) = (member.node, member.incarnation);
                    suspicions.push(Suspicion { chain, epoch, node, incarnation, refused });
                }
            }
        }
        let is_next_set = std::mem::replace(&mut process.heartbeat.beat_set, true);
        self.say(machine, Parcel::Beat(replicas, suspicions));
        if !is_next_set {
            self.later(machine, interval, ToNode::Beat);
        }
    }

    /// Asks everybody who may know a newer view.
    pub(super) fn fetch_view(&mut self, machine: usize) {
        let Some(from) = self.end_at(Place::Node(machine)) else { return };
        let mut places: Vec<Place> = (0..self.coordinators.len()).map(Place::Coordinator).collect();
        let Some(process) = self.process(machine) else { return };
        if std::mem::replace(&mut process.heartbeat.is_fetching, true) {
            process.heartbeat.fetch_again = true;
            return;
        }
        if let Some(view) = process.replica.view() {
            let members = view.members.iter().map(|member| (member.node, &member.address));
            let learners = view.learners.iter().map(|learner| (learner.node, &learner.address));
            let others = members.chain(learners).filter(|(node, _)| *node != process.node);
            places.extend(others.filter_map(|(_, address)| Place::of(address)));
        }
        note!(self, from.place, "fetch", "the newest view");
        for place in places {
            self.call(from, place, INQUIRY_PATIENCE, Question::View, Then::InstallView);
        }
        self.later(machine, INQUIRY_PATIENCE + FETCH_INTERVAL, ToNode::MayFetch);
    }

    pub(super) fn on_may_fetch(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        process.heartbeat.is_fetching = false;
        if std::mem::take(&mut process.heartbeat.fetch_again) {
            self.fetch_view(machine);
        }
    }

    /// Asked to stop: wants to be taken out of every chain first, and waits for that, but not for ever.
    pub(super) fn leave(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        if std::mem::replace(&mut process.heartbeat.is_leaving, true) {
            return;
        }
        self.say(machine, Parcel::Leave);
        self.later(machine, LEAVE_PATIENCE, ToNode::Leave);
    }
}
