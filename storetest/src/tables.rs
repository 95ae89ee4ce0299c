//! What is put is there: tables, batches, sizes.

use craq_node::store::{Change, Table};

use crate::{
    Subject,
    rows::{all, delete, get, put},
};

/// One never written is empty; that is no error, and neither is removing from it.
pub fn a_table_never_written_is_empty(subject: &dyn Subject) {
    let backend = subject.open();
    assert_eq!(get(&*backend, 7, b"k"), None);
    assert_eq!(all(&*backend, 7), []);
    backend.apply(vec![delete(7, b"k"), Change::Clear(Table(8))]).expect("removing nothing is no error");
    assert_eq!(get(&*backend, 7, b"k"), None);
    assert_eq!(all(&*backend, 8), []);
}

/// Put, put again, delete, put again.
pub fn what_is_put_is_found_until_it_is_deleted(subject: &dyn Subject) {
    let backend = subject.open();
    backend.apply(vec![put(1, b"a", b"1"), put(1, b"b", b"")]).expect("apply");
    assert_eq!(get(&*backend, 1, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&*backend, 1, b"b").as_deref(), Some(&b""[..]), "an empty value is a value");
    assert_eq!(get(&*backend, 1, b"c"), None);
    backend.apply(vec![put(1, b"a", b"longer than before")]).expect("apply");
    assert_eq!(get(&*backend, 1, b"a").as_deref(), Some(&b"longer than before"[..]));
    backend.apply(vec![delete(1, b"a")]).expect("apply");
    assert_eq!(get(&*backend, 1, b"a"), None);
    assert_eq!(all(&*backend, 1), [(b"b".to_vec(), vec![])]);
    backend.apply(vec![delete(1, b"a"), put(1, b"a", b"2")]).expect("apply");
    assert_eq!(get(&*backend, 1, b"a").as_deref(), Some(&b"2"[..]));
}

/// Operations of one batch take effect in their order.
pub fn the_last_change_on_a_key_wins(subject: &dyn Subject) {
    let backend = subject.open();
    backend
        .apply(vec![
            put(1, b"a", b"1"),
            put(1, b"a", b"2"),
            put(1, b"b", b"1"),
            delete(1, b"b"),
            delete(1, b"c"),
            put(1, b"c", b"1"),
            put(1, b"d", b"1"),
            put(2, b"x", b"1"),
            Change::Clear(Table(2)),
            put(2, b"y", b"1"),
        ])
        .expect("apply");
    let one = [("a", "2"), ("c", "1"), ("d", "1")];
    assert_eq!(all(&*backend, 1), one.map(|(k, v)| (k.into(), v.into())));
    assert_eq!(all(&*backend, 2), [(b"y".to_vec(), b"1".to_vec())]);
    let batch =
        vec![put(1, b"e", b"1"), Change::Clear(Table(1)), put(1, b"f", b"1"), Change::Clear(Table(1))];
    backend.apply(batch).expect("apply");
    assert_eq!(all(&*backend, 1), [], "a table that is cleared last is empty");
}

/// A batch may be empty.
pub fn an_empty_batch_changes_nothing(subject: &dyn Subject) {
    let backend = subject.open();
    backend.apply(vec![]).expect("apply");
    backend.apply(vec![put(1, b"a", b"1")]).expect("apply");
    backend.apply(vec![]).expect("apply");
    assert_eq!(all(&*backend, 1), [(b"a".to_vec(), b"1".to_vec())]);
}

/// The same key in many tables, high numbers included.
pub fn tables_are_apart(subject: &dyn Subject) {
    let backend = subject.open();
    let tables = [0, 1, 2, 10, 11, 100, 255, 256, 65_536, u32::MAX];
    backend.apply(tables.map(|table| put(table, b"k", table.to_be_bytes())).into()).expect("apply");
    for table in tables {
        assert_eq!(all(&*backend, table), [(b"k".to_vec(), table.to_be_bytes().to_vec())]);
    }
    backend.apply(vec![delete(1, b"k"), Change::Clear(Table(10))]).expect("apply");
    let left = tables.map(|table| get(&*backend, table, b"k").is_some());
    assert_eq!(left, tables.map(|table| table != 1 && table != 10));
}

