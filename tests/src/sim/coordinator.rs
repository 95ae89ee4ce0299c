//! A coordinator's process: the shipped cluster and the shipped log, on an object store that may fail to answer.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use craq_coordinator::{
    cluster::{Cluster, Input, OrderId, Output, StreamId, Timing},
    log::{Appended, Log},
};
use craq_proto::{NodeId, View};
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};
use rand::RngExt;

use super::{
    call::{Question, Reply},
    pipe::{Parcel, Side},
    place::{End, Place},
    time::{At, Clock},
    world::{self, World, note},
};
use crate::invariants::Fact;

/// What happens to a coordinator's process by itself.
#[derive(Debug)]
pub(super) enum Event {
    /// The cluster's deadline.
    Tick,
    /// The log's operation is done.
    JobDone,
    /// What dialing a node has told.
    Dialed(Input),
}

/// What the log is to do.
#[derive(Debug)]
enum Job {
    Append(View),
    Reload,
}

/// A coordinator; its clock outlives its processes, and its log is elsewhere.
pub(super) struct Coordinator {
    pub(super) clock: Clock,
    pub(super) process: Option<CoordinatorProcess>,
    pub(super) paused_until: Option<At>,
}

pub(super) struct CoordinatorProcess {
    pub(super) number: u64,
    cluster: Cluster,
    log: Log,
    jobs: VecDeque<Job>,
    is_busy: bool,
    streams: BTreeMap<StreamId, u64>,
    published: Option<View>,
    last_id: u64,
    tick: Option<At>,
}

impl Coordinator {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, process: None, paused_until: None }
    }
}

/// The object store that all coordinators share.
pub(super) struct ObjectStorage {
    store: Arc<Faulty>,
    runtime: tokio::runtime::Runtime,
    /// An operation takes up to so long.
    pub(super) delay_max: Duration,
}

impl ObjectStorage {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        Self {
            store: Arc::new(Faulty { inner: InMemory::new(), failures: AtomicU32::new(0) }),
            runtime: runtime.expect("a process can have a runtime that has no thread of its own"),
            delay_max: Duration::from_millis(20),
        }
    }

    /// The next so many creations end with an error; by the bits of the number they were done all the same, or not.
    pub(super) fn fail(&self, which: u32) {
        self.store.failures.store(which | 0x100, Ordering::Relaxed);
    }
}

impl World {
    pub(super) fn start_coordinator(&mut self, index: usize) {
        if self.coordinators[index].process.is_some() {
            return;
        }
        let store: Arc<dyn ObjectStore> = self.storage.store.clone();
        let opened = self.storage.runtime.block_on(Log::open(store));
        let log = match opened {
            Ok(log) => log,
            Err(error) => return self.wrong("log", format!("it cannot be opened: {error}")),
        };
        let now = self.coordinators[index].clock.read(self.now);
        let timing = Timing { failure_timeout: self.setup.failure_timeout };
        let views: Vec<View> = log.views().cloned().collect();
        let number = self.next_id();
        note!(self, Place::Coordinator(index), "start", "{} views", views.len());
        self.coordinators[index].process = Some(CoordinatorProcess {
            number,
            published: views.first().cloned(),
            cluster: Cluster::new(now, timing, views),
            log,
            jobs: VecDeque::new(),
            is_busy: false,
            streams: BTreeMap::new(),
            last_id: 0,
            tick: None,
        });
        self.watch_tick(index);
    }

    pub(super) fn crash_coordinator(&mut self, index: usize) {
        let place = Place::Coordinator(index);
        let Some(end) = self.end_at(place) else { return };
        let Some(mut process) = self.coordinators[index].process.take() else { return };
        self.coordinators[index].paused_until = None;
        note!(self, place, "crash", "");
        // What the store was asked may still be done.
        if let Some(Job::Append(view)) = process.jobs.front().filter(|_| process.is_busy)
            && self.random.random_bool(0.5)
        {
            let done = self.storage.runtime.block_on(process.log.append(view.clone()));
            if matches!(done, Ok(Appended::Written)) {
                let view = view.clone();
                self.logged(&view);
            }
        }
        self.pipes_of_dead(end, &(Duration::ZERO..Duration::from_millis(20)));
        self.calls_of_dead(end, true);
    }

