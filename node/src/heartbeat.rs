//! The node's conversation with the coordinator: who it is, that it lives, whom it cannot reach; and the views that come
//! back.
//!
//! It goes on for ever, with whichever coordinator leads, and nothing waits for it: a node serves without any.
//! Never here: what follows from a view (see [`crate::replica`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use craq_proto::{
    CallError, ClusterId, ErrorKind, NUMBER_MAX, NodeId, Term, View,
    convert::{Header, uuid_bytes},
    wire::{self, coordinator_client::CoordinatorClient},
};
use futures::future::{join_all, select_all};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    clock,
    error::NodeError,
    fatal,
    identity::Identity,
    limits::{
        BACKOFF_FIRST, CLIENT_MESSAGE_BYTES_MAX, COORDINATOR_BACKOFF_MAX, FETCH_INTERVAL, INQUIRY_TIMEOUT,
        REGISTER_TIMEOUT,
    },
    node::Chains,
    peers::{self, Peers},
    status,
    store::Store,
};

/// What others want of the heartbeat.
#[derive(Default)]
pub(crate) struct Signals {
    report: Arc<Notify>,
    fetch_view: Notify,
    leave: CancellationToken,
}

impl Signals {
    /// The state has changed: tell the coordinator at once.
    pub(crate) fn report(&self) {
        self.report.notify_one();
    }

    /// What rings when the coordinator is to be told at once.
    pub(crate) fn alarm(&self) -> Arc<Notify> {
        Arc::clone(&self.report)
    }

    /// There is a newer view: find it.
    pub(crate) fn fetch_view(&self) {
        self.fetch_view.notify_one();
    }

    /// The node wants to stop: ask to be taken out of every chain.
    pub(crate) fn leave(&self) {
        self.leave.cancel();
    }
}

/// What the conversation needs.
pub(crate) struct Heartbeat {
    pub(crate) me: Arc<Identity>,
    pub(crate) chains: Chains,
    pub(crate) peers: Arc<Peers>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) store: Arc<Store>,
    pub(crate) coordinators: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) failure_timeout: Duration,
    pub(crate) placement: Option<wire::Placement>,
    /// Becomes true with the first registration.
    pub(crate) registered: watch::Sender<bool>,
}

/// What the log has already, so that it is not filled with it.
#[derive(Debug, Default, Clone, Copy)]
struct Said {
    /// That this node is not registered.
    is_alone: bool,
    /// That a coordinator belongs to another cluster.
    is_foreign: bool,
}

/// A registration that a coordinator has taken.
struct Conversation {
    address: String,
    says: mpsc::Sender<wire::NodeMessage>,
    heard: Streaming<wire::CoordinatorMessage>,
}

