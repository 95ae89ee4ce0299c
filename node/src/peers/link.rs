//! One link: a stream of messages each way between a replica and its successor or learner.
//!
//! The opening side connects and speaks first; both then pass on what they hear to their replica, waiting for room
//! there (so a slow replica slows its peer down), and say what their [`Outbox`] holds.

use std::sync::Arc;

use craq_proto::{CallError, ChainId, Epoch, NodeId, convert::Header, wire};
use futures::{Stream, StreamExt, stream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    Failure, Lane, Outbox, Peers,
    message::{from_wire, to_wire},
};
use crate::{
    clock,
    driver::{Chain, Line},
    error::NodeError,
    fatal,
    identity::Identity,
    limits::{BACKOFF_FIRST, LINK_FAREWELL, LINK_LIFE_MIN, LINK_OPEN_TIMEOUT},
    replica::event::{Input, LinkId, LinkKind, Message},
    store::backend::StoreError,
};

/// A link to be opened.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) link: LinkId,
    pub(crate) to: NodeId,
    pub(crate) address: String,
    pub(crate) kind: LinkKind,
    pub(crate) epoch: Epoch,
}

/// How a link ended.
enum End {
    /// This side's replica has closed it.
    Stopped,
    /// The other side has.
    Closed,
    /// The connection, or the other side's refusal.
    Failed(Status),
    /// The other side says what no correct node says.
    Wrong(CallError),
}

/// Opens a link and talks on it until its end. One that could not be opened, or not kept, is waited for before the
/// replica hears of its end, so that the replica may try again at once.
pub(crate) async fn open(
    peers: Arc<Peers>,
    chain: Arc<Chain>,
    opening: Opening,
    outbox: Arc<Outbox>,
    stop: CancellationToken,
) {
    let Opening { link, to, address, kind, .. } = &opening;
    let lane = match kind {
        LinkKind::Chain => Lane::Chain,
        LinkKind::Transfer => Lane::Bulk,
    };
    let began = clock::now();
    let mut was_up = false;
    let end = talk(&peers, &chain, &opening, lane, &outbox, &stop, &mut was_up).await;
    outbox.close();
    let reason = match &end {
        End::Stopped => return,
        End::Closed => "the other side closed it".to_owned(),
        End::Failed(status) => {
            let failure = Failure::of(status);
            if failure == Failure::Answered {
                learn(&chain, status);
            } else {
                peers.missed(*to, chain.view().as_deref(), failure);
            }
            super::reason(status)
        }
        End::Wrong(error) => error.to_string(),
    };
    let mut is_news = true;
    if was_up && clock::now().since(began) >= LINK_LIFE_MIN {
        peers.forget_backoff(address, lane);
    } else {
        let wait = peers.backoff(address, lane);
        is_news = wait == BACKOFF_FIRST;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
    // With a new epoch, the side that installs it first closes the links of the old one.
    if is_news && !matches!(end, End::Closed) {
        warn!(chain = %chain.id, peer = address, ?kind, reason, "link down");
    } else {
        debug!(chain = %chain.id, peer = address, ?kind, reason, "link has ended");
    }
    chain.tell(Input::LinkClosed { link: *link }).await;
}

async fn talk(
    peers: &Arc<Peers>,
    chain: &Chain,
    opening: &Opening,
    lane: Lane,
    outbox: &Arc<Outbox>,
    stop: &CancellationToken,
    was_up: &mut bool,
) -> End {
    let mut client = match peers.chain(&opening.address, lane) {
        Ok(client) => client,
        Err(error) => return End::Wrong(error),
    };
    let me = Arc::clone(&peers.me);
    let first = wire::LinkMessage {
        header: Some(me.header(&chain.id, opening.epoch)),
        body: Some(wire::link_message::Body::Open(wire::Open {})),
    };
    let words = stream::iter([first]).chain(says(me, chain.id.clone(), Arc::clone(outbox)));
    let call = async {
        match opening.kind {
            LinkKind::Chain => client.link(words).await,
            LinkKind::Transfer => client.transfer(words).await,
        }
    };
    let answer = tokio::select! {
        () = stop.cancelled() => return End::Stopped,
        answer = timeout(LINK_OPEN_TIMEOUT, call) => answer,
    };
    let mut heard = match answer {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return End::Failed(status),
        Err(_) => return End::Failed(super::timed_out("the link was not accepted in time")),
    };
    let listening = Listening { me: &peers.me, chain, link: opening.link, peer: opening.to, stop };
    let on_first = || {
        peers.reach.reached(opening.to);
        *was_up = true;
        info!(chain = %chain.id, peer = opening.address, kind = ?opening.kind, epoch = opening.epoch.0, "link up");
    };
    listening.run(&mut heard, on_first).await
}

/// Takes a link that a peer has opened. What is returned is what this side says on it.
pub(crate) async fn accept(
    me: Arc<Identity>,
    chain: Arc<Chain>,
    header: &Header,
    peer: NodeId,
    kind: LinkKind,
    mut heard: Streaming<wire::LinkMessage>,
) -> impl Stream<Item = wire::LinkMessage> + Send + 'static {
    let line = Line::new();
    let (outbox, stop) = (Arc::clone(&line.outbox), line.stop.clone());
    let words = says(Arc::clone(&me), chain.id.clone(), outbox);
    let link = chain.offer(peer, header.incarnation, header.epoch, kind, line).await;
    tokio::spawn(async move {
        let listening = Listening { me: &me, chain: &chain, link, peer, stop: &stop };
        match listening.run(&mut heard, || ()).await {
            End::Stopped => return,
            End::Wrong(error) => warn!(chain = %chain.id, %peer, %error, "a link is closed"),
            End::Closed | End::Failed(_) => debug!(chain = %chain.id, %peer, ?kind, "a link has ended"),
        }
        chain.tell(Input::LinkClosed { link }).await;
    });
    words
}