    pub(super) fn on_coordinator(&mut self, index: usize, what: Event) {
        match what {
            Event::Tick => {
                let now = self.coordinators[index].clock.read(self.now);
                let Some(process) = self.coordinators[index].process.as_mut() else { return };
                process.tick = None;
                if process.cluster.next_deadline().is_some_and(|due| due <= now) {
                    self.step_cluster(index, Input::Tick);
                } else {
                    self.watch_tick(index);
                }
            }
            Event::JobDone => self.on_job_done(index),
            Event::Dialed(input) => self.step_cluster(index, input),
        }
    }

    fn watch_tick(&mut self, index: usize) {
        let body = &mut self.coordinators[index];
        let Some(process) = body.process.as_mut() else { return };
        let Some(due) = process.cluster.next_deadline() else { return };
        let at = body.clock.when(due).max(self.now);
        if process.tick.is_none_or(|set| at < set) {
            process.tick = Some(at);
            let end = End { place: Place::Coordinator(index), process: process.number };
            self.schedule_at(at, world::Event::Coordinator(end, Event::Tick));
        }
    }

    fn step_cluster(&mut self, index: usize, input: Input) {
        let now = self.coordinators[index].clock.read(self.now);
        if self.trace.is_on() && !matches!(input, Input::Heartbeat { .. }) {
            let text = format!("{input:?}");
            note!(self, Place::Coordinator(index), "in", "{text}");
        }
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let mut outputs = Vec::new();
        process.cluster.step(now, input, &mut outputs);
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
        let most = self.storage.delay_max;
        let delay = self.random.random_range(Duration::ZERO..=most);
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        if process.is_busy || process.jobs.is_empty() {
            return;
        }
        process.is_busy = true;
        self.schedule(delay, world::Event::Coordinator(end, Event::JobDone));
    }

    fn on_job_done(&mut self, index: usize) {
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        process.is_busy = false;
        let Some(job) = process.jobs.pop_front() else { return };
        let runtime = &self.storage.runtime;
        let (input, written) = match job {
            Job::Append(view) => match runtime.block_on(process.log.append(view.clone())) {
                Ok(Appended::Written) => (Ok(Input::Persisted { view: view.clone() }), Some(view)),
                Ok(Appended::Beaten) => (Ok(superseded(&process.log)), None),
                Err(error) => (Err(error), None),
            },
            Job::Reload => match runtime.block_on(process.log.catch_up()) {
                Ok(()) => (Ok(superseded(&process.log)), None),
                Err(error) => (Err(error), None),
            },
        };
        if let Some(view) = written {
            self.logged(&view);
        }
        match input {
            Ok(input) => self.step_cluster(index, input),
            Err(error) => self.wrong("log", format!("it is not usable any more: {error}")),
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
        let Some(process) = self.coordinators[index].process.as_mut() else { return };
        let stream = process.streams.iter().find(|(_, of)| **of == pipe).map(|(stream, _)| *stream);
        match (parcel, stream) {
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

    /// An operator orders something of the first coordinator.
    pub(super) fn order(&mut self, input: impl FnOnce(OrderId) -> Input) {
        let Some(process) = self.coordinators[0].process.as_mut() else { return };
        process.last_id += 1;
        let order = OrderId(process.last_id);
        self.step_cluster(0, input(order));
    }
}

fn superseded(log: &Log) -> Input {
    Input::Superseded { views: log.views().cloned().collect() }
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

/// An object store whose creations may end with an error, done or not.
#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    /// The bits below the highest one: the creations to come, from the lowest on; set: it fails though it is done.
    failures: AtomicU32,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

type Result<T> = object_store::Result<T>;

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures <= 1 {
            return self.inner.put_opts(location, payload, opts).await;
        }
        self.failures.store(failures >> 1, Ordering::Relaxed);
        if failures & 1 == 1 {
            // Done, whatever it says.
            let _ = self.inner.put_opts(location, payload, opts).await;
        }
        Err(object_store::Error::Generic { store: "faulty", source: "no answer in time".into() })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
