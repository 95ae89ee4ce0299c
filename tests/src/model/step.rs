//! Carrying out what a replica orders, and judging what comes of it. Everything that lies between the replicas is here;
//! which of it happens next is for `event` to say.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use craq_node::replica::{
    Loader,
    event::{Input, LinkId, Output, Reply, TailAnswer, Ticket},
};
use craq_proto::{ClientId, Epoch, Incarnation, Seq, Time};
use uuid::Uuid;

use super::{
    Chain,
    network::{Call, Parcel, Place, Sent, Wire},
    node_id, place,
    rules::Rule,
    seen::Sight,
    state::{NODES, Node, Reading, State, Writing},
};

/// The reader's ticket; writers have their number in the model.
pub(super) const READ: Ticket = Ticket(100);

/// The ticket of a ping says all that its answer needs.
fn ping_ticket(from: Place, epoch: Epoch, sent: Time) -> Ticket {
    let millis = u64::try_from(sent.0.as_millis()).expect("a short model");
    Ticket((millis * 256 + epoch.0) * NODES as u64 + from as u64)
}

fn pinged_by(Ticket(ticket): Ticket) -> (Place, Epoch, Time) {
    let (nodes, rest) = (NODES as u64, ticket / NODES as u64);
    let from = usize::try_from(ticket % nodes).expect("a place");
    (from, Epoch(rest % 256), Time::from_millis(rest / 256))
}

pub(super) fn client(writer: usize) -> ClientId {
    ClientId(Uuid::from_u128(writer as u128))
}

impl Chain {
    /// A node is told something, and does what follows.
    pub(super) fn input(&self, state: &mut State, at: Place, input: Input) {
        if state.broken.is_some() {
            return;
        }
        let now = state.now();
        let Some(replica) = state.node_mut(at).replica.as_mut() else { return };
        let (before, gate) = (replica.status(now).commit, replica.next_deadline());
        let mut outputs = Vec::new();
        let step = catch_unwind(AssertUnwindSafe(|| replica.step(now, input, &mut outputs)));
        let (commit, waits) = (replica.status(now).commit, replica.next_deadline());
        if waits != gate && waits.is_some_and(|until| until > now && until < now + super::NEVER) {
            self.seen.mark(Sight::GateWaited);
        }
        if let Err(panic) = step {
            let how = panic.downcast_ref::<String>().cloned();
            let how = how.or(panic.downcast_ref::<&str>().map(|how| (*how).to_owned()));
            return state.breaks(Rule::NoHalt, how.unwrap_or_default());
        }
        self.note_commits(state, at, before, commit);
        for output in outputs {
            self.output(state, at, output);
        }
        if !self.setup.stores_lag {
            while self.persisted(state, at) {}
        }
    }

    /// The node's oldest write is done.
    pub(super) fn persisted(&self, state: &mut State, at: Place) -> bool {
        let node = state.node_mut(at);
        let Some((id, write)) = node.writes.pop_front() else { return false };
        Arc::make_mut(&mut node.disk).apply(&write);
        self.input(state, at, Input::Persisted { id });
        true
    }

    fn note_commits(&self, state: &mut State, at: Place, before: Seq, commit: Seq) {
        if commit < before {
            state.breaks(Rule::CommitRises, format!("from {before} to {commit} at {}", super::NAMES[at]));
        }
        for seq in before.0 + 1..=commit.0 {
            let name = super::NAMES[at];
            let Some(entry) = state.nodes[at].disk.entry(Seq(seq)) else {
                return state.breaks(Rule::OneHistory, format!("{name} commits {seq} and hasn't got it"));
            };
            let request = entry.request.map(|request| (request.client, request.number));
            let own = (entry.origin_epoch, request);
            let index = usize::try_from(seq).expect("few entries") - 1;
            if let Some(known) = state.committed.get(index) {
                if *known != own {
                    state.breaks(Rule::OneHistory, format!("{name} commits another entry at {seq}"));
                }
            } else if index > state.committed.len() {
                state.breaks(Rule::OneHistory, format!("{name} commits {seq} before what is below it"));
            } else if request.is_some() && state.committed.iter().any(|(_, earlier)| *earlier == request) {
                state.breaks(Rule::Once, format!("{name} commits a request again at {seq}"));
            } else {
                state.committed.push(own);
            }
        }
    }

