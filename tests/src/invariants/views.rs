//! Invariants 4 and 7: one view for each epoch, each a legal step from the one before.

use std::collections::{BTreeMap, BTreeSet};

use craq_proto::{Epoch, Member, NodeId, View};

use super::{Checked, Violation, ensure, node::Node};

const NAME: &str = "views";

/// Every view that the coordinator's log has.
#[derive(Debug, Default)]
pub(super) struct Views(BTreeMap<Epoch, View>);

impl Views {
    pub(super) fn newest(&self) -> Option<&View> {
        self.0.last_key_value().map(|(_, view)| view)
    }

    /// A view is in the log. Returns whether it was not told before.
    pub(super) fn logged(&mut self, nodes: &BTreeMap<NodeId, Node>, view: &View) -> Result<bool, Violation> {
        let epoch = view.epoch;
        if let Some(known) = self.0.get(&epoch) {
            ensure!(known == view, NAME, "epoch {epoch} has two views: {known:?} and {view:?}");
            return Ok(false);
        }
        well_formed(view)?;
        match self.newest() {
            Some(newest) => step(nodes, newest, view)?,
            None => ensure!(epoch == Epoch(1), NAME, "the first view has epoch {epoch}"),
        }
        self.0.insert(epoch, view.clone());
        Ok(true)
    }

    /// A replica goes by this view: it must be in the log.
    pub(super) fn installed(&mut self, nodes: &BTreeMap<NodeId, Node>, view: &View) -> Checked {
        self.logged(nodes, view).map(|_| ())
    }
}

fn well_formed(view: &View) -> Checked {
    let epoch = view.epoch;
    let head_in_sync = view.members.first().is_some_and(|head| head.in_sync);
    ensure!(head_in_sync, NAME, "epoch {epoch} has no head that is in sync");
    let mut seen = BTreeSet::new();
    let learners = view.learners.iter().map(|learner| learner.node);
    for node in view.members.iter().map(|member| member.node).chain(learners) {
        ensure!(seen.insert(node), NAME, "{node} stands twice in epoch {epoch}");
    }
    for learner in &view.learners {
        let (node, source) = (learner.node, learner.source);
        ensure!(
            view.member(source).is_some(),
            NAME,
            "{node} learns from {source}, no member of epoch {epoch}"
        );
    }
    Ok(())
}

fn step(nodes: &BTreeMap<NodeId, Node>, old: &View, new: &View) -> Checked {
    let epoch = new.epoch;
    ensure!(epoch == old.epoch.next() && new.chain == old.chain, NAME, "epoch {epoch} follows {}", old.epoch);
    ensure!(new.rebuilt_in == old.rebuilt_in, NAME, "epoch {epoch} gives up what may be committed");
    for expelled in &old.expelled {
        let (node, incarnation) = (expelled.node, expelled.incarnation);
        let is_back = new.incarnation(node).is_some_and(|newer| newer > incarnation);
        ensure!(
            is_back || new.is_expelled(node, incarnation) && new.incarnation(node).is_none(),
            NAME,
            "{node} was taken out, and is back by itself in epoch {epoch}"
        );
    }
    let stays =
        |member: &Member| member.in_sync && old.member(member.node).is_some_and(|before| before.in_sync);
    ensure!(new.members.iter().any(stays), NAME, "no member in sync stays in epoch {epoch}");
    for (node, incarnation) in processes(new) {
        let before = old.incarnation(node);
        ensure!(
            before <= Some(incarnation),
            NAME,
            "{node} goes back to incarnation {incarnation} in epoch {epoch}"
        );
    }
    for member in &new.members {
        match old.member(member.node) {
            Some(before) => in_sync(nodes, old, before, member)?,
            None => promoted(old, new, member)?,
        }
    }
    let is_removed = old.members.iter().any(|member| new.member(member.node).is_none());
    let is_promoted = new.members.iter().any(|member| old.member(member.node).is_none());
    let turned =
        |member: &Member| member.in_sync && old.member(member.node).is_some_and(|before| !before.in_sync);
    let is_turned = new.members.iter().any(turned);
    let kept = |view: &View, other: &View| -> Vec<NodeId> {
        view.members.iter().map(|member| member.node).filter(|node| other.member(*node).is_some()).collect()
    };
    let is_moved = kept(old, new) != kept(new, old);
    let steps = [is_removed, is_promoted, is_turned, is_moved].into_iter().filter(|step| *step).count();
    ensure!(steps <= 1, NAME, "epoch {epoch} is more than one step: {old:?}, then {new:?}");
    Ok(())
}

/// A member stays; it may have become in sync, if it has taken part in the epoch before.
fn in_sync(nodes: &BTreeMap<NodeId, Node>, old: &View, before: &Member, member: &Member) -> Checked {
    let node = member.node;
    ensure!(member.in_sync || !before.in_sync, NAME, "{node} is no longer in sync after epoch {}", old.epoch);
    if before.in_sync || !member.in_sync {
        return Ok(());
    }
    let same = before.incarnation == member.incarnation;
    ensure!(same, NAME, "{node} is in sync with another process than the member of epoch {}", old.epoch);
    let took_part = nodes.get(&node).is_none_or(|known| known.disk.newest_origin >= old.epoch);
    ensure!(took_part, NAME, "{node} is in sync and has nothing of epoch {} on its disk", old.epoch);
    Ok(())
}

