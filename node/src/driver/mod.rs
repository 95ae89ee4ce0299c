//! The handle by which everything else talks to a replica, and the start of the loop that owns it.
//!
//! What comes from outside (clients, peers) waits for room in a bounded queue: that is the backpressure. What the
//! replica itself has set going (a persist, a question, a caller's departure) comes back by a queue that never makes
//! the sender wait, so that no two queues can wait for each other; it is bounded by what is under way.
//! Never here: decisions of the protocol. See [`turn`] for the loop.

mod counts;
mod observe;
mod pace;
mod turn;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use craq_proto::{CallError, ChainId, Epoch, Incarnation, NodeId, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::pace::Pace;

use crate::{
    clock,
    heartbeat::Signals,
    limits::INPUTS_MAX,
    peers::{Outbox, Peers},
    replica::{
        Permit, Reader, Replica, Status,
        event::{Input, LinkId, LinkKind, Reply, Ticket},
    },
    store::{ChainStore, Writer},
};

/// What comes to the loop.
pub(crate) enum Event {
    /// A fact that nobody waits for.
    Tell(Input),
    /// A fact whose bringer waits for an answer.
    Ask { ticket: Ticket, input: Input, waiter: Waiter },
    /// A peer opened a link.
    Offer { input: Input, link: LinkId, line: Line },
    /// Somebody wants to know the replica's state.
    Status(oneshot::Sender<Status>),
}

/// Who waits behind a ticket.
pub(crate) enum Waiter {
    /// A caller, through a service.
    Caller(oneshot::Sender<Answer>),
    /// A pinging member: promised, or refused in this epoch.
    Pinger(oneshot::Sender<Option<Epoch>>),
}

/// The replica's answer to a caller.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What it says.
    pub(crate) reply: Reply,
    /// It may be passed on only if this still holds then.
    pub(crate) permit: Option<Permit>,
}

/// The driver's end of a link.
pub(crate) struct Line {
    /// What is to be said on it.
    pub(crate) outbox: Arc<Outbox>,
    /// Ends the task that listens on it.
    pub(crate) stop: CancellationToken,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self { outbox: Arc::new(Outbox::new(clock::now())), stop: CancellationToken::new() }
    }

    /// What is queued is still sent; nothing more is heard.
    fn close(&self) {
        self.outbox.close();
        self.stop.cancel();
    }
}

/// A replica, as the rest of the node sees it.
pub(crate) struct Chain {
    /// Which chain.
    pub(crate) id: ChainId,
    /// For reads on the callers' own tasks.
    pub(crate) reader: Reader,
    /// The chain's part of the store, to read.
    pub(crate) store: ChainStore,
    /// How reads were answered.
    pub(crate) reads: counts::ReadCounts,
    inputs: mpsc::Sender<Event>,
    notices: mpsc::UnboundedSender<Event>,
    views: watch::Receiver<Option<Arc<View>>>,
    tickets: AtomicU64,
    accepted_links: AtomicU64,
}

/// What the loop works with.
pub(crate) struct Parts {
    /// To reach the other nodes.
    pub(crate) peers: Arc<Peers>,
    /// To write to the store.
    pub(crate) writer: Arc<Writer>,
    /// How fast nodes are brought up.
    pub(crate) pace: Arc<Pace>,
    /// To reach the heartbeat.
    pub(crate) signals: Arc<Signals>,
    /// Who this node is.
    pub(crate) node: NodeId,
}

/// Starts the loop that owns the replica.
pub(crate) fn start(id: ChainId, replica: Replica, store: ChainStore, parts: Parts) -> Arc<Chain> {
    let (inputs, input_queue) = mpsc::channel(INPUTS_MAX);
    // Unbounded in type only: see the module's head.
    let (notices, notice_queue) = mpsc::unbounded_channel();
    let reader = replica.reader();
    let (view_sender, views) = watch::channel(reader.view());
    let chain = Arc::new(Chain {
        id,
        reader,
        store,
        reads: counts::ReadCounts::default(),
        inputs,
        notices,
        views,
        tickets: AtomicU64::new(1),
        accepted_links: AtomicU64::new(1),
    });
    let driver =
        turn::Driver::new(replica, Arc::clone(&chain), parts, input_queue, notice_queue, view_sender);
    tokio::spawn(driver.run());
    chain
}

