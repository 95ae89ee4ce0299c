//! Calls: one question, at most one answer.
//!
//! A call that cannot arrive is tried again by the network, as TCP does, and may arrive late, also when its caller has
//! long given up.

use std::time::Duration;

use craq_node::replica::event::{Input, TailAnswer};
use craq_proto::{CallError, Epoch, Incarnation, Key, NodeId, Time, View};
use rand::RngExt;

use super::{
    place::{End, Place},
    service::{Answer, Order, Wish},
    time::At,
    world::{Event, World},
};

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// For a promise.
    Ping { from: NodeId, to: NodeId, epoch: Epoch },
    /// Nothing: a lease is given up.
    Released { by: NodeId, epoch: Epoch },
    /// The tail: what is committed.
    Latest { to: NodeId, epoch: Epoch, keys: Vec<Key> },
    /// For the newest view.
    View,
    /// By a client, or for one.
    Serve(Wish),
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// None: promised; else the epoch in which it is refused. And which process start answers.
    Pong(Option<Epoch>, Incarnation),
    Latest(Result<TailAnswer, CallError>),
    View(Option<View>),
    Served(Result<Answer, CallError>),
    Nothing,
}

/// Why no answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// Nobody listens there, or the connection could not be made: nothing was sent.
    NotConnected,
    /// The connection broke: it may have arrived.
    Broken,
    /// No answer came in time: it may have arrived.
    TimedOut,
}

/// What the caller does with the answer.
#[derive(Debug)]
pub(super) enum Then {
    Promise {
        node: NodeId,
        meant: Option<Incarnation>,
        epoch: Epoch,
        sent: Time,
    },
    Forget,
    TailAnswered {
        question: u64,
    },
    InstallView,
    /// The attempt of this number of a client.
    Client {
        attempt: u64,
    },
    /// The client learns a view.
    ClientView,
    /// A write that was handed on, by a node's operation.
    HandedOn {
        operation: u64,
    },
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) from: End,
    pub(super) to: Place,
    question: Question,
    then: Option<Then>,
    /// The process that took it.
    taken_by: Option<u64>,
    reply: Option<Reply>,
    stalled: Option<At>,
    /// How long its caller waits, as it says.
    pub(super) patience: Duration,
}

impl World {
    /// Calls. `then` says what happens at the caller's when there is an answer, or none.
    pub(super) fn call(
        &mut self,
        from: End,
        to: Place,
        patience: Duration,
        question: Question,
        then: Then,
    ) -> u64 {
        let id = self.next_id();
        let call = Call {
            from,
            to,
            question,
            then: Some(then),
            taken_by: None,
            reply: None,
            stalled: None,
            patience,
        };
        self.calls.insert(id, call);
        let delay = self.network.delay(&mut self.random, from.place, to);
        self.schedule(delay, Event::Called(id));
        self.schedule(patience, Event::Expired(id));
        id
    }

    /// Whether the path is cut; then the event is tried again, until the connection counts as lost.
    fn is_stalled(&mut self, id: u64, from: Place, to: Place, event: fn(u64) -> Event) -> bool {
        if self.network.is_open(from, to) {
            return false;
        }
        let now = self.now;
        let Some(call) = self.calls.get_mut(&id) else { return true };
        let since = *call.stalled.get_or_insert(now);
        if now.since(since) > Duration::from_millis(self.random.random_range(200..1_500)) {
            let failed = if call.taken_by.is_none() && self.random.random_bool(0.5) {
                Failed::NotConnected
            } else {
                Failed::Broken
            };
            self.fail_call(id, failed);
            self.calls.remove(&id);
        } else {
            let again = Duration::from_millis(self.random.random_range(5..100));
            self.schedule(again, event(id));
        }
        true
    }

