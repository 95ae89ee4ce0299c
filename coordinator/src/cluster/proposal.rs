//! How a chain goes from one view to the next: proposed, persisted, installed. And the orders of operators, which
//! wait for their turn.

use craq_proto::{
    Epoch, Member, NodeId, Time, View,
    planted::{self, Bug},
};

use super::{
    Chain, ChainId, Cluster, ORDER_PATIENCE, SETTLE_PATIENCE,
    event::{OrderId, Output, Refusal},
    facts::Facts,
    legal::{Authority, legal_successor},
    next_view::{self, Step},
    node::Node,
    order,
    transition::{Name, Transition, reason},
};

/// A view that is being persisted.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) view: View,
    transitions: Vec<Transition>,
    /// The operator's order that it carries out.
    order: Option<Order>,
}

/// What an operator wants.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Remove { node: NodeId, accept_data_loss: bool },
    Reorder { nodes: Vec<NodeId> },
}

/// An operator's order.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) id: OrderId,
    wish: Wish,
    /// It is given up at this time.
    pub(super) until: Time,
}

impl Chain {
    /// Nodes know a newer epoch than the log: nothing may be decided on what is here.
    pub(super) fn is_behind(&self) -> bool {
        let known = self.view.as_ref().map(|view| view.epoch).unwrap_or_default();
        let proposed = self.proposal.as_ref().map(|proposal| proposal.view.epoch).unwrap_or_default();
        self.seen > known.max(proposed)
    }

    /// Tells the operators whose patience is over.
    pub(super) fn give_up_orders(&mut self, now: Time, out: &mut Vec<Output>) {
        let (kept, over) = std::mem::take(&mut self.orders).into_iter().partition(|order| order.until > now);
        self.orders = kept;
        for Order { id, .. } in over {
            let text = "the chain could not be changed in time; its status says what it waits for".to_owned();
            out.push(Output::Answer { order: id, result: Err(Refusal::Unavailable(text)) });
        }
    }
}

impl Cluster {
    pub(super) fn on_order(&mut self, id: OrderId, chain: ChainId, wish: Wish, out: &mut Vec<Output>) {
        let until = self.now + ORDER_PATIENCE;
        match self.chains.get_mut(&chain).filter(|chain| chain.view.is_some()) {
            Some(chain) => chain.orders.push_back(Order { id, wish, until }),
            None => {
                let result = Err(Refusal::Invalid(format!("there is no chain {chain}")));
                out.push(Output::Answer { order: id, result });
            }
        }
    }

    /// Proposes the next view of each chain that has none under way.
    pub(super) fn evaluate(&mut self, out: &mut Vec<Output>) {
        let names: Vec<ChainId> = self.chains.keys().cloned().collect();
        for name in names {
            if let Some(mut chain) = self.chains.remove(&name) {
                self.evaluate_chain(&name, &mut chain, out);
                self.chains.insert(name, chain);
            }
        }
    }

    fn evaluate_chain(&self, name: &ChainId, chain: &mut Chain, out: &mut Vec<Output>) {
        if chain.proposal.is_some() || chain.is_behind() {
            return;
        }
        let Some(view) = chain.view.clone() else {
            self.found(name, chain, out);
            return;
        };
        let facts = self.facts(chain);
        let removal = |order: &Order| matches!(order.wish, Wish::Remove { .. });
        if let Some((step, order)) = carry_out(chain, &view, &facts, removal, out) {
            propose(chain, step, Some(order), out);
        } else if let Some(step) = next_view::urgent(&view, &facts) {
            propose(chain, step, None, out);
        } else if facts.quiet(&view) {
            if let Some((step, order)) = carry_out(chain, &view, &facts, |_| true, out) {
                propose(chain, step, Some(order), out);
            } else if let Some(step) = next_view::optional(&view, &facts) {
                propose(chain, step, None, out);
            }
        }
    }

    /// The first node that is registered founds the chain. That this happens once is the log's affair.
    fn found(&self, name: &ChainId, chain: &mut Chain, out: &mut Vec<Output>) {
        let here = self.nodes.iter().filter_map(|(id, node)| {
            Some((node.may_join(self.now, self.timing.failure_timeout)?, *id, node))
        });
        let Some((_, id, node)) = here.min_by_key(|(stream, ..)| *stream) else { return };
        if *name != ChainId::default_chain() {
            return;
        }
        let member =
            Member { node: id, incarnation: node.incarnation, in_sync: true, address: node.address.clone() };
        let transitions =
            vec![Transition::Founded { node: Name { node: id, address: node.address.clone() } }];
        let view = View {
            chain: name.clone(),
            epoch: Epoch(1),
            members: vec![member],
            learners: Vec::new(),
            rebuilt_in: Epoch::ZERO,
            expelled: Vec::new(),
            reason: reason(&transitions),
        };
        out.push(Output::Persist(view.clone()));
        chain.proposal = Some(Proposal { view, transitions, order: None });
    }

