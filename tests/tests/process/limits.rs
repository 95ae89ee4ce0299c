//! Is each limit exact, and does nothing happen beyond it?

use std::time::Duration;

use craq_client::{Client, Error, Options, Range};
use craq_proto::wire::{self, coordinator_client::CoordinatorClient, kv_client::KvClient};
use craq_tests::process::ask;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Code;

use crate::support::{cluster, turn};

const KEY_MAX: usize = 4096;
const VALUE_MAX: usize = 1024 * 1024;
const PAGE_KEYS: usize = 1_000;
const STREAMS_MAX: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_of_keys_values_and_messages_are_exact() {
    let _turn = turn().await;
    let mut cluster = cluster().nodes(2).start().await;
    let client = cluster.client().await;
    let key = vec![b'k'; KEY_MAX];
    let value = vec![b'v'; VALUE_MAX];
    assert_eq!(client.write(key.clone(), value.clone()).await.unwrap().version.0, 1);
    for node in 0..2 {
        let read = client.read_with(key.clone(), &Options::new().node(cluster.address(node))).await.unwrap();
        assert_eq!(read.value.unwrap(), value);
    }
    let too_long = client.write(vec![b'k'; KEY_MAX + 1], "v").await;
    assert!(matches!(too_long, Err(Error::Refused { .. })), "{too_long:?}");
    let too_large = client.write("large", vec![b'v'; VALUE_MAX + 1]).await;
    assert!(matches!(too_large, Err(Error::Refused { .. })), "{too_large:?}");
    let empty = client.write("", "v").await;
    assert!(matches!(empty, Err(Error::Invalid { .. })), "{empty:?}");
    assert!(!client.read("large").await.unwrap().is_found(), "nothing happened");
    client.write("empty value", "").await.unwrap();
    assert_eq!(client.read("empty value").await.unwrap().value.as_deref(), Some(&b""[..]));
    refused_by_the_node_itself(&cluster.address(0)).await;
    cluster.whole().await;
}

/// The same without the library, which refuses by itself.
async fn refused_by_the_node_itself(address: &str) {
    let mut kv = KvClient::new(ask::dial(address).await.unwrap()).max_encoding_message_size(64 << 20);
    let write = |key: usize, value: usize| wire::WriteRequest {
        key: vec![b'r'; key].into(),
        value: vec![b'v'; value].into(),
        ..wire::WriteRequest::default()
    };
    kv.write(write(KEY_MAX, VALUE_MAX)).await.unwrap();
    for (key, value, what) in [
        (KEY_MAX + 1, 1, "a key"),
        (1, VALUE_MAX + 1, "a value"),
        (1, 5 << 20, "a message"),
        (0, 1, "an empty key"),
    ] {
        let refused = kv.write(write(key, value)).await.expect_err(what);
        let codes = [Code::ResourceExhausted, Code::InvalidArgument, Code::OutOfRange];
        assert!(codes.contains(&refused.code()), "{what}: {refused}");
    }
    let read = kv.read(wire::ReadRequest { key: "r".into(), ..wire::ReadRequest::default() }).await.unwrap();
    assert!(!read.into_inner().found, "nothing happened");
}

/// HTTP/2 has no refusal for it: the stream beyond the limit waits at the client until another one ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_256_streams_and_the_next_one_waits_for_one_to_end() {
    let _turn = turn().await;
    let cluster = cluster().nodes(1).start().await;
    let client = CoordinatorClient::new(ask::dial(&cluster.address(0)).await.unwrap());
    let watch = async || {
        let mut client = client.clone();
        client.watch_views(wire::WatchViewsRequest::default()).await.map(tonic::Response::into_inner)
    };
    let mut streams = Vec::new();
    for number in 1..=STREAMS_MAX {
        let stream = tokio::time::timeout(Duration::from_secs(10), watch()).await;
        streams.push(stream.unwrap_or_else(|_| panic!("stream {number} is not opened")).unwrap());
    }
    let mut beyond = std::pin::pin!(watch());
    let early = tokio::time::timeout(Duration::from_millis(300), beyond.as_mut()).await;
    assert!(early.is_err(), "more than {STREAMS_MAX} streams were opened");
    drop(streams.pop());
    tokio::time::timeout(Duration::from_secs(10), beyond).await.expect("a stream has ended").unwrap();
}

async fn fill(client: &Client, prefix: &str, count: usize, bytes: usize) {
    let writes = (0..count).map(|n| client.write(format!("{prefix}/{n:05}"), vec![b'v'; bytes]));
    let _: Vec<_> = stream::iter(writes).buffer_unordered(50).try_collect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_has_a_thousand_keys_or_a_mebibyte_and_a_range_is_complete() {
    let _turn = turn().await;
    let cluster = cluster().nodes(2).start().await;
    let client = cluster.client().await;
    fill(&client, "many", PAGE_KEYS + 1, 1).await;
    fill(&client, "large", 5, 400 * 1024).await;
    let pages = async |prefix: &'static str| -> Vec<_> {
        client.scan_pages(Range::prefix(prefix), Options::new()).try_collect().await.unwrap()
    };
    let many: Vec<usize> = pages("many/").await.iter().map(|page| page.items.len()).collect();
    assert_eq!(many, [PAGE_KEYS, 1]);
    for page in pages("large/").await {
        let bytes: usize = page.items.iter().map(|item| item.value.len()).sum();
        assert!(bytes <= VALUE_MAX && page.items.len() <= 2, "{} items, {bytes} bytes", page.items.len());
    }
    let all: Vec<_> = client.scan(Range::all(), Options::new()).try_collect().await.unwrap();
    assert_eq!(all.len(), PAGE_KEYS + 1 + 5);
    let some: Vec<_> =
        client.scan(Range::prefix("many/").limit(7).keys_only(), Options::new()).try_collect().await.unwrap();
    assert!(some.len() == 7 && some.iter().all(|item| item.value.is_empty()), "{some:?}");
}
