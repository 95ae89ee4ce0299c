//! The rules of one chain: from a view and the facts to the next view (protocol.md 7).
//!
//! Pure functions. Each makes one step, of one kind, or none; the first that applies wins. Losses and restarts are
//! [`urgent`] and come at once; all else is [`optional`] and waits until the chain is quiet, so that a chain changes
//! one step at a time. What an operator orders is in `order`; what every step must keep is in
//! [`super::legal`].

use craq_proto::{
    EXPELLED_MAX, Expelled, Learner, Member, NodeId, View,
    planted::{self, Bug},
};

use super::{
    event::Placement,
    facts::Facts,
    transition::{Name, Transition, reason},
};

/// A next view, and what it changes.
pub type Step = (View, Vec<Transition>);

/// The next view of the chain, if the facts call for one.
#[must_use]
pub fn next_view(view: &View, facts: &Facts) -> Option<Step> {
    urgent(view, facts).or_else(|| optional(view, facts))
}

/// Restarts and losses: they are never made to wait.
#[must_use]
pub fn urgent(view: &View, facts: &Facts) -> Option<Step> {
    restarts(view, facts).or_else(|| removals(view, facts)).or_else(|| cut(view, facts))
}

/// All that waits until the newest epoch is active at every in-sync member that is alive.
#[must_use]
pub fn optional(view: &View, facts: &Facts) -> Option<Step> {
    if !facts.quiet(view) {
        return None;
    }
    in_sync(view, facts)
        .or_else(|| leads(view, facts))
        .or_else(|| promotion(view, facts))
        .or_else(|| sources(view, facts))
        .or_else(|| joins(view, facts))
}

/// The next view while it is made.
pub(super) struct Draft {
    pub(super) view: View,
    pub(super) transitions: Vec<Transition>,
}

impl Draft {
    pub(super) fn of(view: &View) -> Self {
        Self { view: view.clone(), transitions: Vec::new() }
    }

    /// The step, if anything changed.
    pub(super) fn finish(mut self) -> Option<Step> {
        if self.transitions.is_empty() {
            return None;
        }
        self.view.epoch = self.view.epoch.next();
        self.view.reason = reason(&self.transitions);
        Some((self.view, self.transitions))
    }

    /// Takes the node out, member or learner.
    pub(super) fn take_out(&mut self, node: NodeId) {
        self.view.members.retain(|member| member.node != node);
        self.view.learners.retain(|learner| learner.node != node);
    }

    /// Takes the node out, and keeps its process out.
    pub(super) fn expel(&mut self, node: NodeId, facts: &Facts) {
        let known = facts.nodes.get(&node).map(|facts| facts.incarnation);
        if let Some(incarnation) = known.max(self.view.incarnation(node)) {
            self.take_out(node);
            let expelled = &mut self.view.expelled;
            expelled.push(Expelled { node, incarnation });
            expelled.drain(..expelled.len().saturating_sub(EXPELLED_MAX));
        }
    }

    /// After members were taken out: the head must be in sync, and every learner needs a source that is a member.
    pub(super) fn mend(&mut self, facts: &Facts) {
        while let Some(head) = self.view.members.first().filter(|head| !head.in_sync).cloned() {
            let Some(leader) = self.view.members.iter().find(|member| member.in_sync).cloned() else { break };
            if planted::is(Bug::HeadNotInSync) {
                break;
            }
            self.view.members.remove(0);
            let (node, head) = (Name::of(&self.view, head.node), head);
            let node = Name { address: head.address.clone(), ..node };
            self.transitions.push(Transition::FellBack { node, head: Name::of(&self.view, leader.node) });
            let Member { node, incarnation, address, .. } = head;
            self.view.learners.push(Learner { node, incarnation, source: leader.node, address });
        }
        let orphans: Vec<NodeId> = self.view.learners.iter().map(|learner| learner.node).collect();
        for orphan in orphans {
            let source = self.view.learner(orphan).map(|learner| learner.source);
            if source.is_some_and(|source| self.view.member(source).is_none()) {
                self.resource(orphan, facts, true);
            }
        }
    }

