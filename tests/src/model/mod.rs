//! The smallest interesting chains, explored to the end: every order of every event that can happen to three nodes.
//!
//! A model drives the shipped [`Replica::step`](craq_node::replica::Replica::step) as a node's driver does. Between the
//! replicas lies what is unreliable: links that keep the order of what is said on them and can break, calls that keep none,
//! stores whose writes are done later, processes that end and start, a coordinator whose views reach everyone at some time
//! or other, and leases that run out. All of these are events, and `stateright` tries every order.
//!
//! What makes the space finite: few writes, reads, crashes and views ([`Setup`]); and time, which passes in steps as long as
//! a lease. A promise that was asked for in one step is worth nothing in the next; so a pause that is longer than a lease
//! is a step in which a node does nothing. Clocks do not drift here, sweeps never come, and everyone is in sync: learners,
//! conditions, ranges and limits are for random schedules.
//!
//! What is left out of the orders, since it changes nothing that a rule could see: a link is not offered to a node that
//! would refuse it and be asked again; a view that is asked for comes by itself; and a ping is lost that could only bring a
//! promise that is there already, and so a longer wait. Two paths are one state if all replicas, stores, queues and clients
//! are equal; `Replica::hash_state` says when replicas are.
//!
//! Strong reads are judged by sequence, not by a search for an order: every read must return a committed version, not
//! older than any that was acknowledged or read before it began, and every write must come to stand above those. For
//! one key whose versions are the order of its commits, that is all that linearizability asks for; and it keeps the
//! number of states small, which a history in the state would not.
//!
//! `event` says what may happen next, `step` does it, `rules` says what must hold in every state, `seen` counts what was
//! reached on the way.

mod disk;
mod event;
mod network;
mod rules;
mod seen;
mod setups;
mod state;
mod step;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use craq_node::replica::{Config, event::Input};
use craq_proto::{ChainId, Epoch, Incarnation, Key, Member, NodeId, Seq, View, planted::Bug};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use uuid::Uuid;

pub use self::{
    event::Event,
    seen::{Seen, Sight},
    setups::{Change, FULL, SMALL, Setup},
    state::State,
};
use self::{
    network::Place,
    state::{NODES, Node, Reading, Writer, Writing},
};

/// How long a step of time is, and so a lease.
const TICK_MILLIS: u64 = 100;

/// Longer than any model.
const NEVER: Duration = Duration::from_secs(1_000_000);

const NAMES: [&str; NODES] = ["a", "b", "c"];

fn node_id(place: Place) -> NodeId {
    NodeId(Uuid::from_u128(place as u128 + 1))
}

fn place(node: NodeId) -> Place {
    usize::try_from(node.0.as_u128()).expect("a node of the model") - 1
}

fn key() -> Key {
    Key::new("k").expect("a short key")
}

/// A chain of three whose every future is explored.
#[derive(Debug)]
pub struct Chain {
    setup: Setup,
    bug: Option<Bug>,
    seen: Arc<Seen>,
}

impl Chain {
    /// Bugs are planted on a thread, and the checker has its own.
    fn plant(&self) {
        #[cfg(feature = "planted")]
        craq_proto::planted::set(self.bug);
        assert!(cfg!(feature = "planted") || self.bug.is_none(), "built without the feature `planted`");
    }

    fn config(&self, at: Place) -> Config {
        let pings = self.setup.pings.contains(&at);
        Config {
            question_interval: Duration::ZERO,
            lease: Duration::from_millis(TICK_MILLIS),
            ping_interval: if pings { Duration::from_millis(TICK_MILLIS) } else { NEVER },
            clock_error_ppm: 0,
            sweep_rows: usize::MAX,
            sweep_interval: NEVER,
            ..Config::default()
        }
    }

    /// A chain that is whole: its first epoch has begun, and everyone holds a lease.
    fn whole(&self) -> State {
        let setup = &self.setup;
        let node = || Arc::new(Node::new(Incarnation::ZERO, None, Arc::default()));
        let writer =
            |writes: &u8| Writer { left: *writes, number: 0, floor: Seq::ZERO, phase: Writing::Idle };
        let mut state = State {
            tick: 0,
            nodes: [node(), node(), node()],
            wires: Vec::new(),
            calls: Vec::new(),
            promised: Default::default(),
            views: Arc::new(vec![first_view()]),
            writers: setup.writes.iter().map(writer).collect(),
            reading: Reading::Idle,
            reads_left: setup.reads,
            crashes_left: setup.crashes_max,
            breaks_left: setup.breaks,
            committed: Vec::new(),
            told: Seq::ZERO,
            broken: None,
        };
        (0..NODES).for_each(|at| self.start(&mut state, at));
        (0..NODES).for_each(|at| self.input(&mut state, at, Input::View(first_view())));
        loop {
            let mut events = Vec::new();
            self.events(&state, &mut events);
            let goes_on = |event: &&Event| {
                matches!(event, Event::Persisted(_) | Event::Arrive(..) | Event::Call(_) | Event::Deadline(_))
            };
            let Some(event) = events.iter().find(goes_on) else { break };
            self.happen(&mut state, *event);
        }
        (0..NODES).for_each(|at| state.seal(at));
        assert_eq!(state.committed.len(), 1, "the first epoch has begun");
        state
    }
}

