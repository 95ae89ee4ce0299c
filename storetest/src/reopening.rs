//! What was applied is there when the store is opened again. Volatile backends are exempt.

use std::sync::Arc;

use craq_node::{
    replica::event::StoreWrite,
    store::{Backend, Change, Table},
};
use craq_proto::{ChainId, ClusterId, Seq};

use crate::{
    Subject,
    rows::{Chain, all, delete, get, outcome, put, rows_of, simple, view},
};

/// The backend, if it outlives the process.
fn durable(subject: &dyn Subject) -> Option<Arc<dyn Backend>> {
    Some(subject.open()).filter(|backend| !backend.is_volatile())
}

/// Batch by batch: each is the newest one once.
pub fn what_was_applied_is_there_again(subject: &dyn Subject) {
    let Some(mut backend) = durable(subject) else { return };
    for n in 0..10_u32 {
        let found: Vec<_> = (0..n).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 100])).collect();
        assert_eq!(all(&*backend, 1), found, "after {n} batches");
        backend.apply(vec![put(1, n.to_be_bytes(), [n as u8; 100]), put(2, b"n", [n as u8])]).expect("apply");
        drop(backend);
        backend = subject.open();
        assert_eq!(get(&*backend, 2, b"n"), Some(vec![n as u8]), "the newest batch is gone");
    }
}

/// Nothing rises again.
pub fn what_was_removed_stays_removed(subject: &dyn Subject) {
    let Some(backend) = durable(subject) else { return };
    backend.apply((0..100_u8).map(|n| put(1 + u32::from(n % 2), [n], [n])).collect()).expect("apply");
    backend.apply(vec![delete(1, [0]), Change::Clear(Table(2)), put(2, b"new", b"")]).expect("apply");
    drop(backend);
    let backend = subject.open();
    assert_eq!(get(&*backend, 1, [0]), None);
    assert_eq!(all(&*backend, 1).len(), 49);
    assert_eq!(all(&*backend, 2), [(b"new".to_vec(), vec![])]);
}

/// As they were.
pub fn big_values_and_binary_keys_are_there_again(subject: &dyn Subject) {
    let Some(backend) = durable(subject) else { return };
    let big: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 253) as u8).collect();
    backend
        .apply(vec![put(1, [0], &big), put(1, [0xff; 64], b""), put(1, [0, 0], &big[..5000])])
        .expect("apply");
    drop(backend);
    let backend = subject.open();
    let expected = [(vec![0], big.clone()), (vec![0, 0], big[..5000].to_vec()), (vec![0xff; 64], vec![])];
    assert!(all(&*backend, 1) == expected, "keys or values have changed");
}

/// Each with its own keys.
pub fn tables_of_every_number_are_there_again(subject: &dyn Subject) {
    let Some(backend) = durable(subject) else { return };
    let tables = [0, 1, 10, 255, 256, 65_536, u32::MAX];
    backend.apply(tables.map(|table| put(table, b"k", table.to_be_bytes())).into()).expect("apply");
    drop(backend);
    let backend = subject.open();
    for table in tables {
        assert_eq!(all(&*backend, table), [(b"k".to_vec(), table.to_be_bytes().to_vec())], "table {table}");
    }
}

/// The whole of a node's store: who it is, its chains, their logs, meta records and outcomes.
pub fn a_node_and_its_chains_are_there_again(subject: &dyn Subject) {
    if durable(subject).is_none() {
        return;
    }
    let first = Chain::open(subject);
    let other: ChainId = "other".parse().expect("a name");
    first.store.chain(&other).expect("chain");
    let cluster = ClusterId(uuid::Uuid::from_u128(5));
    first.store.set_cluster(cluster).expect("set");
    let entries = [simple(1, "a"), simple(2, "b"), simple(3, "a")];
    first.write(&StoreWrite {
        entries: entries.to_vec(),
        commit: Some(Seq(2)),
        gc_floor: Some(Seq(1)),
        forgotten_through: Some(Seq(1)),
        keep_outcomes: vec![outcome(2)],
        view: Some(view(4)),
        ..StoreWrite::default()
    });
    let (identity, meta) = (first.store.identity(), first.chain.meta().expect("meta"));
    drop(first);
    let second = Chain::open(subject);
    assert_eq!(second.store.identity().node, identity.node);
    assert_eq!(second.store.identity().incarnation, identity.incarnation.next());
    assert_eq!(second.store.identity().cluster, Some(cluster));
    assert_eq!(second.store.chains(), [ChainId::default_chain(), other]);
    assert_eq!(second.rows(), rows_of(&entries));
    assert_eq!(second.chain.meta().expect("meta"), meta);
    assert_eq!((meta.commit, meta.gc_floor, meta.forgotten_through), (Seq(2), Seq(1), Seq(1)));
    assert_eq!((meta.outcomes, meta.view), (vec![outcome(2)], Some(view(4))));
}
