//! What does an operator read when a store cannot be opened?

use std::{fs, path::Path};

use craq_node::store::{Backend, Redb, StoreError};
use craq_storetest::numbered;

use crate::CACHE_BYTES;

fn open(path: &Path) -> Result<Redb, StoreError> {
    Redb::open(path, CACHE_BYTES)
}

/// The refusal's text, without the path.
fn refusal(path: &Path) -> String {
    match open(path) {
        Err(error @ StoreError::Open(_)) => error.to_string().replace(&path.display().to_string(), "PATH"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = refusal(&directory.path().join("missing").join("store"));
    assert_eq!(text, "cannot open the store: the directory of PATH does not exist");
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    for content in [&b"#!/bin/sh\necho a script, longer than any header\n"[..], b"x", b""] {
        fs::write(&path, content).expect("write");
        assert!(
            refusal(&path).starts_with("cannot open the store: PATH is not a redb file"),
            "{}",
            refusal(&path)
        );
        assert_eq!(fs::read(&path).expect("read"), content);
    }
}

#[test]
fn a_store_is_open_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let first = open(&path).expect("open");
    let text = "cannot open the store: PATH is open already, in this process or in another one";
    assert_eq!(refusal(&path), text);
    first.apply(numbered::batch(1)).expect("the first goes on");
    drop(first);
    assert_eq!(numbered::check(&open(&path).expect("open")), 1);
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(refusal(directory.path()).starts_with("cannot open the store: PATH: "));
}

#[test]
fn a_crash_while_a_store_is_created_does_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let unfinished = directory.path().join("store.new");
    fs::write(&unfinished, vec![0; 100_000]).expect("write");
    open(&path).expect("create").apply(numbered::batch(1)).expect("apply");
    assert!(!unfinished.exists());
    // Left from a creation that lost a race: it is not looked at any more.
    fs::write(&unfinished, b"junk").expect("write");
    assert_eq!(numbered::check(&open(&path).expect("open")), 1);
}

#[test]
fn a_store_that_is_cut_off_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let redb = open(&path).expect("create");
    (1..50).for_each(|n| redb.apply(numbered::batch(n)).expect("apply"));
    drop(redb);
    let whole = fs::read(&path).expect("read");
    for kept in [100, 5000, whole.len() / 2] {
        fs::write(&path, &whole[..kept]).expect("write");
        let opened = std::panic::catch_unwind(|| open(&path).map(drop));
        assert!(!matches!(opened, Ok(Ok(()))), "{kept} bytes of {} were taken for a store", whole.len());
    }
}
