//! Many calls on one stream: what is clean is answered at once, on the task that received it; the rest goes on side by
//! side, and what is ready leaves together.
//!
//! The task does not wait for a client that takes no answers: calls under way end all the same. It only begins no more.

use std::{pin::Pin, sync::Arc, vec};

use craq_proto::{CallError, Epoch, wire};
use futures::{
    Future, Stream, StreamExt,
    stream::{FuturesUnordered, unfold},
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use wire::session_answer::Answer;

use super::{
    call::Deadline,
    kv::{Wish, check_epoch, freshness, key, read_reply, see_through, write_reply},
    read::{read, read_now},
};
use crate::{
    driver::Chain,
    limits::{SESSION_ANSWERS_MAX, SESSION_CALLS_MAX, SESSION_REPLY_BYTES},
    node::Node,
};

type Reply = Result<wire::SessionReply, Status>;
type UnderWay = Pin<Box<dyn Future<Output = wire::SessionAnswer> + Send>>;

/// A session with one client.
struct Session {
    node: Arc<Node>,
    heard: Streaming<wire::SessionRequest>,
    /// The client may still say something.
    hears: bool,
    /// What the client said last makes no sense: the session ends with this when all else is answered.
    end: Option<Status>,
    /// What came last and has not begun.
    waiting: vec::IntoIter<wire::SessionCall>,
    /// The chain of the calls that came last: replies are about it.
    chain: Option<Arc<Chain>>,
    under_way: FuturesUnordered<UnderWay>,
    answers: Vec<wire::SessionAnswer>,
    bytes: usize,
}

/// Begins a session; what is returned are its replies.
pub(super) fn open(
    node: Arc<Node>,
    heard: Streaming<wire::SessionRequest>,
) -> impl Stream<Item = Reply> + Send {
    // One that is being sent, and one that is ready.
    let (replies, taken) = mpsc::channel(1);
    let session = Session {
        node,
        heard,
        hears: true,
        end: None,
        waiting: Vec::new().into_iter(),
        chain: None,
        under_way: FuturesUnordered::new(),
        answers: Vec::new(),
        bytes: 0,
    };
    tokio::spawn(session.run(replies));
    unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) })
}

impl Session {
    /// Ends when the client has said its last and everything is answered, or when it has gone.
    async fn run(mut self, replies: mpsc::Sender<Reply>) {
        let closing = self.node.closing.clone();
        loop {
            while self.may_begin()
                && let Some(call) = self.waiting.next()
            {
                self.begin(call);
            }
            let has_begun_all = self.waiting.as_slice().is_empty();
            if !self.hears && has_begun_all && self.under_way.is_empty() && self.answers.is_empty() {
                if let Some(status) = self.end {
                    // The client may have gone.
                    let _ = replies.send(Err(status)).await;
                }
                return;
            }
            let (has_room, may_hear) = (self.has_room(), self.hears && has_begun_all && self.may_begin());
            // In this order: what is ready is gathered before anything is sent.
            tokio::select! {
                biased;
                () = closing.cancelled(), if self.hears => self.hears = false,
                Some(answer) = self.under_way.next(), if has_room => self.answer(answer),
                message = self.heard.next(), if may_hear => match message {
                    Some(Ok(message)) => self.take(message),
                    Some(Err(status)) => (self.hears, self.end) = (false, Some(status)),
                    None => self.hears = false,
                },
                room = replies.reserve(), if !self.answers.is_empty() => match room {
                    Ok(room) => room.send(Ok(self.reply())),
                    Err(_) => return,
                },
                () = replies.closed() => return,
            }
        }
    }

    /// One more answer fits into the reply.
    fn has_room(&self) -> bool {
        self.answers.len() < SESSION_ANSWERS_MAX && self.bytes < SESSION_REPLY_BYTES
    }

    fn may_begin(&self) -> bool {
        self.has_room() && self.under_way.len() < SESSION_CALLS_MAX
    }

    fn answer(&mut self, answer: wire::SessionAnswer) {
        self.bytes += match &answer.answer {
            Some(Answer::Read(read)) => read.value.len(),
            _ => 0,
        };
        self.answers.push(answer);
    }

