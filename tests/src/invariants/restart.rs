//! What was durable is there when the next process starts, and nothing else but what was on its way to the disk.

use std::{collections::BTreeMap, sync::Arc};

use craq_node::replica::event::StoreWrite;
use craq_proto::{Entry, Epoch, Incarnation, NodeId, Row, Seq, View};

use super::{
    Checked, ensure,
    ledger::Ledger,
    node::{Disk, Node, Suffix},
};

const NAME: &str = "restart";

/// What a process has found on its disk.
pub(super) struct Found<'a> {
    pub(super) view: Option<&'a View>,
    pub(super) commit: Seq,
    pub(super) last: Seq,
    pub(super) rows: &'a [Row],
}

impl Found<'_> {
    fn epoch(&self) -> Epoch {
        self.view.map_or(Epoch::ZERO, |view| view.epoch)
    }

    fn is(&self, disk: &Disk) -> bool {
        let rows = self.rows.iter().map(|row| ((row.seq, row.index), row.origin_epoch));
        disk.commit == self.commit
            && disk.epoch() == self.epoch()
            && disk.rows.len() == self.rows.len()
            && disk.rows.iter().map(|(row, epoch)| (*row, *epoch)).eq(rows)
    }
}

/// A process has started.
pub(super) fn started(
    ledger: &Ledger,
    known: &mut Node,
    (node, incarnation): (NodeId, Incarnation),
    found: &Found<'_>,
) -> Checked {
    let before = known.incarnation;
    ensure!(incarnation > before, NAME, "{node} starts with incarnation {incarnation} after {before}");
    let stored = (known.disk.rows.len(), known.disk.commit, known.disk.epoch());
    while !found.is(&known.disk) {
        let Some(ordered) = known.pending.pop_front() else {
            let (rows, commit, epoch) = stored;
            let (found_rows, found_commit, found_epoch) = (found.rows.len(), found.commit, found.epoch());
            ensure!(
                false,
                NAME,
                "{node} finds {found_rows} rows, commit {found_commit} and epoch {found_epoch}; durable were {rows} \
                 rows, commit {commit} and epoch {epoch}, and nothing that was under way makes one of the other"
            );
            return Ok(());
        };
        known.disk.apply(&ordered);
    }
    let end = found.rows.last().map_or(found.commit, |row| row.seq.max(found.commit));
    ensure!(found.last == end, NAME, "{node} takes {} for its last entry, which is {end}", found.last);
    for row in found.rows.iter().filter(|row| row.seq <= found.commit) {
        let (seq, index) = (row.seq, row.index);
        ensure!(ledger.agrees(row), NAME, "{node} finds ({seq}, {index}), which is not what was committed");
    }
    let entries = entries_above(found);
    let disk = std::mem::take(&mut known.disk);
    let mut suffix = Suffix::default();
    entries.values().for_each(|entry| suffix.insert(entry));
    *known = Node {
        incarnation,
        view: found.view.cloned(),
        ordered_view: found.view.cloned(),
        commit: found.commit,
        suffix,
        ordered_commit: found.commit,
        gc_floor: known.gc_floor,
        proven: known.proven,
        disk: Disk { entries, ..disk },
        ..Node::default()
    };
    Ok(())
}

/// The entries above the commit that are whole.
fn entries_above(found: &Found<'_>) -> BTreeMap<Seq, Arc<Entry>> {
    let above = found.rows.partition_point(|row| row.seq <= found.commit);
    let pieces = found.rows[above..].chunk_by(|a, b| a.seq == b.seq);
    let whole = pieces.filter(|rows| rows.len() == rows[0].count as usize);
    whole
        .map(|rows| {
            let Row { seq, origin_epoch, request, forget_through, .. } = rows[0];
            let mutations = rows.iter().filter_map(|row| row.mutation.clone()).collect();
            (seq, Arc::new(Entry { seq, origin_epoch, request, mutations, forget_through }))
        })
        .collect()
}

/// A write is stored: it is the one that was ordered first.
pub(super) fn stored(node: NodeId, known: &Node, write: &StoreWrite) -> Checked {
    let Some(next) = known.pending.front() else {
        ensure!(false, NAME, "{node} stores what was never ordered");
        return Ok(());
    };
    let is_it = next.commit == write.commit && next.entries.len() == write.entries.len();
    ensure!(is_it, NAME, "{node} stores out of order");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, entry};

    #[test]
    fn what_was_durable_is_found_again() {
        let scene = || {
            let mut scene = Scene::new(1);
            scene.append(&[1], entry(1, 1, "a", 1)).append(&[1], entry(2, 1, "a", 2)).end(1).is_legal();
            scene
        };
        scene().restart(1, 0).commit(1, 2).is_legal();
        scene().lose_row(1, 2).restart(1, 0).violates("restart");
        scene().lose_row(1, 1).restart(1, 0).violates("restart");
        scene().restart(1, 1).violates("restart");
    }

    #[test]
    fn what_was_under_way_is_found_or_not() {
        let scene = || {
            let mut scene = Scene::new(1);
            scene.append(&[1], entry(1, 1, "a", 1)).order_entry(1, &entry(2, 1, "a", 2)).is_legal();
            scene
        };
        scene().end(1).restart(1, 0).is_legal();
        scene().put_row(1, &entry(2, 1, "a", 2)).end(1).restart(1, 0).is_legal();
        let mut other = scene();
        other.put_row(1, &entry(2, 2, "b", 1)).end(1).restart(1, 0).violates("restart");
    }
}
