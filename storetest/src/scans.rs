//! A scan yields each key of a range once, rising.

use std::ops::ControlFlow;

use craq_node::store::Table;

use crate::{
    Subject,
    rows::{all, put, range},
};

/// Binary keys: zeros, 0xff, prefixes of each other, put in another order than their own.
fn binary_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![
        vec![0],
        vec![0, 0],
        vec![0, 1],
        vec![1],
        b"a".to_vec(),
        b"a\0".to_vec(),
        b"a\0b".to_vec(),
        b"aa".to_vec(),
        b"ab".to_vec(),
        vec![0x7f],
        vec![0x7f, 0xff],
        vec![0x80],
        vec![0xc3, 0xa4],
        vec![0xfe, 0xff],
        vec![0xff],
        vec![0xff, 0],
        vec![0xff; 63],
        vec![0xff; 64],
    ];
    keys.sort();
    keys
}

fn filled(subject: &dyn Subject) -> std::sync::Arc<dyn craq_node::store::Backend> {
    let backend = subject.open();
    let keys = binary_keys();
    let shuffled = (0..keys.len()).map(|i| &keys[i * 7 % keys.len()]);
    backend.apply(shuffled.map(|key| put(1, key, key)).collect()).expect("apply");
    backend
}

/// Not as text, not as signed bytes, not by length.
pub fn keys_are_ordered_as_unsigned_bytes(subject: &dyn Subject) {
    let backend = filled(subject);
    let expected: Vec<_> = binary_keys().into_iter().map(|key| (key.clone(), key)).collect();
    assert_eq!(all(&*backend, 1), expected);
    let numbers: Vec<_> = (0..600_u64).rev().map(|n| put(2, (n * 1000).to_be_bytes(), b"")).collect();
    numbers.chunks(7).for_each(|batch| backend.apply(batch.to_vec()).expect("apply"));
    let found: Vec<_> = all(&*backend, 2).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, (0..600_u64).map(|n| (n * 1000).to_be_bytes().to_vec()).collect::<Vec<_>>());
}

/// Every pair of bounds: each key, each place just before and after one, no bound.
pub fn a_range_has_its_start_and_not_its_end(subject: &dyn Subject) {
    let backend = filled(subject);
    let snapshot = backend.snapshot().expect("snapshot");
    let mut bounds = binary_keys();
    bounds.extend(binary_keys().into_iter().map(|key| [&key[..], b"\0"].concat()));
    bounds.push(Vec::new());
    for from in &bounds {
        for to in bounds.iter().map(Some).chain([None]) {
            let inside = |key: &Vec<u8>| key >= from && to.is_none_or(|to| key < to);
            let expected: Vec<_> = binary_keys().into_iter().filter(inside).collect();
            let found = range(&*snapshot, 1, from, to.map(Vec::as_slice));
            let found: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
            assert_eq!(found, expected, "from {:?} to {to:?}", from.escape_ascii().to_string());
        }
    }
}

/// A range that ends where it begins, or before, has nothing in it; that is no error.
pub fn an_empty_range_has_no_keys(subject: &dyn Subject) {
    let backend = filled(subject);
    let snapshot = backend.snapshot().expect("snapshot");
    assert_eq!(range(&*snapshot, 1, b"a", Some(b"a")), []);
    assert_eq!(range(&*snapshot, 1, b"b", Some(b"a")), []);
    assert_eq!(range(&*snapshot, 1, &[], Some(&[])), []);
    assert_eq!(range(&*snapshot, 1, b"b", Some(b"c")), [], "nothing lies between");
    assert_eq!(range(&*snapshot, 9, b"b", Some(b"a")), [], "a table never written");
}

/// `Break` is obeyed, at the first key and in the middle.
pub fn a_scan_ends_when_it_is_told(subject: &dyn Subject) {
    let backend = filled(subject);
    let snapshot = backend.snapshot().expect("snapshot");
    for wanted in [1, 2, 10] {
        let mut visited = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            visited += 1;
            if visited == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        snapshot.scan(Table(1), &[], None, &mut visit).expect("scan");
        assert_eq!(visited, wanted);
    }
}