    pub(super) fn on_persisted(&mut self, view: View, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(chain) = self.chains.get_mut(&view.chain) else { return };
        let Some(proposal) = chain.proposal.take_if(|proposal| proposal.view == view) else { return };
        if let Some(order) = proposal.order {
            out.push(Output::Answer { order: order.id, result: Ok(view.epoch) });
        }
        for transition in proposal.transitions {
            match transition {
                Transition::Lost { node, .. } | Transition::Cut { node, .. } => {
                    if let Some(node) = self.nodes.get_mut(&node.node) {
                        node.hold_back(now);
                    }
                }
                Transition::Joined { node, .. } => {
                    if let Some(node) = self.nodes.get_mut(&node.node) {
                        node.since = now;
                    }
                }
                Transition::Promoted { node, .. } => {
                    chain.settling.insert(node.node, now + SETTLE_PATIENCE);
                }
                _ => {}
            }
        }
        chain.view = Some(view.clone());
        chain.tidy();
        out.push(Output::Publish(view));
    }

    /// Another coordinator has written: its views hold. Whoever they name gets a full term before it is judged.
    pub(super) fn on_superseded(&mut self, views: Vec<View>, out: &mut Vec<Output>) {
        for view in views {
            let chain = self.chains.entry(view.chain.clone()).or_default();
            let beaten = chain.proposal.take_if(|proposal| proposal.view.epoch <= view.epoch);
            if let Some(order) = beaten.and_then(|proposal| proposal.order) {
                chain.orders.push_front(order);
            }
            let known = chain.view.as_ref();
            if known.is_none_or(|known| known.epoch < view.epoch) {
                self.begin_grace(self.now);
                self.adopt(view.clone());
                out.push(Output::Publish(view));
            }
        }
    }

    /// Takes a view from the log over.
    pub(super) fn adopt(&mut self, view: View) {
        let members = view.members.iter().map(|m| (m.node, m.incarnation, &m.address));
        let learners = view.learners.iter().map(|l| (l.node, l.incarnation, &l.address));
        for (id, incarnation, address) in members.chain(learners) {
            let named = || Node::named(self.now, incarnation, address.clone());
            let node = self.nodes.entry(id).or_insert_with(named);
            if node.incarnation < incarnation && node.stream.is_none() {
                *node = named();
            }
        }
        let chain = self.chains.entry(view.chain.clone()).or_default();
        chain.seen = chain.seen.max(view.epoch);
        chain.view = Some(view);
        chain.tidy();
    }
}

impl Chain {
    /// Forgets wishes that the view has fulfilled, or whose node is no longer in it.
    fn tidy(&mut self) {
        let Some(view) = &self.view else { return };
        self.settling.retain(|id, _| view.member(*id).is_some_and(|member| !member.in_sync));
        self.wants_head.retain(|id| view.head().is_none_or(|head| head.node != *id));
    }
}

/// The first order of the kind that can be carried out; those that cannot are answered.
fn carry_out(
    chain: &mut Chain,
    view: &View,
    facts: &Facts,
    kind: impl Fn(&Order) -> bool,
    out: &mut Vec<Output>,
) -> Option<(Step, Order)> {
    while let Some(position) = chain.orders.iter().position(&kind) {
        let order = chain.orders.remove(position)?;
        let step = match &order.wish {
            Wish::Remove { node, accept_data_loss } => order::remove(view, facts, *node, *accept_data_loss),
            Wish::Reorder { nodes } => order::reorder(view, nodes),
        };
        match step {
            Ok(step) => return Some((step, order)),
            Err(refusal) => out.push(Output::Answer { order: order.id, result: Err(refusal) }),
        }
    }
    None
}

fn propose(chain: &mut Chain, (view, transitions): Step, order: Option<Order>, out: &mut Vec<Output>) {
    let loss = transitions.iter().any(|t| matches!(t, Transition::DataLossAccepted { .. }));
    let authority = if loss { Authority::DataLossAccepted } else { Authority::System };
    let is_planted = planted::is(Bug::HeadNotInSync) || planted::is(Bug::EpochWithoutInSync);
    if let Some(old) = chain.view.as_ref().filter(|_| !is_planted)
        && let Err(violated) = legal_successor(old, &view, authority)
    {
        panic!("an illegal view was made: {violated}: {view:?} after {old:?}");
    }
    if planted::is(Bug::PublishedBeforePersisted) {
        out.push(Output::Publish(view.clone()));
    }
    out.push(Output::Persist(view.clone()));
    chain.proposal = Some(Proposal { view, transitions, order });
}
