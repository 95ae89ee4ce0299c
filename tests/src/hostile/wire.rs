//! Messages: from bytes to protobuf to the domain and back.

use std::fmt::Debug;

use craq_node::decode;
use craq_proto::{
    CallError, ChainId, ClientId, Entry, Epoch, ErrorKind, Incarnation, Key, Member, Mutation, NodeId, Op,
    Outcome, RequestId, Row, Seq, Value, Version, View,
    convert::{Header, Malformed, uuid_bytes},
    entry::checksum,
    wire,
};
use prost::Message;
use uuid::Uuid;

/// What the domain takes must come back as it was.
fn there_and_back<W, D>(sent: &W)
where
    W: Clone + Debug + PartialEq + for<'a> From<&'a D>,
    D: TryFrom<W, Error = Malformed> + Debug + PartialEq,
{
    let Ok(meant) = D::try_from(sent.clone()) else { return };
    let back = W::from(&meant);
    assert_eq!(&back, sent, "another message means the same");
    assert_eq!(D::try_from(back).as_ref(), Ok(&meant));
}

/// As [`there_and_back`]; an empty chain stands for `default`.
fn view(sent: &wire::View) {
    let mut sent = sent.clone();
    named(&mut sent.chain);
    there_and_back::<_, View>(&sent);
}

fn header(sent: Option<&wire::Header>) {
    let mut sent = sent.cloned().unwrap_or_default();
    named(&mut sent.chain);
    let Ok(meant) = Header::try_from(Some(sent.clone())) else { return };
    assert_eq!(wire::Header::from(&meant), sent, "another header means the same");
}

fn named(chain: &mut String) {
    if chain.is_empty() {
        *chain = ChainId::default_chain().to_string();
    }
}

/// One kind of message: decodes it, encodes it, and judges its parts.
fn message<M: Message + Debug + Default + PartialEq>(bytes: &[u8], parts: impl FnOnce(&M)) {
    let Ok(message) = M::decode(bytes) else { return };
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
    parts(&message);
}

macro_rules! kinds {
    ($kind:expr, $bytes:expr, { $($message:ty => $parts:expr,)* }) => {{
        let kinds: &[fn(&[u8])] = &[$(|bytes| message::<$message>(bytes, $parts),)*];
        kinds[usize::from($kind) % kinds.len()]($bytes);
    }};
}

/// Any message but those of links and nodes; the first byte says which.
pub(super) fn messages(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    kinds!(*kind, bytes, {
        wire::ReadRequest => |m| header(m.header.as_ref()),
        wire::WriteRequest => |m| {
            header(m.header.as_ref());
            m.request_id.iter().for_each(there_and_back::<_, RequestId>);
        },
        wire::DeleteRequest => |m| m.request_id.iter().for_each(there_and_back::<_, RequestId>),
        wire::ScanRequest => |m| header(m.header.as_ref()),
        wire::NodeStatusRequest => |m| header(m.header.as_ref()),
        wire::LatestVersionsRequest => |m| header(m.header.as_ref()),
        wire::PingRequest => |m| header(m.header.as_ref()),
        wire::GetViewRequest => |m| header(m.header.as_ref()),
        wire::WatchViewsRequest => |m| header(m.header.as_ref()),
        wire::GetStatusRequest => |m| header(m.header.as_ref()),
        wire::RemoveNodeRequest => |m| header(m.header.as_ref()),
        wire::ReorderRequest => |m| header(m.header.as_ref()),
        wire::ReadReply => |m| header(m.header.as_ref()),
        wire::WriteReply => |m| header(m.header.as_ref()),
        wire::Page => |m| header(m.header.as_ref()),
        wire::NodeStatus => |m| header(m.header.as_ref()),
        wire::LatestVersionsReply => |m| header(m.header.as_ref()),
        wire::PingReply => |m| header(m.header.as_ref()),
        wire::AdminReply => |m| header(m.header.as_ref()),
        wire::GetStatusReply => |m| header(m.header.as_ref()),
        wire::GetViewReply => |m| m.views.iter().for_each(view),
        wire::CoordinatorMessage => |m| match &m.body {
            Some(wire::coordinator_message::Body::Views(views)) => views.views.iter().for_each(view),
            _ => header(m.header.as_ref()),
        },
        wire::View => view,
        wire::RequestId => there_and_back::<_, RequestId>,
        wire::Mutation => there_and_back::<_, Mutation>,
        wire::Entry => there_and_back::<_, Entry>,
        wire::Row => there_and_back::<_, Row>,
        wire::Outcome => there_and_back::<_, Outcome>,
    });
}