fn first_view() -> View {
    let member = |at: Place| Member {
        node: node_id(at),
        incarnation: Incarnation(1),
        in_sync: true,
        address: NAMES[at].to_owned(),
    };
    View {
        chain: ChainId::default_chain(),
        epoch: Epoch(1),
        members: (0..NODES).map(member).collect(),
        learners: vec![],
        reason: String::new(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
    }
}

impl Model for Chain {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        self.plant();
        vec![self.whole()]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        self.events(state, events);
    }

    fn next_state(&self, last: &State, event: Event) -> Option<State> {
        self.plant();
        let mut state = last.clone();
        self.happen(&mut state, event);
        for at in 0..NODES {
            if event == Event::Tick || !Arc::ptr_eq(&state.nodes[at], &last.nodes[at]) {
                state.seal(at);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::properties()
    }
}

/// What came of a model.
#[derive(Debug)]
pub struct Report {
    /// Steps that were taken.
    pub steps: usize,
    /// States that differ.
    pub states: usize,
    /// The longest way that was gone.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Every state was looked at, and none breaks a rule.
    pub is_complete: bool,
    /// What was reached.
    pub seen: Arc<Seen>,
    /// The rule that was broken, and the way there in words.
    pub broken: Option<Counterexample>,
}

/// A way to a state that breaks a rule.
#[derive(Debug)]
pub struct Counterexample {
    /// Which rule.
    pub rule: String,
    /// How many events lead there.
    pub events: usize,
    /// The events, each followed by what it changed.
    pub trace: Vec<String>,
}

/// How a model is explored.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// On so many threads.
    pub threads: usize,
    /// Breadth first, on one thread, finds the shortest way to a state that breaks a rule; depth first needs the least
    /// memory.
    pub breadth_first: bool,
    /// With this bug planted; needs the feature `planted`.
    pub bug: Option<Bug>,
    /// Gives up after this time.
    pub at_most: Duration,
}

/// Explores the model to the end, or up to the first state that breaks a rule.
#[must_use]
pub fn explore(setup: &Setup, search: Search) -> Report {
    let report = explore_to(setup, search, None);
    match &report.broken {
        // The checker goes on for a while when it has found a way; there may be a shorter one.
        Some(found) if search.breadth_first => shorten(setup, search, found.events).unwrap_or(report),
        _ => report,
    }
}

fn shorten(setup: &Setup, search: Search, events: usize) -> Option<Report> {
    let report = explore_to(setup, search, Some(events));
    let shorter = report.broken.as_ref()?.events;
    Some(shorten(setup, search, shorter).unwrap_or(report))
}

fn explore_to(setup: &Setup, search: Search, depth: Option<usize>) -> Report {
    let seen = Arc::new(Seen::default());
    let chain = Chain { setup: setup.clone(), bug: search.bug, seen: Arc::clone(&seen) };
    let mut builder = chain.checker().threads(search.threads).timeout(search.at_most);
    builder = builder.finish_when(HasDiscoveries::AnyFailures);
    // The checker counts states, and leaves out those at the depth that it is given.
    if let Some(events) = depth {
        builder = builder.target_max_depth(events + 1);
    }
    let began = Instant::now();
    let mut report = if search.breadth_first {
        report(&builder.spawn_bfs().join(), seen, began)
    } else {
        report(&builder.spawn_dfs().join(), seen, began)
    };
    report.is_complete = report.broken.is_none() && report.took < search.at_most;
    report
}

fn report(checker: &impl Checker<Chain>, seen: Arc<Seen>, began: Instant) -> Report {
    let broken = checker.discoveries().into_iter().next();
    Report {
        steps: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        is_complete: false,
        seen,
        broken: broken.map(|(rule, path)| counterexample(checker.model(), rule, path)),
    }
}

fn counterexample(chain: &Chain, rule: &str, path: Path<State, Event>) -> Counterexample {
    let mut trace = Vec::new();
    let path = path.into_vec();
    for (i, (state, event)) in path.iter().enumerate() {
        if let (Some(event), Some((after, _))) = (event, path.get(i + 1)) {
            trace.push(format!("{:>3} {}", i + 1, chain.describe(state, *event)));
            trace.extend(state.changes(after).into_iter().map(|line| format!("      {line}")));
        }
    }
    Counterexample { rule: rule.to_owned(), events: path.len() - 1, trace }
}