/// The hearing end of a link.
struct Listening<'a> {
    me: &'a Identity,
    chain: &'a Chain,
    link: LinkId,
    peer: NodeId,
    stop: &'a CancellationToken,
}

impl Listening<'_> {
    async fn run(&self, heard: &mut Streaming<wire::LinkMessage>, on_first: impl FnOnce()) -> End {
        let mut on_first = Some(on_first);
        loop {
            let message = tokio::select! {
                () = self.stop.cancelled() => {
                    farewell(heard).await;
                    return End::Stopped;
                }
                message = heard.message() => message,
            };
            let (epoch, message) = match message {
                Ok(Some(message)) => match self.understand(message) {
                    Ok(understood) => understood,
                    Err(error) => return End::Wrong(error),
                },
                Ok(None) => return End::Closed,
                Err(status) => return End::Failed(status),
            };
            if let Some(on_first) = on_first.take() {
                on_first();
            }
            self.chain.tell(Input::Received { link: self.link, epoch, message }).await;
        }
    }

    fn understand(&self, message: wire::LinkMessage) -> Result<(Epoch, Message), CallError> {
        let (header, sender) = self.me.check_peer(message.header)?;
        if sender != self.peer || header.chain != self.chain.id {
            return Err(CallError::invalid(format!(
                "a link with node {} for chain {} carries a message of node {sender} for chain {}",
                self.peer, self.chain.id, header.chain
            )));
        }
        Ok((header.epoch, from_wire(message.body)?))
    }
}

/// What was said last may still be on its way: the other side ends the stream when it has heard it.
async fn farewell(heard: &mut Streaming<wire::LinkMessage>) {
    let until_end = async { while let Ok(Some(_)) = heard.message().await {} };
    // However it ends, the link is over.
    let _ = timeout(LINK_FAREWELL, until_end).await;
}

/// What is put into the outbox, as it travels.
fn says(
    me: Arc<Identity>,
    chain: ChainId,
    outbox: Arc<Outbox>,
) -> impl Stream<Item = wire::LinkMessage> + Send + 'static {
    stream::unfold((me, chain, outbox), |(me, chain, outbox)| async move {
        let (epoch, message) = outbox.next().await?;
        let body = match to_wire(message) {
            Ok(body) => body,
            Err(damaged) => {
                let text = format!("entry {} of chain {chain} does not match its checksum", damaged.0);
                fatal::exit(&NodeError::Store(StoreError::Corrupt(text)));
            }
        };
        let message = wire::LinkMessage { header: Some(me.header(&chain, epoch)), body: Some(body) };
        Some((message, (me, chain, outbox)))
    })
}

/// Takes the newer view that may come with a refusal.
pub(super) fn learn(chain: &Chain, status: &Status) {
    if let Some(view) = CallError::from_status(status).view {
        chain.note(Input::View(*view));
    }
}