/// What is said on links.
pub(super) fn link(bytes: &[u8]) {
    message::<wire::LinkMessage>(bytes, |sent| {
        header(sent.header.as_ref());
        let Ok(meant) = decode::link_message(sent.body.clone()) else { return };
        let back = decode::link_body(meant.clone());
        assert_eq!(back, sent.body, "another message means the same");
        assert_eq!(decode::link_message(back), Ok(meant));
    });
}

/// What nodes say to the coordinator.
pub(super) fn node_message(bytes: &[u8]) {
    use craq_coordinator::{cluster::Placement, decode};
    use wire::node_message::Body;
    message::<wire::NodeMessage>(bytes, |sent| match sent.body.clone() {
        Some(Body::Register(register)) => {
            let Ok(header) = Header::try_from(sent.header.clone()) else { return };
            let Ok(taken) = decode::registration(&header, register.clone()) else { return };
            assert_eq!(Some(taken.node.0), header.sender);
            assert_eq!((&taken.address, taken.incarnation), (&register.address, header.incarnation));
            assert!(matches!(taken.placement, Placement::Tail) || register.placement.is_some());
            assert!(taken.replicas.len() <= register.replicas.len());
        }
        Some(Body::Heartbeat(heartbeat)) => {
            let Ok((replicas, suspicions)) = decode::heartbeat(heartbeat.clone()) else { return };
            assert!(replicas.len() <= heartbeat.replicas.len());
            assert_eq!(suspicions.len(), heartbeat.suspicions.len());
        }
        Some(Body::Leave(_)) | None => {}
    });
}

/// The details of a status, as a client gets them from whoever answers.
pub(super) fn error(bytes: &[u8]) {
    let status = tonic::Status::with_details(tonic::Code::Unavailable, "text", bytes.to_vec().into());
    let error = CallError::from_status(&status);
    let again = CallError::from_status(&error.to_status());
    assert_eq!(again, error, "an error changes when it is handed on");
}

fn id(n: u128) -> bytes::Bytes {
    uuid_bytes(Uuid::from_u128(n))
}

fn a_header() -> Option<wire::Header> {
    Some(wire::Header { cluster_id: id(1), chain: "default".into(), epoch: 3, sender: id(2), incarnation: 4 })
}

pub(super) fn a_request() -> RequestId {
    RequestId { client: ClientId(Uuid::from_u128(7)), number: 3, floor: 2, born: Seq(9), retry: true }
}