impl Heartbeat {
    /// Keeps up the conversation, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::spawn(Arc::clone(&self).fetch_views());
        let (mut wait, mut said) = (BACKOFF_FIRST, Said::default());
        loop {
            let conversation = self.find_leader(said).await;
            let (began, address) = (clock::now(), conversation.address.clone());
            let ended = self.converse(conversation).await;
            if clock::now().since(began) >= REGISTER_TIMEOUT {
                (wait, said) = (BACKOFF_FIRST, Said::default());
            }
            if let Err(status) = ended {
                self.complain(&mut said, &address, &status);
            }
            sleep(jittered(wait)).await;
            wait = self.longer(wait);
        }
    }

    /// A new leader judges by its failure timeout who is gone: whoever is well must have found it before.
    fn longer(&self, wait: Duration) -> Duration {
        (wait * 2).min(COORDINATOR_BACKOFF_MAX).min(self.failure_timeout / 3)
    }

    /// Asks all coordinators at once, each again and again, until one takes the registration. Nobody waits for one that
    /// stands still, which takes long to say nothing.
    async fn find_leader(&self, said: Said) -> Conversation {
        let asked = self.coordinators.iter().map(|address| Box::pin(self.ask(address, said)));
        select_all(asked).await.0
    }

    /// Asks one coordinator until it takes the registration.
    async fn ask(&self, address: &str, mut said: Said) -> Conversation {
        let mut wait = BACKOFF_FIRST;
        loop {
            match self.register_at(address).await {
                Ok(conversation) => return conversation,
                Err((address, status)) => self.complain(&mut said, &address, &status),
            }
            sleep(jittered(wait)).await;
            wait = self.longer(wait);
        }
    }

    fn complain(&self, said: &mut Said, address: &str, status: &Status) {
        let is_foreign = self.refuse_foreign(address, status, said.is_foreign);
        let reason = peers::reason(status);
        if said.is_alone {
            debug!(coordinator = address, reason, "still not registered");
        } else {
            warn!(coordinator = address, reason, "not registered; this node serves on without");
        }
        *said = Said { is_alone: true, is_foreign };
    }

    /// Registers with this coordinator, or with the one that it says leads.
    async fn register_at(&self, address: &str) -> Result<Conversation, (String, Status)> {
        let refused = match self.register(address).await {
            Ok(conversation) => return Ok(conversation),
            Err(status) => status,
        };
        let refusal = CallError::from_status(&refused);
        let leader = refusal.head.filter(|_| refusal.kind == ErrorKind::NotLeader);
        match leader.filter(|leader| !self.coordinators.iter().any(|known| **known == **leader)) {
            Some(leader) => self.register(&leader).await.map_err(|status| (leader.to_string(), status)),
            None => Err((address.to_owned(), refused)),
        }
    }

    /// Presents this node to a coordinator. Err: it is not taken there.
    async fn register(&self, address: &str) -> Result<Conversation, Status> {
        let channel =
            peers::endpoint(address)?.connect().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let mut client = CoordinatorClient::new(channel)
            .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX);
        let (says, words) = mpsc::channel(8);
        let register = wire::Register {
            address: self.me.address.clone(),
            placement: self.placement.clone(),
            replicas: status::replicas(&self.chains).await?,
        };
        let first = self.message(wire::node_message::Body::Register(register));
        says.send(first).await.map_err(silent)?;
        let answer = timeout(REGISTER_TIMEOUT, client.register(ReceiverStream::new(words))).await;
        let heard = answer.map_err(|_| Status::unavailable("no answer to the registration"))??.into_inner();
        Ok(Conversation { address: address.to_owned(), says, heard })
    }

    /// One conversation, up to its end, which is always an error.
    async fn converse(&self, conversation: Conversation) -> Result<(), Status> {
        let Conversation { address, says, mut heard } = conversation;
        let address = address.as_str();
        let mut beat = interval(self.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_left = false;
        loop {
            tokio::select! {
                message = heard.message() => {
                    let message = message?.ok_or_else(|| Status::unavailable("the coordinator ended it"))?;
                    if let Some(told) = self.on_message(address, message).await?
                        && told < beat.period()
                    {
                        beat = interval(told);
                        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
                _ = beat.tick() => self.beat(&says).await?,
                () = self.signals.report.notified() => {
                    beat.reset();
                    self.beat(&says).await?;
                }
                () = self.signals.leave.cancelled(), if !has_left => {
                    has_left = true;
                    info!(coordinator = address, "asks to be taken out of every chain");
                    says.send(self.message(wire::node_message::Body::Leave(wire::Leave {}))).await.map_err(silent)?;
                }
            }
        }
    }

    fn message(&self, body: wire::node_message::Body) -> wire::NodeMessage {
        wire::NodeMessage { header: Some(self.me.bare_header()), body: Some(body) }
    }

    async fn beat(&self, says: &mpsc::Sender<wire::NodeMessage>) -> Result<(), Status> {
        let heartbeat = wire::Heartbeat {
            replicas: status::replicas(&self.chains).await?,
            suspicions: self.suspicions(),
        };
        let message = self.message(wire::node_message::Body::Heartbeat(heartbeat));
        match timeout(REGISTER_TIMEOUT, says.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Status::unavailable("the coordinator takes no heartbeats")),
        }
    }

    /// The members of this node's chains that it cannot reach.
    fn suspicions(&self) -> Vec<wire::Suspicion> {
        let now = clock::now();
        let mut suspicions = Vec::new();
        for view in self.chains.values().filter_map(|chain| chain.view()) {
            if view.incarnation(self.me.node) != Some(self.me.incarnation) {
                continue;
            }
            for member in view.members.iter().filter(|member| member.node != self.me.node) {
                // Early: the coordinator waits until a suspicion has stood for its own failure timeout.
                let patience = self.failure_timeout / 4;
                let suspected = self.peers.reach.suspicion(member.node, member.incarnation, patience, now);
                let Some(refused) = suspected else { continue };
                suspicions.push(wire::Suspicion {
                    chain: view.chain.to_string(),
                    epoch: view.epoch.0,
                    node: uuid_bytes(member.node.0),
                    incarnation: member.incarnation.0,
                    refused,
                });
            }
        }
        suspicions
    }

    /// Takes what the coordinator says; if it is the registration, how often it wants to hear from this node.
    async fn on_message(
        &self,
        address: &str,
        message: wire::CoordinatorMessage,
    ) -> Result<Option<Duration>, Status> {
        let header = Header::try_from(message.header)?;
        let cluster = self.join_cluster(address, &header).await?;
        self.raise_term(Term(message.term)).await?;
        match message.body {
            Some(wire::coordinator_message::Body::Registered(registered)) => {
                info!(coordinator = address, %cluster, node = %self.me.node, "registered");
                self.registered.send_replace(true);
                let told = Duration::from_millis(registered.heartbeat_interval_ms);
                Ok(Some(told).filter(|told| !told.is_zero()))
            }
            Some(wire::coordinator_message::Body::Views(views)) => {
                self.take_views(views.views).await;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Refuses a coordinator that leads no longer; notes a new term before anything is done in it.
    async fn raise_term(&self, term: Term) -> Result<(), Status> {
        if term == self.store.term() {
            return Ok(());
        }
        if term.0 > NUMBER_MAX {
            return Err(CallError::invalid(format!("term {term} is out of range")).to_status());
        }
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || store.raise_term(term)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                let text = format!("it leads in term {term}, and term {} has begun", self.store.term());
                Err(CallError::new(ErrorKind::NotLeader, text).to_status())
            }
            Ok(Err(error)) => fatal::exit(&error.into()),
            Err(gone) => Err(Status::unavailable(gone.to_string())),
        }
    }

    /// Takes the cluster of the first registration for good; refuses every other one.
    async fn join_cluster(&self, address: &str, header: &Header) -> Result<ClusterId, Status> {
        let cluster = header.cluster()?;
        match self.me.cluster() {
            Some(own) if own == cluster => Ok(own),
            Some(own) => {
                let theirs = format!("to cluster {cluster}");
                let text = format!("the coordinator belongs {theirs}, this node to {own}");
                Err(CallError::new(ErrorKind::WrongCluster, text).to_status())
            }
            None => {
                let store = Arc::clone(&self.store);
                let stored = tokio::task::spawn_blocking(move || store.set_cluster(cluster)).await;
                match stored {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => fatal::exit(&error.into()),
                    Err(gone) => return Err(Status::unavailable(gone.to_string())),
                }
                self.me.learn_cluster(cluster);
                info!(coordinator = address, %cluster, "joined the cluster for good");
                Ok(cluster)
            }
        }
    }

    /// A node that starts beside a foreign coordinator is misconfigured, and ends. One that was registered and serves
    /// is not put down by a stranger at its coordinator's address: it says so once, and serves on. Whether it is one.
    fn refuse_foreign(&self, address: &str, status: &Status, is_said: bool) -> bool {
        let refusal = CallError::from_status(status);
        let (ErrorKind::WrongCluster, Some(own)) = (refusal.kind, self.me.cluster()) else { return false };
        let wrong = NodeError::WrongCluster { own, coordinator: address.to_owned(), theirs: refusal.message };
        if !*self.registered.borrow() {
            fatal::exit(&wrong);
        }
        if !is_said {
            error!("{wrong}");
        }
        true
    }

    async fn take_views(&self, views: Vec<wire::View>) {
        for view in views {
            match View::try_from(view) {
                Ok(view) => match self.chains.get(&view.chain) {
                    Some(chain) => chain.tell(crate::replica::event::Input::View(view)).await,
                    None => warn!(chain = %view.chain, "a view of a chain that this node does not know"),
                },
                Err(malformed) => warn!(%malformed, "a view is not taken"),
            }
        }
    }

    /// Whenever there is a newer view than the installed one, asks everyone who may have it.
    async fn fetch_views(self: Arc<Self>) {
        loop {
            self.signals.fetch_view.notified().await;
            let mut addresses: BTreeSet<String> = self.coordinators.iter().cloned().collect();
            for view in self.chains.values().filter_map(|chain| chain.view()) {
                let is_other = |node: NodeId| node != self.me.node;
                let members = view.members.iter().filter(|member| is_other(member.node));
                addresses.extend(members.map(|member| member.address.clone()));
                let learners = view.learners.iter().filter(|learner| is_other(learner.node));
                addresses.extend(learners.map(|learner| learner.address.clone()));
            }
            join_all(addresses.iter().map(|address| self.fetch_view_from(address))).await;
            sleep(FETCH_INTERVAL).await;
        }
    }

    async fn fetch_view_from(&self, address: &str) {
        let Ok(mut client) = self.peers.views(address) else { return };
        let request = wire::GetViewRequest { header: Some(self.me.bare_header()) };
        let reply = match timeout(INQUIRY_TIMEOUT, client.get_view(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => {
                return debug!(peer = address, reason = peers::reason(&status), "tells no view");
            }
            Err(_) => return debug!(peer = address, "tells no view in time"),
        };
        match self.me.check(reply.header) {
            Ok(_) => self.take_views(reply.views).await,
            Err(error) => warn!(peer = address, %error, "its views are not taken"),
        }
    }
}

fn silent<T>(_: mpsc::error::SendError<T>) -> Status {
    Status::unavailable("the coordinator does not listen")
}

/// Between half of it and all of it, so that the nodes of a cluster do not come back all at once.
fn jittered(wait: Duration) -> Duration {
    let part = (Uuid::new_v4().as_u128() & 0xffff) as f64 / 65_536.0;
    wait.mul_f64(0.5 + part / 2.0)
}
