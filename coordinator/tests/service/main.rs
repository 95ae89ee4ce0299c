//! Does the coordinator do over gRPC what its rules say: found, grow, mend and remember a chain, and refuse the rest?
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod fake;
mod head;

use craq_proto::{CallError, ClusterId, ErrorKind, Incarnation, NodeId, convert::uuid_bytes, wire};
use fake::{Client, Coordinator, DEADLINE, FakeNode, Identity, bytes, whole};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::StreamExt;
use tonic::Status;
use uuid::Uuid;

fn kind(status: &Status) -> ErrorKind {
    CallError::from_status(status).kind
}

async fn three(coordinator: &Coordinator) -> Vec<FakeNode> {
    let mut nodes = Vec::new();
    for n in 1..=3 {
        nodes.push(FakeNode::start(coordinator, n).await);
        let wanted: Vec<u128> = (1..=n).collect();
        coordinator.wait("a node joins", |view| whole(view) == Some(wanted.clone())).await;
    }
    nodes
}

#[tokio::test]
async fn a_chain_is_founded_grows_and_survives_a_killed_head() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let mut nodes = three(&coordinator).await;
    let before = coordinator.wait("three", |view| view.members.len() == 3).await;

    nodes.remove(0).kill().await;
    let after = coordinator.wait("the head is gone", |view| whole(view) == Some(vec![2, 3])).await;
    assert_eq!(after.epoch, before.epoch.next());
    assert!(after.reason.contains("refused"), "{}", after.reason);

    // The survivors were told, not only the watchers.
    let told = timeout(DEADLINE, nodes[0].view.wait_for(|view| view.as_ref() == Some(&after))).await;
    told.expect("the view is pushed").unwrap();
    coordinator.stop().await;
}

#[tokio::test]
async fn a_restarted_member_keeps_its_place() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let mut nodes = three(&coordinator).await;
    let node = nodes.remove(1);
    // The new process registers before the loss of the old one is noticed.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let identity = Identity { incarnation: 2, address: address.clone(), ..node.identity.clone() };
    let _again = FakeNode::run(&coordinator, identity.clone(), listener).await;
    let view =
        coordinator.wait("the new incarnation", |view| view.members[1].incarnation == Incarnation(2)).await;
    assert_eq!(whole(&view), Some(vec![1, 2, 3]));
    assert_eq!(view.members[1].address, address);

    let older = Identity { incarnation: 1, ..identity };
    let status = older.register(coordinator.address).await.expect_err("an older incarnation is refused");
    assert_eq!(kind(&status), ErrorKind::Invalid);
    assert!(status.message().contains("incarnation 1"), "{status}");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_restarted_coordinator_remembers_everything_and_removes_nobody() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let cluster = coordinator.cluster().await;
    let nodes = three(&coordinator).await;
    let before = coordinator.wait("three", |view| whole(view).is_some_and(|nodes| nodes.len() == 3)).await;
    coordinator.stop().await;

    let coordinator = Coordinator::start(data.path()).await;
    assert_eq!(coordinator.cluster().await, cluster);
    let mut again = Vec::new();
    for node in nodes {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = Identity { cluster: Some(cluster), ..node.identity.clone() };
        again.push(FakeNode::run(&coordinator, identity, listener).await);
    }
    let after = coordinator.wait("the same view", |_| true).await;
    assert_eq!(after, before);
    // The failure timeout after the start passes, and still nobody is removed: a fourth node joins the same three.
    again.push(FakeNode::start(&coordinator, 4).await);
    coordinator.wait("a fourth", |view| whole(view) == Some(vec![1, 2, 3, 4])).await;
    coordinator.stop().await;
}

#[tokio::test]
async fn a_node_that_leaves_is_let_go() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let mut nodes = three(&coordinator).await;
    nodes[2].leave();
    let view = coordinator.wait("the tail leaves", |view| whole(view) == Some(vec![1, 2])).await;
    assert!(view.reason.ends_with("left"), "{}", view.reason);
    let mut client = coordinator.client().await;
    let status = client.get_status(wire::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.spares[0].node, bytes(3));
    assert_eq!(status.spares[0].reason, "it left");
    coordinator.stop().await;
}

#[tokio::test]
async fn operators_reorder_and_remove() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let _nodes = three(&coordinator).await;
    let mut client = coordinator.client().await;

    let order = [3, 1, 2].map(bytes).to_vec();
    let reply = client.reorder(wire::ReorderRequest { header: None, order }).await.unwrap().into_inner();
    let view = coordinator.wait("the new order", |view| whole(view) == Some(vec![3, 1, 2])).await;
    assert_eq!(reply.header.unwrap().epoch, view.epoch.0);

    let order = [3, 1].map(bytes).to_vec();
    let status = client.reorder(wire::ReorderRequest { header: None, order }).await.unwrap_err();
    assert_eq!(kind(&status), ErrorKind::Invalid);

    for n in [3, 1] {
        let remove = wire::RemoveNodeRequest { node: bytes(n), ..Default::default() };
        client.remove_node(remove).await.unwrap();
    }
    let remove = wire::RemoveNodeRequest { node: bytes(2), ..Default::default() };
    let status = client.remove_node(remove).await.unwrap_err();
    assert_eq!(kind(&status), ErrorKind::ConditionFailed);
    assert!(status.message().contains("last member in sync"), "{status}");

    let status = client.get_status(wire::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.source, "coordinator");
    let member = &status.chains[0].members[0];
    assert_eq!((member.role.as_str(), member.in_sync, member.alive), ("single", true, true));
    assert_eq!(member.replica.as_ref().unwrap().keys, 7);
    assert!(status.chains[0].reason.contains("an operator took"), "{}", status.chains[0].reason);
    coordinator.stop().await;
}

