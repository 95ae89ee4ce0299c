//! A cluster of fake nodes around a real [`Cluster`], in virtual time, with every fault that the cluster can meet.
//!
//! A fake node installs a view when it is told it, becomes active or catches up a little later, and says so in
//! heartbeats. Each view that the cluster makes is checked here against what the nodes have really said.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use craq_proto::{ChainId, Epoch, Incarnation, Member, NodeId, Role, Time, View};
use uuid::Uuid;

use crate::cluster::{
    Cluster, Input, OrderId, Output, Placement, Registration, ReplicaState, StreamId, Suspicion, Timing,
    legal::{Authority, legal_successor},
};

pub(super) const TIMING: Timing = Timing { failure_timeout: Duration::from_secs(1) };
/// How often a fake node speaks.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// The model's clock moves by so much at once.
const TICK: Duration = Duration::from_millis(20);
/// How long a fake node takes to become active in an epoch, or to catch up.
const GATE: Duration = Duration::from_millis(30);

pub(super) fn node(n: usize) -> NodeId {
    NodeId(Uuid::from_u128(n as u128 + 1))
}

/// A fake node.
#[derive(Default)]
struct Fake {
    running: bool,
    /// Running, but it says nothing.
    stopped: bool,
    incarnation: u64,
    placement: Placement,
    stream: Option<StreamId>,
    view: Option<View>,
    /// When it installed its view.
    installed: Time,
    next_beat: Time,
}

impl Fake {
    fn replica(&self, id: NodeId, now: Time) -> ReplicaState {
        let Some(view) = &self.view else { return ReplicaState::default() };
        let named = view.incarnation(id) == Some(Incarnation(self.incarnation));
        let ready = named && now.since(self.installed) >= GATE;
        let role = view.role(id);
        ReplicaState {
            epoch: view.epoch,
            active: ready && role.is_member(),
            caught_up: ready && role == Role::Learner,
            ..ReplicaState::default()
        }
    }
}

/// The whole.
pub(super) struct Model {
    cluster: Cluster,
    pub(super) now: Time,
    started: Time,
    fakes: BTreeMap<NodeId, Fake>,
    /// Pairs that do not reach each other.
    broken: BTreeSet<(NodeId, NodeId)>,
    /// The log: every view that was made.
    pub(super) log: Vec<View>,
    /// Views that are not in the log yet.
    held: Vec<View>,
    hold: bool,
    /// An operator may have taken their newest process out.
    expelled: BTreeSet<NodeId>,
    /// What was ever said: who, which incarnation, in which epoch.
    said_active: BTreeSet<(NodeId, Incarnation, Epoch)>,
    said_caught_up: BTreeSet<(NodeId, Incarnation, Epoch)>,
    last_id: u64,
}