/// Clearing takes all keys, however many, and only those.
pub fn a_cleared_table_is_empty_and_can_be_filled_again(subject: &dyn Subject) {
    let backend = subject.open();
    let keys = || (0..3000_u32).map(u32::to_be_bytes);
    backend.apply(keys().map(|key| put(1, key, [7; 50])).collect()).expect("apply");
    backend.apply(vec![put(2, b"k", b"stays")]).expect("apply");
    backend.apply(vec![Change::Clear(Table(1))]).expect("apply");
    assert_eq!(all(&*backend, 1), []);
    assert!(keys().all(|key| get(&*backend, 1, key).is_none()), "a cleared key is found");
    assert_eq!(get(&*backend, 2, b"k").as_deref(), Some(&b"stays"[..]));
    backend.apply(vec![put(1, b"k", b"new")]).expect("apply");
    assert_eq!(all(&*backend, 1), [(b"k".to_vec(), b"new".to_vec())]);
}

/// Up to the 4 MiB that the contract allows, around the sizes at which stores change their ways.
pub fn values_of_every_size_come_back(subject: &dyn Subject) {
    let backend = subject.open();
    let sizes = [0, 1, 255, 256, 4095, 4096, 4097, 65_535, 65_536, 1 << 20, 4 << 20];
    let value = |size: usize| (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>();
    let key = |size: usize| (size as u64).to_be_bytes();
    for size in sizes {
        backend.apply(vec![put(1, key(size), value(size))]).expect("apply");
    }
    for size in sizes {
        assert!(
            get(&*backend, 1, key(size)) == Some(value(size)),
            "a value of {size} bytes came back otherwise"
        );
    }
    let found: Vec<_> = all(&*backend, 1).into_iter().map(|(_, value)| value.len()).collect();
    assert_eq!(found, sizes);
}

/// From 1 to 64 bytes, each a prefix of the next.
pub fn keys_of_every_length_come_back(subject: &dyn Subject) {
    let backend = subject.open();
    let key = |length: usize| vec![0xab; length];
    let batch = (1..=64).rev().map(|length| put(1, key(length), [length as u8])).collect();
    backend.apply(batch).expect("apply");
    for length in 1..=64 {
        assert_eq!(get(&*backend, 1, key(length)), Some(vec![length as u8]), "key of {length} bytes");
    }
    assert_eq!(get(&*backend, 1, key(65)), None);
    assert_eq!(all(&*backend, 1), (1..=64).map(|n| (key(n), vec![n as u8])).collect::<Vec<_>>());
}

/// Ten thousand changes in one batch, not in the order of the keys.
pub fn a_batch_of_many_changes_is_done_whole(subject: &dyn Subject) {
    let backend = subject.open();
    let key = |n: u32| (n.wrapping_mul(0x9e37_79b1)).to_be_bytes();
    backend.apply((0..10_000).map(|n| put(1, key(n), n.to_be_bytes())).collect()).expect("apply");
    for n in 0..10_000 {
        assert_eq!(get(&*backend, 1, key(n)), Some(n.to_be_bytes().to_vec()), "change {n}");
    }
    assert_eq!(all(&*backend, 1).len(), 10_000);
    backend.apply((0..10_000).filter(|n| n % 3 != 0).map(|n| delete(1, key(n))).collect()).expect("apply");
    let left = all(&*backend, 1).len();
    assert_eq!(left, 3334, "every third stays");
}

/// The size is for people; it tells that something is there.
pub fn the_size_is_told(subject: &dyn Subject) {
    let backend = subject.open();
    let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8;
    backend.apply(vec![put(1, b"k", (0..1 << 20).map(noise).collect::<Vec<_>>())]).expect("apply");
    assert!(backend.size_bytes() >= 1 << 18, "{} bytes after a MiB was put", backend.size_bytes());
}
