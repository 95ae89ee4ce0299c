//! Makers of what the cases write, and short names for the ways to read it back.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use craq_node::{
    replica::event::{StoreWrite, StoredView},
    store::{Backend, ChainStore, Change, Snapshot, Store, Table},
};
use craq_proto::{
    ChainId, ClientId, Entry, Epoch, Incarnation, Key, Member, Mutation, NodeId, Op, Outcome, RequestId, Row,
    Seq, Value, Version, View, entry as checksums,
};

use crate::Subject;

/// A change that puts a key.
pub fn put(table: u32, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Change {
    Change::Put(Table(table), copy(key), copy(value))
}

/// A change that deletes a key.
pub fn delete(table: u32, key: impl AsRef<[u8]>) -> Change {
    Change::Delete(Table(table), copy(key))
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// A key's value, as a vector.
pub fn get(backend: &dyn Backend, table: u32, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    backend.get(Table(table), key.as_ref()).expect("get").map(|value| value.to_vec())
}

/// Keys and values of a range, in the order of the scan.
pub fn range(snapshot: &dyn Snapshot, table: u32, from: &[u8], to: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    snapshot.scan(Table(table), from, to, &mut visit).expect("scan");
    pairs
}

/// All keys and values of a table in the newest state.
pub fn all(backend: &dyn Backend, table: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    range(&*backend.snapshot().expect("snapshot"), table, &[], None)
}

/// A mutation; without a value a deletion.
#[must_use]
pub fn mutation(key: &[u8], version: u64, value: Option<&[u8]>) -> Mutation {
    let value = value.map(|value| Value::new(copy(value), usize::MAX).expect("a legal value"));
    let checksum = checksums::checksum(key, value.as_ref().map_or(&[], |value| value.as_bytes()));
    let op = value.map_or(Op::Delete, Op::Put);
    Mutation { key: Key::new(copy(key)).expect("a legal key"), version: Version(version), op, checksum }
}

/// An entry with these mutations, whose request carries its sequence as number.
#[must_use]
pub fn entry(seq: u64, mutations: Vec<Mutation>) -> Arc<Entry> {
    let client = ClientId(uuid(0xc11e, seq % 3));
    let request = RequestId { client, number: seq, floor: seq / 2, born: Seq(seq / 3), retry: false };
    let request = (!mutations.is_empty()).then_some(request);
    Arc::new(Entry { seq: Seq(seq), origin_epoch: Epoch(2), request, mutations, forget_through: Seq::ZERO })
}

/// An entry that puts one key; version and value follow from the sequence.
#[must_use]
pub fn simple(seq: u64, key: &str) -> Arc<Entry> {
    entry(seq, vec![mutation(key.as_bytes(), seq, Some(format!("{key}@{seq}").as_bytes()))])
}

/// The rows of these entries.
#[must_use]
pub fn rows_of(entries: &[Arc<Entry>]) -> Vec<Row> {
    entries.iter().flat_map(|entry| entry.rows().collect::<Vec<_>>()).collect()
}

/// An outcome.
#[must_use]
pub fn outcome(seq: u64) -> Outcome {
    let client = ClientId(uuid(0xc11e, seq % 3));
    Outcome { client, number: seq, floor: 1, seq: Seq(seq), versions: vec![Version(seq), Version(1)] }
}

/// A view of one member, with one node that it is still bound to.
#[must_use]
pub fn view(epoch: u64) -> Box<StoredView> {
    let node = NodeId(uuid(0x0de, 1));
    let member =
        Member { node, incarnation: Incarnation(1), in_sync: true, address: "localhost:1".to_owned() };
    let view = View {
        chain: ChainId::default_chain(),
        epoch: Epoch(epoch),
        members: vec![member],
        learners: Vec::new(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
        reason: format!("epoch {epoch}"),
    };
    Box::new(StoredView { view, bound: vec![NodeId(uuid(0x0de, 2))] })
}

fn uuid(kind: u64, number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u64_pair(kind, number)
}

/// A store with one chain in it.
pub struct Chain {
    /// The store.
    pub store: Store,
    /// Its chain `default`.
    pub chain: ChainStore,
}

impl Chain {
    /// Opens the subject as a store.
    pub fn open(subject: &dyn Subject) -> Self {
        let store = Store::open(subject.open()).expect("open");
        let chain = store.chain(&ChainId::default_chain()).expect("chain");
        Self { store, chain }
    }

    /// Writes, as the writer does.
    pub fn write(&self, write: &StoreWrite) {
        write_to(&self.store, &self.chain, write);
    }

    /// Adds entries.
    pub fn append(&self, entries: &[Arc<Entry>]) {
        self.write(&StoreWrite { entries: entries.to_vec(), ..StoreWrite::default() });
    }

    /// The whole log.
    pub fn rows(&self) -> Vec<Row> {
        walk(&self.chain)
    }
}

/// Writes to a chain, as the writer does.
pub fn write_to(store: &Store, chain: &ChainStore, write: &StoreWrite) {
    let mut batch = Vec::new();
    chain.encode(write, &mut batch);
    store.backend().apply(batch).expect("apply");
}

/// The whole log of a chain.
pub fn walk(chain: &ChainStore) -> Vec<Row> {
    let mut rows = Vec::new();
    let count = chain.walk(&mut |_| {}, &mut |row| rows.push(row)).expect("walk");
    assert_eq!(count, rows.len() as u64, "a walk counts its rows");
    rows
}