impl Model {
    pub(super) fn new(nodes: usize) -> Self {
        let mut model = Self {
            cluster: Cluster::new(Time::ZERO, TIMING, Vec::new()),
            now: Time::ZERO,
            started: Time::ZERO,
            fakes: (0..nodes).map(|n| (node(n), Fake::default())).collect(),
            broken: BTreeSet::new(),
            log: Vec::new(),
            held: Vec::new(),
            hold: false,
            expelled: BTreeSet::new(),
            said_active: BTreeSet::new(),
            said_caught_up: BTreeSet::new(),
            last_id: 0,
        };
        (0..nodes).for_each(|n| model.start(node(n), Placement::Tail));
        model
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Starts the node's process, again if it runs.
    pub(super) fn start(&mut self, id: NodeId, placement: Placement) {
        self.kill(id);
        let fake = self.fakes.get_mut(&id).unwrap();
        fake.incarnation += 1;
        (fake.running, fake.stopped, fake.placement) = (true, false, placement);
        self.connect(id);
    }

    /// Opens a new register stream.
    pub(super) fn connect(&mut self, id: NodeId) {
        let stream = StreamId(self.next_id());
        let fake = self.fakes.get_mut(&id).unwrap();
        if !fake.running || fake.stopped {
            return;
        }
        fake.stream = Some(stream);
        fake.next_beat = self.now + HEARTBEAT_INTERVAL;
        let replicas = vec![(ChainId::default_chain(), fake.replica(id, self.now))];
        let (incarnation, placement) = (Incarnation(fake.incarnation), fake.placement);
        let registration = Registration { node: id, incarnation, address: address(id), placement, replicas };
        self.hear(id);
        self.step(Input::Registered { stream, registration });
        if let Some(view) = self.log.last().cloned().filter(|_| self.held.is_empty()) {
            self.install(id, &view);
        }
    }

    pub(super) fn kill(&mut self, id: NodeId) {
        let fake = self.fakes.get_mut(&id).unwrap();
        fake.running = false;
        self.disconnect(id);
    }

    /// The stream breaks; the node itself does not know why.
    pub(super) fn disconnect(&mut self, id: NodeId) {
        if let Some(stream) = self.fakes.get_mut(&id).unwrap().stream.take() {
            self.step(Input::StreamBroke { stream });
        }
    }

    pub(super) fn stop(&mut self, id: NodeId, stopped: bool) {
        self.fakes.get_mut(&id).unwrap().stopped = stopped;
    }

    pub(super) fn leave(&mut self, id: NodeId) {
        if let Some(stream) = self.fakes[&id].stream {
            self.step(Input::Leave { stream });
        }
    }

    pub(super) fn break_pair(&mut self, a: NodeId, b: NodeId, broken: bool) {
        if broken && a != b {
            self.broken.insert((a.min(b), a.max(b)));
        } else {
            self.broken.remove(&(a.min(b), a.max(b)));
        }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        self.expelled.insert(node);
        let (order, chain) = (OrderId(self.next_id()), ChainId::default_chain());
        self.step(Input::Remove { order, chain, node, accept_data_loss: false });
    }

    pub(super) fn rotate(&mut self) {
        let Some(view) = self.log.last() else { return };
        let mut nodes: Vec<NodeId> = view.members.iter().map(|member| member.node).collect();
        nodes.rotate_left(1);
        let (order, chain) = (OrderId(self.next_id()), ChainId::default_chain());
        self.step(Input::Reorder { order, chain, nodes });
    }

    /// The coordinator starts anew with the log. What was not in it is gone.
    pub(super) fn restart_coordinator(&mut self) {
        self.held.clear();
        self.hold = false;
        self.cluster = Cluster::new(self.now, TIMING, self.log.last().cloned().into_iter().collect());
        self.started = self.now;
        self.fakes.values_mut().for_each(|fake| fake.stream = None);
    }

    /// The coordinator does not run for a while.
    pub(super) fn stall(&mut self, time: Duration) {
        self.now = self.now + time;
        self.step(Input::Tick);
    }

    /// Whether views get into the log at once.
    pub(super) fn hold(&mut self, hold: bool) {
        self.hold = hold;
        if !hold {
            for view in std::mem::take(&mut self.held) {
                self.persisted(view);
            }
        }
    }

    /// Another coordinator wrote the next epoch first.
    pub(super) fn beat(&mut self) {
        let Some(mut view) = self.log.last().cloned() else { return };
        view.epoch = view.epoch.next();
        view.reason = "decided elsewhere".to_owned();
        self.held.clear();
        self.started = self.now;
        self.log.push(view.clone());
        self.step(Input::Superseded { views: vec![view] });
    }

    /// No more faults: all processes run, all are connected, everything is reached. Gently: only those processes
    /// start anew that have to.
    pub(super) fn heal(&mut self, gently: bool) {
        self.broken.clear();
        self.hold(false);
        let nodes: Vec<NodeId> = self.fakes.keys().copied().collect();
        for id in nodes {
            self.stop(id, false);
            if gently && self.fakes[&id].running && !self.expelled.contains(&id) {
                self.connect(id);
            } else {
                self.start(id, Placement::Tail);
            }
        }
    }

    /// Every node is a member in sync.
    pub(super) fn is_whole(&self) -> bool {
        let Some(view) = self.log.last() else { return false };
        let synced = |id: &NodeId| view.member(*id).is_some_and(|member| member.in_sync);
        self.fakes.keys().all(synced) && view.learners.is_empty()
    }

    /// Lets time pass: nodes beat, deadlines are met.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.now + TICK;
            let nodes: Vec<NodeId> = self.fakes.keys().copied().collect();
            for id in nodes {
                let fake = &self.fakes[&id];
                if !fake.running || fake.stopped || self.now < fake.next_beat {
                    continue;
                }
                if fake.stream.is_none() {
                    self.connect(id);
                } else {
                    self.say(id);
                }
            }
            if self.cluster.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.step(Input::Tick);
            }
        }
    }

    fn say(&mut self, id: NodeId) {
        let fake = self.fakes.get_mut(&id).unwrap();
        fake.next_beat = self.now + HEARTBEAT_INTERVAL;
        let (Some(stream), replica) = (fake.stream, fake.replica(id, self.now)) else { return };
        let suspicions = self.suspicions(id);
        self.hear(id);
        self.step(Input::Heartbeat {
            stream,
            replicas: vec![(ChainId::default_chain(), replica)],
            suspicions,
        });
    }

    /// Remembers what the node says now.
    fn hear(&mut self, id: NodeId) {
        let fake = &self.fakes[&id];
        let (replica, incarnation) = (fake.replica(id, self.now), Incarnation(fake.incarnation));
        if replica.active {
            self.said_active.insert((id, incarnation, replica.epoch));
        }
        if replica.caught_up {
            self.said_caught_up.insert((id, incarnation, replica.epoch));
        }
    }

    /// Whom the node, as a member, does not reach.
    fn suspicions(&self, id: NodeId) -> Vec<Suspicion> {
        let Some(view) = self.fakes[&id].view.as_ref().filter(|view| view.member(id).is_some()) else {
            return Vec::new();
        };
        let suspect = |member: &Member| {
            let refused = !self.fakes[&member.node].running;
            let cut = self.broken.contains(&(id.min(member.node), id.max(member.node)));
            (member.node != id && (refused || cut)).then(|| Suspicion {
                chain: view.chain.clone(),
                epoch: view.epoch,
                node: member.node,
                incarnation: member.incarnation,
                refused,
            })
        };
        view.members.iter().filter_map(suspect).collect()
    }

    fn install(&mut self, id: NodeId, view: &View) {
        let fake = self.fakes.get_mut(&id).unwrap();
        if fake.view.as_ref().is_none_or(|known| known.epoch < view.epoch) {
            fake.view = Some(view.clone());
            fake.installed = self.now;
            // It says at once when something changes.
            fake.next_beat = self.now + GATE;
        }
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.cluster.step(self.now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Persist(view) if self.hold => self.held.push(view),
                Output::Persist(view) => self.persisted(view),
                Output::Publish(view) => self.publish(&view),
                Output::Dial { node, address } => {
                    let refused = !self.fakes[&node].running;
                    self.step(if refused {
                        Input::DialRefused { node, address }
                    } else {
                        Input::DialAnswered { node }
                    });
                }
                _ => {}
            }
        }
    }

    fn persisted(&mut self, view: View) {
        if let Some(old) = self.log.last() {
            let legal = legal_successor(old, &view, Authority::System);
            assert_eq!(legal, Ok(()), "{view:#?} follows {old:#?}");
            self.check_words(old, &view);
        }
        let judged = view.reason.contains("was lost") || view.reason.contains("was taken out");
        let early = self.now.since(self.started) < TIMING.failure_timeout;
        assert!(!judged || !early, "somebody was judged right after the start: {view:#?}");
        self.log.push(view.clone());
        self.step(Input::Persisted { view });
    }

    /// Whoever became in sync or a member has said that it is fit, in the very epoch before, as that process.
    fn check_words(&self, old: &View, new: &View) {
        for member in &new.members {
            let word = (member.node, member.incarnation, old.epoch);
            let synced_before = old.member(member.node).is_some_and(|before| before.in_sync);
            let fit = !member.in_sync || synced_before || self.said_active.contains(&word);
            assert!(fit, "{} became in sync and never said Active: {new:#?}", member.node);
            let promoted = old.member(member.node).is_none();
            let fit = !promoted || self.said_caught_up.contains(&word);
            assert!(fit, "{} was promoted and had not caught up: {new:#?}", member.node);
        }
    }

    fn publish(&mut self, view: &View) {
        let logged = self.log.iter().any(|logged| logged == view);
        assert!(logged, "a view was published before it was in the log: {view:#?}");
        let nodes: Vec<NodeId> = self.fakes.keys().copied().collect();
        for id in nodes {
            if self.fakes[&id].running && !self.fakes[&id].stopped && self.fakes[&id].stream.is_some() {
                self.install(id, view);
            }
        }
    }
}

fn address(id: NodeId) -> String {
    format!("n{}:1", id.0.as_u128())
}