impl Chain {
    /// Brings a fact, waiting for room.
    pub(crate) async fn tell(&self, input: Input) {
        // The loop ends only with the process.
        let _ = self.inputs.send(Event::Tell(input)).await;
    }

    /// Brings a fact without waiting: only for what answers an order of the replica, or follows an earlier fact.
    pub(crate) fn note(&self, input: Input) {
        let _ = self.notices.send(Event::Tell(input));
    }

    /// Brings a caller's wish and waits for the answer. If the caller goes away, the replica is told.
    pub(crate) async fn ask(&self, input: impl FnOnce(Ticket) -> Input) -> Result<Answer, CallError> {
        let (answer, answered) = oneshot::channel();
        let waiting = self.wait(Waiter::Caller(answer), answered, input).await?;
        waiting.answer().await
    }

    /// Passes a ping on: none if it is promised, else the epoch in which it is refused.
    pub(crate) async fn ask_promise(&self, from: NodeId, epoch: Epoch) -> Result<Option<Epoch>, CallError> {
        let (promise, promised) = oneshot::channel();
        let input = |ticket| Input::Pinged { ticket, from, epoch };
        self.wait(Waiter::Pinger(promise), promised, input).await?.answer().await
    }

    async fn wait<T>(
        &self,
        waiter: Waiter,
        answer: oneshot::Receiver<T>,
        input: impl FnOnce(Ticket) -> Input,
    ) -> Result<Waiting<'_, T>, CallError> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        // Reserved first: a caller who goes away while it waits for room has asked nothing.
        let room = self.inputs.reserve().await.map_err(|_| gone())?;
        room.send(Event::Ask { ticket, input: input(ticket), waiter });
        Ok(Waiting { chain: self, ticket, answer, is_answered: false })
    }

    /// Brings a link that a peer has opened; what the replica says on it goes into the line's outbox.
    pub(crate) async fn offer(
        &self,
        from: NodeId,
        incarnation: Incarnation,
        epoch: Epoch,
        kind: LinkKind,
        line: Line,
    ) -> LinkId {
        let link = LinkId(self.accepted_links.fetch_add(2, Ordering::Relaxed));
        let input = Input::LinkOffered { link, from, incarnation, epoch, kind };
        let _ = self.inputs.send(Event::Offer { input, link, line }).await;
        link
    }

    /// The replica's state now.
    pub(crate) async fn status(&self) -> Result<Status, CallError> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Event::Status(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// The installed view.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.reader.view()
    }

    /// The epoch of the installed view; zero without one.
    pub(crate) fn epoch(&self) -> Epoch {
        self.view().map(|view| view.epoch).unwrap_or_default()
    }

    /// The installed view, and each one that follows.
    pub(crate) fn views(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.views.clone()
    }
}

fn gone() -> CallError {
    CallError::unavailable("this node is stopping")
}

/// A caller who waits. Dropped before the answer: the replica is told that nobody waits any more.
struct Waiting<'a, T> {
    chain: &'a Chain,
    ticket: Ticket,
    answer: oneshot::Receiver<T>,
    is_answered: bool,
}

impl<T> Waiting<'_, T> {
    async fn answer(mut self) -> Result<T, CallError> {
        let answer = (&mut self.answer).await;
        self.is_answered = true;
        answer.map_err(|_| gone())
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if !self.is_answered {
            // In this order: a loop that learns of the departure before the wish finds the wish's waiter gone.
            self.answer.close();
            self.chain.note(Input::Abandoned { ticket: self.ticket });
        }
    }
}
