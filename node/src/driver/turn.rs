//! The loop: take what waits, step the replica through it, carry out what it orders, in order.
//!
//! It waits for nothing but inputs and the replica's own deadline, and blocks on nothing: sending, storing and reading
//! are handed to others. Each step has a time read for it alone.

use std::{collections::BTreeMap, sync::Arc};

use craq_proto::{Epoch, Row, Seq, View};
use tokio::sync::{mpsc, watch};

use super::{Answer, Chain, Event, Line, Parts, Waiter, observe::Observer};
use crate::{
    clock,
    error::NodeError,
    fatal,
    limits::TURN_INPUTS_MAX,
    peers::{self, Opening},
    replica::{
        Replica,
        event::{Input, LinkId, Message, Output, PersistId, Reply, StoreWrite, Ticket},
    },
};

pub(super) struct Driver {
    replica: Replica,
    chain: Arc<Chain>,
    parts: Parts,
    inputs: mpsc::Receiver<Event>,
    notices: mpsc::UnboundedReceiver<Event>,
    views: watch::Sender<Option<Arc<View>>>,
    lines: BTreeMap<LinkId, Line>,
    waiters: BTreeMap<Ticket, Waiter>,
    /// Links on which something was said in this turn.
    spoken: Vec<LinkId>,
    outputs: Vec<Output>,
    observer: Observer,
}

impl Driver {
    pub(super) fn new(
        replica: Replica,
        chain: Arc<Chain>,
        parts: Parts,
        inputs: mpsc::Receiver<Event>,
        notices: mpsc::UnboundedReceiver<Event>,
        views: watch::Sender<Option<Arc<View>>>,
    ) -> Self {
        let observer = Observer::new(chain.id.clone(), parts.node);
        Self {
            replica,
            chain,
            parts,
            inputs,
            notices,
            views,
            lines: BTreeMap::new(),
            waiters: BTreeMap::new(),
            spoken: Vec::new(),
            outputs: Vec::new(),
            observer,
        }
    }

    pub(super) async fn run(mut self) {
        let mut events = Vec::with_capacity(TURN_INPUTS_MAX);
        loop {
            self.collect(&mut events).await;
            for event in events.drain(..) {
                self.take(event);
            }
            if self.replica.next_deadline().is_some_and(|deadline| deadline <= clock::now()) {
                self.step(Input::DeadlinePassed);
            }
            self.end_turn();
        }
    }

