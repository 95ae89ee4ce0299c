//! Invariant 9: what is dirty, and the outcomes of requests, keep their limits.

use craq_node::replica::{Config, Status};
use craq_proto::NodeId;

use super::{
    Checked, ensure,
    ledger::Ledger,
    node::{Node, is_in_sync},
};

const NAME: &str = "bounds";

/// The dirty suffix of a member that is in sync. What a head writes for itself is no client's, and takes no room.
///
/// Others are brought up by what is committed already, at the pace of their own disks.
pub(super) fn suffix(config: &Config, node: NodeId, known: &Node, status: &Status) -> Checked {
    if !status.role.is_member() || !is_in_sync(known.view.as_ref(), node) {
        return Ok(());
    }
    let (many, most) = (known.suffix.requests, config.dirty_entries_max);
    ensure!(many <= most, NAME, "{node} has {many} dirty entries of clients; {most} are allowed");
    let (many, most) = (known.suffix.bytes, config.dirty_bytes_max);
    ensure!(many <= most, NAME, "{node} has {many} dirty bytes; {most} are allowed");
    Ok(())
}

/// The outcomes that a replica keeps when it has committed all of the ledger. The entry that forgets is made when there are
/// too many, and stands behind what is dirty then; a head that fails may leave that to the next one.
pub(super) fn outcomes(config: &Config, ledger: &Ledger) -> Checked {
    const HEADS: usize = 8;
    let many = ledger.requests.outcomes();
    let most =
        config.outcomes_max.saturating_add(HEADS.saturating_mul(config.dirty_entries_max.saturating_add(1)));
    ensure!(many <= most, NAME, "{many} outcomes are kept at {}; {most} are allowed", ledger.last());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, config, entry};
    use super::*;

    #[test]
    fn the_dirty_suffix_keeps_its_limits() {
        let mut entries = Scene::with(1, Config { dirty_entries_max: 2, ..config() });
        entries.append(&[1], entry(1, 1, "a", 1)).append(&[1], entry(2, 1, "a", 2)).status(1).is_legal();
        entries.append(&[1], entry(3, 1, "a", 3)).status(1).violates(NAME);
        let mut bytes = Scene::with(1, Config { dirty_bytes_max: 5, ..config() });
        bytes.append(&[1], entry(1, 1, "a", 1)).status(1).is_legal();
        bytes.append(&[1], entry(2, 1, "a", 2)).status(1).violates(NAME);
    }

    #[test]
    fn outcomes_keep_their_limit() {
        let mut scene = Scene::with(1, Config { dirty_entries_max: 1, outcomes_max: 2, ..config() });
        for seq in 1..=18 {
            scene.append(&[1], entry(seq, 1, "a", seq)).commit(1, seq).is_legal();
        }
        scene.append(&[1], entry(19, 1, "a", 19)).commit(1, 19).violates(NAME);
    }
}
