//! What every step from one view to the next must keep (protocol.md 7). The cluster asserts it before a view is
//! persisted; the property tests do so for every view that they see.

use std::collections::BTreeSet;

use craq_proto::{EXPELLED_MAX, Member, NodeId, View};

/// Who answers for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The rules: nothing acknowledged may be lost.
    System,
    /// An operator who has accepted that data may be lost.
    DataLossAccepted,
}

/// Whether `new` may follow `old`; if not, the truth that it violates.
pub fn legal_successor(old: &View, new: &View, authority: Authority) -> Result<(), String> {
    well_formed(new)?;
    let check = |holds: bool, text: &str| if holds { Ok(()) } else { Err(text.to_owned()) };
    check(new.chain == old.chain, "the chain is another one")?;
    check(new.epoch == old.epoch.next(), "the epoch is not the next one")?;
    for node in nodes(new) {
        let grows = new.incarnation(node) >= old.incarnation(node);
        check(grows, &format!("the incarnation of {node} goes back"))?;
    }
    let rebuilt_in = if authority == Authority::DataLossAccepted { new.epoch } else { old.rebuilt_in };
    check(new.rebuilt_in == rebuilt_in, "it does not say when the chain was last rebuilt")?;
    for expelled in &old.expelled {
        let is_kept = new.expelled.len() == EXPELLED_MAX || new.expelled.contains(expelled);
        let is_back = new.incarnation(expelled.node) > Some(expelled.incarnation);
        check(is_kept || is_back, &format!("that {} was taken out is forgotten", expelled.node))?;
    }
    if authority == Authority::DataLossAccepted {
        return Ok(());
    }
    let kept = |m: &Member| m.in_sync && old.member(m.node).is_some_and(|before| before.in_sync);
    check(new.members.iter().any(kept), "no member that was in sync stays")?;
    let mut promoted = false;
    let mut in_sync = false;
    for member in &new.members {
        let node = member.node;
        match old.member(node) {
            Some(before) if before.in_sync => check(member.in_sync, &format!("{node} lost its in_sync"))?,
            Some(before) if member.in_sync => {
                in_sync = true;
                let same = before.incarnation == member.incarnation;
                check(same, &format!("{node} became in sync with an incarnation that was no member"))?;
            }
            Some(_) => {}
            None => {
                promoted = true;
                let learner = old.learner(node);
                check(learner.is_some(), &format!("{node} became a member without having been a learner"))?;
                check(!member.in_sync, &format!("{node} was promoted and in sync at once"))?;
                let same = learner.is_some_and(|learner| learner.incarnation == member.incarnation);
                check(same, &format!("{node} was promoted with another incarnation than it learnt with"))?;
            }
        }
    }
    let removed = old.members.iter().any(|member| new.member(member.node).is_none());
    let reordered = moved(old, new)?;
    let kinds = [removed, promoted, in_sync, reordered].into_iter().filter(|kind| *kind).count();
    check(kinds <= 1, "more than one of removal, promotion, in sync and reorder in one epoch")
}

/// What a view must be by itself.
fn well_formed(view: &View) -> Result<(), String> {
    let check = |holds: bool, text: &str| if holds { Ok(()) } else { Err(text.to_owned()) };
    check(!view.members.is_empty(), "there is no member")?;
    check(view.members[0].in_sync, "the head is not in sync")?;
    check(!view.reason.is_empty(), "there is no reason")?;
    let mut seen = BTreeSet::new();
    for node in nodes(view) {
        check(seen.insert(node), &format!("{node} stands twice"))?;
        let is_out = view.expelled.iter().any(|expelled| expelled.node == node);
        check(!is_out, &format!("{node} is in it and was taken out"))?;
    }
    for learner in &view.learners {
        let known = view.member(learner.source).is_some();
        check(known, &format!("the source of {} is no member", learner.node))?;
    }
    Ok(())
}

/// Whether members that are in both views changed places; only in-sync ones may.
fn moved(old: &View, new: &View) -> Result<bool, String> {
    let before: Vec<&Member> = old.members.iter().filter(|m| new.member(m.node).is_some()).collect();
    let after: Vec<&Member> = new.members.iter().filter(|m| old.member(m.node).is_some()).collect();
    if before.iter().zip(&after).all(|(before, after)| before.node == after.node) {
        return Ok(false);
    }
    for (before, after) in before.iter().zip(&after) {
        if !before.in_sync && before.node != after.node {
            return Err(format!("{} is not in sync and changed places", before.node));
        }
    }
    Ok(true)
}

fn nodes(view: &View) -> impl Iterator<Item = NodeId> {
    view.members.iter().map(|member| member.node).chain(view.learners.iter().map(|learner| learner.node))
}
