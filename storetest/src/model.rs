//! Random operations, compared with a map after each one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use craq_node::{
    replica::event::StoreWrite,
    store::{Backend, Batch, Change, Meta, Snapshot, Table},
};
use craq_proto::{Row, Seq};
use proptest::{
    collection::{btree_set, vec},
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    Subject,
    rows::{Chain, delete, entry, mutation, outcome, put, range, view},
};

const TABLES: u32 = 3;

/// Runs a property on random values. Each run begins with a store that an earlier one has used.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        property(value);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Batch),
    /// A snapshot is taken, and looked at again after every later step.
    Hold,
    Reopen,
}

type Map = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

fn change() -> impl Strategy<Value = Change> {
    let byte = prop::sample::select(vec![0, 1, b'a', 0x7f, 0x80, 0xff]);
    let key = vec(byte, 1..4);
    let value = prop_oneof![9 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 5000)];
    prop_oneof![
        12 => (0..TABLES, key.clone(), value).prop_map(|(table, key, value)| put(table, key, value)),
        5 => (0..TABLES, key).prop_map(|(table, key)| delete(table, key)),
        1 => (0..TABLES).prop_map(|table| Change::Clear(Table(table))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => vec(change(), 0..12).prop_map(Step::Apply),
        1 => Just(Step::Hold),
        1 => Just(Step::Reopen),
    ]
}

/// Batches on three tables, snapshots held across them, reopening in between.
pub fn random_batches_match_a_map(subject: &dyn Subject) {
    check(24, vec(step(), 1..25), |steps| {
        let mut backend = subject.open();
        backend.apply((0..TABLES).map(|table| Change::Clear(Table(table))).collect()).expect("apply");
        let mut map = Map::new();
        let mut held: Vec<(Box<dyn Snapshot>, Map)> = Vec::new();
        for step in steps {
            match step {
                Step::Apply(batch) => {
                    batch.iter().for_each(|change| change_map(&mut map, change));
                    backend.apply(batch).expect("apply");
                }
                Step::Hold => held.push((backend.snapshot().expect("snapshot"), map.clone())),
                Step::Reopen if backend.is_volatile() => {}
                Step::Reopen => {
                    held.clear();
                    drop(backend);
                    backend = subject.open();
                }
            }
            compare(&*backend.snapshot().expect("snapshot"), &map);
            compare_gets(&*backend, &map);
            held.iter().for_each(|(snapshot, map)| compare(&**snapshot, map));
        }
    });
}

fn change_map(map: &mut Map, change: &Change) {
    match change {
        Change::Put(table, key, value) => drop(map.insert((table.0, key.to_vec()), value.to_vec())),
        Change::Delete(table, key) => drop(map.remove(&(table.0, key.to_vec()))),
        Change::Clear(table) => map.retain(|(of, _), _| *of != table.0),
    }
}

fn compare(snapshot: &dyn Snapshot, map: &Map) {
    for table in 0..TABLES {
        let of_table = map.iter().filter(|((of, _), _)| *of == table);
        let expected: Vec<_> = of_table.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        assert_eq!(range(snapshot, table, &[], None), expected, "table {table}");
        let (from, to) = (&b"\x01"[..], &b"a\x80"[..]);
        let inside = |key: &[u8]| key >= from && key < to;
        let expected: Vec<_> = expected.into_iter().filter(|(key, _)| inside(key)).collect();
        assert_eq!(range(snapshot, table, from, Some(to)), expected, "range of table {table}");
    }
}

fn compare_gets(backend: &dyn Backend, map: &Map) {
    let keys: BTreeSet<_> = map.keys().map(|(_, key)| key.clone()).chain([vec![b'a']]).collect();
    for (table, key) in (0..TABLES).flat_map(|table| keys.iter().map(move |key| (table, key.clone()))) {
        let found = backend.get(Table(table), &key).expect("get");
        assert_eq!(found.map(|value| value.to_vec()), map.get(&(table, key)).cloned());
    }
}

