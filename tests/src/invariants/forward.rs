//! Invariant 4: a replica's commit never goes back within an incarnation, its epoch never at all; nor does a log grow with a
//! gap or below the commit.

use craq_node::replica::{Status, event::StoreWrite};
use craq_proto::{NodeId, Seq, View};

use super::{Checked, ensure, node::Node};

const NAME: &str = "forward";

/// A new commit is told.
pub(super) fn committed(node: NodeId, known: &Node, commit: Seq) -> Checked {
    let before = known.commit;
    ensure!(commit >= before, NAME, "the commit of {node} goes back from {before} to {commit}");
    Ok(())
}

/// A view is installed.
pub(super) fn installed(node: NodeId, known: &Node, view: &View) -> Checked {
    let (before, epoch) = (known.epoch(), view.epoch);
    ensure!(epoch > before, NAME, "{node} goes from epoch {before} to {epoch}");
    Ok(())
}

/// What the status says is what was told.
pub(super) fn status(node: NodeId, known: &Node, status: &Status) -> Checked {
    let (epoch, commit) = (status.epoch, status.commit);
    ensure!(epoch == known.epoch(), NAME, "{node} is in epoch {epoch}; {} is installed", known.epoch());
    ensure!(commit == known.commit, NAME, "{node} has committed {commit}; {} was told", known.commit);
    let (durable, last) = (status.durable, status.last);
    ensure!(
        commit <= durable && durable <= last,
        NAME,
        "{node}: commit {commit}, durable {durable}, last {last}"
    );
    Ok(())
}

/// A write is ordered.
pub(super) fn ordered(node: NodeId, known: &Node, write: &StoreWrite) -> Checked {
    if let Some(stored) = &write.view {
        let before = known.ordered_view.as_ref().map(|view| view.epoch);
        let epoch = stored.view.epoch;
        ensure!(
            Some(epoch) > before,
            NAME,
            "{node} stores epoch {epoch} after {}",
            before.unwrap_or_default()
        );
    }
    if let (Some(commit), false) = (write.commit, write.wipe) {
        let before = known.ordered_commit;
        ensure!(commit >= before, NAME, "{node} stores commit {commit} after {before}");
    }
    if write.wipe || !known.is_in_sync(node) {
        return Ok(());
    }
    let mut last = known.suffix.last().map_or(known.commit, |last| last.max(known.commit));
    for entry in &write.entries {
        let (seq, commit) = (entry.seq, known.commit);
        ensure!(seq > commit, NAME, "{node} appends {seq}, below its commit {commit}");
        ensure!(seq <= last.next(), NAME, "{node} appends {seq} after {last}");
        last = seq;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use craq_node::replica::event::StoreWrite;

    use super::super::testing::{Scene, entry};

    #[test]
    fn a_commit_goes_back_only_with_the_process() {
        let mut scene = Scene::new(1);
        scene.append(&[1], entry(1, 1, "a", 1)).commit(1, 1).is_legal();
        scene.end(1).restart(1, 0).is_legal();
        scene.commit(1, 1).commit(1, 0).violates("forward");
    }

    #[test]
    fn an_epoch_never_goes_back() {
        let mut scene = Scene::new(2);
        scene.view(2, &[1, 2], &[]).install(1).is_legal();
        scene.install_old(1).violates("forward");
    }

    #[test]
    fn a_stored_commit_never_goes_back() {
        let stored = |commit| StoreWrite { commit: Some(craq_proto::Seq(commit)), ..StoreWrite::default() };
        let mut scene = Scene::new(1);
        scene.append(&[1], entry(1, 1, "a", 1)).commit(1, 1).order(1, stored(1)).is_legal();
        scene.order(1, stored(0)).violates("forward");
    }

    #[test]
    fn a_log_has_no_gap_and_is_not_written_anew_below_the_commit() {
        let mut gap = Scene::new(1);
        gap.append(&[1], entry(1, 1, "a", 1)).order_entry(1, &entry(3, 1, "a", 2)).violates("forward");
        let mut below = Scene::new(1);
        below.append(&[1], entry(1, 1, "a", 1)).commit(1, 1);
        below.order_entry(1, &entry(1, 1, "b", 1)).violates("forward");
    }
}
