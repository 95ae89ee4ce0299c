//! Invariants 1 and 8: a write that was acknowledged is committed, and is in the history of every later view.

use std::collections::BTreeMap;

use craq_node::replica::Status;
use craq_proto::{NodeId, RequestId, Seq, Version, View};

use super::{
    Checked, durable, ensure,
    ledger::{Ledger, as_of},
    node::{Node, is_in_sync},
};

const NAME: &str = "acked";

/// A client is told that its write is done. All in-sync members of the answering node's epoch must have it on their disks; from
/// here on it stands in the ledger, whether or not anybody's commit was told yet.
pub(super) fn acked(
    ledger: &mut Ledger,
    nodes: &mut BTreeMap<NodeId, Node>,
    node: NodeId,
    request: RequestId,
    seq: Seq,
    versions: &[Version],
) -> Checked {
    let Some(known) = nodes.get_mut(&node) else { return Ok(()) };
    let held = known.suffix.get(seq).or_else(|| ledger.entry(seq)).cloned();
    let Some(entry) = held else {
        ensure!(false, NAME, "{node} acknowledges entry {seq}, which does not exist");
        return Ok(());
    };
    let name = (request.client, request.number);
    let is_its_own = entry.request.is_some_and(|made| (made.client, made.number) == name);
    ensure!(
        is_its_own,
        NAME,
        "{node} acknowledges request {} of {} with entry {seq}, of another",
        name.1,
        name.0
    );
    let made = entry.mutations.iter().map(|mutation| mutation.version);
    ensure!(
        made.eq(versions.iter().copied()),
        NAME,
        "{node} acknowledges other versions than entry {seq} made"
    );
    known.acked = known.acked.max(seq);
    let known = &nodes[&node];
    while ledger.last() < seq {
        let next = ledger.last().next();
        let Some(entry) = known.suffix.get(next) else {
            ensure!(false, NAME, "{node} acknowledges {seq} and does not hold {next}");
            return Ok(());
        };
        ledger.append(entry)?;
    }
    ensure!(ledger.has(&entry), NAME, "{node} acknowledges an entry {seq} that is not the committed one");
    if seq > ledger.acked {
        if let Some(view) = &known.view {
            durable::up_to(ledger, nodes, view, view.members.len(), (ledger.acked, seq))?;
        }
        ledger.acked = seq;
    }
    Ok(())
}

/// A view is in the log: every member that it calls in sync has all that was ever acknowledged.
pub(super) fn logged(ledger: &Ledger, nodes: &BTreeMap<NodeId, Node>, view: &View) -> Checked {
    for member in view.members.iter().filter(|member| member.in_sync) {
        // A disk that was lost is known to be lost before long.
        let Some(known) = nodes.get(&member.node) else { continue };
        let (node, epoch) = (member.node, view.epoch);
        if let Some(missing) = durable::missing(ledger, known, Seq::ZERO, ledger.acked) {
            ensure!(
                false,
                NAME,
                "{node} is in sync in epoch {epoch} and lacks the acknowledged entry {missing}"
            );
        }
        if let Some((key, seq)) = lost(ledger, known) {
            ensure!(
                false,
                NAME,
                "{node} is in sync in epoch {epoch} and lacks key {key}, committed with {seq}"
            );
        }
    }
    Ok(())
}

/// A key whose newest version, as of what the node has committed, is not on its disk.
fn lost(ledger: &Ledger, known: &Node) -> Option<(String, Seq)> {
    ledger.keys.iter().find_map(|(key, places)| {
        let newest = as_of(places, known.proven)?;
        let is_there = known.disk.rows.contains_key(&(newest.seq, newest.index));
        (!is_there && !newest.is_deleted).then(|| (format!("{key:?}"), newest.seq))
    })
}

/// After a step: what it acknowledged is committed at that node; and a member that takes part in the newest view, and is in
/// sync, holds all that was acknowledged.
pub(super) fn stepped(
    ledger: &Ledger,
    newest: Option<&View>,
    node: NodeId,
    known: &mut Node,
    status: &Status,
) -> Checked {
    let (acked, commit) = (std::mem::take(&mut known.acked), status.commit);
    ensure!(acked <= commit, NAME, "{node} has acknowledged {acked}, and committed {commit}");
    let is_newest = newest.is_some_and(|view| view.epoch == status.epoch);
    if !status.active || !is_newest || known.covered_in == status.epoch || !is_in_sync(newest, node) {
        return Ok(());
    }
    known.covered_in = status.epoch;
    for seq in (known.commit.0 + 1..=ledger.acked.0).map(Seq) {
        let holds = known.suffix.get(seq).is_some_and(|entry| ledger.has(entry));
        let epoch = status.epoch;
        ensure!(
            holds,
            NAME,
            "{node} is active in epoch {epoch} and does not hold the acknowledged entry {seq}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, entry};

    #[test]
    fn an_acknowledged_write_is_durable_everywhere() {
        let mut scene = Scene::new(2);
        scene
            .append(&[1, 2], entry(1, 1, "a", 1))
            .commit(2, 1)
            .ack(1, 1, 1)
            .commit(1, 1)
            .status(1)
            .is_legal();
        let mut early = Scene::new(2);
        early.append(&[1], entry(1, 1, "a", 1)).order_entry(2, &entry(1, 1, "a", 1)).is_legal();
        early.ack(1, 1, 1).violates("durable");
    }

    #[test]
    fn what_is_acknowledged_is_committed_where_it_is() {
        let mut scene = Scene::new(2);
        scene.append(&[1, 2], entry(1, 1, "a", 1)).commit(2, 1).ack(1, 1, 1).is_legal();
        scene.status(1).violates("acked");
    }

    #[test]
    fn an_answer_is_that_of_the_request() {
        let scene = || {
            let mut scene = Scene::new(1);
            scene.append(&[1], entry(1, 1, "a", 1)).append(&[1], entry(2, 1, "a", 2)).commit(1, 2).is_legal();
            scene
        };
        scene().ack(1, 2, 2).is_legal();
        scene().ack_as(1, 2, 1, 1).violates("acked");
        scene().ack_as(1, 2, 2, 1).violates("acked");
        scene().ack(1, 3, 3).violates("acked");
    }

    #[test]
    fn who_is_in_sync_in_a_later_view_has_what_was_acknowledged() {
        let mut scene = Scene::new(2);
        scene.append(&[1, 2], entry(1, 1, "a", 1)).commit(2, 1).ack(1, 1, 1).commit(1, 1).is_legal();
        scene.view(2, &[2], &[]).is_legal();
        let mut lost = Scene::new(2);
        lost.append(&[1], entry(1, 1, "a", 1)).leave_behind(2).ack(1, 1, 1).commit(1, 1).is_legal();
        lost.view(3, &[2], &[]).violates("acked");
    }

    #[test]
    fn who_is_active_holds_what_was_acknowledged() {
        let mut scene = Scene::new(2);
        scene.append(&[1, 2], entry(1, 1, "a", 1)).commit(2, 1).ack(1, 1, 1).is_legal();
        scene.commit(1, 1).view(2, &[2], &[]).install(2).status_active(2).is_legal();
        let mut lost = Scene::new(2);
        lost.append(&[1, 2], entry(1, 1, "a", 1)).append(&[1, 2], entry(2, 1, "a", 2)).is_legal();
        lost.commit(2, 1).commit(1, 2).ack(1, 2, 2).view(2, &[2], &[]).is_legal();
        lost.install(2).forget_suffix(2).status_active(2).violates("acked");
    }
}