#[tokio::test]
async fn another_clusters_callers_are_refused_by_both_ids() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let ours = coordinator.cluster().await;
    let theirs = ClusterId(Uuid::from_u128(99));
    let identity = Identity {
        node: NodeId(Uuid::from_u128(1)),
        incarnation: 1,
        address: "localhost:1".into(),
        cluster: Some(theirs),
    };
    let status = identity.register(coordinator.address).await.expect_err("a foreign node is refused");
    assert_eq!(kind(&status), ErrorKind::WrongCluster);
    assert!(status.message().contains(&ours.to_string()) && status.message().contains(&theirs.to_string()));

    let header = wire::Header { cluster_id: uuid_bytes(theirs.0), ..Default::default() };
    let mut client = coordinator.client().await;
    let status = client.get_view(wire::GetViewRequest { header: Some(header) }).await.unwrap_err();
    assert_eq!(kind(&status), ErrorKind::WrongCluster);
    coordinator.stop().await;
}

async fn first_message_is_refused(client: &mut Client, message: wire::NodeMessage) {
    let stream = tokio_stream::iter([message.clone()]).chain(tokio_stream::pending());
    let status = client.register(stream).await.expect_err("a malformed message is refused");
    assert_eq!(kind(&status), ErrorKind::Invalid, "{message:?}");
}

#[tokio::test]
async fn malformed_messages_are_refused() {
    use wire::node_message::Body;
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let mut client = coordinator.client().await;
    let header = wire::Header { sender: bytes(1), incarnation: 1, ..Default::default() };
    let register = wire::Register { address: "localhost:1".into(), ..Default::default() };
    let good = wire::NodeMessage { header: Some(header.clone()), body: Some(Body::Register(register)) };
    let nameless = wire::Register { address: "localhost".into(), ..Default::default() };
    for bad in [
        wire::NodeMessage { header: None, ..good.clone() },
        wire::NodeMessage { body: None, ..good.clone() },
        wire::NodeMessage { body: Some(Body::Heartbeat(wire::Heartbeat::default())), ..good.clone() },
        wire::NodeMessage { body: Some(Body::Register(nameless)), ..good.clone() },
        wire::NodeMessage { header: Some(wire::Header { incarnation: 0, ..header.clone() }), ..good.clone() },
        wire::NodeMessage { header: Some(wire::Header { sender: "short".into(), ..header }), ..good },
    ] {
        first_message_is_refused(&mut client, bad).await;
    }
    let bad = wire::RemoveNodeRequest { node: "short".into(), ..Default::default() };
    assert_eq!(kind(&client.remove_node(bad).await.unwrap_err()), ErrorKind::Invalid);
    let header = Some(wire::Header { chain: "No Name".into(), ..Default::default() });
    assert_eq!(
        kind(&client.get_view(wire::GetViewRequest { header }).await.unwrap_err()),
        ErrorKind::Invalid
    );
    coordinator.stop().await;
}

#[tokio::test]
async fn a_write_without_a_reachable_head_is_certainly_not_applied() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let mut client = coordinator.client().await;
    let write = wire::WriteRequest { key: "k".into(), ..Default::default() };
    assert_eq!(kind(&client.write(write.clone()).await.unwrap_err()), ErrorKind::Unavailable);

    let node = FakeNode::start(&coordinator, 1).await;
    coordinator.wait("one node", |view| whole(view) == Some(vec![1])).await;
    node.kill().await;
    let status = client.write(write).await.unwrap_err();
    assert_eq!(kind(&status), ErrorKind::Unavailable, "{status}");
    assert!(CallError::from_status(&status).view.is_some());
    coordinator.stop().await;
}

#[tokio::test]
async fn a_write_is_handed_on_and_the_heads_words_come_back_as_they_are() {
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    head::serve(listener);
    let identity = Identity { node: NodeId(Uuid::from_u128(1)), incarnation: 1, address, cluster: None };
    let _stream = identity.register(coordinator.address).await.unwrap();
    coordinator.wait("one node", |view| whole(view) == Some(vec![1])).await;

    let mut client = coordinator.client().await;
    let id = wire::RequestId { client: bytes(7), number: 3, ..Default::default() };
    let write = |key: &'static str| wire::WriteRequest {
        key: key.into(),
        request_id: Some(id.clone()),
        ..Default::default()
    };
    let reply = client.write(write("good")).await.unwrap().into_inner();
    assert_eq!((reply.version, reply.seq), (5, 9));

    let refused = CallError::from_status(&client.write(write("refused")).await.unwrap_err());
    assert_eq!((refused.kind, refused.observed_version.0), (ErrorKind::ConditionFailed, 3));
    assert_eq!(refused.message, "version 3 is not 4");

    // What no head said proves nothing: the write may have been applied.
    let unknown = CallError::from_status(&client.write(write("broken")).await.unwrap_err());
    assert_eq!(unknown.kind, ErrorKind::OutcomeUnknown);
    assert_eq!(unknown.request.unwrap().number, 3);
    coordinator.stop().await;
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let data = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(data.path()).await;
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", coordinator.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "craq.v1.Coordinator"] {
        let reply = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(reply.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    }
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("craq.v1.Coordinator".into())),
    };
    let mut replies =
        reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let reply = replies.next().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(reply, MessageResponse::FileDescriptorResponse(_)), "{reply:?}");
    coordinator.stop().await;
}
