//! What a node says to other nodes and hears from them: links, promises, questions to the tail.

use std::time::Duration;

use craq_node::replica::event::{Input, LinkId, Output, Ticket};
use craq_proto::{Epoch, NodeId};

use super::{
    call::{Failed, Question, Reply, Then},
    machine::Waiter,
    pipe::{Parcel, Side},
    place::{End, Place},
    service::Answer,
    world::{World, note},
};

/// How long a question to the tail may take.
const QUESTION_PATIENCE: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn reach_out(&mut self, machine: usize, output: Output) {
        let Some(from) = self.end_at(Place::Node(machine)) else { return };
        match output {
            Output::OpenLink { link, to, address, kind, epoch } => {
                let Some(process) = self.process(machine) else { return };
                let offer =
                    Parcel::Offer { from: process.node, to, incarnation: process.incarnation, epoch, kind };
                let Some(place) = Place::of(&address) else {
                    return self.wrong("address", format!("node {to} is said to be at {address:?}"));
                };
                let pipe = self.open_pipe(from, place, Some(link), offer);
                if let Some(process) = self.process(machine) {
                    process.links.insert(link, pipe);
                }
            }
            Output::Send { link, epoch, message } => {
                if let Some(pipe) = self.process(machine).and_then(|p| p.links.get(&link).copied()) {
                    self.send(pipe, side_of(link).other(), Parcel::Said(epoch, message));
                }
            }
            Output::CloseLink { link } => {
                if let Some(pipe) = self.process(machine).and_then(|p| p.links.remove(&link)) {
                    self.close_pipe(pipe, side_of(link));
                }
            }
            Output::Ping { to, epoch } => {
                for (node, address) in to {
                    self.ping(machine, from, node, &address, epoch);
                }
                self.on_ping(machine);
            }
            Output::Release { to, epoch } => {
                let Some(by) = self.process(machine).map(|process| process.node) else { return };
                for place in to.iter().filter_map(|(_, address)| Place::of(address)) {
                    let patience = self.setup.replica.lease;
                    self.call(from, place, patience, Question::Released { by, epoch }, Then::Forget);
                }
            }
            Output::AskTail { question, tail, epoch, keys } => {
                if let Some(place) = Place::of(&tail.1) {
                    let asked = Question::Latest { to: tail.0, epoch, keys };
                    self.call(from, place, QUESTION_PATIENCE, asked, Then::TailAnswered { question });
                }
            }
            _ => {}
        }
    }

    fn ping(&mut self, machine: usize, from: End, node: NodeId, address: &str, epoch: Epoch) {
        let sent = self.clock(machine);
        let lease = self.setup.replica.lease;
        let Some(process) = self.machines[machine].process.as_mut() else { return };
        let (me, meant) = (process.node, process.replica.view().and_then(|view| view.incarnation(node)));
        // At most one is under way to each; the next follows when it is answered, as in the shipped peers.
        if !process.heartbeat.begin_ping(node, epoch) {
            return;
        }
        let Some(place) = Place::of(address) else { return };
        let then = Then::Promise { node, meant, epoch, sent };
        self.call(from, place, lease, Question::Ping { from: me, to: node, epoch }, then);
    }

    /// A parcel arrives at a node.
    pub(super) fn node_hears(&mut self, machine: usize, pipe: u64, side: Side, parcel: Parcel) {
        let Some(process) = self.process(machine) else { return };
        match parcel {
            // A disk was lost: another node is here than the one that is meant.
            Parcel::Offer { to, .. } if to != process.node => {
                self.lose_pipe(pipe, Duration::ZERO..Duration::from_millis(5));
            }
            Parcel::Offer { from, incarnation, epoch, kind, .. } => {
                let link = LinkId(process.accepted_links);
                process.accepted_links += 2;
                process.links.insert(link, pipe);
                if let Some(pipe) = self.pipes.get_mut(&pipe) {
                    pipe.links[Side::Acceptor as usize] = Some(link);
                }
                self.step(machine, Input::LinkOffered { link, from, incarnation, epoch, kind });
            }
            Parcel::Said(epoch, message) => {
                let link = self.pipes.get(&pipe).and_then(|pipe| pipe.links[side as usize]);
                if let Some(link) = link {
                    self.step(machine, Input::Received { link, epoch, message });
                }
            }
            Parcel::Registered => self.on_registered(machine),
            Parcel::NotLeader(leader) => self.on_not_leader(machine, leader.as_deref()),
            Parcel::View(view) => self.step(machine, Input::View(view)),
            Parcel::Register(_) | Parcel::Beat(..) | Parcel::Leave | Parcel::Closed => {}
        }
    }

    /// A call arrives at a node.
    pub(super) fn node_is_asked(
        &mut self,
        machine: usize,
        call: u64,
        _from: End,
        patience: Duration,
        question: Question,
    ) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        match question {
            // A disk was lost: another node answers here, and nobody listens to it.
            Question::Ping { to, .. } | Question::Latest { to, .. } if to != process.node => {
                self.answer(call, Reply::Nothing);
            }
            Question::Ping { from, epoch, .. } => {
                let ticket = process.ticket(Waiter::Pinger(call));
                self.step(machine, Input::Pinged { ticket, from, epoch });
            }
            Question::Released { by, epoch } => {
                self.answer(call, Reply::Nothing);
                self.step(machine, Input::Released { by, epoch });
            }
            Question::Latest { epoch, keys, .. } => {
                let latest = process.reader.latest_versions(now, epoch, &keys);
                let answer = latest.map(|(answer, _)| answer);
                self.answer(call, Reply::Latest(answer));
            }
            Question::View => {
                let view = process.replica.view().cloned();
                self.answer(call, Reply::View(view));
            }
            Question::Serve(wish) => self.serve(machine, call, patience, wish),
        }
    }

    pub(super) fn on_promise(&mut self, machine: usize, ticket: Ticket, refused: Option<Epoch>) {
        let Some(process) = self.process(machine) else { return };
        let incarnation = process.incarnation;
        if let Some(Waiter::Pinger(call)) = process.waiters.remove(&ticket) {
            self.answer(call, Reply::Pong(refused, incarnation));
        }
    }

    /// What a node asked is answered, or not.
    pub(super) fn node_is_answered(&mut self, machine: usize, then: Then, result: Result<Reply, Failed>) {
        match (then, result) {
            (Then::Promise { node, meant, epoch, sent }, result) => {
                self.on_pong(machine, node, meant, (epoch, sent), result);
            }
            (Then::TailAnswered { question }, result) => {
                let answer = match result {
                    Ok(Reply::Latest(Ok(answer))) => Some(answer),
                    Ok(Reply::Latest(Err(error))) => {
                        if let Some(view) = error.view {
                            self.step(machine, Input::View(*view));
                        }
                        None
                    }
                    _ => None,
                };
                self.step(machine, Input::TailAnswered { question, answer });
            }
            (Then::InstallView, Ok(Reply::View(Some(view)))) => self.step(machine, Input::View(view)),
            (Then::HandedOn { operation }, result) => {
                let answered: Result<Result<Answer, _>, Failed> = match result {
                    Ok(Reply::Served(served)) => Ok(served),
                    Ok(_) => Err(Failed::Broken),
                    Err(failed) => Err(failed),
                };
                self.handed_on_answered(machine, operation, answered);
            }
            _ => {}
        }
    }

    fn on_pong(
        &mut self,
        machine: usize,
        node: NodeId,
        meant: Option<craq_proto::Incarnation>,
        (epoch, sent): (Epoch, craq_proto::Time),
        result: Result<Reply, Failed>,
    ) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let again = process.heartbeat.end_ping(node);
        let input = match result {
            Ok(Reply::Pong(refused, incarnation)) => {
                if meant.is_some_and(|meant| meant < incarnation) {
                    process.heartbeat.missed(node, meant, true, now);
                } else {
                    process.heartbeat.reached(node);
                }
                Self::promise_input(node, epoch, sent, refused)
            }
            Ok(_) => None,
            Err(failed) => {
                process.heartbeat.missed(node, meant, failed == Failed::NotConnected, now);
                None
            }
        };
        if self.trace.is_on() {
            let refused = process_is_refused(input.as_ref());
            note!(self, Place::Node(machine), "pong", "of node {node} epoch {epoch}: {refused}");
        }
        if let Some(input) = input {
            self.step(machine, input);
        }
        let wanted = again.and_then(|epoch| {
            let process = self.machines[machine].process.as_ref()?;
            let address = process.replica.view()?.address(node)?.to_owned();
            Some((epoch, address))
        });
        if let (Some((epoch, address)), Some(from)) = (wanted, self.end_at(Place::Node(machine))) {
            self.ping(machine, from, node, &address, epoch);
        }
    }
}

fn process_is_refused(input: Option<&Input>) -> &'static str {
    match input {
        Some(Input::Promised { .. }) => "promised",
        Some(_) => "refused",
        None => "nothing",
    }
}

/// Even links were opened here, odd ones accepted.
fn side_of(link: LinkId) -> Side {
    if link.0.is_multiple_of(2) { Side::Opener } else { Side::Acceptor }
}