/// What a chain's store should hold.
#[derive(Default)]
struct ChainModel {
    rows: BTreeMap<(Seq, u32), Row>,
    meta: Meta,
}

impl ChainModel {
    fn write(&mut self, write: &StoreWrite) {
        if write.wipe {
            *self = Self { meta: Meta { view: self.meta.view.take(), ..Meta::default() }, ..Self::default() };
        }
        self.rows.retain(|position, _| !write.remove_rows.contains(position));
        let new = write.entries.iter().flat_map(|entry| entry.rows().collect::<Vec<_>>());
        for row in new.chain(write.rows.iter().cloned()) {
            self.rows.insert((row.seq, row.index), row);
        }
        let meta = &mut self.meta;
        meta.commit = write.commit.unwrap_or(meta.commit);
        meta.gc_floor = write.gc_floor.unwrap_or(meta.gc_floor);
        meta.forgotten_through = write.forgotten_through.unwrap_or(meta.forgotten_through);
        for outcome in &write.keep_outcomes {
            meta.outcomes.retain(|other| other.seq != outcome.seq);
            meta.outcomes.push(outcome.clone());
        }
        meta.outcomes.retain(|outcome| !write.drop_outcomes.contains(&outcome.seq));
        meta.outcomes.sort_by_key(|outcome| outcome.seq);
        meta.view = write.view.clone().or_else(|| meta.view.take());
    }
}

fn store_write() -> impl Strategy<Value = StoreWrite> {
    let seqs = || btree_set(1..20_u64, 0..5);
    let number = || proptest::option::weighted(0.2, (0..20_u64).prop_map(Seq));
    let body =
        (proptest::bool::weighted(0.05), seqs(), vec((1..20_u64, 0..3_usize, any::<u8>()), 0..4), seqs());
    let meta = (number(), number(), number(), seqs(), seqs(), proptest::option::weighted(0.2, 1..9_u64));
    (body, meta).prop_map(
        |((wipe, removed, entries, rows), (commit, gc_floor, forgotten, keep, drop, epoch))| {
            let mutations =
                |width: usize, salt: u8| (0..width).map(|i| mutation(&[i as u8], 1, Some(&[salt]))).collect();
            StoreWrite {
                wipe,
                remove_rows: removed.iter().flat_map(|seq| (0..2).map(|index| (Seq(*seq), index))).collect(),
                entries: entries
                    .into_iter()
                    .map(|(seq, width, salt)| entry(seq, mutations(width, salt)))
                    .collect(),
                rows: rows
                    .iter()
                    .flat_map(|seq| entry(*seq, mutations(2, 0)).rows().skip(1).collect::<Vec<_>>())
                    .collect(),
                commit,
                gc_floor,
                forgotten_through: forgotten,
                keep_outcomes: keep.into_iter().map(outcome).collect(),
                drop_outcomes: drop.into_iter().map(Seq).collect(),
                view: epoch.map(view),
            }
        },
    )
}

/// Whole store writes, as a replica orders them, on the layout of a chain.
pub fn random_store_writes_match_a_map(subject: &dyn Subject) {
    check(24, vec((store_write(), proptest::bool::weighted(0.1)), 1..20), |steps| {
        let mut stage = Chain::open(subject);
        stage.write(&StoreWrite { wipe: true, view: Some(view(1)), ..StoreWrite::default() });
        let mut model =
            ChainModel { meta: Meta { view: Some(view(1)), ..Meta::default() }, ..ChainModel::default() };
        for (write, reopen) in steps {
            model.write(&write);
            stage.write(&write);
            if reopen && !stage.store.is_volatile() {
                drop(stage);
                stage = Chain::open(subject);
            }
            assert_eq!(stage.chain.meta().expect("meta"), model.meta);
            assert_eq!(stage.rows(), model.rows.values().cloned().collect::<Vec<_>>());
        }
    });
}
