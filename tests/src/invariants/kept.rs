//! Nothing at or below a commit is ever removed but what is overwritten and tombstones below the floor; and an in-sync member
//! throws no entry away that is committed anywhere.

use craq_node::replica::{Config, event::StoreWrite};
use craq_proto::{NodeId, Seq};

use super::{
    Checked, ensure,
    ledger::{Ledger, as_of},
    node::{Node, Removed},
};

const NAME: &str = "kept";

/// A write is ordered: only who is not in sync, or is told that the chain was rebuilt, may drop all that it has.
pub(super) fn ordered(node: NodeId, known: &Node, write: &StoreWrite) -> Checked {
    let view = write.view.as_ref().map(|stored| &stored.view).or(known.ordered_view.as_ref());
    let is_in_sync = super::node::is_in_sync(view, node);
    ensure!(!write.wipe || !is_in_sync, NAME, "{node} is in sync and drops all that it has");
    Ok(())
}

/// After a step, when its commit is known: judges what it has removed.
pub(super) fn stepped(config: &Config, ledger: &Ledger, node: NodeId, known: &mut Node) -> Checked {
    for removed in std::mem::take(&mut known.removed) {
        let seq = removed.row.0;
        if seq <= known.commit {
            committed(config, ledger, node, known, &removed)?;
            continue;
        }
        if let Some(entry) = removed.entry {
            let is_lost = known.is_in_sync(node) && ledger.has(&entry);
            ensure!(!is_lost, NAME, "{node} is in sync and throws away entry {seq}, which is committed");
            // Unless another one stands there already.
            if known.suffix.get(seq).is_some_and(|held| std::sync::Arc::ptr_eq(held, &entry)) {
                known.suffix.remove(seq);
            }
        }
        known.proven = known.proven.min(seq.previous());
    }
    Ok(())
}

/// A committed row was removed.
fn committed(config: &Config, ledger: &Ledger, node: NodeId, known: &Node, removed: &Removed) -> Checked {
    let (seq, index) = removed.row;
    let Some(entry) = ledger.entry(seq) else { return Ok(()) };
    let Some(mutation) = entry.mutations.get(index as usize) else {
        let newer = ledger.markers.iter().rev().take_while(|marker| **marker > seq);
        let is_newest = !newer.into_iter().any(|marker| *marker <= removed.stored_commit);
        ensure!(!is_newest, NAME, "{node} removes the newest entry without mutations, {seq}");
        return Ok(());
    };
    let places = ledger.keys.get(&mutation.key).map_or(&[][..], |places| &places[..]);
    let is_overwritten = as_of(places, removed.stored_commit).is_some_and(|newest| newest.seq > seq);
    if is_overwritten {
        return Ok(());
    }
    let (key, version) = (&mutation.key, mutation.version);
    let (stored, floor) = (removed.stored_commit, known.gc_floor);
    ensure!(
        mutation.is_delete(),
        NAME,
        "{node} removes ({seq}, {index}), version {version} of {key:?}, not overwritten up to stored commit {stored}"
    );
    ensure!(seq <= floor, NAME, "{node} removes the tombstone ({seq}, {index}) above its floor {floor}");
    let least = Seq(seq.0.saturating_add(config.tombstone_entries));
    ensure!(known.commit > least, NAME, "{node} removes the tombstone ({seq}, {index}) at {}", known.commit);
    Ok(())
}

#[cfg(test)]
mod tests {
    use craq_node::replica::event::StoreWrite;

    use super::super::testing::{Scene, config, deletion, entry};
    use super::*;

    fn removal(rows: &[(u64, u32)], commit: u64, gc_floor: u64) -> StoreWrite {
        let remove_rows = rows.iter().map(|(seq, index)| (Seq(*seq), *index)).collect();
        let (commit, gc_floor) = (Some(Seq(commit)), Some(Seq(gc_floor)));
        StoreWrite { remove_rows, commit, gc_floor, ..StoreWrite::default() }
    }

    fn scene() -> Scene {
        let mut scene = Scene::with(1, Config { tombstone_entries: 2, ..config() });
        scene.append(&[1], entry(1, 1, "a", 1)).append(&[1], entry(2, 1, "a", 2));
        scene.append(&[1], deletion(3, 1, "b", 1)).commit(1, 3).is_legal();
        scene
    }

    #[test]
    fn only_what_is_overwritten_is_swept() {
        scene().order(1, removal(&[(1, 0)], 3, 0)).status(1).is_legal();
        scene().order(1, removal(&[(2, 0)], 3, 0)).status(1).violates(NAME);
        scene().order(1, removal(&[(1, 0)], 1, 0)).status(1).violates(NAME);
    }

    #[test]
    fn a_tombstone_is_kept_for_its_time() {
        scene().order(1, removal(&[(3, 0)], 3, 3)).status(1).violates(NAME);
        let later = || {
            let mut scene = scene();
            for seq in 4..=6 {
                scene.append(&[1], entry(seq, 1, "a", seq - 1)).commit(1, seq);
            }
            scene
        };
        later().order(1, removal(&[(3, 0)], 6, 3)).status(1).is_legal();
        later().order(1, removal(&[(3, 0)], 6, 2)).status(1).violates(NAME);
    }

    #[test]
    fn the_newest_first_entry_stays() {
        let mut scene = Scene::new(1);
        let bare = |seq| craq_proto::Entry { request: None, mutations: vec![], ..entry(seq, 1, "a", 1) };
        scene.append(&[1], bare(1)).append(&[1], bare(2)).commit(1, 2).order(1, removal(&[(1, 0)], 2, 0));
        scene.status(1).is_legal();
        scene.order(1, removal(&[(2, 0)], 2, 0)).status(1).violates(NAME);
    }

    #[test]
    fn what_is_committed_elsewhere_is_not_thrown_away_by_who_is_in_sync() {
        let thrown = |entry: craq_proto::Entry, view: bool| {
            let mut scene = Scene::new(2);
            scene.append(&[1, 2], entry).commit(2, 1);
            if view {
                scene.view(2, &[2], &[]).install(2).view(3, &[2], &[1]).install(1);
            }
            let remove_rows = vec![(Seq(1), 0)];
            scene.order(1, StoreWrite { remove_rows, ..StoreWrite::default() }).status(1);
            scene
        };
        thrown(entry(1, 1, "a", 1), false).violates(NAME);
        thrown(entry(1, 1, "a", 1), true).is_legal();
    }

    #[test]
    fn who_is_in_sync_does_not_drop_all() {
        let wipe = StoreWrite { wipe: true, ..StoreWrite::default() };
        scene().order(1, wipe).violates(NAME);
    }
}
