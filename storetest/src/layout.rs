//! A chain's log, meta records and outcomes on any backend (protocol.md 2).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use craq_node::{
    replica::event::StoreWrite,
    store::{Change, Meta, StoreError, Writer, encoding::row_key},
};
use craq_proto::{Entry, Epoch, Seq, id::NUMBER_MAX};

use crate::{
    Subject,
    rows::{Chain, entry, mutation, outcome, rows_of, simple, view, walk, write_to},
};

/// A write that is not done after this time never will be.
const PATIENCE: Duration = Duration::from_secs(20);

/// Write, commit, read.
pub fn a_committed_write_is_read_back(subject: &dyn Subject) {
    let Chain { store, chain } = Chain::open(subject);
    assert_eq!(chain.meta().expect("meta"), Meta::default(), "a chain never written");
    let written = simple(1, "hello");
    let write = StoreWrite {
        entries: vec![Arc::clone(&written)],
        commit: Some(Seq(1)),
        view: Some(view(3)),
        ..StoreWrite::default()
    };
    write_to(&store, &chain, &write);
    assert_eq!(chain.get(Seq(1), 0).expect("get"), written.rows().next());
    assert_eq!(chain.snapshot().expect("snapshot").get(Seq(1), 0).expect("get"), written.rows().next());
    let meta = chain.meta().expect("meta");
    assert_eq!((meta.commit, meta.view), (Seq(1), Some(view(3))));
}

/// Neither an unknown sequence, nor an unknown index of a known one.
pub fn an_unknown_position_has_no_row(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let none = |seq, index| {
        assert_eq!(stage.chain.get(Seq(seq), index).expect("get"), None);
        assert_eq!(stage.chain.snapshot().expect("snapshot").get(Seq(seq), index).expect("get"), None);
    };
    none(1, 0);
    stage.append(&[simple(1, "a"), simple(3, "b")]);
    none(0, 0);
    none(1, 1);
    none(2, 0);
    none(u64::MAX, u32::MAX);
}

/// Several versions of a key stand beside each other until they are swept; a commit does not touch them.
pub fn dirty_versions_are_read_by_position(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let versions = [simple(1, "k"), simple(2, "k"), simple(3, "k")];
    stage.append(&versions);
    stage.write(&StoreWrite { commit: Some(Seq(2)), ..StoreWrite::default() });
    for version in &versions {
        assert_eq!(stage.chain.get(version.seq, 0).expect("get"), version.rows().next());
    }
}

/// Exactly what is held, dirty or committed, rising by sequence and index.
pub fn a_walk_yields_exactly_the_rows_in_order(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    assert_eq!(stage.rows(), []);
    let several = entry(2, (0..300).map(|i: u32| mutation(&i.to_be_bytes(), 1, Some(b"v"))).collect());
    let entries = [entry(1, vec![]), several, simple(3, "a"), simple(256, "b"), simple(65_536, "c")];
    stage.write(&StoreWrite { rows: rows_of(&entries[3..]), ..StoreWrite::default() });
    stage.append(&entries[..3]);
    assert!(stage.rows() == rows_of(&entries), "the walk differs from what was written");
}

/// Rows by sequence and index, even of one entry.
pub fn a_sweep_drops_older_versions_and_nothing_else(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let pair = entry(2, vec![mutation(b"a", 2, Some(b"2")), mutation(b"b", 1, Some(b"2"))]);
    let entries = [simple(1, "a"), pair, simple(3, "b")];
    stage.append(&entries);
    stage.write(&StoreWrite {
        remove_rows: vec![(Seq(1), 0), (Seq(2), 1), (Seq(9), 9)],
        ..StoreWrite::default()
    });
    assert_eq!(stage.chain.get(Seq(1), 0).expect("get"), None);
    assert_eq!(stage.chain.get(Seq(2), 1).expect("get"), None);
    let rows = rows_of(&entries);
    assert_eq!(stage.rows(), [rows[1].clone(), rows[3].clone()]);
}

