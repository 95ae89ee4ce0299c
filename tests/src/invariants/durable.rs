//! Invariant 2: what a member has committed is durable at every in-sync member before it that is still in that epoch, and
//! at itself.

use std::collections::BTreeMap;

use craq_proto::{NodeId, Seq, View};

use super::{Checked, ensure, ledger::Ledger, node::Node};

const NAME: &str = "durable";

/// A member's commit has risen in this view.
pub(super) fn committed(
    ledger: &Ledger,
    nodes: &BTreeMap<NodeId, Node>,
    view: &View,
    node: NodeId,
    (before, commit): (Seq, Seq),
) -> Checked {
    let Some(position) = view.position(node) else { return Ok(()) };
    up_to(ledger, nodes, view, position, (before, commit))
}

/// Checks the in-sync members up to this position.
pub(super) fn up_to(
    ledger: &Ledger,
    nodes: &BTreeMap<NodeId, Node>,
    view: &View,
    position: usize,
    (before, commit): (Seq, Seq),
) -> Checked {
    for member in view.members.iter().take(position + 1).filter(|member| member.in_sync) {
        let Some(known) = nodes.get(&member.node).filter(|known| known.epoch() == view.epoch) else {
            continue;
        };
        if let Some(missing) = missing(ledger, known, before, commit) {
            let (node, epoch) = (member.node, view.epoch);
            ensure!(false, NAME, "entry {missing} is committed in epoch {epoch} and not durable at {node}");
        }
    }
    Ok(())
}

/// The first committed entry in this range that is not on the node's disk.
pub(super) fn missing(ledger: &Ledger, known: &Node, before: Seq, up_to: Seq) -> Option<Seq> {
    let from = before.max(known.proven).0 + 1;
    let is_there = |seq: Seq| known.durable(seq).is_some_and(|entry| ledger.has(entry));
    (from..=up_to.0).map(Seq).find(|seq| !is_there(*seq))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, entry};

    #[test]
    fn a_commit_waits_for_every_in_sync_member_before() {
        let mut scene = Scene::new(3);
        scene.append(&[1, 2, 3], entry(1, 1, "a", 1)).commit(3, 1).commit(2, 1).commit(1, 1).is_legal();
        let mut early = Scene::new(3);
        early.append(&[1, 3], entry(1, 1, "a", 1)).order_entry(2, &entry(1, 1, "a", 1)).is_legal();
        early.commit(3, 1).violates("durable");
        let mut own = Scene::new(3);
        own.append(&[1, 2], entry(1, 1, "a", 1)).order_entry(3, &entry(1, 1, "a", 1)).is_legal();
        own.commit(3, 1).violates("durable");
    }

    #[test]
    fn who_has_gone_on_or_is_not_in_sync_is_not_waited_for() {
        let mut scene = Scene::new(3);
        scene.append(&[1, 2, 3], entry(1, 1, "a", 1)).commit(3, 1);
        scene.view(2, &[2, 3], &[]).install(2).is_legal();
        scene.append(&[1, 3], entry(2, 1, "a", 2)).commit(3, 2).is_legal();
    }
}