/// A member is new: it was a learner, and stands after its source.
fn promoted(old: &View, new: &View, member: &Member) -> Checked {
    let (node, epoch) = (member.node, new.epoch);
    let learner = old.learner(node).filter(|learner| learner.incarnation == member.incarnation);
    ensure!(learner.is_some(), NAME, "{node} is a member of epoch {epoch} and was no learner before");
    ensure!(!member.in_sync, NAME, "{node} is a member and in sync at once in epoch {epoch}");
    let after = new.predecessor(node).map(|member| member.node);
    let source = learner.map(|learner| learner.source);
    ensure!(after == source, NAME, "{node} does not stand after its source in epoch {epoch}");
    Ok(())
}

fn processes(view: &View) -> impl Iterator<Item = (NodeId, craq_proto::Incarnation)> {
    let members = view.members.iter().map(|member| (member.node, member.incarnation));
    members.chain(view.learners.iter().map(|learner| (learner.node, learner.incarnation)))
}

#[cfg(test)]
mod tests {
    use craq_proto::{Incarnation, Learner};

    use super::super::testing::{node, view};
    use super::*;

    /// Logs views of these members (below zero: not in sync) and learners (of the first member).
    fn log(views: &[(&[i64], &[u64])]) -> Checked {
        let mut all = Views::default();
        for (number, (members, learners)) in (1..).zip(views) {
            let ids: Vec<u64> = members.iter().map(|member| member.unsigned_abs()).collect();
            let mut view = view(number, &ids, learners);
            for (member, told) in view.members.iter_mut().zip(*members) {
                member.in_sync = *told > 0;
            }
            all.logged(&BTreeMap::new(), &view)?;
        }
        Ok(())
    }

    #[test]
    fn legal_steps_are_taken() {
        log(&[
            (&[1, 2, 3], &[]),
            (&[1, 2], &[]),
            (&[1, 2], &[3]),
            (&[1, -3, 2], &[]),
            (&[1, 3, 2], &[]),
            (&[2, 3, 1], &[]),
            (&[3, 1], &[]),
        ])
        .unwrap();
        // A lost head: those before the first in-sync member fall back.
        log(&[(&[1, 2], &[]), (&[1, 2], &[3]), (&[1, -3, 2], &[]), (&[2], &[3])]).unwrap();
    }

    #[test]
    fn illegal_steps_are_refused() {
        let wrong: &[&[(&[i64], &[u64])]] = &[
            &[(&[-1, 2], &[])],
            &[(&[], &[])],
            &[(&[1, 1], &[])],
            &[(&[1, 2], &[2])],
            &[(&[1], &[2]), (&[1, 2], &[])],
            &[(&[1], &[]), (&[1, -2], &[])],
            &[(&[1], &[2]), (&[2], &[])],
            &[(&[1, 2], &[3]), (&[1, -3], &[])],
            &[(&[1, 2], &[3]), (&[1, 2, -3], &[])],
            &[(&[1, 2], &[]), (&[1, -2], &[])],
            &[(&[1, 2, 3], &[]), (&[3, 2], &[])],
        ];
        for (number, views) in wrong.iter().enumerate() {
            assert_eq!(log(views).map_err(|violation| violation.invariant), Err(NAME), "number {number}");
        }
    }

    #[test]
    fn an_epoch_has_one_view_and_none_is_left_out() {
        let nodes = BTreeMap::new();
        let mut views = Views::default();
        let first = view(1, &[1, 2], &[]);
        assert!(views.logged(&nodes, &first).unwrap());
        assert!(!views.logged(&nodes, &first).unwrap(), "the same is told twice");
        assert!(views.logged(&nodes, &view(1, &[1], &[])).is_err());
        assert!(views.logged(&nodes, &view(3, &[1], &[])).is_err());
        assert!(views.installed(&nodes, &view(1, &[2], &[])).is_err());
        assert!(Views::default().logged(&nodes, &view(2, &[1], &[])).is_err());
    }

    #[test]
    fn a_process_is_not_replaced_by_an_older_one() {
        let nodes = BTreeMap::new();
        let mut views = Views::default();
        let mut first = view(1, &[1, 2], &[]);
        first.members[1].incarnation = Incarnation(5);
        views.logged(&nodes, &first).unwrap();
        assert!(views.logged(&nodes, &view(2, &[1, 2], &[])).is_err());
    }

    #[test]
    fn who_becomes_in_sync_has_taken_part_in_the_epoch_before() {
        let mut nodes = BTreeMap::from([(node(2), Node::default())]);
        let mut views = Views::default();
        let mut first = view(1, &[1, 2], &[]);
        first.members[1].in_sync = false;
        first.learners.push(Learner {
            node: node(3),
            incarnation: Incarnation(1),
            source: node(1),
            address: String::new(),
        });
        views.logged(&nodes, &first).unwrap();
        let second = View { epoch: Epoch(2), members: view(2, &[1, 2], &[]).members, ..first };
        assert!(views.logged(&nodes, &second).is_err());
        nodes.entry(node(2)).or_default().disk.newest_origin = Epoch(1);
        views.logged(&nodes, &second).unwrap();
    }
}
