//! What does it take to get a message onto the wire and off it again?
//!
//! `cargo bench -p craq-proto --bench conversion`. Both ways include the protobuf coding and, coming in, every check.
#![allow(missing_docs, reason = "made by a macro of criterion")]

use std::hint::black_box;

use bytes::Bytes;
use craq_proto::{
    ClientId, Entry, Epoch, Key, Mutation, Op, RequestId, Seq, Value, Version, convert::Header, entry, wire,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use uuid::Uuid;

const VALUE_BYTES: usize = 500;
const ENTRIES: u64 = 64;

fn request(number: u64) -> RequestId {
    RequestId { client: ClientId(Uuid::from_u128(7)), number, floor: number, born: Seq(number), retry: false }
}

fn key(n: u64) -> Bytes {
    format!("key-{n:012}").into()
}

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write request");
    group.throughput(Throughput::Elements(1));
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let message = wire::WriteRequest {
        header: None,
        key: key(1),
        checksum: Some(entry::checksum(&key(1), &value)),
        value,
        if_version: None,
        request_id: Some((&request(1)).into()),
        handed_on: false,
    };
    let bytes = Bytes::from(message.encode_to_vec());
    group.bench_function("out", |bencher| bencher.iter(|| black_box(black_box(&message).encode_to_vec())));
    group.bench_function("in", |bencher| {
        bencher.iter(|| {
            let message = wire::WriteRequest::decode(bytes.clone()).expect("well formed");
            let header = Header::try_from(message.header).expect("a header");
            let request = RequestId::try_from(message.request_id.expect("an id")).expect("an id");
            let (key, value) = (Key::new(message.key), Value::new(message.value, VALUE_BYTES));
            let (key, value) = (key.expect("a key"), value.expect("a value"));
            assert_eq!(Some(entry::checksum(key.as_bytes(), value.as_bytes())), message.checksum);
            black_box((header, request, key, value))
        });
    });
    group.finish();
}

fn new_entry(seq: u64) -> Entry {
    let value = Value::new(vec![seq as u8; VALUE_BYTES], VALUE_BYTES).expect("a value");
    let checksum = entry::checksum(&key(seq), value.as_bytes());
    let mutation = Mutation {
        key: Key::new(key(seq)).expect("a key"),
        version: Version(seq),
        op: Op::Put(value),
        checksum,
    };
    Entry {
        seq: Seq(seq),
        origin_epoch: Epoch(1),
        request: Some(request(seq)),
        mutations: vec![mutation],
        forget_through: Seq::ZERO,
    }
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append of 64 entries");
    group.throughput(Throughput::Elements(ENTRIES));
    let entries: Vec<Entry> = (1..=ENTRIES).map(new_entry).collect();
    let to_wire = |entries: &[Entry]| wire::Append {
        entries: entries.iter().map(Into::into).collect(),
        durable: ENTRIES,
        commit: 0,
    };
    let bytes = Bytes::from(to_wire(&entries).encode_to_vec());
    group.bench_function("out", |bencher| {
        bencher.iter(|| black_box(to_wire(black_box(&entries)).encode_to_vec()));
    });
    group.bench_function("in", |bencher| {
        bencher.iter(|| {
            let append = wire::Append::decode(bytes.clone()).expect("well formed");
            let entries = append.entries.into_iter().map(Entry::try_from);
            let entries = entries.collect::<Result<Vec<_>, _>>().expect("intact entries");
            assert_eq!(entries.len() as u64, ENTRIES);
            black_box(entries)
        });
    });
    group.finish();
}

criterion_group!(benches, writes, appends);
criterion_main!(benches);
