//! A coordinator in this process, and nodes that are nothing but a stream: they say what they are told to be.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use clap::Parser;
use craq_coordinator::{Config, Error, Server};
use craq_proto::{
    ClusterId, NodeId, Role, View,
    convert::uuid_bytes,
    wire::{self, coordinator_client::CoordinatorClient, coordinator_message, node_message},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming, transport::Channel};
use uuid::Uuid;

/// Whatever is waited for comes within this time, or the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type Client = CoordinatorClient<Channel>;

/// A coordinator in this process.
pub(crate) struct Coordinator {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Error>>,
}

impl Coordinator {
    pub(crate) async fn start(data: &Path) -> Self {
        let data = data.to_str().unwrap();
        // Long enough that a busy machine is not taken for a dead node.
        let patience = ["--failure-timeout", "3s"];
        let arguments = ["craq-coordinator", "--listen", "127.0.0.1:0", "--data", data];
        let config = Config::parse_from(arguments.iter().chain(&patience));
        let server = Server::open(&config).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        Self { address, stop, serving }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(format!("http://{}", self.address)).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(DEADLINE, self.serving).await.expect("the coordinator stops").unwrap().unwrap();
    }

    /// Waits until the default chain is as wanted.
    pub(crate) async fn wait(&self, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        let mut client = self.client().await;
        let mut replies = client.watch_views(wire::WatchViewsRequest::default()).await.unwrap().into_inner();
        let mut last = None;
        let found = timeout(DEADLINE, async {
            while let Some(reply) = replies.next().await {
                for view in reply.unwrap().views {
                    let view = View::try_from(view).unwrap();
                    if wanted(&view) {
                        return view;
                    }
                    last = Some(view);
                }
            }
            panic!("the stream of views ended");
        });
        match found.await {
            Ok(view) => view,
            Err(_) => panic!("never happened: {what}; the last view was {last:?}"),
        }
    }

    pub(crate) async fn cluster(&self) -> ClusterId {
        let reply = self.client().await.get_view(wire::GetViewRequest::default()).await.unwrap().into_inner();
        ClusterId(Uuid::from_slice(&reply.header.unwrap().cluster_id).unwrap())
    }
}

/// Who a fake node is.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) address: String,
    pub(crate) cluster: Option<ClusterId>,
}

impl Identity {
    fn message(&self, body: node_message::Body) -> wire::NodeMessage {
        let header = wire::Header {
            cluster_id: self.cluster.map(|id| uuid_bytes(id.0)).unwrap_or_default(),
            sender: uuid_bytes(self.node.0),
            incarnation: self.incarnation,
            ..Default::default()
        };
        wire::NodeMessage { header: Some(header), body: Some(body) }
    }

    /// Opens a stream and presents itself.
    pub(crate) async fn register(
        &self,
        coordinator: SocketAddr,
    ) -> Result<(mpsc::Sender<wire::NodeMessage>, Streaming<wire::CoordinatorMessage>), Status> {
        let (sender, receiver) = mpsc::channel(16);
        let register = wire::Register { address: self.address.clone(), ..Default::default() };
        sender.send(self.message(node_message::Body::Register(register))).await.unwrap();
        let mut client = Client::connect(format!("http://{coordinator}")).await.unwrap();
        let incoming = client.register(ReceiverStream::new(receiver)).await?.into_inner();
        Ok((sender, incoming))
    }
}

/// A node that does all that is asked of it: it is active in every epoch, and has caught up at once.
pub(crate) struct FakeNode {
    pub(crate) identity: Identity,
    /// The newest view that was pushed to it.
    pub(crate) view: watch::Receiver<Option<View>>,
    leave: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl FakeNode {
    pub(crate) async fn start(coordinator: &Coordinator, n: u128) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = Identity {
            node: NodeId(Uuid::from_u128(n)),
            incarnation: 1,
            address: listener.local_addr().unwrap().to_string(),
            cluster: None,
        };
        Self::run(coordinator, identity, listener).await
    }

    pub(crate) async fn run(coordinator: &Coordinator, identity: Identity, listener: TcpListener) -> Self {
        let (mut sender, mut incoming) = identity.register(coordinator.address).await.unwrap();
        let (told, view) = watch::channel(None);
        let (leave, mut left) = oneshot::channel();
        let me = identity.clone();
        let running = tokio::spawn(async move {
            // As long as the node runs, its address can be dialed.
            let _listener = listener;
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            let mut leaving = true;
            loop {
                tokio::select! {
                    message = incoming.next() => match message {
                        Some(Ok(message)) => {
                            if let Some(coordinator_message::Body::Views(views)) = message.body {
                                let view = views.views.into_iter().next().unwrap();
                                told.send_replace(Some(View::try_from(view).unwrap()));
                            }
                        }
                        _ => return,
                    },
                    _ = beat.tick() => {}
                    asked = &mut left, if leaving => {
                        leaving = false;
                        if asked.is_ok() {
                            say(&mut sender, me.message(node_message::Body::Leave(wire::Leave {}))).await;
                        }
                    }
                }
                let replicas = told.borrow().as_ref().map(|view| status(view, me.node)).into_iter().collect();
                let heartbeat = wire::Heartbeat { replicas, suspicions: Vec::new() };
                say(&mut sender, me.message(node_message::Body::Heartbeat(heartbeat))).await;
            }
        });
        Self { identity, view, leave: Some(leave), running }
    }

    /// As kill -9: the stream breaks and the port refuses.
    pub(crate) async fn kill(self) -> Identity {
        self.running.abort();
        let _ = self.running.await;
        self.identity
    }

    pub(crate) fn leave(&mut self) {
        self.leave.take().unwrap().send(()).unwrap();
    }
}

async fn say(sender: &mut mpsc::Sender<wire::NodeMessage>, message: wire::NodeMessage) {
    // The stream may have ended; the loop notices.
    let _ = sender.send(message).await;
}

fn status(view: &View, node: NodeId) -> wire::ReplicaStatus {
    let role = view.role(node);
    wire::ReplicaStatus {
        chain: view.chain.to_string(),
        epoch: view.epoch.0,
        active: role.is_member(),
        caught_up: role == Role::Learner,
        role: role.to_string(),
        keys: 7,
        ..Default::default()
    }
}

/// The members' numbers, if all of them are in sync.
pub(crate) fn whole(view: &View) -> Option<Vec<u128>> {
    let all = view.members.iter().all(|member| member.in_sync) && view.learners.is_empty();
    all.then(|| view.members.iter().map(|member| member.node.0.as_u128()).collect())
}

pub(crate) fn bytes(node: u128) -> Bytes {
    uuid_bytes(Uuid::from_u128(node))
}
