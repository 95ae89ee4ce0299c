//! Invariant 3: two replicas never hold different committed entries at one sequence.

use craq_proto::{NodeId, Row, Seq};

use super::{Checked, ensure, ledger::Ledger, node::Node};

const NAME: &str = "agree";

/// What becomes committed at a replica is what is, or now becomes, committed for all.
pub(super) fn committed(ledger: &mut Ledger, node: NodeId, known: &Node, commit: Seq) -> Checked {
    let mut seq = known.commit;
    while seq < commit {
        seq = seq.next();
        match known.suffix.get(seq) {
            Some(entry) if seq > ledger.last() => ledger.append(entry)?,
            Some(entry) => {
                let (epoch, other) = (entry.origin_epoch, ledger.entry(seq).map(|entry| entry.origin_epoch));
                let other = other.unwrap_or_default();
                ensure!(
                    ledger.has(entry),
                    NAME,
                    "{node} commits entry {seq} of epoch {epoch}; another one, of epoch {other}, is committed"
                );
            }
            None => {
                ensure!(seq <= ledger.last(), NAME, "{node} commits {seq}, which nobody is known to hold");
                let is_in_sync = super::node::is_in_sync(known.view.as_ref(), node);
                ensure!(!is_in_sync, NAME, "{node} is in sync and commits {seq}, which it does not hold");
            }
        }
    }
    Ok(())
}

/// Rows of the committed log that a replica takes over are those of the ledger.
pub(super) fn rows(ledger: &Ledger, node: NodeId, rows: &[Row]) -> Checked {
    for row in rows {
        let (seq, index, epoch) = (row.seq, row.index, row.origin_epoch);
        ensure!(
            ledger.agrees(row),
            NAME,
            "{node} takes over row ({seq}, {index}) of epoch {epoch} as committed, which is not in the ledger"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use craq_node::replica::event::StoreWrite;

    use super::super::testing::{Scene, entry};

    #[test]
    fn what_two_replicas_commit_must_be_the_same() {
        let scene = || {
            let mut scene = Scene::new(2);
            scene.append(&[1, 2], entry(1, 1, "a", 1)).commit(2, 1);
            scene
        };
        scene().commit(1, 1).is_legal();
        let mut other = Scene::new(2);
        other.append(&[2], entry(1, 1, "a", 1));
        other.append(&[1], entry(1, 1, "b", 1)).put_on_disk(1, &entry(1, 1, "a", 1));
        other.commit(2, 1).commit(1, 1).violates("agree");
    }

    #[test]
    fn what_is_not_held_is_not_committed() {
        Scene::new(2).commit(2, 1).violates("agree");
        let mut gap = Scene::new(2);
        gap.append(&[1, 2], entry(1, 1, "a", 1)).commit(2, 1);
        gap.append(&[1, 2], entry(2, 1, "a", 2)).forget_suffix(1).commit(1, 1).violates("agree");
    }

    #[test]
    fn rows_of_a_walk_are_those_of_the_ledger() {
        let mut scene = Scene::new(3);
        scene.append(&[1, 2, 3], entry(1, 1, "a", 1)).commit(3, 1);
        let walk =
            |entry: craq_proto::Entry| StoreWrite { rows: entry.rows().collect(), ..StoreWrite::default() };
        scene.order(4, walk(entry(1, 1, "a", 1))).is_legal();
        scene.order(4, walk(entry(1, 1, "b", 1))).violates("agree");
    }
}