    /// Gives a learner the source that it should have.
    fn resource(&mut self, learner: NodeId, facts: &Facts, lost: bool) {
        let head = self.view.head().map(|head| head.node);
        let Some(source) = facts.wanted_source(&self.view, learner).or(head) else { return };
        let names = (Name::of(&self.view, learner), Name::of(&self.view, source));
        if let Some(learner) = self.view.learners.iter_mut().find(|l| l.node == learner) {
            learner.source = source;
            self.transitions.push(Transition::Resourced { node: names.0, source: names.1, lost });
        }
    }
}

/// A process that started anew takes part only in an epoch that names it: one is made at once, with the same order.
/// A member with an intact store stays in sync (protocol.md 4). A new address is taken over in the same way.
fn restarts(view: &View, facts: &Facts) -> Option<Step> {
    let mut draft = Draft::of(view);
    let mut transitions = Vec::new();
    let mut renew = |node, incarnation: &mut craq_proto::Incarnation, address: &mut String| {
        let Some(known) = facts.nodes.get(&node) else { return };
        if known.lost.is_some() {
            return;
        }
        let name = || Name { node, address: known.address.clone() };
        if known.incarnation > *incarnation {
            *incarnation = known.incarnation;
            transitions.push(Transition::Restarted { node: name(), incarnation: known.incarnation });
        } else if known.address != *address {
            transitions.push(Transition::Moved { node: name() });
        }
        address.clone_from(&known.address);
    };
    for member in &mut draft.view.members {
        renew(member.node, &mut member.incarnation, &mut member.address);
    }
    for learner in &mut draft.view.learners {
        renew(learner.node, &mut learner.incarnation, &mut learner.address);
    }
    draft.transitions = transitions;
    draft.finish()
}

/// Takes out who is lost and who wants to go, as long as an in-sync member stays. A chain whose in-sync members are
/// all lost keeps its view and waits for one of them.
fn removals(view: &View, facts: &Facts) -> Option<Step> {
    let alive = |member: &&Member| member.in_sync && facts.lost(member.node).is_none();
    let mut holders: Vec<NodeId> = view.members.iter().filter(alive).map(|member| member.node).collect();
    let goes_on = planted::is(Bug::EpochWithoutInSync)
        && view.members.iter().any(|member| facts.lost(member.node).is_none());
    if holders.is_empty() && !goes_on {
        return None;
    }
    let mut draft = Draft::of(view);
    let nodes = view.members.iter().map(|m| m.node).chain(view.learners.iter().map(|l| l.node));
    for node in nodes {
        let name = Name::of(view, node);
        if let Some(why) = facts.lost(node) {
            draft.transitions.push(Transition::Lost { node: name, why });
            draft.take_out(node);
        } else if facts.leaving(node) && holders != [node] {
            // The last in-sync member stays in the view, whatever it wants: nobody else holds all writes.
            holders.retain(|holder| *holder != node);
            draft.transitions.push(Transition::Left { node: name });
            draft.take_out(node);
        }
    }
    if holders.is_empty()
        && let Some(head) = draft.view.members.first_mut()
    {
        head.in_sync = true;
    }
    draft.mend(facts);
    draft.finish()
}

/// Two members that both reach the coordinator but not each other: one goes.
fn cut(view: &View, facts: &Facts) -> Option<Step> {
    let cut = facts.cut?;
    view.member(cut.victim)?;
    let holds = |member: &Member| member.in_sync && facts.lost(member.node).is_none();
    if !view.members.iter().any(|member| member.node != cut.victim && holds(member)) {
        return None;
    }
    let mut draft = Draft::of(view);
    let (node, other) = (Name::of(view, cut.victim), Name::of(view, cut.other));
    draft.transitions.push(Transition::Cut { node, other });
    draft.take_out(cut.victim);
    draft.mend(facts);
    draft.finish()
}

