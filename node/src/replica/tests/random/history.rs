//! What must hold of what clients saw and of what replicas hold.

use std::collections::BTreeMap;

use craq_proto::{Member, Seq, Version};

use super::{KEYS, Operation, Run};
use crate::replica::Look;

impl Run {
    /// protocol.md 8.3: two replicas never hold different committed entries at one sequence.
    pub(super) fn check_commits(&mut self) {
        for (node, sim) in &self.world.nodes {
            let rows = sim.disk.rows.range(..=(sim.disk.commit, u32::MAX));
            for ((seq, _), row) in rows.rev().take(5) {
                let what = (row.origin_epoch, format!("{:?}", row.mutation));
                let known = self.committed.entry(*seq).or_insert_with(|| what.clone());
                assert_eq!(*known, what, "{node} has committed another entry at {seq}");
                if let Some(request) = &row.request {
                    let made = *self.made.entry((request.client, request.number)).or_insert(*seq);
                    assert_eq!(made, *seq, "request {request:?} took effect twice");
                    let is_refused = self.refused.contains(&(request.client, request.number));
                    assert!(
                        !is_refused,
                        "{request:?} took effect though its client was told that it did not"
                    );
                }
            }
        }
    }

    pub(super) fn check_history(&self) {
        // A collected tombstone lets versions begin again, and its key reads as if never written.
        let collects = self.world.config.tombstone_entries < 100;
        for key in 0..KEYS {
            let of_key = |operation: &&Operation| operation.key == key && operation.applied;
            let done = |operation: &&Operation| {
                operation.returned.is_some() && !(collects && operation.seq == Seq::ZERO)
            };
            let mut by_seq: BTreeMap<Seq, (Version, Option<String>)> = BTreeMap::new();
            let mut versions: BTreeMap<Version, Seq> = BTreeMap::new();
            for write in self.operations.iter().filter(of_key).filter(|operation| operation.is_write) {
                let earlier = by_seq.insert(write.seq, (write.version, write.value.clone()));
                assert!(earlier.is_none(), "two writes made entry {}", write.seq);
                let other = versions.insert(write.version, write.seq);
                assert!(other.is_none() || collects, "two writes made version {} of k{key}", write.version);
            }
            for read in
                self.operations.iter().filter(of_key).filter(done).filter(|operation| !operation.is_write)
            {
                let read_was = (read.version, read.value.clone());
                let written = by_seq.entry(read.seq).or_insert_with(|| read_was.clone());
                assert_eq!(*written, read_was, "two values of k{key} at {}", read.seq);
            }
            let mut returned: Vec<&Operation> = self.operations.iter().filter(of_key).filter(done).collect();
            let mut called = returned.clone();
            returned.sort_by_key(|operation| operation.returned);
            called.sort_by_key(|operation| operation.called);
            let (mut ended, mut newest) = (returned.into_iter().peekable(), Seq::ZERO);
            for operation in called {
                while let Some(earlier) = ended.next_if(|earlier| earlier.returned < Some(operation.called)) {
                    newest = newest.max(earlier.seq);
                }
                let is_legal =
                    if operation.is_write { operation.seq > newest } else { operation.seq >= newest };
                assert!(is_legal, "k{key}: {operation:?} after entry {newest}");
            }
        }
    }

    /// All replicas hold the same committed versions, and no acknowledged write is missing.
    pub(super) fn check_replicas(&self) {
        let now = self.world.now;
        for key in 0..KEYS {
            let look = |member: &Member| {
                self.world.replica(member.node).unwrap().reader().weak(
                    now,
                    Self::key(key).as_ref(),
                    None,
                    Seq::ZERO,
                )
            };
            let positions = self.view.members.iter().map(|member| match look(member) {
                Look::Serve { position, .. } => {
                    position.map(|p| (p.seq, p.version, p.deleted)).filter(|p| !p.2)
                }
                other => panic!("{other:?}"),
            });
            let positions: Vec<_> = positions.collect();
            assert!(
                positions.windows(2).all(|pair| pair[0] == pair[1]),
                "replicas differ at k{key}: {positions:?}"
            );
        }
    }
}
