//! The coordinator's log: objects of a store in memory, which may be damaged or foreign.

use std::sync::Arc;

use craq_coordinator::log::{Appended, Log};
use craq_proto::{Epoch, View};
use object_store::{ObjectStoreExt as _, memory::InMemory, path::Path};
use uuid::Uuid;

use super::wire::a_view;

/// What a part of the input is the content of.
const OBJECTS: [&str; 4] =
    ["cluster", "log/00000000000000000001", "log/00000000000000000002", "log/00000000000000000003"];
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
        let Ok(mut log) = Log::open(store.clone()).await else { return };
        let views: Vec<View> = log.views().cloned().collect();
        for view in &views {
            assert_eq!(view.check(), Ok(()), "a log holds only views that are ones");
            let next = View { epoch: view.epoch.next(), rebuilt_in: Epoch::ZERO, ..view.clone() };
            assert_eq!(log.append(next.clone()).await.expect("it can be written"), Appended::Written);
        }
        let again = Log::open(store).await.expect("what was written can be read");
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
    let objects = [cluster, record(1, None), record(2, Some(nonce(1))), record(3, Some(nonce(2)))];
    let texts: Vec<String> = objects.iter().map(ToString::to_string).collect();
    (1..=texts.len()).map(|count| texts[..count].join("\0").into_bytes()).collect()
}