/// Members that said `Active` in the newest epoch, as members of it, are in sync.
fn in_sync(view: &View, facts: &Facts) -> Option<Step> {
    let mut draft = Draft::of(view);
    for member in &mut draft.view.members {
        let is_active = facts.active(view, member.node) || planted::is(Bug::InSyncWithoutActive);
        if !member.in_sync && facts.lost(member.node).is_none() && is_active {
            member.in_sync = true;
            draft.transitions.push(Transition::InSync { node: Name::of(view, member.node) });
        }
    }
    draft.finish()
}

/// A member that joined in order to lead changes places once it and all before it are in sync.
fn leads(view: &View, facts: &Facts) -> Option<Step> {
    let wants = |member: &Member| facts.nodes.get(&member.node).is_some_and(|node| node.wants_head);
    let position = view.members.iter().position(|member| member.in_sync && wants(member))?;
    if position == 0 || !view.members[..position].iter().all(|member| member.in_sync) {
        return None;
    }
    let mut draft = Draft::of(view);
    draft.view.members[..=position].rotate_right(1);
    draft.transitions.push(Transition::Leads { node: Name::of(view, view.members[position].node) });
    draft.finish()
}

/// The first learner that has caught up in this epoch, from the source after which it is to stand, becomes a member.
fn promotion(view: &View, facts: &Facts) -> Option<Step> {
    let settling =
        |member: &Member| !member.in_sync && facts.nodes.get(&member.node).is_some_and(|n| n.settling);
    if view.members.iter().any(settling) {
        return None;
    }
    let ready = |learner: &&Learner| {
        facts.stays(learner.node)
            && facts.wanted_source(view, learner.node) == Some(learner.source)
            && facts.replica_now(view, learner.node).is_some_and(|replica| replica.caught_up)
    };
    let learner = view.learners.iter().find(ready)?.clone();
    let position = view.position(learner.source)?;
    let mut draft = Draft::of(view);
    draft.transitions.push(Transition::Promoted {
        node: Name::of(view, learner.node),
        after: Name::of(view, learner.source),
    });
    draft.take_out(learner.node);
    let Learner { node, incarnation, address, .. } = learner;
    draft.view.members.insert(position + 1, Member { node, incarnation, in_sync: false, address });
    draft.finish()
}

/// Learners whose place has moved, because the chain grew or the member that they wait for came, follow it.
fn sources(view: &View, facts: &Facts) -> Option<Step> {
    let mut draft = Draft::of(view);
    for learner in &view.learners {
        let wanted = facts.wanted_source(view, learner.node);
        if facts.stays(learner.node) && wanted.is_some_and(|source| source != learner.source) {
            draft.resource(learner.node, facts, false);
        }
    }
    draft.finish()
}

/// Registered nodes that are in no view yet become learners, in the order in which they came.
fn joins(view: &View, facts: &Facts) -> Option<Step> {
    let mut joining: Vec<_> = facts
        .nodes
        .iter()
        .filter(|(node, known)| {
            view.incarnation(**node).is_none() && !view.is_expelled(**node, known.incarnation)
        })
        .filter_map(|(node, known)| known.joins.map(|stream| (stream, *node, known)))
        .collect();
    joining.sort_by_key(|(stream, ..)| *stream);
    let mut draft = Draft::of(view);
    for (_, node, known) in joining {
        let Some(source) = facts.wanted_source(view, node) else { continue };
        let missed = match known.placement {
            Placement::After(other) if other != source => Some(other),
            _ => None,
        };
        draft.transitions.push(Transition::Joined {
            node: Name { node, address: known.address.clone() },
            source: Name::of(view, source),
            missed,
        });
        draft.view.expelled.retain(|expelled| expelled.node != node);
        draft.view.learners.push(Learner {
            node,
            incarnation: known.incarnation,
            source,
            address: known.address.clone(),
        });
    }
    draft.finish()
}