/// A write that is repeated, as after a crash, is the same write.
pub fn writing_the_same_again_changes_nothing(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let write = StoreWrite {
        remove_rows: vec![(Seq(1), 0)],
        entries: vec![simple(2, "a"), simple(3, "b")],
        commit: Some(Seq(2)),
        gc_floor: Some(Seq(1)),
        keep_outcomes: vec![outcome(1)],
        drop_outcomes: vec![Seq(7)],
        view: Some(view(1)),
        ..StoreWrite::default()
    };
    stage.append(&[simple(1, "a")]);
    stage.write(&write);
    let (rows, meta) = (stage.rows(), stage.chain.meta().expect("meta"));
    stage.write(&write);
    stage.write(&StoreWrite::default());
    assert_eq!((stage.rows(), stage.chain.meta().expect("meta")), (rows, meta));
}

/// Truncate and write the same sequence in a later epoch; also in one piece.
pub fn a_sequence_thrown_away_can_be_written_anew(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let later = |seq, key| Arc::new(Entry { origin_epoch: Epoch(9), ..(*simple(seq, key)).clone() });
    let wide = entry(3, vec![mutation(b"x", 1, Some(b"1")), mutation(b"y", 1, Some(b"1"))]);
    stage.append(&[simple(1, "a"), simple(2, "b"), wide]);
    let suffix = vec![(Seq(2), 0), (Seq(3), 0), (Seq(3), 1)];
    stage.write(&StoreWrite { remove_rows: suffix, entries: vec![later(2, "c")], ..StoreWrite::default() });
    assert_eq!(stage.rows(), rows_of(&[simple(1, "a"), later(2, "c")]));
    stage.append(&[later(3, "d")]);
    assert_eq!(stage.rows(), rows_of(&[simple(1, "a"), later(2, "c"), later(3, "d")]));
}

/// Rows, outcomes, commit, `gc_floor` and `forgotten_through` are gone; what the same write adds is there.
pub fn a_wipe_leaves_only_the_view(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    stage.write(&StoreWrite {
        entries: (1..100).map(|seq| simple(seq, "k")).collect(),
        commit: Some(Seq(50)),
        gc_floor: Some(Seq(20)),
        forgotten_through: Some(Seq(10)),
        keep_outcomes: vec![outcome(5), outcome(6)],
        view: Some(view(2)),
        ..StoreWrite::default()
    });
    stage.write(&StoreWrite { wipe: true, ..StoreWrite::default() });
    assert_eq!(stage.rows(), []);
    assert_eq!(stage.chain.meta().expect("meta"), Meta { view: Some(view(2)), ..Meta::default() });
    let again = [simple(70, "k"), simple(71, "l")];
    stage.write(&StoreWrite {
        wipe: true,
        rows: rows_of(&again),
        commit: Some(Seq(71)),
        keep_outcomes: vec![outcome(70)],
        ..StoreWrite::default()
    });
    assert_eq!(stage.rows(), rows_of(&again));
    let meta = stage.chain.meta().expect("meta");
    assert_eq!((meta.commit, meta.outcomes), (Seq(71), vec![outcome(70)]));
}

/// By sequence, rising.
pub fn outcomes_are_kept_and_dropped(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let outcomes = |stage: &Chain| stage.chain.meta().expect("meta").outcomes;
    let kept = [300, 2, 1, 7].map(outcome).to_vec();
    stage.write(&StoreWrite { keep_outcomes: kept, ..StoreWrite::default() });
    assert_eq!(outcomes(&stage), [1, 2, 7, 300].map(outcome));
    let empty = craq_proto::Outcome { versions: vec![], ..outcome(8) };
    stage.write(&StoreWrite {
        keep_outcomes: vec![empty.clone()],
        drop_outcomes: vec![Seq(2), Seq(5), Seq(300)],
        ..StoreWrite::default()
    });
    assert_eq!(outcomes(&stage), [outcome(1), outcome(7), empty]);
}

