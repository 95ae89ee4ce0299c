//! A snapshot shows one state, however long it lives; readers and the writer never wait for each other.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use craq_node::store::{Backend, Change, Table};

use crate::{
    Subject,
    rows::{all, delete, get, put, range},
};

/// Who has not come back after this time waits for something it must not wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is put, deleted and cleared later is not seen.
pub fn a_snapshot_stands_still(subject: &dyn Subject) {
    let backend = subject.open();
    backend.apply((0..1000_u32).map(|n| put(1, n.to_be_bytes(), b"old")).collect()).expect("apply");
    backend.apply(vec![put(2, b"k", b"old")]).expect("apply");
    let before = all(&*backend, 1);
    let snapshot = backend.snapshot().expect("snapshot");
    backend.apply((500..1500_u32).map(|n| put(1, n.to_be_bytes(), b"new")).collect()).expect("apply");
    backend.apply((0..500_u32).map(|n| delete(1, n.to_be_bytes())).collect()).expect("apply");
    backend.apply(vec![Change::Clear(Table(2)), put(3, b"k", b"new")]).expect("apply");
    assert!(range(&*snapshot, 1, &[], None) == before, "a scan of a snapshot shows later batches");
    let in_snapshot = |table, key: &[u8]| snapshot.get(Table(table), key).expect("get").map(|v| v.to_vec());
    assert_eq!(in_snapshot(1, &7_u32.to_be_bytes()).as_deref(), Some(&b"old"[..]), "deleted later");
    assert_eq!(in_snapshot(1, &700_u32.to_be_bytes()).as_deref(), Some(&b"old"[..]), "changed later");
    assert_eq!(in_snapshot(1, &1200_u32.to_be_bytes()), None, "put later");
    assert_eq!(in_snapshot(2, b"k").as_deref(), Some(&b"old"[..]), "cleared later");
    assert_eq!(in_snapshot(3, b"k"), None, "a table of later");
    assert_eq!(all(&*backend, 1).len(), 1000, "the newest state goes on");
    assert_eq!(get(&*backend, 2, b"k"), None);
}

/// The newest batch is in a snapshot that is taken after it returned.
pub fn a_snapshot_has_all_that_returned_before_it(subject: &dyn Subject) {
    let backend = subject.open();
    for n in 0..50_u32 {
        backend.apply(vec![put(1, n.to_be_bytes(), n.to_be_bytes())]).expect("apply");
        let snapshot = backend.snapshot().expect("snapshot");
        assert_eq!(range(&*snapshot, 1, &[], None).len(), n as usize + 1);
        let newest = snapshot.get(Table(1), &n.to_be_bytes()).expect("get");
        assert_eq!(newest.as_deref(), Some(&n.to_be_bytes()[..]));
    }
}

/// Many live at once, and may be dropped in any order.
pub fn each_snapshot_keeps_its_own_state(subject: &dyn Subject) {
    let backend = subject.open();
    let mut held = Vec::new();
    for n in 0..40_u32 {
        let batch = vec![put(1, b"counter", n.to_be_bytes()), put(1, n.to_be_bytes(), [n as u8; 3000])];
        backend.apply(batch).expect("apply");
        held.push((n, backend.snapshot().expect("snapshot")));
        if n % 3 == 0 {
            held.remove(held.len() / 2);
        }
    }
    for (n, snapshot) in &held {
        let counter = snapshot.get(Table(1), b"counter").expect("get");
        assert_eq!(counter.as_deref(), Some(&n.to_be_bytes()[..]));
        assert_eq!(range(&**snapshot, 1, &[], None).len(), *n as usize + 2, "snapshot {n}");
    }
}

/// While one thread writes, the others see all of a batch, in all its tables, or none of it; and never go back.
pub fn a_reader_sees_a_batch_whole_or_not_at_all(subject: &dyn Subject) {
    const KEYS: u32 = 20;
    const ROUNDS: u32 = 150;
    let backend = subject.open();
    let ended = AtomicBool::new(false);
    let batch = |n: u32| (0..KEYS).map(move |key| put(key % 2, key.to_be_bytes(), n.to_be_bytes())).collect();
    backend.apply(batch(0)).expect("apply");
    let reader = || {
        let mut last = 0;
        while !ended.load(Ordering::Relaxed) {
            let newest = number(&get(&*backend, 0, 0_u32.to_be_bytes()).expect("it was put"));
            assert!(newest >= last, "a get found {newest} after {last} had been read");
            let snapshot = backend.snapshot().expect("snapshot");
            let tables = [0, 1].map(|table| range(&*snapshot, table, &[], None));
            let seen: Vec<_> = tables.iter().flatten().map(|(_, value)| number(value)).collect();
            assert_eq!(seen, vec![seen[0]; KEYS as usize], "a batch was seen in part");
            assert!(seen[0] >= newest, "a snapshot is older than a get before it");
            last = seen[0];
        }
        last
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(reader)).collect();
        for n in 1..=ROUNDS {
            backend.apply(batch(n)).expect("apply");
        }
        ended.store(true, Ordering::Relaxed);
        for reader in readers {
            let last = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            assert!(last <= ROUNDS);
        }
    });
}

fn number(value: &[u8]) -> u32 {
    u32::from_be_bytes(value.try_into().expect("four bytes"))
}

/// A snapshot that is held, or a scan that stands still, keeps neither a batch nor another reader from being done.
pub fn readers_and_the_writer_do_not_wait_for_each_other(subject: &dyn Subject) {
    let backend = subject.open();
    backend.apply(vec![put(1, b"a", b"1"), put(1, b"b", b"1")]).expect("apply");
    let held = backend.snapshot().expect("snapshot");
    in_time(&backend, "a batch, while a snapshot is held", |backend| {
        backend.apply(vec![put(1, b"a", b"2")]).expect("apply");
    });
    let mut visited = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        visited += 1;
        in_time(&backend, "a batch, while a scan is under way", |backend| {
            backend.apply(vec![put(1, b"c", b"1"), delete(1, b"b")]).expect("apply");
        });
        in_time(&backend, "a get, while a scan is under way", |backend| {
            assert_eq!(get(backend, 1, b"b"), None);
        });
        ControlFlow::Continue(())
    };
    held.scan(Table(1), &[], None, &mut visit).expect("scan");
    assert_eq!(visited, 2, "the scan shows the snapshot's state");
}

/// Does this on a thread of its own, since what hangs cannot be called back.
fn in_time(backend: &Arc<dyn Backend>, what: &str, work: impl FnOnce(&dyn Backend) + Send + 'static) {
    let (done, waits) = mpsc::channel();
    let backend = Arc::clone(backend);
    let worker = thread::spawn(move || {
        work(&*backend);
        drop(backend);
        let _ = done.send(());
    });
    match waits.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}, waits for a reader"),
        _ => worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}