    fn output(&self, state: &mut State, at: Place, output: Output) {
        match output {
            Output::Persist { id, write } => {
                if !write.remove_rows.is_empty() {
                    self.seen.mark(Sight::Truncated);
                }
                state.node_mut(at).writes.push_back((id, Arc::new(write)));
            }
            Output::OpenLink { link, to, kind, epoch, .. } => {
                let incarnation = state.nodes[at].incarnation;
                if link > LinkId(2) && state.breaks_left < self.setup.breaks {
                    self.seen.mark(Sight::LinkReopened);
                }
                state.wires.push(Arc::new(Wire::new((at, link), incarnation, place(to), kind, epoch)));
            }
            Output::Send { link, epoch, message } => {
                let found = state.wires.iter_mut().find_map(|wire| Some((wire.is_opener(at, link)?, wire)));
                if let Some((is_opener, wire)) = found {
                    let parcel = Parcel::Message(epoch, Arc::new(message));
                    Arc::make_mut(wire).send(is_opener, parcel);
                }
            }
            Output::CloseLink { link } => {
                let found = state.wires.iter_mut().find_map(|wire| Some((wire.is_opener(at, link)?, wire)));
                if let Some((is_opener, wire)) = found {
                    Arc::make_mut(wire).close(is_opener);
                }
                state.wires.retain(|wire| !wire.is_gone());
            }
            Output::Ping { to, epoch } => {
                let sent = state.now();
                let is_heard = state.committed.is_empty() || self.setup.pings.contains(&at);
                let to = to.iter().filter(|_| is_heard);
                to.for_each(|(to, _)| state.call(at, place(*to), Call::Ping { epoch, sent }));
            }
            Output::Release { to, epoch } => {
                to.iter().for_each(|(to, _)| state.call(at, place(*to), Call::Release { epoch }));
            }
            Output::AskTail { question, tail, epoch, .. } => {
                state.call(at, place(tail.0), Call::Question { question, epoch });
            }
            Output::Reply { ticket: READ, reply, .. } => self.reply_to_read(state, at, &reply),
            Output::Reply { ticket, reply, .. } => self.reply_to_write(state, at, ticket, &reply),
            Output::Halt { reason } => state.breaks(Rule::NoHalt, reason),
            Output::ReadLog { .. } => state.breaks(Rule::NoHalt, "a walk, and yet all are in sync"),
            Output::Promise { ticket, refused: None } => {
                let (from, epoch, sent) = pinged_by(ticket);
                state.call(at, from, Call::Promise { epoch, sent });
            }
            // Views reach everyone by themselves.
            Output::Promise { .. } | Output::Report | Output::FetchView => {}
        }
    }

    fn reply_to_write(&self, state: &mut State, at: Place, ticket: Ticket, reply: &Reply) {
        let index = usize::try_from(ticket.0).expect("a writer's index");
        let (number, floor) = (state.writers[index].number, state.writers[index].floor);
        let Reply::Applied { seq, versions } = reply else {
            state.writers[index].phase = Writing::Again;
            return;
        };
        let entries = usize::try_from(seq.0).expect("few entries");
        let is_own = state.committed.get(entries - 1).map(|(_, request)| *request)
            == Some(Some((client(index), number)));
        let writes = state.committed.iter().take(entries).filter(|(_, request)| request.is_some()).count();
        if !is_own {
            let how = format!("{seq} is acknowledged, and is not the write's own committed entry");
            return state.breaks(Rule::Once, how);
        }
        if versions.first().map(|version| version.0) != Some(writes as u64) {
            state.breaks(Rule::Once, format!("write {writes} was told the versions {versions:?}"));
        } else if *seq <= floor {
            state.breaks(Rule::ReadsAreStrong, format!("write {seq} came to stand before {floor}"));
        }
        if state.epoch(at) > Some(Epoch(1)) {
            self.seen.mark(Sight::AckedAfterChange);
            if Some(state.committed[entries - 1].0) < state.epoch(at) {
                self.seen.mark(Sight::RepeatRecognised);
            }
        }
        let writer = &mut state.writers[index];
        (writer.phase, writer.floor) = (Writing::Idle, Seq::ZERO);
        writer.left -= 1;
        state.told = state.told.max(*seq);
    }

