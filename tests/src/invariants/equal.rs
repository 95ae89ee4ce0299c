//! When nothing is under way, all replicas hold the same: key for key the newest committed version and its value.

use std::collections::BTreeMap;

use craq_proto::{Key, NodeId, Row, View};

use super::{Checked, ensure, ledger::Ledger, node::Node};

const NAME: &str = "equal";

/// Compares what the replicas have on their disks with the ledger, and so with each other.
pub(super) fn quiet(
    ledger: &Ledger,
    nodes: &BTreeMap<NodeId, Node>,
    newest: Option<&View>,
    replicas: &[(NodeId, Vec<Row>)],
) -> Checked {
    for (node, rows) in replicas {
        let Some(known) = nodes.get(node) else { continue };
        let committed = rows.iter().filter(|row| row.seq <= known.commit);
        for row in committed.clone() {
            let (seq, index) = (row.seq, row.index);
            ensure!(ledger.agrees(row), NAME, "{node} has ({seq}, {index}), which is not what was committed");
        }
        if newest.is_some_and(|view| view.member(*node).is_some()) {
            let (commit, last) = (known.commit, ledger.last());
            ensure!(commit == last, NAME, "{node} has committed {commit}; {last} is the last");
            complete(ledger, *node, committed)?;
        }
    }
    Ok(())
}

/// A member's rows have the newest version of every key that exists, and of no key that doesn't.
fn complete<'a>(ledger: &Ledger, node: NodeId, rows: impl Iterator<Item = &'a Row>) -> Checked {
    let mut held: BTreeMap<&Key, &Row> = BTreeMap::new();
    for row in rows {
        if let Some(mutation) = &row.mutation {
            // They rise: the last one of a key is its newest.
            held.insert(&mutation.key, row);
        }
    }
    for key in ledger.keys.keys() {
        let Some(newest) = ledger.newest(key, ledger.last()) else { continue };
        let position = held.get(key).map(|row| (row.seq, row.index));
        let is_gone = newest.is_deleted && position.is_none();
        let is_newest = position == Some((newest.seq, newest.index));
        let (seq, version) = (newest.seq, newest.version);
        ensure!(
            is_gone || is_newest,
            NAME,
            "{node} has {position:?} of {key:?}; version {version} is in {seq}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, deletion, entry};

    fn scene() -> Scene {
        let mut scene = Scene::new(2);
        scene.append(&[1, 2], entry(1, 1, "a", 1)).append(&[1, 2], entry(2, 1, "b", 1));
        scene.append(&[1, 2], entry(3, 1, "a", 2)).append(&[1, 2], deletion(4, 1, "b", 2));
        scene.commit(2, 4).commit(1, 4).is_legal();
        scene
    }

    #[test]
    fn equal_replicas_are_equal_whatever_was_swept() {
        scene().quiet().is_legal();
        scene().lose_row(1, 1).quiet().is_legal();
        scene().lose_row(1, 2).lose_row(1, 4).quiet().is_legal();
    }

    #[test]
    fn a_difference_is_found() {
        scene().lose_row(1, 3).quiet().violates("equal");
        scene().lose_row(2, 4).quiet().violates("equal");
        scene().put_row(2, &entry(3, 1, "a", 3)).quiet().violates("equal");
        let mut behind = scene();
        behind.append(&[1, 2], entry(5, 1, "a", 3)).commit(2, 5).quiet().violates("equal");
    }
}