/// Each part of one write touches what the part before it touched.
pub fn parts_of_a_write_take_effect_in_their_order(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    stage.append(&[simple(1, "a"), simple(2, "b")]);
    stage.write(&StoreWrite {
        remove_rows: vec![(Seq(2), 0)],
        entries: vec![simple(2, "c"), simple(3, "d")],
        rows: rows_of(&[simple(3, "e")]),
        keep_outcomes: vec![outcome(1), outcome(2)],
        drop_outcomes: vec![Seq(1)],
        ..StoreWrite::default()
    });
    assert_eq!(stage.rows(), rows_of(&[simple(1, "a"), simple(2, "c"), simple(3, "e")]));
    assert_eq!(stage.chain.meta().expect("meta").outcomes, [outcome(2)]);
}

/// Puts, deletions, first entries, entries that forget; empty values, binary keys, the longest key.
pub fn every_kind_of_row_comes_back(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let keys: [&[u8]; 8] = [b"\0", b"\0\0", b"a", b"a\0", b"ab", b"\xff", b"\xff\xff", &[0xff; 4096]];
    let mut mutations: Vec<_> = keys.iter().map(|key| mutation(key, 1, Some(key))).collect();
    mutations.push(mutation(b"gone", 2, None));
    mutations.push(mutation(b"empty", NUMBER_MAX, Some(b"")));
    let forget = Entry { forget_through: Seq(3), ..(*entry(3, vec![])).clone() };
    let unnamed = Entry { request: None, ..(*simple(4, "k")).clone() };
    let last = Entry { seq: Seq(NUMBER_MAX), ..(*simple(5, "end")).clone() };
    let entries = [entry(1, mutations), entry(2, vec![]), forget.into(), unnamed.into(), last.into()];
    stage.append(&entries);
    assert_eq!(stage.rows(), rows_of(&entries));
    for row in rows_of(&entries) {
        assert_eq!(stage.chain.get(row.seq, row.index).expect("get"), Some(row));
    }
}

/// The longest values that a node can be configured to take.
pub fn big_values_come_back(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    let value = |n: u32| (0..n << 20).map(|i| (i % 249) as u8).collect::<Vec<_>>();
    let entries = [1, 3].map(|n| entry(n.into(), vec![mutation(b"k", 1, Some(&value(n)))]));
    stage.append(&entries);
    assert!(stage.rows() == rows_of(&entries), "a big value has changed");
}

/// A page of a range is read at one sequence, whatever is swept and written meanwhile.
pub fn a_page_stands_still_while_rows_are_swept(subject: &dyn Subject) {
    let stage = Chain::open(subject);
    stage.append(&[simple(1, "a"), simple(2, "b")]);
    let page = stage.chain.snapshot().expect("snapshot");
    stage.write(&StoreWrite {
        remove_rows: vec![(Seq(1), 0)],
        entries: vec![simple(3, "a")],
        ..StoreWrite::default()
    });
    stage.write(&StoreWrite { wipe: true, ..StoreWrite::default() });
    assert_eq!(page.get(Seq(1), 0).expect("get"), simple(1, "a").rows().next());
    assert_eq!(page.get(Seq(2), 0).expect("get"), simple(2, "b").rows().next());
    assert_eq!(page.get(Seq(3), 0).expect("get"), None);
    assert_eq!(stage.rows(), []);
}

