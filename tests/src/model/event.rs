//! What may happen next.

use std::sync::Arc;

use craq_node::replica::{
    Look, Replica,
    event::{Change as WriteChange, Condition, Input, Write},
};
use craq_proto::{Epoch, RequestId, Seq, Value, View, entry::checksum};

use super::{
    Chain, Change, NAMES, key,
    network::{Parcel, Place},
    node_id, place,
    state::{NODES, Reading, State, Writing},
    step::{READ, client},
};

/// One thing that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A writer sends its write to a node that takes writes.
    Write(usize, Place),
    /// The reader begins to read at a node that answers.
    Read(Place),
    /// The read looks into the store and is answered.
    Serve,
    /// A store has done its oldest write.
    Persisted(Place),
    /// The oldest parcel of a link arrives, at its acceptor or at its opener.
    Arrive(usize, bool),
    /// A call arrives.
    Call(usize),
    /// The coordinator publishes a view.
    Publish(Change),
    /// A node is told the view of an epoch.
    Install(Place, Epoch),
    /// A process ends.
    Crash(Place),
    /// A process starts.
    Restart(Place),
    /// A connection breaks.
    Break(usize),
    /// All leases that are held run out.
    Tick,
    /// A node's timer is due.
    Deadline(Place),
}

impl Event {
    /// It happens only if somebody wants it: the chain rests when only such events are left.
    fn is_wanted(self, state: &State) -> bool {
        match self {
            Self::Read(_) | Self::Publish(_) | Self::Crash(_) | Self::Restart(_) | Self::Break(_) => true,
            Self::Tick => true,
            Self::Write(writer, _) => state.writers[writer].phase == Writing::Idle,
            _ => false,
        }
    }
}

impl Chain {
    /// All that may happen next, in a fixed order.
    pub(super) fn events(&self, state: &State, events: &mut Vec<Event>) {
        if state.broken.is_some() {
            return;
        }
        self.events_of_clients(state, events);
        for (at, node) in state.nodes.iter().enumerate() {
            if !node.writes.is_empty() {
                events.push(Event::Persisted(at));
            }
            let due = node.replica.as_ref().and_then(Replica::next_deadline);
            if due.is_some_and(|due| due <= state.now()) {
                events.push(Event::Deadline(at));
            }
        }
        for (index, wire) in state.wires.iter().enumerate() {
            for is_down in [true, false] {
                let end = wire.receiver(is_down);
                let may_arrive = match wire.queue(is_down).front() {
                    // Earlier, it would be refused and opened again, and nothing else would change.
                    Some(Parcel::Offer) => state.epoch(end.place) >= Some(wire.epoch),
                    first => first.is_some(),
                };
                if end.is_open && may_arrive {
                    events.push(Event::Arrive(index, is_down));
                }
            }
        }
        events.extend((0..state.calls.len()).map(Event::Call));
        self.events_of_the_coordinator(state, events);
        self.faults(state, events);
        if state.tick < self.setup.ticks {
            events.push(Event::Tick);
        }
    }

    fn events_of_clients(&self, state: &State, events: &mut Vec<Event>) {
        let now = state.now();
        for (index, writer) in state.writers.iter().enumerate() {
            // Writers are alike: they begin in their order.
            let is_next = index == 0 || writer.number > 0 || state.writers[index - 1].number > 0;
            let wants = matches!(writer.phase, Writing::Idle | Writing::Again) && writer.left > 0 && is_next;
            let takes = |at: &Place| state.replica(*at).is_some_and(|node| node.status(now).writable);
            events.extend((0..NODES).filter(|at| wants && takes(at)).map(|at| Event::Write(index, at)));
        }
        match state.reading {
            Reading::Idle if state.reads_left > 0 => {
                let answers = |at: &Place| {
                    let look = state.replica(*at).map(|node| node.reader().strong(now, key().as_ref()));
                    look.is_some_and(|look| !matches!(look, Look::Refused(_)))
                };
                events.extend(self.setup.readers.iter().copied().filter(answers).map(Event::Read));
            }
            Reading::Planned { .. } => events.push(Event::Serve),
            Reading::Idle | Reading::Asks { .. } => {}
        }
    }

