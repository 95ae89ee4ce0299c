//! A coordinator's process: the shipped leadership, cluster and log, on an object store that may fail in every way.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use craq_coordinator::{
    cluster::{Cluster, Input, OrderId, Output, StreamId, Timing},
    leadership::{self, Leadership},
};
use craq_log::{
    Holder, Log, Seen, Store, Written,
    faulty::{Faulty, Trouble},
    history,
};
use craq_proto::{HolderId, NodeId, Term, Time, View};
use rand::RngExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    call::{Question, Reply},
    pipe::{Parcel, Side},
    place::{End, Place},
    time::{At, Clock},
    world::{self, World, note},
};
use crate::invariants::Fact;

/// The store of the simulation never lets anybody wait without an answer.
const STORE_PATIENCE: Duration = Duration::from_secs(3_600);
/// Whoever cannot open the log is started again after this time.
const OPENING_PAUSE: Duration = Duration::from_millis(500);

/// What happens to a coordinator's process by itself.
#[derive(Debug)]
pub(super) enum Event {
    /// The deadline of its leadership or of its cluster.
    Tick,
    /// What the log was to do happens.
    Job,
    /// What the log has done is told.
    JobDone(Done),
    /// What dialing a node has told.
    Dialed(Input),
}

/// What the log is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Job {
    Look,
    Claim(u64, Time),
    Renew,
    Resign,
    Append(View),
    Reload,
    Prune(u64),
}

/// What the log has done.
#[derive(Debug)]
pub(super) struct Done {
    job: Job,
    sent: Time,
    written: Written,
}

/// A coordinator; its clock outlives its processes, and its log is elsewhere.
pub(super) struct Coordinator {
    pub(super) clock: Clock,
    pub(super) process: Option<CoordinatorProcess>,
    pub(super) paused_until: Option<At>,
}

pub(super) struct CoordinatorProcess {
    pub(super) number: u64,
    leadership: Leadership,
    /// While it leads.
    cluster: Option<Cluster>,
    log: Log,
    /// What it knew of the log when it was last done with something.
    seen: Seen,
    jobs: VecDeque<Job>,
    /// The operation under way, when it was sent, and until when it may be tried again.
    busy: Option<(Job, Time, Time)>,
    streams: BTreeMap<StreamId, u64>,
    published: Option<View>,
    last_id: u64,
    tick: Option<At>,
}

impl CoordinatorProcess {
    fn deadline(&self) -> Time {
        let cluster = self.cluster.as_ref().and_then(Cluster::next_deadline).unwrap_or(Time::MAX);
        self.leadership.next_deadline().min(cluster)
    }
}

impl Coordinator {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, process: None, paused_until: None }
    }
}

/// The object store that all coordinators share.
pub(super) struct ObjectStorage {
    faulty: Arc<Faulty>,
    runtime: tokio::runtime::Runtime,
    /// An operation takes up to so long.
    pub(super) delay_max: Duration,
}

impl ObjectStorage {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        Self {
            faulty: Arc::new(Faulty::default()),
            runtime: runtime.expect("a process can have a runtime that has no thread of its own"),
            delay_max: Duration::from_millis(20),
        }
    }

    fn store(&self) -> Store {
        Store::new(Arc::clone(&self.faulty) as Arc<_>, STORE_PATIENCE)
    }

    /// What becomes of the next creations.
    pub(super) fn expect(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.faulty.expect(troubles);
    }

    pub(super) fn out(&self, is_out: bool) {
        self.faulty.out(is_out);
    }

    pub(super) fn cure(&self) {
        self.faulty.cure();
    }
}

impl World {
    pub(super) fn start_coordinator(&mut self, index: usize) {
        if self.coordinators[index].process.is_some() {
            return;
        }
        let number = self.next_id();
        let (lease, place) = (self.setup.leader_lease, Place::Coordinator(index));
        let id = HolderId(Uuid::from_u128(u128::from(number)));
        let me = Holder { id, address: place.to_string() };
        let opened = self.storage.runtime.block_on(Log::open(self.storage.store(), me, lease));
        let log = match opened {
            Ok(log) => log,
            Err(error) if error.is_passing() => {
                let again = world::Event::Nemesis(super::nemesis::Move::RestartCoordinator(index));
                return self.schedule(OPENING_PAUSE, again);
            }
            Err(error) => return self.wrong("log", format!("it cannot be opened: {error}")),
        };
        let timing = leadership::Timing::of_lease(lease);
        let jitter = self.random.random_range(0.0..1.0);
        let published = log.views().next().cloned();
        note!(self, place, "start", "epoch {:?}", published.as_ref().map(|view| view.epoch));
        self.coordinators[index].process = Some(CoordinatorProcess {
            number,
            leadership: Leadership::new(id, timing, jitter),
            cluster: None,
            seen: log.seen(),
            log,
            jobs: VecDeque::new(),
            busy: None,
            streams: BTreeMap::new(),
            published,
            last_id: 0,
            tick: None,
        });
        self.lead(index, leadership::Input::Tick);
    }

