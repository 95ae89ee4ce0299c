//! The one loop that owns the leadership and, while it leads, the cluster: collects inputs, steps, persists, publishes.
//!
//! A view is published only after the log has it: by the leader when it has written it, by the others when they have read
//! it. Views go out through a `watch`, so whoever is slow gets the newest only and holds nobody up. Deadlines are handled
//! after all inputs that have already arrived, so that a busy moment is not taken for silence. One operation of the log is
//! under way at a time. It decides nothing itself.

mod handle;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::ErrorKind,
    sync::Arc,
    time::Duration,
};

use craq_log::{Log, LogError, Seen, Written};
use craq_proto::{NodeId, Time, View};
use futures::future::BoxFuture;
pub use handle::{Command, Handle, LeadershipStatus, Stopping, Told, Turned, Views};
use handle::{Ordered, Registered, Request};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    cluster::{Cluster, Input, OrderId, Output, StreamId, Timing},
    leadership::{self, Leadership},
};

/// So many requests wait for the loop; who sends more waits too.
const QUEUE_LENGTH: usize = 1024;
/// So many requests are taken in a row before deadlines are looked at.
const BATCH_LENGTH: usize = 256;
/// A dialed node that neither answers nor refuses for so long proves nothing.
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);

/// What the log is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Job {
    Look,
    Claim {
        records: u64,
        until: Time,
    },
    Renew {
        until: Time,
    },
    Resign {
        until: Time,
    },
    Append(View),
    /// As `Look`, for the cluster.
    Reload,
    Prune {
        below: u64,
        history: Duration,
    },
}

impl Job {
    fn is_of_cluster(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Reload)
    }
}

/// What the log has done.
struct Done {
    job: Job,
    sent: Time,
    result: Result<Written, LogError>,
}

/// The log, or the operation that has it at the moment.
enum Store {
    Idle(Box<Log>),
    Busy(BoxFuture<'static, (Box<Log>, Done)>),
}

/// The loop.
pub struct Driver {
    timing: Timing,
    history: Duration,
    leadership: Leadership,
    /// While this coordinator leads.
    cluster: Option<Cluster>,
    /// What the log said when it was last done with something.
    seen: Seen,
    store_took: Duration,
    /// The store failed the last time. Said once.
    store_fails: bool,
    requests: mpsc::Receiver<Request>,
    views: watch::Sender<Views>,
    store: Store,
    jobs: VecDeque<Job>,
    dials: JoinSet<Input>,
    dialing: BTreeSet<NodeId>,
    /// Registrations that wait for their answer.
    registering: BTreeMap<StreamId, oneshot::Sender<Registered>>,
    streams: BTreeMap<StreamId, CancellationToken>,
    orders: BTreeMap<OrderId, oneshot::Sender<Ordered>>,
    /// Those who wait until this coordinator leads no longer.
    resigning: Vec<oneshot::Sender<()>>,
    last_id: u64,
}

impl Driver {
    /// A loop that goes on from what the log knows, and the way to it. Views are kept for `history`.
    #[must_use]
    pub fn new(log: Log, leadership: Leadership, timing: Timing, history: Duration) -> (Self, Handle) {
        let (views, views_of_handle) = watch::channel(Views::default());
        let (sender, requests) = mpsc::channel(QUEUE_LENGTH);
        let mut driver = Self {
            timing,
            history,
            leadership,
            cluster: None,
            seen: log.seen(),
            store_took: Duration::ZERO,
            store_fails: false,
            requests,
            views,
            store: Store::Busy(Box::pin(std::future::pending())),
            jobs: VecDeque::new(),
            dials: JoinSet::new(),
            dialing: BTreeSet::new(),
            registering: BTreeMap::new(),
            streams: BTreeMap::new(),
            orders: BTreeMap::new(),
            resigning: Vec::new(),
            last_id: 0,
        };
        driver.publish_read(&log);
        driver.store = Store::Idle(Box::new(log));
        (driver, Handle { requests: sender, views: views_of_handle })
    }

