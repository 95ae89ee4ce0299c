//! Stores, logs and views for the tests.

use std::{path::Path, sync::Arc, time::Duration};

use craq_log::{Holder, Location, Log, Store, Written, faulty::Faulty};
use craq_proto::{Epoch, HolderId, Incarnation, Member, NodeId, View};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) fn directory(path: &Path) -> Store {
    Location::Directory(path.to_owned()).open(None, Duration::from_secs(5)).unwrap()
}

pub(crate) fn memory() -> Store {
    Location::Memory.open(None, Duration::from_secs(5)).unwrap()
}

pub(crate) fn faulty() -> (Arc<Faulty>, Store) {
    let faulty = Arc::new(Faulty::default());
    let store = Store::new(Arc::clone(&faulty) as Arc<_>, Duration::from_secs(5));
    (faulty, store)
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

pub(crate) async fn open(store: &Store, author: u128) -> Log {
    let id = HolderId(Uuid::from_u128(author));
    let me = Holder { id, address: format!("localhost:{author}") };
    Log::open(store.clone(), me, Duration::from_secs(2)).await.unwrap()
}

pub(crate) fn view(chain: &str, epoch: u64, author: u128) -> View {
    let member = Member {
        node: NodeId(Uuid::from_u128(author)),
        incarnation: Incarnation(1),
        in_sync: true,
        address: "localhost:1".to_owned(),
    };
    View {
        chain: chain.parse().unwrap(),
        epoch: Epoch(epoch),
        members: vec![member],
        learners: Vec::new(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
        reason: format!("by {author}"),
    }
}

pub(crate) const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) async fn renew(log: &mut Log, times: usize) {
    for _ in 0..times {
        assert_eq!(log.renew(soon()).await.unwrap(), Written::Won);
    }
}

pub(crate) async fn prune_all(log: &mut Log) {
    while log.prune(log.seen().records, MONTH).await.unwrap() > 0 {}
}

/// Who slept while its number was taken, and removed again, writes a view under it: its log, and what it was told.
pub(crate) async fn sleeper() -> (Log, Written) {
    let (_, of_log) = faulty();
    let (mut old, mut new) = (open(&of_log, 1).await, open(&of_log, 2).await);
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    let mut newer = open(&of_log, 3).await;
    assert_eq!(newer.claim(soon()).await.unwrap(), Written::Won);
    renew(&mut newer, 100).await;
    prune_all(&mut newer).await;
    let written = old.append(view("default", 1, 1), soon()).await.unwrap();
    (old, written)
}

/// Logs in a directory, made by hand.
pub(crate) mod at {
    use super::*;

    pub(crate) fn record(path: &Path, seq: u64) -> std::path::PathBuf {
        path.join(format!("log/{seq:020}"))
    }

    /// Two views as the version without terms has written them.
    pub(crate) fn format_1(path: &Path) {
        std::fs::create_dir_all(path.join("log")).unwrap();
        let cluster =
            serde_json::json!({ "format": 1, "cluster_id": Uuid::from_u128(9), "created": "today" });
        std::fs::write(path.join("cluster"), cluster.to_string()).unwrap();
        for seq in 1..=2 {
            let nonce = |seq: u64| Uuid::from_u128(100 + u128::from(seq));
            let record = serde_json::json!({
                "format": 1, "seq": seq, "nonce": nonce(seq), "previous": (seq > 1).then(|| nonce(seq - 1)),
                "kind": "view", "view": view("default", seq, 1), "wall_time": "2026-01-01T00:00:00.000Z",
            });
            std::fs::write(self::record(path, seq), record.to_string()).unwrap();
        }
    }
}
