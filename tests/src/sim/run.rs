//! One run from its beginning to its judgement.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use craq_client::check::{
    history::{Call, Op, Outcome},
    linearizability::{self, Settings, Tombstones, Verdict},
    versions,
};
use rand::RngExt;

use super::{
    Faults, Setup, Violation, client,
    place::Place,
    setup::HEALING_MAX,
    time::At,
    trace::Trace,
    world::{Event, World},
};

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What is wrong; none: nothing.
    pub violation: Option<Violation>,
    /// Virtual time that has passed.
    pub time: Duration,
    /// Calls of clients that were answered, and writes of unknown outcome among all.
    pub operations: u64,
    /// Writes that nobody knows the outcome of.
    pub unknown: u64,
    /// Views of the chain.
    pub views: u64,
    /// Inputs of replicas.
    pub steps: u64,
    /// How long the chain needed to become whole.
    pub healing: Duration,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// What the clients saw.
    pub history: Vec<Op>,
}

/// Runs a seed.
#[must_use]
pub fn run(setup: &Setup) -> Report {
    perform(setup, Trace::Off, World::live).0
}

/// Runs a seed, and tells all that happened.
#[must_use]
pub fn trace(setup: &Setup) -> (Report, Vec<String>) {
    match perform(setup, Trace::Lines(Vec::new()), World::live) {
        (report, Trace::Lines(lines)) => (report, lines),
        (report, _) => (report, Vec::new()),
    }
}

/// Runs a seed, and returns a number that stands for all that happened.
#[must_use]
pub fn digest(setup: &Setup) -> u64 {
    match perform(setup, Trace::Digest(0xcbf2_9ce4_8422_2325), World::live).1 {
        Trace::Digest(digest) => digest,
        _ => 0,
    }
}

/// Runs a world of this setup. `life` brings how long the chain needed to become whole.
pub(super) fn perform(
    setup: &Setup,
    trace: Trace,
    life: impl FnOnce(&mut World) -> Duration,
) -> (Report, Trace) {
    let mut world = World::new(setup.clone(), trace);
    let done = catch_unwind(AssertUnwindSafe(|| life(&mut world)));
    let healing = match done {
        Ok(healing) => healing,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            world.wrong("panic", text.to_owned());
            Duration::ZERO
        }
    };
    let unknown = world.history.iter().filter(|op| matches!(op.outcome, Outcome::Unknown(_))).count();
    let report = Report {
        seed: setup.seed,
        violation: world.violation.clone(),
        time: Duration::from_nanos(world.now.0),
        operations: world.history.iter().filter(|op| is_answered(op)).count() as u64,
        unknown: unknown as u64,
        views: world.epochs.len() as u64,
        steps: world.steps,
        healing,
        faults: world.faults.clone(),
        history: std::mem::take(&mut world.history),
    };
    (report, world.trace)
}

fn is_answered(op: &Op) -> bool {
    !matches!(op.outcome, Outcome::NotApplied(_) | Outcome::Unknown(_))
}

impl World {
    /// Returns how long the chain needed to become whole.
    fn live(&mut self) -> Duration {
        self.start_all();
        // Most of what may go wrong needs a chain to go wrong in; but not all.
        let calm = if self.random.random_bool(0.8) { 4 } else { 0 };
        self.run_until(At(0).after(Duration::from_secs(calm)));
        self.begin_faults();
        self.run_until(At(0).after(self.setup.duration));
        self.heal_and_judge()
    }

    /// Everybody starts.
    pub(super) fn start_all(&mut self) {
        for index in 0..self.setup.coordinators {
            self.start_coordinator(index);
        }
        for machine in 0..self.machines.len() {
            if machine < self.setup.started {
                self.start(machine);
            } else {
                self.machines[machine].is_wanted = false;
            }
        }
        for client in 0..self.clients.len() {
            let wait = Duration::from_micros(self.random.random_range(0..500_000));
            self.schedule(wait, Event::Client(client, client::Event::Next));
        }
    }

    /// All faults end, and what there was is judged. Returns how long the chain needed to become whole.
    pub(super) fn heal_and_judge(&mut self) -> Duration {
        self.heal();
        let began = self.now;
        self.wait_for("the chain does not become whole", Self::is_whole);
        let healing = self.now.since(began);
        self.finish();
        healing
    }