    fn events_of_the_coordinator(&self, state: &State, events: &mut Vec<Event>) {
        for view in state.views.iter() {
            let lags = |at: &Place| state.epoch(*at).is_some_and(|epoch| epoch < view.epoch);
            events.extend((0..NODES).filter(lags).map(|at| Event::Install(at, view.epoch)));
        }
        if state.views.len() <= usize::from(self.setup.changes_max) {
            let is_legal = |change: &&Change| next_view(state, **change).is_some();
            events.extend(self.setup.changes.iter().filter(is_legal).map(|change| Event::Publish(*change)));
        }
    }

    fn faults(&self, state: &State, events: &mut Vec<Event>) {
        let runs = |at: &Place| state.replica(*at).is_some();
        if state.crashes_left > 0 {
            events.extend(self.setup.crashes.iter().copied().filter(runs).map(Event::Crash));
        }
        if self.setup.restarts {
            events.extend((0..NODES).filter(|at| !runs(at)).map(Event::Restart));
        }
        if state.breaks_left > 0 {
            let is_up = |index: &usize| {
                let wire = &state.wires[*index];
                wire.opener.is_open && wire.acceptor.is_open
            };
            events.extend((0..state.wires.len()).filter(is_up).map(Event::Break));
        }
    }

    /// Nothing happens any more unless somebody wants it.
    pub(super) fn is_at_rest(&self, state: &State) -> bool {
        let mut events = Vec::new();
        self.events(state, &mut events);
        events.iter().all(|event| event.is_wanted(state))
    }

    /// Does it.
    pub(super) fn happen(&self, state: &mut State, event: Event) {
        match event {
            Event::Write(writer, at) => self.write(state, writer, at),
            Event::Read(at) => self.read(state, at),
            Event::Serve => self.serve(state),
            Event::Persisted(at) => _ = self.persisted(state, at),
            Event::Arrive(index, is_down) => self.arrive(state, index, is_down),
            Event::Call(index) => self.answer(state, index),
            Event::Publish(change) => {
                let view = next_view(state, change).expect("only legal changes are offered");
                Arc::make_mut(&mut state.views).push(view);
            }
            Event::Install(at, epoch) => {
                let view = state.views.iter().find(|view| view.epoch == epoch).cloned();
                self.input(state, at, Input::View(view.expect("a published view")));
            }
            Event::Crash(at) => {
                state.crashes_left -= 1;
                self.crash(state, at);
            }
            Event::Restart(at) => self.start(state, at),
            Event::Break(index) => {
                state.breaks_left -= 1;
                Arc::make_mut(&mut state.wires[index]).break_off();
            }
            Event::Tick => state.tick += 1,
            Event::Deadline(at) => self.input(state, at, Input::DeadlinePassed),
        }
    }

    fn write(&self, state: &mut State, index: usize, at: Place) {
        let told = state.told;
        let writer = &mut state.writers[index];
        let retry = writer.phase == Writing::Again;
        if !retry {
            writer.number += 1;
            writer.floor = told;
        }
        writer.phase = Writing::Waits(at);
        let number = writer.number;
        let request = RequestId { client: client(index), number, floor: number, born: Seq::ZERO, retry };
        let value = format!("{index}.{number}");
        let change = WriteChange {
            key: key(),
            checksum: checksum(key().as_ref(), value.as_bytes()),
            value: Some(Value::new(value, 100).expect("a short value")),
            condition: Condition::Always,
        };
        let write = Write { request, changes: vec![change] };
        self.input(
            state,
            at,
            Input::Write { ticket: craq_node::replica::event::Ticket(index as u64), write },
        );
    }