    /// Runs until `stop`, or until the log fails for good.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LogError> {
        loop {
            let deadline = self.next_deadline().since(clock::now());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                request = self.requests.recv() => match request {
                    Some(request) => self.on_requests(request),
                    None => return Ok(()),
                },
                (log, done) = work(&mut self.store) => self.on_done(log, done)?,
                Some(input) = self.dials.join_next() => {
                    if let Ok(input) = input {
                        self.on_dialed(input);
                    }
                }
                () = sleep(deadline) => {}
            }
            if self.leadership.next_deadline() <= clock::now() {
                self.lead(leadership::Input::Tick);
            }
            if self.cluster_deadline() <= clock::now() {
                self.drain();
                self.step(Input::Tick);
            }
        }
    }

    fn next_deadline(&self) -> Time {
        self.leadership.next_deadline().min(self.cluster_deadline())
    }

    fn cluster_deadline(&self) -> Time {
        self.cluster.as_ref().and_then(Cluster::next_deadline).unwrap_or(Time::MAX)
    }

    fn on_requests(&mut self, first: Request) {
        self.on_request(first);
        self.drain();
    }

    /// Takes what has arrived already.
    fn drain(&mut self) {
        for _ in 0..BATCH_LENGTH {
            match self.requests.try_recv() {
                Ok(request) => self.on_request(request),
                Err(_) => break,
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        // A term that has run out meanwhile is over before anything is done in its name.
        if self.leadership.next_deadline() <= clock::now() {
            self.lead(leadership::Input::Tick);
        }
        // Who asked may be gone, always.
        match request {
            Request::Leadership(answer) => {
                let (seen, leads) = (self.seen.clone(), self.cluster.is_some());
                let _ = answer.send(LeadershipStatus { seen, leads, store_took: self.store_took });
            }
            Request::Resign(rest, answer) => {
                self.resigning.push(answer);
                self.lead(leadership::Input::Resign { rest });
            }
            Request::Told(stream, told) => self.on_told(stream, told),
            Request::Register(_, _, answer) if self.cluster.is_none() => {
                let _ = answer.send(Err(self.turn_away()));
            }
            Request::Status(answer) if self.cluster.is_none() => {
                let _ = answer.send(Err(self.turn_away()));
            }
            Request::Command(_, _, answer) if self.cluster.is_none() => {
                let _ = answer.send(Err(self.turn_away()));
            }
            Request::Register(registration, ended, answer) => {
                let stream = StreamId(self.next_id());
                self.registering.insert(stream, answer);
                self.streams.insert(stream, ended);
                self.step(Input::Registered { stream, registration });
            }
            Request::Status(answer) => {
                if let Some(cluster) = &self.cluster {
                    let _ = answer.send(Ok(cluster.status()));
                }
            }
            Request::Command(chain, command, answer) => {
                let order = OrderId(self.next_id());
                self.orders.insert(order, answer);
                self.step(match command {
                    Command::Remove(node, accept_data_loss) => {
                        Input::Remove { order, chain, node, accept_data_loss }
                    }
                    Command::Reorder(nodes) => Input::Reorder { order, chain, nodes },
                });
            }
        }
    }

    fn on_told(&mut self, stream: StreamId, told: Told) {
        match told {
            Told::Heartbeat(replicas, suspicions) => {
                self.step(Input::Heartbeat { stream, replicas, suspicions });
            }
            Told::Leave => self.step(Input::Leave { stream }),
            Told::Broke => {
                self.streams.remove(&stream);
                self.step(Input::StreamBroke { stream });
            }
        }
    }

    /// Whoever comes here while another one leads is told who that is; and the log is read, if that was some time ago.
    fn turn_away(&mut self) -> Turned {
        self.lead(leadership::Input::Asked);
        Turned::NotLeader(self.seen.holder.as_ref().map(|holder| holder.address.clone()))
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn on_dialed(&mut self, input: Input) {
        if let Input::DialRefused { node, .. } | Input::DialAnswered { node } = &input {
            self.dialing.remove(node);
        }
        self.step(input);
    }

    fn on_done(&mut self, log: Box<Log>, done: Done) -> Result<(), LogError> {
        let Done { job, sent, result } = done;
        self.store_took = clock::now().since(sent);
        let written = match result {
            Ok(written) => written,
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "the store failed");
                Written::Unknown
            }
            Err(error) => return Err(error),
        };
        let fails = written == Written::Unknown;
        match (std::mem::replace(&mut self.store_fails, fails), fails) {
            (false, true) => tracing::warn!(?job, "the log cannot be read or written for now"),
            (true, false) => tracing::info!("the log can be read and written again"),
            _ => {}
        }
        self.seen = log.seen();
        if self.cluster.is_none() {
            self.publish_read(&log);
        }
        let reloaded: Option<Vec<View>> = (job == Job::Reload).then(|| log.views().cloned().collect());
        self.store = Store::Idle(log);
        self.tell(&job, sent, written);
        match (job, reloaded) {
            (Job::Append(view), _) if written == Written::Won => self.step(Input::Persisted { view }),
            (_, Some(views)) if written == Written::Won => self.step(Input::Superseded { views }),
            _ => {}
        }
        self.next_job();
        Ok(())
    }

    /// Tells the leadership what the log has done.
    fn tell(&mut self, job: &Job, sent: Time, written: Written) {
        let job = match job {
            Job::Look | Job::Reload => leadership::Job::Look,
            Job::Claim { .. } => leadership::Job::Claim,
            Job::Renew { .. } => leadership::Job::Renew,
            Job::Append(_) => leadership::Job::View,
            Job::Resign { .. } => leadership::Job::Resign,
            Job::Prune { .. } => leadership::Job::Prune,
        };
        let mut outputs = Vec::new();
        let input = leadership::Input::Done { job, sent, written, seen: self.seen.clone() };
        self.leadership.step(clock::now(), input, &mut outputs);
        self.obey(outputs);
    }

    /// Steps the leadership on anything but an operation of the log.
    fn lead(&mut self, input: leadership::Input) {
        let mut outputs = Vec::new();
        self.leadership.step(clock::now(), input, &mut outputs);
        self.obey(outputs);
    }

    fn obey(&mut self, outputs: Vec<leadership::Output>) {
        use leadership::Output;
        for output in outputs {
            // Before what the cluster wants: without the leadership it comes to nothing.
            match output {
                Output::Look => self.jobs.push_front(Job::Look),
                Output::Claim { records, until } => self.jobs.push_front(Job::Claim { records, until }),
                Output::Renew { until } => self.jobs.push_front(Job::Renew { until }),
                Output::Resign { until } => self.jobs.push_front(Job::Resign { until }),
                Output::Prune { below } => self.jobs.push_back(Job::Prune { below, history: self.history }),
                Output::Lead { term } => {
                    tracing::info!(%term, "leads from now on");
                    // All that the log has was published when the claim was done.
                    let views = self.views.borrow().values().cloned().collect();
                    self.cluster = Some(Cluster::new(clock::now(), self.timing, views));
                }
                Output::Follow { why } => self.follow(&why),
            }
        }
        self.answer_resigned();
        self.next_job();
    }

    /// Leads no longer: whoever has a stream or waits for an answer is to look for the leader.
    fn follow(&mut self, why: &str) {
        tracing::warn!(why, term = %self.seen.term, "leads no longer");
        self.cluster = None;
        self.jobs.retain(|job| !job.is_of_cluster());
        self.dials.abort_all();
        self.dialing.clear();
        for (_, ended) in std::mem::take(&mut self.streams) {
            ended.cancel();
        }
        for (_, answer) in std::mem::take(&mut self.registering) {
            let _ = answer.send(Err(Turned::NotLeader(None)));
        }
        for (_, answer) in std::mem::take(&mut self.orders) {
            let _ = answer.send(Err(Turned::Unknown));
        }
    }

    fn answer_resigned(&mut self) {
        if self.leadership.until() == Time::ZERO {
            for answer in self.resigning.drain(..) {
                let _ = answer.send(());
            }
        }
    }

    /// Steps the cluster, if this coordinator leads, and does what it orders.
    fn step(&mut self, input: Input) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut outputs = Vec::new();
        cluster.step(clock::now(), input, &mut outputs);
        for output in outputs {
            self.perform(output);
        }
        self.next_job();
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(view) => self.jobs.push_back(Job::Append(view)),
            Output::Reload => self.jobs.push_back(Job::Reload),
            Output::Publish(view) => self.publish(view),
            Output::Dial { node, address } => {
                if self.dialing.insert(node) {
                    self.dials.spawn(dial(node, address));
                }
            }
            Output::Accept { stream } => {
                let term = self.leadership.term().unwrap_or_default();
                let answer = self.registering.remove(&stream);
                if answer.is_some_and(|answer| answer.send(Ok((stream, term))).is_err()) {
                    self.on_told(stream, Told::Broke);
                }
            }
            Output::Refuse { stream, reason } => {
                tracing::warn!(%reason, "refused a registration");
                self.streams.remove(&stream);
                if let Some(answer) = self.registering.remove(&stream) {
                    // The node may have hung up already.
                    let _ = answer.send(Err(Turned::Refused(reason)));
                }
            }
            Output::Close { stream, reason } => {
                tracing::info!(%reason, "closed a node's stream");
                if let Some(ended) = self.streams.remove(&stream) {
                    ended.cancel();
                }
            }
            Output::Answer { order, result } => {
                if let Some(answer) = self.orders.remove(&order) {
                    // The operator may have hung up already.
                    let _ = answer.send(Ok(result));
                }
            }
        }
    }

    /// What the log says, for those who watch a coordinator that does not lead.
    fn publish_read(&mut self, log: &Log) {
        let known = self.views.borrow().clone();
        for view in log.views() {
            if known.get(&view.chain).is_none_or(|known| known.epoch < view.epoch) {
                self.publish(view.clone());
            }
        }
    }

    fn publish(&mut self, view: View) {
        let (chain, epoch, reason) = (&view.chain, view.epoch, &view.reason);
        let members: Vec<&str> = view.members.iter().map(|member| member.address.as_str()).collect();
        tracing::info!(%chain, %epoch, members = members.join(" "), learners = view.learners.len(), %reason, "new epoch");
        self.views.send_modify(|views| {
            Arc::make_mut(views).insert(view.chain.clone(), view);
        });
    }

    /// Gives the log its next job, if it has none.
    fn next_job(&mut self) {
        if matches!(self.store, Store::Busy(_)) {
            return;
        }
        let Some(job) = self.jobs.pop_front() else { return };
        let idle = std::mem::replace(&mut self.store, Store::Busy(Box::pin(std::future::pending())));
        if let Store::Idle(log) = idle {
            // What the end of the term leaves open is the next leader's.
            self.store = Store::Busy(Box::pin(run_job(log, job, self.leadership.until())));
        }
    }
}