    pub(super) fn crash_coordinator(&mut self, index: usize) {
        let place = Place::Coordinator(index);
        let Some(end) = self.end_at(place) else { return };
        if self.coordinators[index].process.is_none() {
            return;
        }
        note!(self, place, "crash", "");
        // What the store was asked may still be done.
        if self.random.random_bool(0.5) {
            self.operate(index);
        }
        self.coordinators[index].process = None;
        self.coordinators[index].paused_until = None;
        self.pipes_of_dead(end, &(Duration::ZERO..Duration::from_millis(20)));
        self.calls_of_dead(end, true);
    }

    pub(super) fn on_coordinator(&mut self, index: usize, what: Event) {
        match what {
            Event::Tick => {
                if let Some(process) = self.coordinators[index].process.as_mut() {
                    process.tick = None;
                }
                self.on_due(index);
                self.watch_tick(index);
            }
            Event::Job => {
                let Some(end) = self.end_at(Place::Coordinator(index)) else { return };
                if let Some((done, took)) = self.operate(index) {
                    let most = self.storage.delay_max;
                    let back = took + self.random.random_range(Duration::ZERO..=most);
                    self.schedule(back, world::Event::Coordinator(end, Event::JobDone(done)));
                }
            }
            Event::JobDone(done) => self.on_job_done(index, done),
            Event::Dialed(input) => self.step_cluster(index, input),
        }
    }

    /// What is due now, the leadership's first.
    fn on_due(&mut self, index: usize) {
        let now = self.coordinators[index].clock.read(self.now);
        let Some(process) = self.coordinators[index].process.as_ref() else { return };
        if process.leadership.next_deadline() <= now {
            self.lead(index, leadership::Input::Tick);
        }
        let Some(process) = self.coordinators[index].process.as_ref() else { return };
        if process.cluster.as_ref().and_then(Cluster::next_deadline).is_some_and(|due| due <= now) {
            self.step_cluster(index, Input::Tick);
        }
    }

    fn watch_tick(&mut self, index: usize) {
        let body = &mut self.coordinators[index];
        let Some(process) = body.process.as_mut() else { return };
        let due = process.deadline();
        if due == Time::MAX {
            return;
        }
        let at = body.clock.when(due).max(self.now);
        if process.tick.is_none_or(|set| at < set) {
            process.tick = Some(at);
            let end = End { place: Place::Coordinator(index), process: process.number };
            self.schedule_at(at, world::Event::Coordinator(end, Event::Tick));
        }
    }

    /// Steps the leadership.
    fn lead(&mut self, index: usize, input: leadership::Input) {
        let now = self.coordinators[index].clock.read(self.now);
        match &input {
            leadership::Input::Tick => {}
            // Without what the machine's clock says, which no seed decides.
            leadership::Input::Done { job, sent, written, seen } => {
                let (records, term) = (seen.records, seen.term);
                let place = Place::Coordinator(index);
                note!(
                    self,
                    place,
                    "in",
                    "Done {job:?} of {sent:?}: {written:?}, {records} records, term {term}"
                );
            }
            other => note!(self, Place::Coordinator(index), "in", "{other:?}"),
        }
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let mut outputs = Vec::new();
        process.leadership.step(now, input, &mut outputs);
        for output in outputs {
            if self.trace.is_on() {
                let text = format!("{output:?}");
                note!(self, Place::Coordinator(index), "out", "{text}");
            }
            self.obey(index, now, output);
        }
        self.next_job(index);
        self.watch_tick(index);
    }