    /// Waits for inputs or the deadline, then takes all that waits, up to a turn's worth.
    async fn collect(&mut self, events: &mut Vec<Event>) {
        let patience = self.replica.next_deadline().map(|deadline| deadline.since(clock::now()));
        if patience.is_some_and(|patience| patience.is_zero()) {
            // A deadline that is always due must not keep the thread from everyone else.
            tokio::task::yield_now().await;
        } else {
            let deadline = async {
                match patience {
                    Some(patience) => tokio::time::sleep(patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.notices.recv() => events.extend(event),
                event = self.inputs.recv() => events.extend(event),
                () = deadline => {}
            }
        }
        // Both queues get their share of each turn, whichever woke the loop.
        let most = events.len() + TURN_INPUTS_MAX;
        while events.len() < most {
            let Ok(event) = self.notices.try_recv() else { break };
            events.push(event);
        }
        let most = events.len() + TURN_INPUTS_MAX;
        while events.len() < most {
            let Ok(event) = self.inputs.try_recv() else { break };
            events.push(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Tell(input) => {
                match &input {
                    Input::LinkClosed { link } => self.forget_line(*link),
                    Input::Abandoned { ticket } => drop(self.waiters.remove(ticket)),
                    _ => {}
                }
                self.step(input);
            }
            Event::Ask { ticket, input, waiter } => {
                if waiter.is_there() {
                    self.waiters.insert(ticket, waiter);
                    self.step(input);
                }
            }
            Event::Offer { input, link, line } => {
                self.lines.insert(link, line);
                self.step(input);
            }
            // Whoever asked may have gone.
            Event::Status(asker) => drop(asker.send(self.replica.status(clock::now()))),
        }
    }

    fn step(&mut self, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.replica.step(clock::now(), input, &mut outputs);
        for output in outputs.drain(..) {
            self.carry_out(output);
        }
        self.outputs = outputs;
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist { id, write } => self.persist(id, write),
            Output::OpenLink { link, to, address, kind, epoch } => {
                self.open_link(Opening { link, to, address, kind, epoch });
            }
            Output::Send { link, epoch, message } => self.send(link, epoch, message),
            Output::CloseLink { link } => self.forget_line(link),
            Output::ReadLog { link, after, up_to, bytes_max } => {
                self.read_log(link, after, up_to, bytes_max);
            }
            Output::Ping { to, epoch } => self.parts.peers.ping(&self.chain, to, epoch),
            Output::Release { to, epoch } => self.parts.peers.release(&self.chain, to, epoch),
            Output::AskTail { question, tail, epoch, keys } => {
                self.parts.peers.ask_tail(&self.chain, question, tail, epoch, keys);
            }
            Output::Promise { ticket, refused } => {
                if let Some(Waiter::Pinger(pinger)) = self.waiters.remove(&ticket) {
                    // The pinger may have gone.
                    let _ = pinger.send(refused);
                }
            }
            Output::Reply { ticket, reply, under_lease } => self.reply(ticket, reply, under_lease),
            Output::Report => self.parts.signals.report(),
            Output::FetchView => self.parts.signals.fetch_view(),
            Output::Halt { reason } => {
                fatal::exit(&NodeError::Halted(format!("chain {}: {reason}", self.chain.id)));
            }
        }
    }

    fn persist(&self, id: PersistId, write: StoreWrite) {
        let chain = Arc::clone(&self.chain);
        let done = move || chain.note(Input::Persisted { id });
        self.parts.writer.submit(&self.chain.store, write, Box::new(done));
    }

    /// Reads a piece for a node that is brought up, when it is time for it.
    fn read_log(&self, link: LinkId, after: Seq, up_to: Seq, bytes_max: usize) {
        let (chain, pace) = (Arc::clone(&self.chain), Arc::clone(&self.parts.pace));
        let wait = pace.wait(clock::now());
        let read = move || match chain.store.read_log(after, up_to, bytes_max) {
            Ok((rows, through)) => {
                pace.count(clock::now(), rows.iter().map(Row::weight).sum());
                chain.note(Input::LogRead { link, rows, through });
            }
            Err(error) => fatal::exit(&error.into()),
        };
        tokio::spawn(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            tokio::task::spawn_blocking(read);
        });
    }

    fn open_link(&mut self, opening: Opening) {
        let line = Line::new();
        let peers = Arc::clone(&self.parts.peers);
        let chain = Arc::clone(&self.chain);
        let task =
            peers::open_link(peers, chain, opening.clone(), Arc::clone(&line.outbox), line.stop.clone());
        self.lines.insert(opening.link, line);
        tokio::spawn(task);
    }

    /// What is said on a link that has broken is lost, as it would be on the way; its `LinkClosed` is coming.
    fn send(&mut self, link: LinkId, epoch: Epoch, message: Message) {
        let Some(line) = self.lines.get(&link) else { return };
        if line.outbox.push(clock::now(), epoch, message).is_err() {
            tracing::warn!(chain = %self.chain.id, ?link, "the other side of a link takes nothing: it is closed");
            self.forget_line(link);
            self.chain.note(Input::LinkClosed { link });
        } else if self.spoken.last() != Some(&link) {
            self.spoken.push(link);
        }
    }

    fn forget_line(&mut self, link: LinkId) {
        if let Some(line) = self.lines.remove(&link) {
            line.close();
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply, under_lease: bool) {
        let Some(Waiter::Caller(caller)) = self.waiters.remove(&ticket) else { return };
        let answer = if under_lease {
            match self.chain.reader.permit(clock::now()) {
                Ok(permit) => Answer { reply, permit: Some(permit) },
                Err(error) => Answer { reply: Reply::Refused(error), permit: None },
            }
        } else {
            Answer { reply, permit: None }
        };
        // The caller may have gone.
        let _ = caller.send(answer);
    }

    /// Only now do the links' tasks wake: what one turn says on a link leaves together.
    fn end_turn(&mut self) {
        for link in self.spoken.drain(..) {
            if let Some(line) = self.lines.get(&link) {
                line.outbox.flush();
            }
        }
        let view = self.replica.view();
        let epoch = view.map(|view| view.epoch);
        let is_news = self.views.borrow().as_ref().map(|view| view.epoch) != epoch;
        if is_news {
            if let Some(view) = view {
                self.observer.on_view(view);
            }
            self.views.send_replace(view.cloned().map(Arc::new));
        }
        self.observer.look(&self.replica, clock::now());
    }
}

impl Waiter {
    fn is_there(&self) -> bool {
        match self {
            Self::Caller(caller) => !caller.is_closed(),
            Self::Pinger(pinger) => !pinger.is_closed(),
        }
    }
}