/// Waits for the log's operation; for ever if there is none.
async fn work(store: &mut Store) -> (Box<Log>, Done) {
    match store {
        Store::Busy(operation) => operation.await,
        Store::Idle(_) => std::future::pending().await,
    }
}

async fn run_job(mut log: Box<Log>, job: Job, end: Time) -> (Box<Log>, Done) {
    let sent = clock::now();
    let moment = |time: Time| Instant::now() + time.since(sent);
    let result = match &job {
        Job::Look | Job::Reload => log.catch_up().await.map(|()| Written::Won),
        Job::Claim { records, until } => log.claim_after(*records, moment(*until)).await,
        Job::Renew { until } => log.renew(moment(*until)).await,
        Job::Resign { until } => log.resign(moment(*until)).await,
        Job::Append(view) => log.append(view.clone(), moment(end)).await,
        Job::Prune { below, history } => log.prune(*below, *history).await.map(|removed| {
            tracing::debug!(removed, "old records are removed");
            Written::Won
        }),
    };
    (log, Done { job, sent, result })
}

async fn dial(node: NodeId, address: String) -> Input {
    match timeout(DIAL_TIMEOUT, TcpStream::connect(&address)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Input::DialRefused { node, address }
        }
        _ => Input::DialAnswered { node },
    }
}
