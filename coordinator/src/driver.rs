//! The one loop that owns the cluster: collects inputs, steps, persists, publishes.
//!
//! A view is published only after the log has it. Views go out through a `watch`, so whoever is slow gets the newest
//! only and holds nobody up. Deadlines are handled after all inputs that have already arrived, so that a busy moment
//! is not taken for silence. It decides nothing itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::ErrorKind,
    sync::Arc,
    time::Duration,
};

use craq_proto::{ChainId, Epoch, NodeId, Time, View};
use futures::future::BoxFuture;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    cluster::{
        Cluster, Input, OrderId, Output, Refusal, Registration, Replicas, StreamId, Suspicion, Timing,
        status::ClusterStatus,
    },
    log::{Appended, Log, LogError},
};

/// So many requests wait for the loop; who sends more waits too.
const QUEUE_LENGTH: usize = 1024;
/// So many requests are taken in a row before deadlines are looked at.
const BATCH_LENGTH: usize = 256;
/// A dialed node that neither answers nor refuses for so long proves nothing.
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);

/// The newest view of each chain.
pub type Views = Arc<BTreeMap<ChainId, View>>;

/// What a node says on its stream.
#[derive(Debug)]
pub enum Told {
    /// It is alive.
    Heartbeat(Replicas, Vec<Suspicion>),
    /// It wants out.
    Leave,
    /// The stream ended.
    Broke,
}

/// What an operator orders.
#[derive(Debug)]
pub enum Command {
    /// A node out of the chain; the last in-sync one only if data loss is accepted.
    Remove(NodeId, bool),
    /// The members in this order.
    Reorder(Vec<NodeId>),
}

/// What the service asks of the loop.
enum Request {
    Register(Registration, CancellationToken, oneshot::Sender<Result<StreamId, String>>),
    Told(StreamId, Told),
    Status(oneshot::Sender<ClusterStatus>),
    Command(ChainId, Command, oneshot::Sender<Result<Epoch, Refusal>>),
}

/// The loop has ended: the process is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct Stopping;

/// The way to the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    views: watch::Receiver<Views>,
}

impl Handle {
    /// Presents a node. `ended` is cancelled when another stream takes its place. Err: refused, and why.
    pub async fn register(
        &self,
        registration: Registration,
        ended: CancellationToken,
    ) -> Result<Result<StreamId, String>, Stopping> {
        self.ask(|answer| Request::Register(registration, ended, answer)).await
    }

    /// Passes on what a node said.
    pub async fn told(&self, stream: StreamId, told: Told) -> Result<(), Stopping> {
        self.requests.send(Request::Told(stream, told)).await.map_err(|_| Stopping)
    }

    /// The state of the cluster.
    pub async fn status(&self) -> Result<ClusterStatus, Stopping> {
        self.ask(Request::Status).await
    }

    /// Carries an operator's command out. Ok: the epoch that it made, which is in the log.
    pub async fn command(
        &self,
        chain: ChainId,
        command: Command,
    ) -> Result<Result<Epoch, Refusal>, Stopping> {
        self.ask(|answer| Request::Command(chain, command, answer)).await
    }

    /// The newest views, and their changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
}

/// What the log is to do.
enum Job {
    Append(View),
    Reload,
}

/// What the log has done.
enum Done {
    Written(View),
    Beaten,
}

/// The log, or the operation that has it at the moment.
enum Store {
    Idle(Box<Log>),
    Busy(BoxFuture<'static, (Box<Log>, Result<Done, LogError>)>),
}

/// The loop.
pub struct Driver {
    cluster: Cluster,
    requests: mpsc::Receiver<Request>,
    views: watch::Sender<Views>,
    store: Store,
    jobs: VecDeque<Job>,
    dials: JoinSet<Input>,
    dialing: BTreeSet<NodeId>,
    /// Registrations that wait for their answer.
    registering: BTreeMap<StreamId, oneshot::Sender<Result<StreamId, String>>>,
    streams: BTreeMap<StreamId, CancellationToken>,
    orders: BTreeMap<OrderId, oneshot::Sender<Result<Epoch, Refusal>>>,
    last_id: u64,
}

impl Driver {
    /// A loop that goes on from what the log knows, and the way to it.
    #[must_use]
    pub fn new(log: Log, timing: Timing) -> (Self, Handle) {
        let newest: Vec<View> = log.views().cloned().collect();
        let by_chain = newest.iter().map(|view| (view.chain.clone(), view.clone())).collect();
        let (views, views_of_handle) = watch::channel(Views::new(by_chain));
        let (sender, requests) = mpsc::channel(QUEUE_LENGTH);
        let driver = Self {
            cluster: Cluster::new(clock::now(), timing, newest),
            requests,
            views,
            store: Store::Idle(Box::new(log)),
            jobs: VecDeque::new(),
            dials: JoinSet::new(),
            dialing: BTreeSet::new(),
            registering: BTreeMap::new(),
            streams: BTreeMap::new(),
            orders: BTreeMap::new(),
            last_id: 0,
        };
        (driver, Handle { requests: sender, views: views_of_handle })
    }

