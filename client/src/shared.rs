//! What all calls of one client share: routes, connections, request ids and the time.
//!
//! Never decides whether a call is tried again ([`crate::retry`]) or where it goes ([`crate::routing`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use craq_proto::{
    ChainId, ClusterId, Epoch, ErrorKind, Seq, Time, View,
    convert::{Header, uuid_bytes},
    wire,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tonic::Request;
use uuid::Uuid;

use crate::{Error, channels::Channels, failure::Failure, request::Requests, routing::Routes};

/// The state of one client.
pub(crate) struct Shared {
    /// Where the client starts from.
    pub(crate) seeds: Vec<String>,
    /// Unless a call says otherwise.
    pub(crate) timeout: Duration,
    pub(crate) channels: Channels,
    pub(crate) requests: Requests,
    pub(crate) routes: Mutex<Routes>,
    /// Announces each newer view.
    pub(crate) views: watch::Sender<Option<Arc<View>>>,
    /// Somebody has reason to believe that the view is old.
    pub(crate) doubt: Notify,
    /// One question for the first view at a time.
    pub(crate) asking: tokio::sync::Mutex<()>,
    chain: ChainId,
    sender: Uuid,
    start: Instant,
    cluster: Mutex<Option<ClusterId>>,
    seen: AtomicU64,
}

impl Shared {
    pub(crate) fn new(seeds: Vec<String>, chain: ChainId, timeout: Duration) -> Self {
        let sender = Uuid::new_v4();
        Self {
            seeds,
            timeout,
            channels: Channels::default(),
            requests: Requests::new(sender),
            routes: Mutex::default(),
            views: watch::Sender::new(None),
            doubt: Notify::new(),
            asking: tokio::sync::Mutex::new(()),
            chain,
            sender,
            start: Instant::now(),
            cluster: Mutex::new(None),
            seen: AtomicU64::new(0),
        }
    }

    /// The time, as the pure modules take it.
    pub(crate) fn now(&self) -> Time {
        Time(self.start.elapsed())
    }

    /// The newest epoch known.
    pub(crate) fn epoch(&self) -> Epoch {
        self.routes.lock().epoch()
    }

    /// The cluster, once a reply has named it.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.lock()
    }

    /// The highest sequence that any reply has named.
    pub(crate) fn seen(&self) -> Seq {
        Seq(self.seen.load(Ordering::Relaxed))
    }

    /// A reply names a sequence.
    pub(crate) fn saw(&self, seq: u64) {
        self.seen.fetch_max(seq, Ordering::Relaxed);
    }

    /// The header of a request. With epoch zero it is served whatever the node's own is.
    pub(crate) fn header(&self, epoch: Epoch) -> wire::Header {
        wire::Header {
            cluster_id: self.cluster().map(|id| uuid_bytes(id.0)).unwrap_or_default(),
            chain: self.chain.to_string(),
            epoch: epoch.0,
            sender: uuid_bytes(self.sender),
            incarnation: 0,
        }
    }

    /// Checks the header of a reply: of this cluster, which the first reply names.
    pub(crate) fn check(&self, header: Option<wire::Header>, target: &str) -> Result<Epoch, Failure> {
        let bad = |kind, reason: &str| Failure::bad_answer(target, kind, reason);
        let header =
            Header::try_from(header).map_err(|error| bad(ErrorKind::OutcomeUnknown, &error.to_string()))?;
        self.check_cluster(header.cluster, target)?;
        Ok(header.epoch)
    }

    /// Checks whose reply it is: of this cluster, which the first reply names.
    pub(crate) fn check_cluster(&self, cluster: Option<ClusterId>, target: &str) -> Result<(), Failure> {
        let Some(cluster) = cluster else { return Ok(()) };
        let mut known = self.cluster.lock();
        if *known.get_or_insert(cluster) != cluster {
            let reason = "it belongs to another cluster";
            return Err(Failure::bad_answer(target, ErrorKind::WrongCluster, reason));
        }
        Ok(())
    }

    /// Takes views from whoever tells them. True if one of them is news.
    pub(crate) fn install(&self, views: impl IntoIterator<Item = View>) -> bool {
        let mut news = false;
        for view in views.into_iter().filter(|view| view.chain == self.chain) {
            let mut routes = self.routes.lock();
            if let Some(view) = routes.install(view) {
                tracing::debug!(chain = %view.chain, epoch = %view.epoch, reason = %view.reason, "a newer view");
                // Under the lock, so that views are announced in the order in which they are installed.
                self.views.send_replace(Some(view));
                news = true;
            }
        }
        news
    }

    /// Learns from a failed attempt. True if it brought something new about where to go.
    pub(crate) fn learn(&self, failure: &Failure) -> bool {
        let error = &failure.error;
        let mut news = self.install(error.view.as_deref().cloned());
        self.saw(error.born.0);
        let mut routes = self.routes.lock();
        if let Some(head) = &error.head
            && error.kind == ErrorKind::NotHead
        {
            news |= routes.hint_head(head);
        }
        if let Some(target) = &failure.target
            && !news
            && matches!(error.kind, ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::Corrupt)
        {
            routes.avoid(target, self.now(), !failure.connected);
        }
        drop(routes);
        if !news && error.kind.is_retryable() {
            self.doubt.notify_one();
        }
        news
    }

    /// A gRPC request whose deadline is `until`.
    pub(crate) fn request<T>(message: T, until: Instant) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        request
    }

    /// A random number from 0 up to 1, for jitter.
    pub(crate) fn random() -> f64 {
        let bits = u32::try_from(Uuid::new_v4().as_u128() & 0xffff_ffff).unwrap_or(0);
        f64::from(bits) / f64::from(u32::MAX)
    }

    /// What is wrong with a key, before it is sent.
    pub(crate) fn key(key: impl Into<bytes::Bytes>) -> Result<craq_proto::Key, Error> {
        Ok(craq_proto::Key::new(key)?)
    }
}
