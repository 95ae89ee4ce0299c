//! Many calls on one stream to a node: what waits leaves together, and each answer goes to whoever waits for it.
//!
//! Never retries and never judges: a session that ends tells everyone who waits how it ended. What had not left yet is
//! told apart, since it was certainly not applied.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use craq_proto::{ClusterId, convert::Header, wire};
use futures::{Stream, stream::unfold};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, transport::Channel};
use wire::{session_answer::Answer, session_call::Call};

use crate::kv;

/// Most calls in one message.
const CALLS_MAX: usize = 1_024;
/// No more calls are put into a message that has so many bytes of keys and values.
const CALLS_BYTES: usize = 256 * 1024;

/// One stream to one node.
#[derive(Debug)]
pub(crate) struct Session {
    queue: mpsc::UnboundedSender<Waiting>,
    pending: Arc<Mutex<Pending>>,
    last: AtomicU64,
}

/// An answer, and who says so.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) epoch: u64,
    pub(crate) answer: Answer,
}

/// Why no answer comes.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The session had ended before the call left.
    Unsent,
    /// The session has ended.
    Ended(Status),
}

type Outcome = Result<Answered, Lost>;

/// Who waits for an answer.
#[derive(Debug)]
enum Caller {
    One(oneshot::Sender<Outcome>),
    /// One of many calls that are made together: which, and who waits for all of them.
    Part(usize, mpsc::UnboundedSender<(usize, Outcome)>),
}

impl Caller {
    /// Whoever has gone need not know.
    fn tell(self, outcome: Outcome) {
        match self {
            Self::One(caller) => drop(caller.send(outcome)),
            Self::Part(index, caller) => drop(caller.send((index, outcome))),
        }
    }

    fn has_gone(&self) -> bool {
        match self {
            Self::One(caller) => caller.is_closed(),
            Self::Part(_, caller) => caller.is_closed(),
        }
    }
}

/// A call that has not left yet.
#[derive(Debug)]
struct Waiting {
    call: wire::SessionCall,
    caller: Caller,
}

/// Who waits for which answer.
#[derive(Debug, Default)]
struct Pending {
    callers: HashMap<u64, Caller>,
    is_over: bool,
}

impl Session {
    /// Begins a session. `header` says which chain it is about. Must be called on a tokio runtime.
    pub(crate) fn open(channel: Channel, header: wire::Header) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let pending = Arc::new(Mutex::new(Pending::default()));
        let calls = Calls { waiting, first: None, pending: Arc::clone(&pending), header };
        tokio::spawn(converse(channel, calls.messages(), Arc::clone(&pending)));
        Self { queue, pending, last: AtomicU64::new(0) }
    }

    /// Makes a call, and waits for the answer. A caller that goes away leaves nothing behind.
    pub(crate) async fn call(&self, epoch: u64, timeout_ms: u64, call: Call) -> Outcome {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (caller, answer) = oneshot::channel();
        let call = wire::SessionCall { id, epoch, timeout_ms, call: Some(call) };
        if self.queue.send(Waiting { call, caller: Caller::One(caller) }).is_err() {
            return Err(Lost::Unsent);
        }
        let mut departure = Departure { session: self, ids: id..id + 1, is_answered: false };
        let outcome = answer.await;
        departure.is_answered = true;
        outcome.unwrap_or(Err(Lost::Unsent))
    }

    /// Makes many calls at once, and waits for all answers: `outcomes` gets them in the calls' order,
    /// as they come. What never came had not left.
    pub(crate) async fn call_many(
        &self,
        epoch: u64,
        timeout_ms: u64,
        calls: Vec<Call>,
        outcomes: &mut [Option<Outcome>],
    ) {
        let count = calls.len() as u64;
        let first = self.last.fetch_add(count, Ordering::Relaxed) + 1;
        let (caller, mut answers) = mpsc::unbounded_channel();
        for (index, (id, call)) in (first..).zip(calls).enumerate() {
            let call = wire::SessionCall { id, epoch, timeout_ms, call: Some(call) };
            let caller = Caller::Part(index, caller.clone());
            if self.queue.send(Waiting { call, caller }).is_err() {
                break;
            }
        }
        drop(caller);
        let mut departure = Departure { session: self, ids: first..first + count, is_answered: false };
        // It ends when nobody is left who could answer.
        while let Some((index, outcome)) = answers.recv().await {
            outcomes[index] = Some(outcome);
        }
        departure.is_answered = true;
    }
}