    fn reply(&mut self) -> wire::SessionReply {
        let header = match &self.chain {
            Some(chain) => self.node.me.header(&chain.id, Epoch::ZERO),
            None => self.node.me.bare_header(),
        };
        self.bytes = 0;
        wire::SessionReply { header: Some(header), answers: std::mem::take(&mut self.answers) }
    }

    fn take(&mut self, message: wire::SessionRequest) {
        let chain = self.node.me.check(message.header).and_then(|header| {
            // Most messages are about the chain of the one before.
            match self.chain.take().filter(|chain| chain.id == header.chain) {
                Some(chain) => Ok(chain),
                None => self.node.chain(&header.chain).map(Arc::clone),
            }
        });
        match chain {
            Ok(chain) => {
                self.waiting = message.calls.into_iter();
                self.chain = Some(chain);
            }
            Err(error) => {
                for call in message.calls {
                    self.answer(failed(call.id, Epoch::ZERO, &error));
                }
            }
        }
    }

    fn begin(&mut self, call: wire::SessionCall) {
        let Some(chain) = self.chain.clone() else { return };
        let id = call.id;
        if let Err(error) = self.try_begin(&chain, call) {
            self.answer(failed(id, chain.epoch(), &error));
        }
    }

    fn try_begin(&mut self, chain: &Arc<Chain>, call: wire::SessionCall) -> Result<(), CallError> {
        use wire::session_call::Call;
        check_epoch(chain, Epoch(call.epoch))?;
        let deadline = Deadline::of_millis(call.timeout_ms);
        match call.call {
            Some(Call::Read(request)) => self.read(chain, call.id, request, deadline),
            Some(Call::Write(request)) => {
                let wish = Wish::to_write(&self.node, request)?;
                self.change(chain, call.id, wish, deadline)
            }
            Some(Call::Delete(request)) => {
                let wish = Wish::to_delete(request)?;
                self.change(chain, call.id, wish, deadline)
            }
            None => Err(CallError::invalid("a call of a session asks for nothing")),
        }
    }

    fn read(
        &mut self,
        chain: &Arc<Chain>,
        id: u64,
        request: wire::ReadRequest,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let key = key(request.key)?;
        let fresh = freshness(request.consistency, request.bound_ms, request.min_seq)?;
        if let Some(answer) = read_now(chain, &key, fresh) {
            self.answer(answered(id, chain.epoch(), Answer::Read(read_reply(answer))));
            return Ok(());
        }
        let reading = Arc::clone(chain);
        self.go_on(chain, id, async move {
            read(&reading, &key, fresh, deadline).await.map(|answer| Answer::Read(read_reply(answer)))
        })
    }

    fn change(
        &mut self,
        chain: &Arc<Chain>,
        id: u64,
        wish: Wish,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let (node, changed) = (Arc::clone(&self.node), Arc::clone(chain));
        self.go_on(chain, id, async move {
            let applied = see_through(&node, &changed, wish, deadline).await;
            applied.map(|applied| Answer::Write(write_reply(applied)))
        })
    }

    /// Lets the call go on beside the others, if the node admits one more.
    fn go_on(
        &mut self,
        chain: &Arc<Chain>,
        id: u64,
        call: impl Future<Output = Result<Answer, CallError>> + Send + 'static,
    ) -> Result<(), CallError> {
        let admitted = self.node.admission.admit()?;
        let chain = Arc::clone(chain);
        self.under_way.push(Box::pin(async move {
            let _admitted = admitted;
            match call.await {
                Ok(answer) => answered(id, chain.epoch(), answer),
                Err(error) => failed(id, chain.epoch(), &error),
            }
        }));
        Ok(())
    }
}

fn answered(id: u64, epoch: Epoch, answer: Answer) -> wire::SessionAnswer {
    wire::SessionAnswer { id, epoch: epoch.0, answer: Some(answer) }
}

fn failed(id: u64, epoch: Epoch, error: &CallError) -> wire::SessionAnswer {
    answered(id, epoch, Answer::Error(error.into()))
}