    fn obey(&mut self, index: usize, now: Time, output: leadership::Output) {
        use leadership::Output;
        let timing = Timing { failure_timeout: self.setup.failure_timeout };
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        match output {
            Output::Look => process.jobs.push_front(Job::Look),
            Output::Claim { records, until } => process.jobs.push_front(Job::Claim(records, until)),
            Output::Renew { .. } => process.jobs.push_front(Job::Renew),
            Output::Resign { .. } => process.jobs.push_front(Job::Resign),
            Output::Prune { below } => process.jobs.push_back(Job::Prune(below)),
            Output::Lead { .. } => {
                process.cluster = Some(Cluster::new(now, timing, process.log.views().cloned().collect()));
            }
            Output::Follow { .. } => {
                process.cluster = None;
                process.jobs.retain(|job| !matches!(job, Job::Append(_) | Job::Reload));
                for pipe in std::mem::take(&mut process.streams).into_values() {
                    self.close_pipe(pipe, Side::Acceptor);
                }
            }
        }
    }

    /// Nobody acts in a term when a later one has begun: the leadership's times see to that as long as clocks run evenly.
    fn check_term(&mut self, index: usize) {
        let Some(process) = self.coordinators[index].process.as_ref() else { return };
        let newest = self.terms.last_key_value().map(|(term, _)| *term).unwrap_or_default();
        if let Some(term) = process.leadership.term().filter(|term| *term < newest) {
            self.wrong("leadership", format!("c{index} acts in term {term}, and term {newest} has begun"));
        }
    }

    fn step_cluster(&mut self, index: usize, input: Input) {
        let now = self.coordinators[index].clock.read(self.now);
        if self.coordinators[index].process.as_ref().is_some_and(|p| p.leadership.next_deadline() <= now) {
            self.lead(index, leadership::Input::Tick);
        }
        if self.coordinators[index].process.as_ref().is_none_or(|process| process.cluster.is_none()) {
            return;
        }
        self.check_term(index);
        if self.trace.is_on() && !matches!(input, Input::Heartbeat { .. }) {
            let text = format!("{input:?}");
            note!(self, Place::Coordinator(index), "in", "{text}");
        }
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let mut outputs = Vec::new();
        if let Some(cluster) = &mut process.cluster {
            cluster.step(now, input, &mut outputs);
        }
        for output in outputs {
            if self.trace.is_on() {
                let text = format!("{output:?}");
                note!(self, Place::Coordinator(index), "out", "{text}");
            }
            self.perform(index, output);
        }
        self.next_job(index);
        self.watch_tick(index);
    }

    fn perform(&mut self, index: usize, output: Output) {
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        match output {
            Output::Persist(view) => process.jobs.push_back(Job::Append(view)),
            Output::Reload => process.jobs.push_back(Job::Reload),
            Output::Publish(view) => {
                process.published = Some(view.clone());
                let pipes: Vec<u64> = process.streams.values().copied().collect();
                for pipe in pipes {
                    self.send(pipe, Side::Opener, Parcel::View(view.clone()));
                }
            }
            Output::Dial { node, address } => self.dial(index, node, address),
            Output::Accept { stream } => {
                let Some(pipe) = process.streams.get(&stream).copied() else { return };
                let view = process.published.clone();
                self.send(pipe, Side::Opener, Parcel::Registered);
                if let Some(view) = view {
                    self.send(pipe, Side::Opener, Parcel::View(view));
                }
            }
            Output::Refuse { stream, .. } | Output::Close { stream, .. } => {
                if let Some(pipe) = process.streams.remove(&stream) {
                    self.close_pipe(pipe, Side::Acceptor);
                }
            }
            Output::Answer { .. } => {}
        }
    }

    fn dial(&mut self, index: usize, node: NodeId, address: String) {
        let Some(to) = Place::of(&address) else { return };
        let from = Place::Coordinator(index);
        let Some(end) = self.end_at(from) else { return };
        let is_refused = match to {
            Place::Node(machine) => {
                self.machines[machine].process.is_none() && self.machines[machine].has_power
            }
            _ => false,
        };
        let is_reached = self.network.is_open(from, to) && self.network.is_open(to, from);
        let (after, input) = if is_refused && is_reached {
            (self.network.delay(&mut self.random, from, to), Input::DialRefused { node, address })
        } else {
            (Duration::from_millis(500), Input::DialAnswered { node })
        };
        self.schedule(after, world::Event::Coordinator(end, Event::Dialed(input)));
    }