/// Forgets a caller that does not wait any longer.
struct Departure<'a> {
    session: &'a Session,
    ids: Range<u64>,
    is_answered: bool,
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let mut pending = self.session.pending.lock();
            self.ids.clone().for_each(|id| drop(pending.callers.remove(&id)));
        }
    }
}

/// What is to be sent.
struct Calls {
    waiting: mpsc::UnboundedReceiver<Waiting>,
    /// It begins the next message: it has just come, or had no room in the one before.
    first: Option<Waiting>,
    pending: Arc<Mutex<Pending>>,
    header: wire::Header,
}

impl Calls {
    fn messages(self) -> impl Stream<Item = wire::SessionRequest> + Send {
        unfold(self, |mut calls| async move { Some((calls.next().await?, calls)) })
    }

    /// The next message, as soon as a call waits; none: the session is over, or nobody can call any more.
    async fn next(&mut self) -> Option<wire::SessionRequest> {
        if self.first.is_none() {
            self.first = Some(self.waiting.recv().await?);
            // Those who were answered together call again together: what they say may leave with this.
            tokio::task::yield_now().await;
        }
        let mut next = self.first.take();
        let mut bytes = 0;
        let mut calls = Vec::new();
        let mut pending = self.pending.lock();
        while let Some(Waiting { call, caller }) = next.take() {
            bytes += weight(&call);
            if !calls.is_empty() && (bytes > CALLS_BYTES || calls.len() == CALLS_MAX) {
                self.first = Some(Waiting { call, caller });
                break;
            }
            if pending.is_over {
                // Its callers are told by the end of this stream.
                return None;
            }
            if !caller.has_gone() {
                pending.callers.insert(call.id, caller);
                calls.push(call);
            }
            next = self.waiting.try_recv().ok();
        }
        Some(wire::SessionRequest { header: Some(self.header.clone()), calls })
    }
}

fn weight(call: &wire::SessionCall) -> usize {
    match &call.call {
        Some(Call::Read(read)) => read.key.len(),
        Some(Call::Write(write)) => write.key.len() + write.value.len(),
        Some(Call::Delete(delete)) => delete.key.len(),
        None => 0,
    }
}

/// Sends what there is to send and passes the answers on, until the stream ends.
async fn converse(
    channel: Channel,
    messages: impl Stream<Item = wire::SessionRequest> + Send + 'static,
    pending: Arc<Mutex<Pending>>,
) {
    let end = match kv::client(channel).session(messages).await {
        Ok(replies) => listen(replies.into_inner(), &pending).await,
        Err(status) => status,
    };
    let callers = {
        let mut pending = pending.lock();
        pending.is_over = true;
        std::mem::take(&mut pending.callers)
    };
    for caller in callers.into_values() {
        caller.tell(Err(Lost::Ended(end.clone())));
    }
}

/// Returns how the stream ended.
async fn listen(mut replies: tonic::Streaming<wire::SessionReply>, pending: &Mutex<Pending>) -> Status {
    loop {
        let reply = match replies.message().await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Status::unavailable("the node has ended the session"),
            Err(status) => return status,
        };
        let header = match Header::try_from(reply.header) {
            Ok(header) => header,
            Err(malformed) => return Status::unknown(malformed.to_string()),
        };
        let mut pending = pending.lock();
        for wire::SessionAnswer { id, epoch, answer } in reply.answers {
            if let (Some(caller), Some(answer)) = (pending.callers.remove(&id), answer) {
                caller.tell(Ok(Answered { cluster: header.cluster, epoch, answer }));
            }
        }
    }
}