    fn read(&self, state: &mut State, at: Place) {
        let (now, floor) = (state.now(), state.told);
        let Some(look) = state.replica(at).map(|replica| replica.reader().strong(now, key().as_ref())) else {
            return;
        };
        state.reads_left -= 1;
        match look {
            Look::Serve { position, permit, .. } => {
                state.reading = Reading::Planned { at, floor, position, permit };
            }
            Look::Dirty => {
                state.reading = Reading::Asks { at, floor };
                self.input(state, at, Input::Read { ticket: READ, key: key() });
            }
            Look::Refused(_) => {}
        }
    }

    /// In words.
    pub(super) fn describe(&self, state: &State, event: Event) -> String {
        match event {
            Event::Write(writer, at) => format!("writer {writer} sends its write to {}", NAMES[at]),
            Event::Read(at) => format!("a read begins at {}", NAMES[at]),
            Event::Serve => format!("the read is answered: {:?}", state.reading),
            Event::Persisted(at) => format!("{}'s store has done its oldest write", NAMES[at]),
            Event::Arrive(index, is_down) => {
                let wire = &state.wires[index];
                let (from, to) = (wire.receiver(!is_down).place, wire.receiver(is_down).place);
                let what = match wire.queue(is_down).front() {
                    Some(Parcel::Offer) => format!("Open e{}", wire.epoch),
                    Some(Parcel::Message(epoch, message)) => format!("e{epoch} {}", brief(message)),
                    Some(Parcel::Closed) => format!("the end of the link of e{}", wire.epoch),
                    None => String::new(),
                };
                format!("{} -> {}: {what}", NAMES[from], NAMES[to])
            }
            Event::Call(index) => {
                let sent = state.calls[index];
                format!("{} -> {}: {:?}", NAMES[sent.from], NAMES[sent.to], sent.call)
            }
            Event::Publish(change) => {
                let members = next_view(state, change).map(|view| view.members).unwrap_or_default();
                let names: Vec<_> = members.iter().map(|member| NAMES[place(member.node)]).collect();
                format!("the coordinator publishes e{}: {names:?}", state.newest().epoch.next())
            }
            Event::Install(at, epoch) => format!("{} is told e{epoch}", NAMES[at]),
            Event::Crash(at) => format!("{} CRASHES", NAMES[at]),
            Event::Restart(at) => format!("{} starts", NAMES[at]),
            Event::Break(index) => {
                let wire = &state.wires[index];
                format!("the link {} - {} BREAKS", NAMES[wire.opener.place], NAMES[wire.acceptor.place])
            }
            Event::Tick => "time passes: a whole LEASE".to_owned(),
            Event::Deadline(at) => format!("{}'s timer", NAMES[at]),
        }
    }
}

/// A message in a few words.
fn brief(message: &craq_node::replica::event::Message) -> String {
    use craq_node::replica::event::Message;
    match message {
        Message::Append { entries, durable, commit } => {
            let entries: Vec<_> =
                entries.iter().map(|entry| format!("{}@e{}", entry.seq, entry.origin_epoch)).collect();
            format!("Append [{}] durable {durable} commit {commit}", entries.join(" "))
        }
        other => format!("{other:?}"),
    }
}

/// The view that the change makes of the newest one, if it is a legal step.
fn next_view(state: &State, change: Change) -> Option<View> {
    let newest = state.newest();
    let mut view = View { epoch: newest.epoch.next(), ..newest.clone() };
    match change {
        Change::Without(at) => view.members.retain(|member| member.node != node_id(at)),
        Change::Order(order) => {
            let position = |at: &Place| order.iter().position(|other| other == at);
            view.members.sort_by_key(|member| position(&place(member.node)));
        }
        Change::Renamed => {
            for member in &mut view.members {
                member.incarnation = state.nodes[place(member.node)].incarnation;
            }
        }
    }
    (!view.members.is_empty() && view.members != newest.members).then_some(view)
}
