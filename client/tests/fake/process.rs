//! A process that serves `Kv` and `Coordinator` as a script says. It can die at once, as a killed process does: its
//! connections break and its port is closed.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use craq_client::proto::{CallError, ErrorKind, convert::uuid_bytes, entry::checksum, wire};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;
use wire::{coordinator_server::CoordinatorServer, kv_server as kv};

/// The cluster that all fakes belong to unless a test says otherwise.
pub(crate) const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// What a fake answers to one call.
pub(crate) enum Answer {
    /// Committed, as this version.
    Written(u64),
    /// This value, intact.
    Found(&'static str),
    /// This value, with the checksum of another.
    Corrupt(&'static str),
    /// No such key.
    Missing,
    /// These keys, and where the range goes on; the stream ends there if `None`, or at once breaks if dead.
    Pages(Vec<(Vec<&'static str>, &'static str)>),
    /// As `Pages`, and then the process dies.
    PagesThenDeath(Vec<(Vec<&'static str>, &'static str)>),
    /// An error in craq's own words.
    Error(CallError),
    /// An error that is not craq's.
    Foreign(Status),
    /// None, ever.
    Silence,
    /// None: the process dies.
    Death,
}

/// What a fake was asked.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Read(wire::ReadRequest),
    Write(wire::WriteRequest, Option<Duration>),
    Delete(wire::DeleteRequest),
    Scan(wire::ScanRequest),
}

pub(crate) struct Inner {
    me: Weak<Self>,
    cluster: Uuid,
    node: Uuid,
    pub(crate) is_coordinator: bool,
    commit: AtomicU64,
    pub(crate) views: watch::Sender<Vec<wire::View>>,
    answers: Mutex<VecDeque<Answer>>,
    heard: Mutex<Vec<Heard>>,
    asked: watch::Sender<usize>,
    runtime: Mutex<Option<Runtime>>,
}

/// A process.
pub(crate) struct Fake {
    pub(crate) address: String,
    inner: Arc<Inner>,
}

impl Fake {
    pub(crate) fn node() -> Self {
        Self::start(CLUSTER, false)
    }

    pub(crate) fn coordinator() -> Self {
        Self::start(CLUSTER, true)
    }

    pub(crate) fn start(cluster: Uuid, is_coordinator: bool) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // A runtime of its own: shutting it down breaks all its connections, as the death of a process does.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inner = Arc::new_cyclic(|me| Inner {
            me: me.clone(),
            cluster,
            node: Uuid::new_v4(),
            is_coordinator,
            commit: AtomicU64::new(0),
            views: watch::Sender::new(vec![]),
            answers: Mutex::default(),
            heard: Mutex::default(),
            asked: watch::Sender::new(0),
            runtime: Mutex::new(None),
        });
        let server = Server::builder()
            .add_service(kv::KvServer::from_arc(Arc::clone(&inner)))
            .add_service(CoordinatorServer::from_arc(Arc::clone(&inner)));
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            server.serve_with_incoming(incoming).await.unwrap();
        });
        *inner.runtime.lock() = Some(runtime);
        Self { address, inner }
    }

    /// What it answers to the next calls, one each.
    pub(crate) fn will(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.inner.answers.lock().extend(answers);
        self
    }

    /// Leaves out what it would have answered next.
    pub(crate) fn skip_answer(&self) {
        self.inner.answers.lock().pop_front();
    }

    /// What it was asked since the last look.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.inner.heard.lock())
    }

    /// The only question since the last look: a write.
    pub(crate) fn heard_write(&self) -> wire::WriteRequest {
        match &self.heard()[..] {
            [Heard::Write(request, _)] => request.clone(),
            other => panic!("not one write was heard but {other:?}"),
        }
    }

    /// Returns when it has been asked so often in all.
    pub(crate) async fn asked(&self, times: usize) {
        self.inner.asked.subscribe().wait_for(|asked| *asked >= times).await.unwrap();
    }

    pub(crate) fn commits(&self, seq: u64) {
        self.inner.commit.store(seq, Ordering::Relaxed);
    }

    pub(crate) fn tells(&self, view: &wire::View) {
        self.inner.views.send_replace(vec![view.clone()]);
    }

    pub(crate) fn id(&self) -> Uuid {
        self.inner.node
    }

    /// Returns when its port is closed.
    pub(crate) fn dies(&self) {
        if let Some(runtime) = self.inner.runtime.lock().take() {
            // On a thread of its own, since a test's runtime must not block on another.
            let ending = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            ending.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.dies();
    }
}

