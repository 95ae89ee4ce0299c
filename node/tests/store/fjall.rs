//! What does fjall's directory promise beyond the contract: to an operator, after a loss of power, when it is large?

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use craq_node::store::{Backend, Change, Fjall, Redb, StoreError, Table};
use craq_storetest::{
    numbered,
    rows::{all, get, put},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::CACHE_BYTES;

fn open(path: &Path) -> Result<Fjall, StoreError> {
    Fjall::open(path, CACHE_BYTES)
}

/// The refusal's text, without the path.
fn text(opened: Result<impl std::fmt::Debug, StoreError>, path: &Path) -> String {
    match opened {
        Err(error @ StoreError::Open(_)) => error.to_string().replace(&path.display().to_string(), "PATH"),
        other => panic!("{other:?}"),
    }
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    (directory, path)
}

#[test]
fn neither_store_opens_what_the_other_one_has_made() {
    let (_directory, path) = directory();
    open(&path).expect("make").apply(numbered::batch(1)).expect("apply");
    let refused = text(Redb::open(&path, CACHE_BYTES), &path);
    assert_eq!(
        refused,
        "cannot open the store: PATH is a store of fjall: open it with --store fjall, or name another --file"
    );
    assert_eq!(numbered::check(&open(&path).expect("open")), 1);
    let file = path.with_extension("redb");
    Redb::open(&file, CACHE_BYTES).expect("make").apply(numbered::batch(1)).expect("apply");
    assert_eq!(
        text(open(&file), &file),
        "cannot open the store: PATH is a store of redb: open it with --store redb, or name another --file"
    );
    assert_eq!(numbered::check(&Redb::open(&file, CACHE_BYTES).expect("open")), 1);
}

#[test]
fn a_store_is_open_once() {
    let (_directory, path) = directory();
    let first = open(&path).expect("open");
    let refused = text(open(&path), &path);
    assert_eq!(refused, "cannot open the store: PATH is open already, in this process or in another one");
    first.apply(numbered::batch(1)).expect("the first goes on");
    drop(first);
    assert_eq!(numbered::check(&open(&path).expect("open")), 1);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let (directory, path) = directory();
    let missing = path.join("below");
    assert_eq!(text(open(&missing), &missing), "cannot open the store: the directory of PATH does not exist");
    fs::write(&path, b"x").expect("write");
    assert_eq!(
        text(open(&path), &path),
        "cannot open the store: PATH is a file; a store of fjall is a directory"
    );
    let refused = text(open(directory.path()), directory.path());
    assert_eq!(refused, "cannot open the store: PATH is a directory that is no store of craq");
    assert_eq!(fs::read(&path).expect("read"), b"x");
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1);
}

#[test]
fn a_store_of_a_later_layout_is_refused() {
    let (_directory, path) = directory();
    drop(open(&path).expect("make"));
    fs::write(path.join("craq-store"), "fjall 2\n").expect("write");
    assert_eq!(
        text(open(&path), &path),
        r#"cannot open the store: PATH has format "fjall 2"; this version of craq reads "fjall 1""#
    );
}

#[test]
fn a_crash_while_a_store_is_created_does_no_harm() {
    let (_directory, path) = directory();
    drop(open(&path).expect("make"));
    // All is there but the mark's text, which is written last.
    fs::write(path.join("craq-store"), "").expect("write");
    fs::remove_file(path.join("version")).expect("remove");
    let store = open(&path).expect("make anew");
    store.apply(numbered::batch(1)).expect("apply");
    drop(store);
    assert_eq!(numbered::check(&open(&path).expect("open")), 1);
    drop(fs::remove_dir_all(&path));
    fs::create_dir(&path).expect("create");
    drop(open(&path).expect("an empty directory will do"));
}

/// The newest journal, and where its last batch ends.
fn journal(path: &Path) -> (PathBuf, u64) {
    let names = fs::read_dir(path).expect("read").map(|entry| entry.expect("entry").path());
    let journal =
        names.filter(|name| name.extension().is_some_and(|end| end == "jnl")).max().expect("a journal");
    let bytes = fs::read(&journal).expect("read");
    let end = used(&bytes);
    (journal, end as u64)
}

/// How long it is without the blocks of zeros at its end.
fn used(bytes: &[u8]) -> usize {
    let mut blocks = bytes.chunks(4096).enumerate();
    let last = blocks.rfind(|(_, block)| **block != [0; 4096][..block.len()]);
    last.map_or(0, |(number, block)| {
        number * 4096 + block.iter().rposition(|byte| *byte != 0).expect("not all zeros") + 1
    })
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).expect("open");
    file.seek(SeekFrom::Start(at)).expect("seek");
    file.write_all(bytes).expect("write");
}

/// A copy of the store as it is on the disk, without what its process holds in memory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("create");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            // A journal is long and mostly zeros.
            let bytes = fs::read(entry.path()).expect("read");
            let end = used(&bytes);
            fs::write(&target, &bytes[..end]).expect("write");
            let file = OpenOptions::new().write(true).open(&target).expect("open");
            file.set_len(bytes.len() as u64).expect("set the length");
        }
    }
}

