//! Does a node find the coordinator that leads at once, and refuse one whose term is over, even after a restart?

use std::{
    net::TcpListener,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use craq_proto::{
    CallError, ClusterId, Epoch, Incarnation, Member, NodeId, View,
    convert::Header,
    wire::{self, coordinator_message::Body, coordinator_server as server},
};
use craq_tests::process::{
    Child, PATIENCE, ask, free_address,
    wait::{unless, wait_for},
};
use futures::{StreamExt as _, stream, stream::BoxStream};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use uuid::Uuid;

use crate::support::{binaries, turn};

/// A coordinator that claims whatever it is told to claim, of a chain of whichever node registers.
#[derive(Debug, Default)]
struct Pretender {
    cluster: Uuid,
    claim: Mutex<Claim>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Claim {
    term: u64,
    epoch: u64,
    /// So many registrations are turned away before.
    turns_away: usize,
    /// How many nodes have hung up since.
    hung_up: usize,
}

#[derive(Debug, Clone)]
struct Face(Arc<Pretender>);

impl Face {
    fn serve(address: &str) -> Self {
        let face = Self(Arc::new(Pretender { cluster: Uuid::new_v4(), ..Pretender::default() }));
        let serving = Server::builder().add_service(server::CoordinatorServer::new(face.clone()));
        tokio::spawn(serving.serve(address.parse().unwrap()));
        face
    }

    fn claim(&self, term: u64, epoch: u64) {
        *self.0.claim.lock() = Claim { term, epoch, ..Claim::default() };
    }

    /// Waits until a node has heard the claim and hung up.
    async fn is_refused(&self) {
        wait_for("that the node hangs up", PATIENCE, async || {
            unless(self.0.claim.lock().hung_up > 0, || "it listens".to_owned())
        })
        .await;
    }

    fn header(&self) -> wire::Header {
        let chain = "default".parse().unwrap();
        let header = Header {
            cluster: Some(ClusterId(self.0.cluster)),
            chain,
            epoch: Epoch::ZERO,
            sender: Some(self.0.cluster),
            incarnation: Incarnation::ZERO,
        };
        (&header).into()
    }
}

fn view(epoch: u64, node: &Header, address: String) -> wire::View {
    let member =
        Member { node: NodeId(node.sender.unwrap()), incarnation: node.incarnation, in_sync: true, address };
    let view = View {
        chain: "default".parse().unwrap(),
        epoch: Epoch(epoch),
        members: vec![member],
        learners: Vec::new(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
        reason: "a claim".to_owned(),
    };
    (&view).into()
}

fn untold<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("it only claims"))
}

#[tonic::async_trait]
impl server::Coordinator for Face {
    type RegisterStream = BoxStream<'static, Result<wire::CoordinatorMessage, Status>>;
    type WatchViewsStream = BoxStream<'static, Result<wire::GetViewReply, Status>>;
    type GetHistoryStream = BoxStream<'static, Result<wire::HistoryEntry, Status>>;

    async fn register(
        &self,
        request: Request<Streaming<wire::NodeMessage>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.unwrap();
        let node = Header::try_from(first.header).unwrap();
        let Some(wire::node_message::Body::Register(register)) = first.body else { return untold() };
        let Claim { term, epoch, turns_away, .. } = *self.0.claim.lock();
        if turns_away > 0 {
            self.0.claim.lock().turns_away -= 1;
            return Err(CallError::not_leader(None).to_status());
        }
        let message = |body| wire::CoordinatorMessage { header: Some(self.header()), body: Some(body), term };
        let views = vec![view(epoch, &node, register.address)];
        let says = [
            message(Body::Registered(wire::Registered { heartbeat_interval_ms: 100 })),
            message(Body::Views(wire::Views { views })),
        ];
        let (open, closed) = tokio::sync::oneshot::channel::<()>();
        let face = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(_)) = incoming.message().await {
                // Another claim is told in another conversation.
                if face.0.claim.lock().term != term {
                    break;
                }
            }
            let mut claim = face.0.claim.lock();
            claim.hung_up += usize::from(claim.term == term);
            drop(open);
        });
        let end = stream::once(async {
            let _ = closed.await;
            Err(Status::unavailable("it claims something else now"))
        });
        Ok(Response::new(stream::iter(says.map(Ok)).chain(end).boxed()))
    }

    async fn get_view(
        &self,
        _: Request<wire::GetViewRequest>,
    ) -> Result<Response<wire::GetViewReply>, Status> {
        untold()
    }

    async fn watch_views(
        &self,
        _: Request<wire::WatchViewsRequest>,
    ) -> Result<Response<Self::WatchViewsStream>, Status> {
        untold()
    }

    async fn write(&self, _: Request<wire::WriteRequest>) -> Result<Response<wire::WriteReply>, Status> {
        untold()
    }

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusReply>, Status> {
        untold()
    }

    async fn remove_node(
        &self,
        _: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::AdminReply>, Status> {
        untold()
    }

    async fn reorder(&self, _: Request<wire::ReorderRequest>) -> Result<Response<wire::AdminReply>, Status> {
        untold()
    }

    async fn get_leadership(
        &self,
        _: Request<wire::GetLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        untold()
    }

    async fn transfer_leadership(
        &self,
        _: Request<wire::TransferLeadershipRequest>,
    ) -> Result<Response<wire::GetLeadershipReply>, Status> {
        untold()
    }

    async fn get_history(
        &self,
        _: Request<wire::GetHistoryRequest>,
    ) -> Result<Response<Self::GetHistoryStream>, Status> {
        untold()
    }
}

fn start(node: &str, coordinators: &str, dir: &Path) -> Child {
    let file = dir.join("node").display().to_string();
    let arguments = ["-a", node, "-c", coordinators, "-f", &file].map(str::to_owned);
    let child = Child::spawn("node", &[], &binaries().node, &arguments);
    assert_eq!(child.listening(), node);
    child
}

async fn has_epoch(node: &str, epoch: u64) {
    wait_for("the view", PATIENCE, async || {
        let replica = ask::replica(node).await?;
        unless(replica.epoch == epoch, || format!("{replica:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_nothing_from_a_leader_of_an_older_term_even_after_a_restart() {
    let _turn = turn().await;
    let (dir, coordinator, node) = (tempfile::tempdir().unwrap(), free_address(), free_address());
    let face = Face::serve(&coordinator);
    face.claim(5, 1);
    let start = || start(&node, &coordinator, dir.path());

    let mut process = start();
    has_epoch(&node, 1).await;
    face.claim(3, 2);
    face.is_refused().await;
    assert_eq!(ask::replica(&node).await.unwrap().epoch, 1, "a view of an older term is taken");

    process.kill();
    face.claim(4, 2);
    let process = start();
    face.is_refused().await;
    assert_eq!(ask::replica(&node).await.unwrap().epoch, 1, "the term is forgotten");
    assert!(process.said("leads in term 4, and term 5 has begun"), "{}", process.last_words());

    face.claim(6, 2);
    has_epoch(&node, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_wait_for_a_coordinator_that_stands_still() {
    let _turn = turn().await;
    let (dir, coordinator, node) = (tempfile::tempdir().unwrap(), free_address(), free_address());
    // It is connected to, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let both = format!("{},{coordinator}", silent.local_addr().unwrap());
    let face = Face::serve(&coordinator);
    face.claim(1, 1);
    face.0.claim.lock().turns_away = 5;
    let _process = start(&node, &both, dir.path());
    let began = Instant::now();
    has_epoch(&node, 1).await;
    let took = began.elapsed();
    // A new leader takes a member for lost that it has not heard of for a second.
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}
