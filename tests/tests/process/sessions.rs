//! Does a session answer each call by itself, hold nobody else up, and end well?

use std::{collections::BTreeMap, time::Duration};

use craq_proto::wire::{self, error_detail::Kind, kv_client::KvClient};
use craq_tests::process::{PATIENCE, ask};
use futures::{Stream, StreamExt as _, stream};
use tonic::transport::Endpoint;
use wire::{session_answer::Answer, session_call::Call};

use crate::support::{cluster, turn};

fn read(key: &str) -> Call {
    Call::Read(wire::ReadRequest { key: key.to_owned().into(), ..wire::ReadRequest::default() })
}

fn write(key: &str, value: Vec<u8>) -> Call {
    Call::Write(wire::WriteRequest {
        key: key.to_owned().into(),
        value: value.into(),
        ..wire::WriteRequest::default()
    })
}

fn message(first: u64, calls: impl IntoIterator<Item = Call>) -> wire::SessionRequest {
    let call = |(id, call)| wire::SessionCall { id, call: Some(call), ..wire::SessionCall::default() };
    wire::SessionRequest { header: None, calls: (first..).zip(calls).map(call).collect() }
}

async fn session(
    address: &str,
    messages: impl Stream<Item = wire::SessionRequest> + Send + 'static,
) -> tonic::Streaming<wire::SessionReply> {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    KvClient::new(channel).session(messages).await.unwrap().into_inner()
}

async fn answers(mut replies: tonic::Streaming<wire::SessionReply>) -> BTreeMap<u64, Answer> {
    let mut answers = BTreeMap::new();
    let all = async {
        while let Some(reply) = replies.message().await.unwrap() {
            for answer in reply.answers {
                let before = answers.insert(answer.id, answer.answer.expect("an answer says something"));
                assert!(before.is_none(), "call {} was answered twice", answer.id);
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("what is said last is answered, and the stream ends");
    answers
}

fn kind(answer: &Answer) -> Option<Kind> {
    match answer {
        Answer::Error(error) => Some(error.kind()),
        Answer::Read(_) | Answer::Write(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_answered_by_itself_and_what_was_said_last_too() {
    let _turn = turn().await;
    let cluster = cluster().nodes(2).start().await;
    cluster.client().await.write("there", "x").await.unwrap();
    let odd = wire::ReadRequest { key: "there".into(), consistency: 99, ..wire::ReadRequest::default() };
    let gone = wire::DeleteRequest { key: "nothing".into(), ..wire::DeleteRequest::default() };
    let mut calls = message(
        1,
        [
            read("there"),
            read("nothing"),
            read(""),
            write("new", b"y".to_vec()),
            write("new", vec![0; (1 << 20) + 1]),
            Call::Read(odd),
            Call::Delete(gone),
        ],
    );
    calls.calls.push(wire::SessionCall { id: 8, ..wire::SessionCall::default() });
    calls.calls.push(wire::SessionCall { id: 9, epoch: 999, call: Some(read("there")), timeout_ms: 50 });
    let stranger = wire::Header { cluster_id: vec![1; 16].into(), ..wire::Header::default() };
    let strange = wire::SessionRequest { header: Some(stranger), ..message(10, [read("there")]) };
    let chain = wire::Header { chain: "other".into(), ..wire::Header::default() };
    let lost = wire::SessionRequest { header: Some(chain), ..message(11, [read("there")]) };
    for node in 0..2 {
        let messages = stream::iter([calls.clone(), strange.clone(), lost.clone()]);
        let answers = answers(session(&cluster.address(node), messages).await).await;
        assert_eq!(answers.keys().copied().collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
        assert!(matches!(&answers[&1], Answer::Read(read) if read.found && read.value == "x"));
        assert!(matches!(&answers[&2], Answer::Read(read) if !read.found));
        assert!(matches!(&answers[&4], Answer::Write(write) if write.version == node as u64 + 1));
        let kinds = [
            (3, Kind::Invalid),
            (5, Kind::ResourceExhausted),
            (6, Kind::Invalid),
            (7, Kind::NotFound),
            (8, Kind::Invalid),
            (9, Kind::WrongEpoch),
            (10, Kind::WrongCluster),
            (11, Kind::Unavailable),
        ];
        for (id, wanted) in kinds {
            assert_eq!(kind(&answers[&id]), Some(wanted), "call {id}: {:?}", answers[&id]);
        }
    }
}

/// A message has a limit: answers that are larger together come in several.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_values_are_read_at_once() {
    const VALUE: usize = 512 * 1024;
    const READS: u64 = 40;
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    let client = cluster.client().await;
    client.write("large", vec![b'v'; VALUE]).await.unwrap();
    let is_whole = |answer: &Answer| matches!(answer, Answer::Read(read) if read.value.len() == VALUE);
    let messages = stream::iter([message(1, (0..READS).map(|_| read("large")))]);
    let all = answers(session(&cluster.address(0), messages).await).await;
    assert!(all.len() as u64 == READS && all.values().all(is_whole), "{} answers", all.len());
}

/// What ends a session comes after the answers to what was asked before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_ends_the_session_after_all_answers() {
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    cluster.client().await.write("there", "x").await.unwrap();
    let good = message(1, (0..200).map(|n| write(&format!("key{n}"), vec![b'w'; 100])));
    let channel = ask::dial(&cluster.address(0)).await.unwrap();
    let mut kv = KvClient::new(channel).max_encoding_message_size(64 << 20);
    let bad = message(1_000, [write("large", vec![0; 5 << 20])]);
    let mut replies = kv.session(stream::iter([good, bad])).await.unwrap().into_inner();
    let mut answered = 0;
    let end = loop {
        match tokio::time::timeout(PATIENCE, replies.message()).await.expect("it ends") {
            Ok(reply) => answered += reply.expect("it ends with an error").answers.len(),
            Err(status) => break status,
        }
    };
    assert_eq!((answered, end.code()), (200, tonic::Code::OutOfRange), "{end}");
}

/// The calls of a client that takes no answers end all the same, and make room for those of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answers_holds_up_nobody_else() {
    const CALLS: u64 = 20_000;
    let _turn = turn().await;
    let cluster = cluster().nodes(1).node_flags(&["--requests-max", "100"]).start().await;
    let client = cluster.client().await;
    client.write("large", vec![b'v'; 100 * 1024]).await.unwrap();
    let address = cluster.address(0);
    let messages = (0..CALLS / 10).map(|n| {
        let write = write(&format!("key{n}"), vec![b'w'; 100]);
        message(n * 10, std::iter::once(write).chain((0..9).map(|_| read("large"))))
    });
    // Nothing is ever taken from it, and it stays open.
    let untaken = session(&address, stream::iter(messages).chain(stream::pending())).await;
    for number in 0..200 {
        let wrote = client.write("mine", format!("{number}"));
        tokio::time::timeout(Duration::from_secs(3), wrote).await.expect("room is made").unwrap();
    }
    let status = ask::replica(&address).await.unwrap();
    assert!(status.keys < CALLS / 10, "all that the silent client sent was taken: {} keys", status.keys);
    drop(untaken);
}