    fn next_job(&mut self, index: usize) {
        let Some(end) = self.end_at(Place::Coordinator(index)) else { return };
        let now = self.coordinators[index].clock.read(self.now);
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        if process.busy.is_some() {
            return;
        }
        let Some(job) = process.jobs.pop_front() else { return };
        let until = if let Job::Claim(_, until) = job { until } else { process.leadership.until() };
        process.busy = Some((job, now, until));
        let most = self.storage.delay_max;
        let delay = self.random.random_range(Duration::ZERO..=most);
        self.schedule(delay, world::Event::Coordinator(end, Event::Job));
    }

    /// The store does what it was asked. Brings what came of it, and how long the log has tried.
    fn operate(&mut self, index: usize) -> Option<(Done, Duration)> {
        let now = self.coordinators[index].clock.read(self.now);
        let process = self.coordinators[index].process.as_mut()?;
        let (job, sent, until) = process.busy.clone()?;
        let log = &mut process.log;
        let (written, took) = self.storage.runtime.block_on(async {
            let began = Instant::now();
            let until = began + until.since(now);
            let written = match &job {
                Job::Look | Job::Reload => log.catch_up().await.map(|()| Written::Won),
                Job::Claim(records, _) => log.claim_after(*records, until).await,
                Job::Renew => log.renew(until).await,
                Job::Resign => log.resign(until).await,
                Job::Append(view) => log.append(view.clone(), until).await,
                Job::Prune(below) => log.prune(*below, STORE_PATIENCE).await.map(|_| Written::Won),
            };
            (written, began.elapsed())
        });
        let term = log.seen().term;
        let newest = log.views().next().map(|view| view.epoch);
        let written = match written {
            Ok(written) => written,
            Err(error) if error.is_passing() => Written::Unknown,
            Err(error) => {
                self.wrong("log", format!("it is not usable any more: {error}"));
                return None;
            }
        };
        match &job {
            Job::Append(view) if written == Written::Won => self.logged(view),
            Job::Claim(..) if written == Written::Won => self.claimed(index, term),
            _ if newest > self.newest.as_ref().map(|view| view.epoch) => self.look_for_late(),
            _ => {}
        }
        Some((Done { job, sent, written }, took))
    }

    /// What nobody was told of may be in the log all the same.
    fn look_for_late(&mut self) {
        let read = self.storage.runtime.block_on(history(&self.storage.store()));
        for entry in read.into_iter().flatten() {
            if !self.epochs.contains(&entry.view.epoch.0) {
                self.logged(&entry.view);
            }
        }
    }

    fn claimed(&mut self, index: usize, term: Term) {
        note!(self, Place::World, "term", "{term} is c{index}'s");
        if let Some(other) = self.terms.insert(term, index) {
            self.wrong("leadership", format!("term {term} is c{other}'s and c{index}'s"));
        }
    }

    /// A record that was late arrives at the store.
    pub(super) fn land(&mut self) {
        while self.storage.faulty.has_late() {
            if self.storage.runtime.block_on(self.storage.faulty.land()) {
                note!(self, Place::World, "late", "a record has arrived");
                self.look_for_late();
            }
        }
    }

    fn on_job_done(&mut self, index: usize, done: Done) {
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let Done { job, sent, written } = done;
        process.busy = None;
        process.seen = process.log.seen();
        if process.cluster.is_none() {
            process.published = process.log.views().next().cloned();
        }
        let (seen, views) = (process.seen.clone(), process.log.views().cloned().collect());
        let kind = match &job {
            Job::Look | Job::Reload => leadership::Job::Look,
            Job::Claim(..) => leadership::Job::Claim,
            Job::Renew => leadership::Job::Renew,
            Job::Resign => leadership::Job::Resign,
            Job::Append(_) => leadership::Job::View,
            Job::Prune(_) => leadership::Job::Prune,
        };
        self.lead(index, leadership::Input::Done { job: kind, sent, written, seen });
        match job {
            Job::Append(view) if written == Written::Won => {
                self.step_cluster(index, Input::Persisted { view });
            }
            Job::Reload if written == Written::Won => self.step_cluster(index, Input::Superseded { views }),
            _ => {}
        }
        self.next_job(index);
        self.watch_tick(index);
    }