/// While the writer writes, any thread finds, whole, each row that is done and not yet swept.
pub fn readers_find_every_row_that_is_done(subject: &dyn Subject) {
    const ENTRIES: u64 = 400;
    const KEPT: u64 = 50;
    const WINDOW: u64 = 20;
    let Chain { store, chain } = Chain::open(subject);
    let (tell, told) = mpsc::channel();
    let tell_error = tell.clone();
    let writer = Writer::start(store.backend(), move |error| drop(tell_error.send(Err(error.to_string()))));
    let (done, swept) = (AtomicU64::new(0), AtomicU64::new(0));
    let ended = AtomicBool::new(false);
    let reader = || {
        while !ended.load(Ordering::Acquire) {
            let (newest, oldest) = (done.load(Ordering::Acquire), swept.load(Ordering::Acquire) + 1);
            for seq in [newest, (newest + oldest) / 2].into_iter().filter(|seq| *seq >= oldest) {
                let found = chain.get(Seq(seq), 0).expect("get");
                // It may have been swept between the look at the mark and the look at the row.
                if found.is_some() || seq > swept.load(Ordering::Acquire) {
                    assert_eq!(found, simple(seq, "k").rows().next(), "row {seq}");
                }
            }
        }
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(reader)).collect();
        let wait = || {
            let seq = told.recv_timeout(PATIENCE).expect("a write is never done").expect("the writer failed");
            assert_eq!(done.swap(seq, Ordering::AcqRel), seq - 1, "writes are done out of order");
        };
        for seq in 1..=ENTRIES {
            let old = seq.saturating_sub(KEPT);
            swept.store(old, Ordering::Release);
            let write = StoreWrite {
                entries: vec![simple(seq, "k")],
                remove_rows: vec![(Seq(old), 0)],
                ..StoreWrite::default()
            };
            let tell = tell.clone();
            writer.submit(&chain, write, Box::new(move || drop(tell.send(Ok(seq)))));
            if seq > WINDOW {
                wait();
            }
        }
        (0..WINDOW).for_each(|_| wait());
        ended.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
    });
    writer.close();
    assert_eq!(walk(&chain).len() as u64, KEPT);
}

/// The same sequence in two chains; one is wiped.
pub fn chains_are_apart(subject: &dyn Subject) {
    let Chain { store, chain } = Chain::open(subject);
    let other = store.chain(&"other".parse().expect("a name")).expect("chain");
    let write = |key| StoreWrite {
        entries: vec![simple(1, key)],
        commit: Some(Seq(1)),
        keep_outcomes: vec![outcome(1)],
        ..StoreWrite::default()
    };
    write_to(&store, &chain, &write("a"));
    write_to(&store, &other, &write("b"));
    assert_eq!(walk(&chain), rows_of(&[simple(1, "a")]));
    write_to(&store, &chain, &StoreWrite { wipe: true, ..StoreWrite::default() });
    assert_eq!(walk(&chain), []);
    assert_eq!(chain.meta().expect("meta"), Meta::default());
    assert_eq!(walk(&other), rows_of(&[simple(1, "b")]));
    assert_eq!(other.meta().expect("meta").outcomes, [outcome(1)]);
}

/// Every way to a row refuses it when any of its bytes has changed, and says which row it is, not what is in it.
pub fn a_changed_byte_is_never_returned(subject: &dyn Subject) {
    let Chain { store, chain } = Chain::open(subject);
    write_to(&store, &chain, &StoreWrite { entries: vec![simple(4, "secret")], ..StoreWrite::default() });
    let mut changes = Vec::new();
    chain.encode(&StoreWrite { entries: vec![simple(4, "secret")], ..StoreWrite::default() }, &mut changes);
    let Some(Change::Put(log, key, record)) = changes.pop() else { panic!("a row is put") };
    assert_eq!(key, row_key(Seq(4), 0)[..]);
    for at in 0..record.len() {
        let mut changed = record.to_vec();
        changed[at] ^= 0x40;
        store.backend().apply(vec![Change::Put(log, key.clone(), changed.into())]).expect("apply");
        let refusals = [
            chain.get(Seq(4), 0).map(|_| ()),
            chain.snapshot().and_then(|snapshot| snapshot.get(Seq(4), 0)).map(|_| ()),
            chain.walk(&mut |_| {}, &mut |_| {}).map(|_| ()),
            chain.read_log(Seq(0), Seq(9), 1000).map(|_| ()),
        ];
        for refusal in refusals {
            let Err(StoreError::Corrupt(text)) = refusal else { panic!("byte {at}: {refusal:?}") };
            assert!(text.contains("row (4, 0)") && !text.contains("secret"), "{text}");
        }
    }
}