    /// Waits until it is so; it is a violation if that takes too long.
    pub(super) fn wait_for(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = self.now.after(HEALING_MAX);
        while self.violation.is_none() && !is_so(self) {
            if self.now >= until {
                let view = self.newest.as_deref().map(|view| super::coordinator::Shown(view).to_string());
                let states: Vec<String> = (0..self.machines.len()).map(|m| self.describe(m)).collect();
                return self.wrong("liveness", format!("{what}: {view:?}; {}", states.join("; ")));
            }
            let next = self.now.after(Duration::from_millis(50));
            self.run_until(next);
        }
    }

    fn describe(&self, machine: usize) -> String {
        let place = Place::Node(machine);
        match &self.machines[machine].process {
            None => format!("{place} is down"),
            Some(process) => format!("{place}: {:?}", process.replica.status(self.clock(machine))),
        }
    }

    /// Writes every key once more, reads everything at every node, and judges.
    fn finish(&mut self) {
        self.clients.iter_mut().for_each(|client| client.is_quiet = true);
        self.wait_for("calls do not end", |world| world.clients.iter().all(client::Client::is_done));
        let names = self.pairs.all();
        for name in names.iter().copied() {
            self.write_at_last(name);
        }
        let places = (0..self.machines.len()).map(Place::Node);
        let errands = places.flat_map(|place| names.iter().map(move |name| (place, *name)));
        self.clients[0].errands = errands.collect();
        self.schedule(Duration::ZERO, Event::Client(0, client::Event::Next));
        self.wait_for("the last reads do not end", |world| world.clients.iter().all(client::Client::is_done));
        self.quiet();
        self.compare_history();
        self.judge();
    }

    /// A whole chain takes a write; not always at once, since what happened before may have its consequences still.
    fn write_at_last(&mut self, name: client::Name) {
        let until = self.now.after(HEALING_MAX);
        while self.violation.is_none() {
            self.write_now(0, name);
            self.wait_for("a write does not end", |world| world.clients.iter().all(client::Client::is_done));
            match self.history.last().map(|op| &op.outcome) {
                Some(Outcome::Applied { .. }) => return,
                last if self.now >= until => {
                    let what = format!("a whole chain does not take a write: {last:?}");
                    return self.wrong("liveness", what);
                }
                _ => {}
            }
        }
    }

    /// All replicas hold the same when nothing is under way.
    fn quiet(&mut self) {
        let most = self.now.after(HEALING_MAX);
        loop {
            self.wait_for("the chain does not stay whole", Self::is_whole);
            if self.violation.is_some() {
                return;
            }
            let views = self.epochs.len();
            self.run_until(self.now.after(Duration::from_secs(5)));
            if self.is_whole() && self.epochs.len() == views {
                break;
            }
            if self.now >= most {
                return self.wrong("liveness", "the chain does not come to rest".to_owned());
            }
        }
        let mut contents = Vec::new();
        for machine in 0..self.machines.len() {
            let Some(process) = &self.machines[machine].process else { continue };
            match crate::invariants::contents(&process.chain) {
                Ok(rows) => contents.push((process.node, rows)),
                Err(error) => return self.wrong("disk", error.to_string()),
            }
        }
        if let Err(violation) = self.invariants.quiet(&contents) {
            self.wrong(violation.invariant, violation.what);
        }
    }

    /// What the clients saw must be one history.
    fn judge(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let tombstones =
            if self.setup.collects_tombstones { Tombstones::Collected } else { Tombstones::Kept };
        if let Err(violations) = versions::check_with(&self.history, &[], tombstones) {
            let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
            return self.wrong("versions", text.join("\n"));
        }
        let settings = Settings { tombstones, ..Settings::default() };
        match linearizability::check(&self.history, &settings) {
            Verdict::Linearizable => {}
            Verdict::Violation(violation) => self.wrong("linearizability", violation.to_string()),
            Verdict::Unknown { why } => self.wrong("linearizability", format!("not judged: {why}")),
        }
        let is_shown = self.history.iter().any(|op| matches!(op.call, Call::Write { .. }) && is_answered(op));
        if !is_shown {
            self.wrong("traffic", "no write was answered".to_owned());
        }
    }
}