pub(super) fn a_view() -> View {
    let member = |n| Member {
        node: NodeId(Uuid::from_u128(n)),
        incarnation: Incarnation(1),
        in_sync: true,
        address: format!("node-{n}:1235"),
    };
    View {
        chain: ChainId::default_chain(),
        epoch: Epoch(3),
        members: vec![member(2), member(3)],
        learners: vec![],
        reason: "node 3 joins".into(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
    }
}

pub(super) fn an_entry() -> Entry {
    let mutation = |key: &'static str, value: Option<&'static str>| Mutation {
        key: Key::new(key).expect("a key"),
        version: Version(5),
        op: value.map_or(Op::Delete, |value| Op::Put(Value::new(value, 100).expect("a value"))),
        checksum: checksum(key.as_bytes(), value.unwrap_or_default().as_bytes()),
    };
    Entry {
        seq: Seq(12),
        origin_epoch: Epoch(3),
        request: Some(RequestId { retry: false, ..a_request() }),
        mutations: vec![mutation("key", Some("value")), mutation("gone", None)],
        forget_through: Seq(2),
    }
}

pub(super) fn an_outcome() -> Outcome {
    let RequestId { client, number, floor, .. } = a_request();
    Outcome { client, number, floor, seq: Seq(12), versions: vec![Version(5), Version(6)] }
}

/// A header is in each message, and the same tags have other meanings elsewhere: a few bodies do for all kinds.
pub(super) fn message_seeds() -> Vec<Vec<u8>> {
    let request_id = Some(wire::RequestId::from(&a_request()));
    let write = wire::WriteRequest {
        header: a_header(),
        key: "key".into(),
        value: "value".into(),
        if_version: Some(2),
        request_id,
        checksum: Some(checksum(b"key", b"value")),
        handed_on: true,
    };
    let read =
        wire::ReadRequest { header: a_header(), key: "key".into(), consistency: 2, bound_ms: 5, min_seq: 6 };
    let views = wire::GetViewReply { header: a_header(), views: vec![(&a_view()).into()] };
    let entry = an_entry();
    let row = entry.rows().next().expect("an entry has a row");
    let bodies = [
        write.encode_to_vec(),
        read.encode_to_vec(),
        views.encode_to_vec(),
        wire::View::from(&a_view()).encode_to_vec(),
        wire::RequestId::from(&a_request()).encode_to_vec(),
        wire::Mutation::from(&entry.mutations[0]).encode_to_vec(),
        wire::Entry::from(&entry).encode_to_vec(),
        wire::Row::from(&row).encode_to_vec(),
        wire::Outcome::from(&an_outcome()).encode_to_vec(),
    ];
    let kinds = |body: Vec<u8>| (0..28_u8).map(move |kind| [&[kind], body.as_slice()].concat());
    bodies.into_iter().flat_map(kinds).collect()
}

pub(super) fn link_seeds() -> Vec<Vec<u8>> {
    use wire::link_message::Body;
    let entry = an_entry();
    let run = wire::Run { first: 8, last: 12, origin_epoch: 3 };
    let bodies = [
        Body::Open(wire::Open {}),
        Body::Hello(wire::Hello { commit: 7, last: 12, suffix: vec![run] }),
        Body::Level(wire::Level { commit: 8, truncate_to: 11 }),
        Body::Rows(wire::Rows {
            rows: entry.rows().map(|row| (&row).into()).collect(),
            through: 12,
            from_nothing: true,
            gc_floor: 3,
        }),
        Body::RowsAck(wire::RowsAck { through: 12 }),
        Body::CaughtUp(wire::CaughtUp {
            through: 12,
            outcomes: vec![(&an_outcome()).into()],
            more: true,
            forgotten_through: 3,
        }),
        Body::Append(wire::Append { entries: vec![(&entry).into()], durable: 11, commit: 10 }),
        Body::Ack(wire::Ack { commit: 12 }),
    ];
    let message = |body| wire::LinkMessage { header: a_header(), body: Some(body) }.encode_to_vec();
    bodies.into_iter().map(message).collect()
}

pub(super) fn node_message_seeds() -> Vec<Vec<u8>> {
    use wire::node_message::Body;
    let replica =
        wire::ReplicaStatus { chain: "default".into(), epoch: 3, commit: 4, last: 5, ..Default::default() };
    let place = Some(wire::placement::Place::After(id(3)));
    let register = wire::Register {
        address: "localhost:1235".into(),
        placement: Some(wire::Placement { place }),
        replicas: vec![replica.clone()],
    };
    let suspicion =
        wire::Suspicion { chain: "default".into(), epoch: 3, node: id(3), incarnation: 1, refused: true };
    let heartbeat = wire::Heartbeat { replicas: vec![replica], suspicions: vec![suspicion] };
    let bodies = [Body::Register(register), Body::Heartbeat(heartbeat), Body::Leave(wire::Leave {})];
    let message = |body| wire::NodeMessage { header: a_header(), body: Some(body) }.encode_to_vec();
    bodies.into_iter().map(message).collect()
}

pub(super) fn error_seeds() -> Vec<Vec<u8>> {
    let error = CallError {
        kind: ErrorKind::NotHead,
        message: "elsewhere".into(),
        head: Some("localhost:1".into()),
        view: Some(Box::new(a_view())),
        observed_version: Version(4),
        request: Some(a_request()),
        born: Seq(7),
    };
    let kinds = [ErrorKind::NotHead, ErrorKind::OutcomeUnknown, ErrorKind::ConditionFailed];
    kinds.map(|kind| CallError { kind, ..error.clone() }.to_status().details().to_vec()).to_vec()
}