    /// Runs until `stop`, or until the log fails for good.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LogError> {
        loop {
            let deadline = self.cluster.next_deadline().unwrap_or(Time::MAX).since(clock::now());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                request = self.requests.recv() => match request {
                    Some(request) => self.on_requests(request),
                    None => return Ok(()),
                },
                (log, result) = work(&mut self.store) => self.on_done(log, result)?,
                Some(input) = self.dials.join_next() => {
                    if let Ok(input) = input {
                        self.on_dialed(input);
                    }
                }
                () = sleep(deadline) => {}
            }
            let now = clock::now();
            if self.cluster.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.drain();
                self.step(Input::Tick);
            }
        }
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
        match request {
            Request::Register(registration, ended, answer) => {
                let stream = StreamId(self.next_id());
                self.registering.insert(stream, answer);
                self.streams.insert(stream, ended);
                self.step(Input::Registered { stream, registration });
            }
            Request::Told(stream, Told::Heartbeat(replicas, suspicions)) => {
                self.step(Input::Heartbeat { stream, replicas, suspicions });
            }
            Request::Told(stream, Told::Leave) => self.step(Input::Leave { stream }),
            Request::Told(stream, Told::Broke) => {
                self.streams.remove(&stream);
                self.step(Input::StreamBroke { stream });
            }
            Request::Status(answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.cluster.status());
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

    fn on_done(&mut self, log: Box<Log>, result: Result<Done, LogError>) -> Result<(), LogError> {
        let input = match result? {
            Done::Written(view) => Input::Persisted { view },
            Done::Beaten => Input::Superseded { views: log.views().cloned().collect() },
        };
        self.store = Store::Idle(log);
        self.step(input);
        self.next_job();
        Ok(())
    }

    /// Steps the cluster and does what it orders.
    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.cluster.step(clock::now(), input, &mut outputs);
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
                let answer = self.registering.remove(&stream);
                if answer.is_some_and(|answer| answer.send(Ok(stream)).is_err()) {
                    self.on_request(Request::Told(stream, Told::Broke));
                }
            }
            Output::Refuse { stream, reason } => {
                tracing::warn!(%reason, "refused a registration");
                self.streams.remove(&stream);
                if let Some(answer) = self.registering.remove(&stream) {
                    // The node may have hung up already.
                    let _ = answer.send(Err(reason));
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
                    let _ = answer.send(result);
                }
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
            self.store = Store::Busy(Box::pin(run_job(log, job)));
        }
    }
}

/// Waits for the log's operation; for ever if there is none.
async fn work(store: &mut Store) -> (Box<Log>, Result<Done, LogError>) {
    match store {
        Store::Busy(operation) => operation.await,
        Store::Idle(_) => std::future::pending().await,
    }
}

async fn run_job(mut log: Box<Log>, job: Job) -> (Box<Log>, Result<Done, LogError>) {
    let result = match job {
        Job::Append(view) => log.append(view.clone()).await.map(|appended| match appended {
            Appended::Written => Done::Written(view),
            Appended::Beaten => Done::Beaten,
        }),
        Job::Reload => log.catch_up().await.map(|()| Done::Beaten),
    };
    (log, result)
}

async fn dial(node: NodeId, address: String) -> Input {
    match timeout(DIAL_TIMEOUT, TcpStream::connect(&address)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Input::DialRefused { node, address }
        }
        _ => Input::DialAnswered { node },
    }
}