    /// Every view that was ever in the log is in it still, and no other.
    pub(super) fn compare_history(&mut self) {
        if self.violation.is_some() {
            return;
        }
        match self.storage.runtime.block_on(history(&self.storage.store())) {
            Ok(entries) => {
                let kept: Vec<u64> = entries.iter().map(|entry| entry.view.epoch.0).collect();
                let all: Vec<u64> = self.epochs.iter().copied().collect();
                if kept != all {
                    self.wrong("log", format!("it has the epochs {kept:?}, and there were {all:?}"));
                }
            }
            Err(error) => self.wrong("log", format!("it cannot be read: {error}")),
        }
    }

    /// A view is in the log.
    fn logged(&mut self, view: &View) {
        note!(self, Place::World, "view", "{}", Shown(view));
        self.epochs.insert(view.epoch.0);
        if self.newest.as_ref().is_none_or(|newest| newest.epoch < view.epoch) {
            self.newest = Some(Arc::new(view.clone()));
        }
        self.fact(Fact::Logged { view });
        self.on_change();
    }

    /// A parcel arrives at a coordinator.
    pub(super) fn coordinator_hears(&mut self, index: usize, pipe: u64, parcel: Parcel) {
        let now = self.coordinators[index].clock.read(self.now);
        if self.coordinators[index].process.as_ref().is_some_and(|p| p.leadership.next_deadline() <= now) {
            self.lead(index, leadership::Input::Tick);
        }
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let stream = process.streams.iter().find(|(_, of)| **of == pipe).map(|(stream, _)| *stream);
        match (parcel, stream) {
            (Parcel::Register(_), _) if process.cluster.is_none() => {
                let leader = process.seen.holder.as_ref().map(|holder| holder.address.clone());
                self.send(pipe, Side::Opener, Parcel::NotLeader(leader));
                self.close_pipe(pipe, Side::Acceptor);
                self.lead(index, leadership::Input::Asked);
            }
            (Parcel::Register(registration), _) => {
                process.last_id += 1;
                let stream = StreamId(process.last_id);
                process.streams.insert(stream, pipe);
                self.step_cluster(index, Input::Registered { stream, registration });
            }
            (Parcel::Beat(replicas, suspicions), Some(stream)) => {
                self.step_cluster(index, Input::Heartbeat { stream, replicas, suspicions });
            }
            (Parcel::Leave, Some(stream)) => self.step_cluster(index, Input::Leave { stream }),
            _ => {}
        }
    }

    /// A node's stream has ended.
    pub(super) fn stream_ended(&mut self, index: usize, pipe: u64) {
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let found = process.streams.iter().find(|(_, of)| **of == pipe).map(|(stream, _)| *stream);
        if let Some(stream) = found {
            process.streams.remove(&stream);
            self.step_cluster(index, Input::StreamBroke { stream });
        }
    }

    pub(super) fn coordinator_is_asked(&mut self, index: usize, call: u64, question: &Question) {
        if matches!(question, Question::View) {
            let process = self.coordinators[index].process.as_ref();
            let view = process.and_then(|process| process.published.clone());
            self.answer(call, Reply::View(view));
        }
    }

    /// The coordinator that leads, as it sees it itself.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |one: &Coordinator| one.process.as_ref().is_some_and(|process| process.cluster.is_some());
        self.coordinators.iter().position(leads)
    }

    /// An operator orders something of the coordinator that leads.
    pub(super) fn order(&mut self, input: impl FnOnce(OrderId) -> Input) {
        let Some(index) = self.leader() else { return };
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        process.last_id += 1;
        let order = OrderId(process.last_id);
        self.step_cluster(index, input(order));
    }

    /// An operator has the leader give up.
    pub(super) fn resign(&mut self, index: usize) {
        self.lead(index, leadership::Input::Resign { rest: self.setup.leader_lease * 2 });
    }
}

/// A view in one line.
pub(super) struct Shown<'a>(pub(super) &'a View);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}:", self.0.epoch)?;
        for member in &self.0.members {
            let mark = if member.in_sync { "" } else { "?" };
            write!(f, " {}#{}{mark}", member.address, member.incarnation)?;
        }
        for learner in &self.0.learners {
            write!(f, " ({}#{})", learner.address, learner.incarnation)?;
        }
        write!(f, "; {}", self.0.reason)
    }
}
