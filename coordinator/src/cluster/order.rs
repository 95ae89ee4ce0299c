//! What an operator may order: a node out of a chain, or the members in another order. Pure functions.

use std::collections::BTreeSet;

use craq_proto::{Member, NodeId, View};

use super::{
    event::Refusal,
    facts::Facts,
    next_view::{Draft, Step},
    transition::{Name, Transition},
};

/// The view without the node.
///
/// The last in-sync member goes only with `accept_data_loss`: then the first of the other members leads with what it
/// has, or else a learner; one that is alive comes before one that is not.
pub(super) fn remove(
    view: &View,
    facts: &Facts,
    node: NodeId,
    accept_data_loss: bool,
) -> Result<Step, Refusal> {
    let name = Name::of(view, node);
    if view.member(node).is_none() && view.learner(node).is_none() {
        let text = format!(
            "node {node} is neither member nor learner of chain {} in epoch {}",
            view.chain, view.epoch
        );
        return Err(Refusal::Invalid(text));
    }
    let mut draft = Draft::of(view);
    draft.expel(node, facts);
    if draft.view.members.iter().any(|member| member.in_sync) {
        draft.transitions.push(Transition::Removed { node: name });
    } else {
        if !accept_data_loss {
            let text = format!(
                "{name} is the last member in sync of chain {}: what only it holds would be lost; \
                 say that data loss is accepted to remove it all the same",
                view.chain
            );
            return Err(Refusal::Forbidden(text));
        }
        let head = take_the_lead(&mut draft.view, facts).ok_or_else(|| {
            Refusal::Forbidden(format!(
                "{name} is the only replica of chain {}: nothing would be left",
                view.chain
            ))
        })?;
        draft.transitions.push(Transition::DataLossAccepted { node: name, head });
        // Whoever was not told of this epoch may hold what the new head lacks: it starts from nothing.
        draft.view.rebuilt_in = view.epoch.next();
    }
    draft.mend(facts);
    draft.finish().ok_or_else(|| Refusal::Invalid("nothing changes".to_owned()))
}

/// Makes a replica the in-sync head of a view that has no in-sync member left.
fn take_the_lead(view: &mut View, facts: &Facts) -> Option<Name> {
    let alive = |node: NodeId| facts.lost(node).is_none();
    let member = view.members.iter().position(|m| alive(m.node));
    let learner = view.learners.iter().position(|l| alive(l.node));
    let head = match (member, learner) {
        (Some(position), _) => view.members.remove(position),
        (None, _) if !view.members.is_empty() && learner.is_none() => view.members.remove(0),
        (None, learner) if !view.learners.is_empty() => {
            let learner = view.learners.remove(learner.unwrap_or(0));
            Member {
                node: learner.node,
                incarnation: learner.incarnation,
                in_sync: false,
                address: learner.address,
            }
        }
        _ => return None,
    };
    let name = Name { node: head.node, address: head.address.clone() };
    view.members.insert(0, Member { in_sync: true, ..head });
    Some(name)
}

/// The view with its members in this order. Only in-sync members change places; the others keep theirs.
pub(super) fn reorder(view: &View, order: &[NodeId]) -> Result<Step, Refusal> {
    let wanted: BTreeSet<NodeId> = order.iter().copied().collect();
    let present: BTreeSet<NodeId> = view.members.iter().map(|member| member.node).collect();
    if wanted != present || order.len() != view.members.len() {
        let text =
            format!("an order names each of the {} members of chain {} once", present.len(), view.chain);
        return Err(Refusal::Invalid(text));
    }
    for (old, new) in view.members.iter().zip(order) {
        if !old.in_sync && old.node != *new {
            let name = Name::of(view, old.node);
            return Err(Refusal::Forbidden(format!("{name} is not in sync and cannot change places yet")));
        }
    }
    let mut draft = Draft::of(view);
    draft.view.members.sort_by_key(|member| order.iter().position(|node| *node == member.node));
    if draft.view.members == view.members {
        return Err(Refusal::Invalid(format!("chain {} has this order already", view.chain)));
    }
    let head = Name::of(view, order[0]);
    draft.transitions.push(Transition::Reordered { head });
    draft.finish().ok_or_else(|| Refusal::Invalid("nothing changes".to_owned()))
}