/// The view of a chain of these nodes, all in sync, told by all of them.
pub(crate) fn chain(epoch: u64, nodes: &[&Fake]) -> wire::View {
    let member = |fake: &&Fake| wire::Member {
        node: uuid_bytes(fake.id()),
        incarnation: 1,
        in_sync: true,
        address: fake.address.clone(),
    };
    let view = wire::View {
        chain: "default".into(),
        epoch,
        members: nodes.iter().map(member).collect(),
        learners: vec![],
        reason: "as the test wants".into(),
        rebuilt_in: 0,
        expelled: Vec::new(),
    };
    nodes.iter().for_each(|node| node.tells(&view));
    view
}

/// Not the head; it is at `head`.
pub(crate) fn not_head(head: &Fake) -> Answer {
    let mut error = CallError::new(ErrorKind::NotHead, "another is the head");
    error.head = Some(head.address.as_str().into());
    Answer::Error(error)
}

/// An error of this kind.
pub(crate) fn error(kind: ErrorKind) -> Answer {
    Answer::Error(CallError::new(kind, "as the test wants"))
}

pub(crate) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Inner {
    /// From inside a call.
    fn die(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn header(&self) -> Option<wire::Header> {
        let epoch = self.views.borrow().first().map_or(0, |view| view.epoch);
        Some(wire::Header {
            cluster_id: uuid_bytes(self.cluster),
            chain: "default".into(),
            epoch,
            sender: uuid_bytes(self.node),
            incarnation: 1,
        })
    }

    fn answer(&self, heard: Heard) -> Answer {
        self.heard.lock().push(heard);
        self.asked.send_modify(|asked| *asked += 1);
        let answer = self.answers.lock().pop_front();
        answer.unwrap_or_else(|| error(ErrorKind::Invalid))
    }

    async fn change(&self, heard: Heard) -> Result<Response<wire::WriteReply>, Status> {
        match self.answer(heard) {
            Answer::Written(version) => {
                let seq = self.commit.load(Ordering::Relaxed) + 1;
                Ok(Response::new(wire::WriteReply { header: self.header(), version, seq }))
            }
            other => Err(self.refusal(other).await),
        }
    }

    async fn answer_in_session(
        &self,
        header: wire::Header,
        call: wire::SessionCall,
    ) -> Result<wire::SessionReply, Status> {
        use wire::{session_answer::Answer as Told, session_call::Call};
        let timeout = Some(Duration::from_millis(call.timeout_ms));
        let header = Some(wire::Header { epoch: call.epoch, ..header });
        let outcome = match call.call.expect("a call asks for something") {
            Call::Read(request) => {
                let request = Request::new(wire::ReadRequest { header, ..request });
                kv::Kv::read(self, request).await.map(|reply| Told::Read(reply.into_inner()))
            }
            Call::Write(request) => {
                let heard = Heard::Write(wire::WriteRequest { header, ..request }, timeout);
                self.change(heard).await.map(|reply| Told::Write(reply.into_inner()))
            }
            Call::Delete(request) => {
                let heard = Heard::Delete(wire::DeleteRequest { header, ..request });
                self.change(heard).await.map(|reply| Told::Write(reply.into_inner()))
            }
        };
        let answer = match outcome {
            Err(status) if !status.details().is_empty() => {
                Told::Error((&CallError::from_status(&status)).into())
            }
            other => other?,
        };
        let header = self.header();
        let epoch = header.as_ref().map_or(0, |header| header.epoch);
        let answers = vec![wire::SessionAnswer { id: call.id, epoch, answer: Some(answer) }];
        Ok(wire::SessionReply { header, answers })
    }

    async fn refusal(&self, answer: Answer) -> Status {
        match answer {
            Answer::Error(error) => error.to_status(),
            Answer::Foreign(status) => status,
            Answer::Death => {
                self.die();
                std::future::pending().await
            }
            Answer::Silence => std::future::pending().await,
            _ => Status::unimplemented("the test's answer does not fit the call"),
        }
    }

    fn page(&self, keys: &[&'static str], next: &'static str) -> wire::Page {
        let item = |key: &&'static str| wire::Item {
            key: key.as_bytes().into(),
            value: (*key).into(),
            version: 1,
            seq: 1,
            checksum: checksum(key.as_bytes(), key.as_bytes()),
        };
        wire::Page {
            header: self.header(),
            items: keys.iter().map(item).collect(),
            seq: 1,
            next: next.into(),
        }
    }
}

#[tonic::async_trait]
impl kv::Kv for Inner {
    type ScanStream = Boxed<wire::Page>;

    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<wire::ReadReply>, Status> {
        let request = request.into_inner();
        let key = request.key.clone();
        let commit = self.commit.load(Ordering::Relaxed);
        let found = |value: &'static str, summed: &'static str| wire::ReadReply {
            header: self.header(),
            found: true,
            value: value.into(),
            version: 1,
            seq: 1,
            checksum: checksum(&key, summed.as_bytes()),
            path: wire::ReadPath::Clean.into(),
            commit,
        };
        match self.answer(Heard::Read(request)) {
            Answer::Found(value) => Ok(Response::new(found(value, value))),
            Answer::Corrupt(value) => Ok(Response::new(found(value, "another"))),
            Answer::Missing => {
                Ok(Response::new(wire::ReadReply { header: self.header(), ..Default::default() }))
            }
            other => Err(self.refusal(other).await),
        }
    }

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        let millis = |text: &str| match text.split_at(text.len() - 1) {
            (number, "n") => Duration::from_nanos(number.parse().unwrap()),
            (number, "u") => Duration::from_micros(number.parse().unwrap()),
            (number, "m") => Duration::from_millis(number.parse().unwrap()),
            (number, "S") => Duration::from_secs(number.parse().unwrap()),
            other => panic!("a deadline of {other:?}"),
        };
        let deadline = request.metadata().get("grpc-timeout").map(|text| millis(text.to_str().unwrap()));
        self.change(Heard::Write(request.into_inner(), deadline)).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::WriteReply>, Status> {
        self.change(Heard::Delete(request.into_inner())).await
    }

    async fn scan(&self, request: Request<wire::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let (pages, dies) = match self.answer(Heard::Scan(request.into_inner())) {
            Answer::Pages(pages) => (pages, false),
            Answer::PagesThenDeath(pages) => (pages, true),
            other => return Err(self.refusal(other).await),
        };
        let pages: Vec<_> = pages.iter().map(|(keys, next)| Ok(self.page(keys, next))).collect();
        let pages = futures::stream::iter(pages);
        if !dies {
            return Ok(Response::new(Box::pin(pages)));
        }
        // An error that is not craq's, as a process that dies in the middle of a stream leaves it.
        let broken = futures::stream::iter([Err(Status::unknown("broken"))]);
        Ok(Response::new(Box::pin(pages.chain(broken))))
    }

    type SessionStream = Boxed<wire::SessionReply>;

    /// Each call is answered as the unary one would be; what is not craq's word ends the stream.
    async fn session(
        &self,
        request: Request<tonic::Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let inner = self.me.upgrade().expect("it is being served");
        let calls = request.into_inner().flat_map(|message| {
            let wire::SessionRequest { header, calls } = message.unwrap_or_default();
            futures::stream::iter(calls).map(move |call| (header.clone(), call))
        });
        let replies = calls
            .map(move |(header, call)| {
                let inner = Arc::clone(&inner);
                async move { inner.answer_in_session(header.unwrap_or_default(), call).await }
            })
            .buffer_unordered(1_000);
        Ok(Response::new(Box::pin(replies)))
    }

    async fn get_node_status(
        &self,
        _: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatus>, Status> {
        let commit = self.commit.load(Ordering::Relaxed);
        let replica = wire::ReplicaStatus { chain: "default".into(), commit, ..Default::default() };
        Ok(Response::new(wire::NodeStatus { header: self.header(), replicas: vec![replica] }))
    }
}
