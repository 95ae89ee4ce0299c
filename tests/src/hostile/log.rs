//! The coordinator's log: objects of a store in memory, which may be damaged or foreign.

use std::{sync::Arc, time::Duration};

use craq_log::{Holder, Log, Store, Written};
use craq_proto::{Epoch, HolderId, View};
use object_store::{ObjectStoreExt as _, memory::InMemory, path::Path};
use tokio::time::Instant;
use uuid::Uuid;

use super::wire::a_view;

/// What a part of the input is the content of.
const OBJECTS: [&str; 4] =
    ["cluster", "log/00000000000000000001", "log/00000000000000000002", "log/00000000000000000003"];
/// A store in memory takes none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the objects.
const SEPARATOR: u8 = 0;

/// The content of the cluster's record and of up to three records of views, separated by zero bytes.
pub(super) fn log(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(InMemory::new());
        for (path, content) in OBJECTS.iter().zip(bytes.split(|byte| *byte == SEPARATOR)) {
            store
                .put(&Path::from(*path), content.to_vec().into())
                .await
                .expect("a store in memory takes everything");
        }
        let store = Store::new(store, PATIENCE);
        let me = Holder { id: HolderId(Uuid::from_u128(77)), address: "localhost:1".to_owned() };
        let Ok(mut log) = Log::open(store.clone(), me.clone(), PATIENCE).await else { return };
        let soon = Instant::now() + PATIENCE;
        assert_eq!(log.claim(soon).await.expect("it can be written"), Written::Won);
        let views: Vec<View> = log.views().cloned().collect();
        for view in &views {
            assert_eq!(view.check(), Ok(()), "a log holds only views that are ones");
            let next = View { epoch: view.epoch.next(), rebuilt_in: Epoch::ZERO, ..view.clone() };
            assert_eq!(log.append(next.clone(), soon).await.expect("it can be written"), Written::Won);
        }
        let again = Log::open(store, me, PATIENCE).await.expect("what was written can be read");
        assert_eq!(again.cluster(), log.cluster());
        assert!(again.views().eq(log.views()), "the log is not what was written");
    });
}

pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    let cluster = serde_json::json!({ "format": 1, "cluster_id": Uuid::from_u128(1), "created": "today" });
    let nonce = |n: u64| Uuid::from_u128(100 + u128::from(n));
    let record = |seq: u64, previous: Option<Uuid>| {
        serde_json::json!({
            "format": 1, "seq": seq, "nonce": nonce(seq), "previous": previous, "kind": "view",
            "view": View { epoch: Epoch(seq), ..a_view() }, "wall_time": "today",
        })
    };
    // As the version without terms has written it, and as this one does.
    let old = [cluster.clone(), record(1, None), record(2, Some(nonce(1))), record(3, Some(nonce(2)))];
    let holder = serde_json::json!({ "id": Uuid::from_u128(5), "address": "localhost:1" });
    let mut new = [cluster, record(1, None), record(2, Some(nonce(1))), record(3, Some(nonce(2)))];
    let bodies = [
        serde_json::json!({ "kind": "claim", "lease_ms": 2000, "views": {} }),
        serde_json::json!({ "kind": "view", "view": View { epoch: Epoch(1), ..a_view() }, "follows": null }),
        serde_json::json!({ "kind": "resign" }),
    ];
    for (record, body) in new[1..].iter_mut().zip(bodies) {
        let parts = serde_json::json!({ "format": 2, "term": 1, "holder": holder });
        for (name, value) in parts.as_object().into_iter().chain(body.as_object()).flatten() {
            record[name] = value.clone();
        }
    }
    let seeds = [old, new].map(|objects| {
        let texts: Vec<String> = objects.iter().map(ToString::to_string).collect();
        (1..=texts.len()).map(|count| texts[..count].join("\0").into_bytes()).collect::<Vec<_>>()
    });
    seeds.concat()
}