    pub(super) fn on_called(&mut self, id: u64) {
        let Some(call) = self.calls.get(&id) else { return };
        let (from, to) = (call.from, call.to);
        if self.is_stalled(id, from.place, to, Event::Called) {
            return;
        }
        let Some(end) = self.end_at(to) else {
            // Nobody listens: a killed process's machine says so, one without power says nothing.
            if self.answers_for_dead(to) {
                let delay = self.network.delay(&mut self.random, to, from.place);
                self.schedule(delay, Event::CallFailed(id, Failed::NotConnected));
            }
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.taken_by = Some(end.process);
        call.stalled = None;
        let (question, patience) = (call.question.clone(), call.patience);
        match to {
            Place::Node(machine) => self.node_is_asked(machine, id, from, patience, question),
            Place::Coordinator(index) => self.coordinator_is_asked(index, id, &question),
            Place::Client(_) | Place::World => {}
        }
    }

    fn answers_for_dead(&self, place: Place) -> bool {
        match place {
            Place::Node(machine) => self.machines[machine].has_power,
            _ => true,
        }
    }

    /// Puts the answer on its way.
    pub(super) fn answer(&mut self, id: u64, reply: Reply) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.reply = Some(reply);
        call.stalled = None;
        let (from, to) = (call.to, call.from.place);
        let delay = self.network.delay(&mut self.random, from, to);
        self.schedule(delay, Event::Answered(id));
    }

    pub(super) fn on_answered(&mut self, id: u64) {
        let Some(call) = self.calls.get(&id) else { return };
        let (from, to) = (call.to, call.from.place);
        if self.is_stalled(id, from, to, Event::Answered) {
            return;
        }
        let Some(mut call) = self.calls.remove(&id) else { return };
        if let (Some(then), Some(reply)) = (call.then.take(), call.reply.take())
            && self.is_alive(call.from)
        {
            self.conclude_call(call.from, call.to, then, Ok(reply));
        }
    }

    /// No answer comes any more. What was sent may still arrive.
    pub(super) fn fail_call(&mut self, id: u64, failed: Failed) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (from, to, then) = (call.from, call.to, call.then.take());
        if failed != Failed::TimedOut {
            self.calls.remove(&id);
        }
        if let Some(then) = then
            && self.is_alive(from)
        {
            self.conclude_call(from, to, then, Err(failed));
        }
    }

    fn conclude_call(&mut self, from: End, to: Place, then: Then, result: Result<Reply, Failed>) {
        match (from.place, then) {
            (_, Then::Forget) => {}
            (Place::Node(machine), then) => self.node_is_answered(machine, then, result),
            (Place::Client(client), Then::Client { attempt }) => {
                self.client_is_answered(client, to, attempt, result);
            }
            (Place::Client(client), Then::ClientView) => {
                if let Ok(Reply::View(Some(view))) = result {
                    self.client_learns(client, view);
                }
            }
            _ => {}
        }
    }

    /// All calls between two places break.
    pub(super) fn break_calls(&mut self, a: Place, b: Place) {
        let between =
            |call: &Call| (call.from.place, call.to) == (a, b) || (call.from.place, call.to) == (b, a);
        let found: Vec<u64> = self.calls.iter().filter(|(_, c)| between(c)).map(|(id, _)| *id).collect();
        for id in found {
            self.fail_call(id, Failed::Broken);
        }
    }

    /// A process is gone: its calls are forgotten, and those that it had taken break, unless nobody is told.
    pub(super) fn calls_of_dead(&mut self, end: End, is_told: bool) {
        self.calls.retain(|_, call| call.from != end);
        let taken = |call: &Call| call.to == end.place && call.taken_by == Some(end.process);
        let found: Vec<u64> = self.calls.iter().filter(|(_, c)| taken(c)).map(|(id, _)| *id).collect();
        for id in found.into_iter().filter(|_| is_told) {
            if self.calls.get(&id).is_some_and(|call| call.reply.is_none()) {
                let after = Duration::from_micros(self.random.random_range(10..5_000));
                self.schedule(after, Event::CallFailed(id, Failed::Broken));
            }
        }
    }

    /// A fact for a replica, as an answer says it.
    pub(super) fn promise_input(
        by: NodeId,
        epoch: Epoch,
        sent: Time,
        refused: Option<Epoch>,
    ) -> Option<Input> {
        match refused {
            None => Some(Input::Promised { by, epoch, sent }),
            Some(newer) if epoch < newer => Some(Input::NewerEpoch { epoch: newer }),
            Some(_) => None,
        }
    }

    /// A write that another node is to do.
    pub(super) fn hand_on(&mut self, from: End, to: Place, patience: Duration, order: Order, operation: u64) {
        let question = Question::Serve(Wish::Write(order));
        self.call(from, to, patience, question, Then::HandedOn { operation });
    }
}