    fn reply_to_read(&self, state: &mut State, at: Place, reply: &Reply) {
        let Reading::Asks { floor, .. } = state.reading else { return };
        let now = state.now();
        let permit = state.replica(at).map(|replica| replica.reader().permit(now));
        match (reply, permit) {
            (Reply::Serve { position, .. }, Some(Ok(permit))) => {
                self.seen.mark(Sight::AskedTheTail);
                state.reading = Reading::Planned { at, floor, position: *position, permit };
            }
            _ => state.reading = Reading::Idle,
        }
    }

    /// The reading task looks into the store, and only then at what it was planned under.
    pub(super) fn serve(&self, state: &mut State) {
        let Reading::Planned { at, floor, position, permit } = state.reading else { return };
        state.reading = Reading::Idle;
        let now = state.now();
        let Some(replica) = state.replica(at) else { return };
        if !replica.reader().holds(now, permit) {
            return self.seen.mark(Sight::ReadLapsed);
        }
        if state.newest().member(node_id(at)).is_none() {
            self.seen.mark(Sight::ReadByOneLeftOut);
        }
        let seq = position.map_or(Seq::ZERO, |position| position.seq);
        let held = state.nodes[at].disk.entry(seq).map(|entry| entry.origin_epoch);
        let committed = state.committed.get(usize::try_from(seq.0).expect("few entries").wrapping_sub(1));
        if position.is_some() && (held.is_none() || held != committed.map(|(epoch, _)| *epoch)) {
            state.breaks(Rule::ReadsAreStrong, format!("{} returns {seq}, not committed", super::NAMES[at]));
        } else if seq < floor {
            let name = super::NAMES[at];
            state.breaks(Rule::ReadsAreStrong, format!("{name} returns {seq}, {floor} was told before"));
        }
        state.told = state.told.max(seq);
    }

    /// A parcel arrives at the open end of a link.
    pub(super) fn arrive(&self, state: &mut State, index: usize, is_down: bool) {
        let wire = Arc::make_mut(&mut state.wires[index]);
        let Some(parcel) = wire.queue_mut(is_down).pop_front() else { return };
        let (end, from) = (wire.receiver(is_down), wire.opener.place);
        let (link, epoch, incarnation, kind) = (end.link, wire.epoch, wire.incarnation, wire.kind);
        match parcel {
            Parcel::Offer => {
                if state.epoch(end.place) > Some(epoch) {
                    self.seen.mark(Sight::OlderEpochRefused);
                }
                let from = node_id(from);
                self.input(state, end.place, Input::LinkOffered { link, from, incarnation, epoch, kind });
                // Refused: in this epoch for good. The opener would try again and again, and nothing else would change.
                state.wires.retain(|wire| wire.acceptor.is_open || wire.acceptor.link != link);
            }
            Parcel::Message(epoch, message) => {
                let message = Arc::unwrap_or_clone(message);
                self.input(state, end.place, Input::Received { link, epoch, message });
            }
            Parcel::Closed => {
                let ends = if is_down { &mut wire.acceptor } else { &mut wire.opener };
                ends.is_open = false;
                state.wires.retain(|wire| !wire.is_gone());
                self.input(state, end.place, Input::LinkClosed { link });
            }
        }
    }