#[test]
fn a_batch_that_the_power_failed_amid_is_gone_and_the_others_are_there() {
    let (directory, path) = directory();
    let store = open(&path).expect("make");
    (1..=9).for_each(|n| store.apply(numbered::batch(n)).expect("apply"));
    let (_, before) = journal(&path);
    store.apply(numbered::batch(10)).expect("apply");
    for seed in 0..20 {
        let left = directory.path().join(format!("left-{seed}"));
        copy(&path, &left);
        let (journal, end) = journal(&left);
        let mut random = StdRng::seed_from_u64(seed);
        let sectors = before / 512..=end / 512;
        let mut lost = 0;
        for sector in sectors {
            let (from, to) = ((sector * 512).max(before), ((sector + 1) * 512).min(end));
            if random.random_range(0..2) == 0 && from < to {
                overwrite(&journal, from, &vec![0; usize::try_from(to - from).expect("a sector")]);
                lost += 1;
            }
        }
        let store = open(&left).unwrap_or_else(|error| panic!("{seed}: {error}"));
        assert_eq!(
            numbered::check(&store),
            if lost == 0 { 10 } else { 9 },
            "{seed}: {lost} sectors were lost"
        );
        store.apply(numbered::batch(10 + u64::from(lost == 0))).expect("apply");
        drop(store);
        numbered::check(&open(&left).expect("open again"));
        fs::remove_dir_all(left).expect("remove");
    }
}

#[test]
fn a_damaged_journal_is_refused_and_loses_nothing_in_silence() {
    let (_directory, path) = directory();
    let store = open(&path).expect("make");
    (1..=9).for_each(|n| store.apply(numbered::batch(n)).expect("apply"));
    drop(store);
    let (journal, end) = journal(&path);
    let whole = fs::read(&journal).expect("read");
    for at in (0..end - 8000).step_by(701) {
        let at = usize::try_from(at).expect("an offset");
        overwrite(&journal, at as u64, &[whole[at] ^ 0x20]);
        let refused = open(&path).expect_err("a store with a damaged journal opened");
        assert!(matches!(refused, StoreError::Corrupt(_)), "byte {at}: {refused}");
        overwrite(&journal, at as u64, &[whole[at]]);
    }
    assert_eq!(numbered::check(&open(&path).expect("open")), 9);
}

#[test]
fn a_store_that_outgrows_memory_and_journal_keeps_everything() {
    const BATCHES: u32 = 120;
    const VALUE_BYTES: usize = 1 << 20;
    let (_directory, path) = directory();
    let value = |n: u32| {
        let mut random = StdRng::seed_from_u64(n.into());
        (0..VALUE_BYTES / 8).flat_map(|_| random.random::<u64>().to_le_bytes()).collect::<Vec<_>>()
    };
    let key = |n: u32| n.to_be_bytes();
    let store = open(&path).expect("make");
    let early = store.snapshot().expect("snapshot");
    for n in 0..BATCHES {
        let mut batch = vec![put(1, key(n), value(n)), put(2, b"last", key(n))];
        // Every other row is swept a little later.
        if n % 2 == 1 && n > 10 {
            batch.push(craq_storetest::rows::delete(1, key(n - 10)));
        }
        store.apply(batch).expect("apply");
    }
    let is_there = |n: u32| n.is_multiple_of(2) || n + 10 >= BATCHES;
    let check = |store: &Fjall| {
        for n in 0..BATCHES {
            assert!(get(store, 1, key(n)) == is_there(n).then(|| value(n)), "row {n}");
        }
        assert_eq!(all(store, 1).len() as u32, (0..BATCHES).filter(|n| is_there(*n)).count() as u32);
    };
    check(&store);
    assert_eq!(early.get(Table(2), b"last").expect("get"), None, "an old snapshot has changed");
    drop(early);
    drop(store);
    let store = open(&path).expect("open");
    check(&store);
    assert!(fs::read_dir(path.join("keyspaces/1/tables")).expect("read").count() > 1, "nothing was flushed");
    store.apply(vec![Change::Clear(Table(1))]).expect("clear");
    assert_eq!(all(&store, 1), []);
    drop(store);
    assert_eq!(all(&open(&path).expect("open"), 1), []);
}

#[test]
fn what_was_cleared_is_removed_piece_by_piece() {
    const ROWS: u32 = 3000;
    let (_directory, path) = directory();
    let store = open(&path).expect("make");
    store.apply((0..ROWS).map(|n| put(1, n.to_be_bytes(), b"old")).collect()).expect("apply");
    store.apply(vec![Change::Clear(Table(1)), put(1, b"new", b"new")]).expect("clear");
    drop(store);
    // It goes on after a restart, and is done after a few batches.
    let store = open(&path).expect("open");
    assert!(format!("{store:?}").contains("garbage: 1"), "{store:?}");
    (1..10).for_each(|n| store.apply(vec![put(2, b"n", [n])]).expect("apply"));
    assert!(format!("{store:?}").contains("garbage: 0"), "{store:?}");
    assert_eq!(all(&store, 1), [(b"new".to_vec(), b"new".to_vec())]);
    drop(store);
    let store = open(&path).expect("open");
    assert!(format!("{store:?}").contains("garbage: 0"), "{store:?}");
    assert_eq!(all(&store, 1), [(b"new".to_vec(), b"new".to_vec())]);
}
