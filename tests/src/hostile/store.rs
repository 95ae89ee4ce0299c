//! Records on disk: rows, and whole stores of damaged or foreign records.

use std::sync::Arc;

use bytes::Bytes;
use craq_node::store::{
    Backend, Change, Memory, Meta, Store, StoreError, Table,
    encoding::{decode_row, decode_row_key, encode_row, row_key},
};
use craq_proto::{ChainId, NodeId, Seq};
use uuid::Uuid;

use super::wire::{a_view, an_entry, an_outcome};

/// A row's key and its record. The first byte says whether the checksum is set right before: noise rarely gets past it.
pub(super) fn row(bytes: &[u8]) {
    let Some((repair, bytes)) = bytes.split_first() else { return };
    let (key, record) = bytes.split_at(bytes.len().min(12));
    let Ok((seq, index)) = decode_row_key(key) else { return };
    let mut record = record.to_vec();
    if repair & 1 == 1 {
        repair_row(key, &mut record);
    }
    let record = Bytes::from(record);
    if let Ok(row) = decode_row(seq, index, &record) {
        assert_eq!(encode_row(&row), record, "another record is the same row");
        assert_eq!(row_key(row.seq, row.index), key);
    }
}

/// Sets the two checksums of a row's record, as far as it has room for them.
fn repair_row(key: &[u8], record: &mut [u8]) {
    let Some(flags) = record.get(1).copied() else { return };
    let head = 26 + if flags & 1 == 1 { 40 } else { 0 };
    let body_at = head + if flags & 2 == 2 { 14 } else { 0 };
    if record.len() < body_at {
        return;
    }
    if flags & 2 == 2 {
        let key_bytes = usize::from(u16::from_be_bytes([record[head + 12], record[head + 13]]));
        let (key, value) = record[body_at..].split_at(key_bytes.min(record.len() - body_at));
        let sum = craq_proto::entry::checksum(key, value);
        record[head + 8..head + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let sum = crc(&[key, &record[..2], &record[6..body_at]]);
    record[2..6].copy_from_slice(&sum.to_be_bytes());
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Records of a store: each is a table, a length of the key, the key, a length of the content, and the content, which is
/// sealed unless the length says otherwise.
pub(super) fn store(bytes: &[u8]) {
    let memory = Arc::new(Memory::new());
    open(&memory).expect("an empty store opens");
    let batch: Vec<Change> =
        records(bytes).map(|(table, key, record)| Change::Put(table, key, record)).collect();
    memory.apply(batch).expect("a store in memory takes everything");
    let Ok(store) = open(&memory) else { return };
    for chain in store.chains() {
        let chain = store.chain(&chain).expect("it is there already");
        if let Ok(Meta { view: Some(stored), .. }) = chain.meta() {
            assert_eq!(stored.view.check(), Ok(()), "a store holds only views that are ones");
        }
        let mut last = None;
        let walked = chain.walk(&mut |_| {}, &mut |row| {
            assert!(last < Some((row.seq, row.index)), "the log goes back");
            last = Some((row.seq, row.index));
        });
        let read = chain.read_log(Seq::ZERO, Seq(u64::MAX), 1_000);
        assert!(walked.is_err() || read.is_ok(), "what can be walked can be read: {read:?}");
    }
    let identity = store.identity();
    drop(store);
    let again = open(&memory).expect("what opened once opens again").identity();
    assert_eq!((again.node, again.cluster), (identity.node, identity.cluster));
    assert!(again.incarnation > identity.incarnation);
}

fn open(memory: &Arc<Memory>) -> Result<Store, StoreError> {
    let store = Store::open_with(memory.clone(), || NodeId(Uuid::from_u128(2)))?;
    store.chain(&ChainId::default_chain())?;
    Ok(store)
}

fn records(mut bytes: &[u8]) -> impl Iterator<Item = (Table, Bytes, Bytes)> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (table, key_bytes, content_bytes) =
            (head[0] % 5, usize::from(head[1]), usize::from(u16::from_be_bytes([head[2], head[3]])));
        let (key, rest) = rest.split_at_checked(key_bytes)?;
        let (content, rest) = rest.split_at(rest.len().min(content_bytes & 0x7fff));
        bytes = rest;
        let mut record = content.to_vec();
        match (content_bytes & 0x8000, table) {
            (0, 1) => repair_row(key, &mut record),
            (0, _) => record = [&[1], &crc(&[key, content]).to_be_bytes()[..], content].concat(),
            _ => {}
        }
        Some((Table(u32::from(table)), Bytes::copy_from_slice(key), record.into()))
    })
}

fn record(table: u8, key: &[u8], content: &[u8]) -> Vec<u8> {
    let key_bytes = u8::try_from(key.len()).expect("a short key");
    let content_bytes = u16::try_from(content.len()).expect("a short content");
    [&[table, key_bytes][..], &content_bytes.to_be_bytes(), key, content].concat()
}

fn rows() -> Vec<(Vec<u8>, Vec<u8>)> {
    let entry = an_entry();
    entry.rows().map(|row| (row_key(row.seq, row.index).to_vec(), encode_row(&row).to_vec())).collect()
}

pub(super) fn row_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![];
    for (key, record) in rows() {
        seeds.extend([0_u8, 1].map(|repair| [&[repair], &key[..], &record].concat()));
    }
    seeds
}

pub(super) fn store_seeds() -> Vec<Vec<u8>> {
    let view = serde_json::json!({ "view": a_view(), "bound": [Uuid::from_u128(9)] }).to_string();
    let outcome = an_outcome();
    let outcome_content = [
        &outcome.client.0.as_bytes()[..],
        &outcome.number.to_be_bytes(),
        &outcome.floor.to_be_bytes(),
        &5_u64.to_be_bytes(),
    ]
    .concat();
    let directory = [
        record(0, b"format", &1_u64.to_be_bytes()),
        record(0, b"node", Uuid::from_u128(4).as_bytes()),
        record(0, b"incarnation", &7_u64.to_be_bytes()),
        record(0, b"cluster", Uuid::from_u128(5).as_bytes()),
        record(0, b"chain/\0\0\0\x01", b"other"),
    ];
    let meta = [
        record(2, b"view", view.as_bytes()),
        record(2, b"commit", &9_u64.to_be_bytes()),
        record(2, b"gc_floor", &2_u64.to_be_bytes()),
        record(2, b"forgotten_through", &3_u64.to_be_bytes()),
        record(3, &outcome.seq.0.to_be_bytes(), &outcome_content),
    ];
    let log: Vec<_> = rows().iter().map(|(key, row)| record(1, key, row)).collect();
    let all = [directory.concat(), meta.concat(), log.concat()];
    vec![all[0].clone(), all[1].clone(), all[2].clone(), all.concat()]
}