    /// A call arrives, and is answered.
    pub(super) fn answer(&self, state: &mut State, index: usize) {
        let Sent { from, to, call } = state.calls.remove(index);
        match call {
            Call::Ping { epoch, sent } => {
                let ticket = ping_ticket(from, epoch, sent);
                self.input(state, to, Input::Pinged { ticket, from: node_id(from), epoch });
            }
            Call::Promise { epoch, sent } => {
                state.promised[to][from] = sent.max(state.promised[to][from]);
                self.input(state, to, Input::Promised { by: node_id(from), epoch, sent });
            }
            Call::Release { epoch } => self.input(state, to, Input::Released { by: node_id(from), epoch }),
            Call::Question { question, epoch } => {
                let now = state.now();
                let look =
                    state.replica(to).map(|tail| tail.reader().latest_versions(now, epoch, &[super::key()]));
                let answer = look.and_then(Result::ok);
                let answer = answer.map(|(told, _)| (told.versions.first().copied().flatten(), told.commit));
                if answer.is_none() {
                    self.seen.mark(Sight::TailDidNotAnswer);
                }
                state.call(to, from, Call::Answer { question, answer });
            }
            Call::Answer { question, answer } => {
                let answer = answer.map(|(position, commit)| TailAnswer { versions: vec![position], commit });
                self.input(state, to, Input::TailAnswered { question, answer });
            }
        }
    }

    /// The process ends; what its store had not done is lost, and so is what was on its way to it.
    pub(super) fn crash(&self, state: &mut State, at: Place) {
        state.promised[at] = Default::default();
        let node = state.node_mut(at);
        node.replica = None;
        node.writes.clear();
        for wire in &mut state.wires {
            let ends = [(wire.opener, true), (wire.acceptor, false)];
            for (_, is_opener) in ends.iter().filter(|(end, _)| end.is_open && end.place == at) {
                Arc::make_mut(wire).close(*is_opener);
            }
        }
        state.wires.retain(|wire| !wire.is_gone());
        for sent in std::mem::take(&mut state.calls) {
            state.call(sent.from, sent.to, sent.call);
        }
        for writer in &mut state.writers {
            if writer.phase == Writing::Waits(at) {
                writer.phase = Writing::Again;
            }
        }
        if matches!(state.reading, Reading::Asks { at: there, .. } | Reading::Planned { at: there, .. } if there == at)
        {
            state.reading = Reading::Idle;
        }
    }

    /// The process starts on what its disk has.
    pub(super) fn start(&self, state: &mut State, at: Place) {
        let now = state.now();
        let disk = Arc::clone(&state.nodes[at].disk);
        let incarnation = state.nodes[at].incarnation.next();
        let mut loader = Loader::new(self.config(at), node_id(at), incarnation, disk.meta());
        disk.rows().for_each(|row| loader.row(row));
        let replica = loader.finish(now);
        let status = replica.status(now);
        if status.last > status.commit && incarnation > Incarnation(1) {
            self.seen.mark(Sight::RestartedDirty);
        }
        state.nodes[at] = Arc::new(Node::new(incarnation, Some(replica), disk));
    }
}

impl State {
    /// A call sets out. Nobody is there to take it: then a question is answered by the network, and the rest is lost.
    fn call(&mut self, from: Place, to: Place, call: Call) {
        if self.needs_no_ping(from, to, call) {
            return;
        }
        if self.replica(to).is_some() {
            self.calls.push(Sent { from, to, call });
        } else if let Call::Question { question, .. } = call {
            self.call(to, from, Call::Answer { question, answer: None });
        }
    }

    /// The same promise is there or on its way, or the same question: this one could only prolong the wait at a gate. It is
    /// lost.
    fn needs_no_ping(&self, from: Place, to: Place, ping: Call) -> bool {
        let Call::Ping { epoch, sent } = ping else { return false };
        let is_known = |other: &Sent| match other.call {
            Call::Ping { .. } => (other.from, other.to, other.call) == (from, to, ping),
            promise => (other.from, other.to, promise) == (to, from, Call::Promise { epoch, sent }),
        };
        self.promised[from][to] == sent || self.calls.iter().any(is_known)
    }
}
