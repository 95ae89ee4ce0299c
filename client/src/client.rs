//! The client: what it is made of and how it is made.

use std::{sync::Arc, time::Duration};

use craq_proto::{ChainId, ClusterId, View};
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use crate::{
    Error, Options,
    address::{dial, dial_all},
    call::{ASK_TIMEOUT, first_view},
    follow,
    options::TIMEOUT_DEFAULT,
    shared::Shared,
};

/// A client of one chain. Cheap to clone; all clones share connections, views and request ids.
///
/// See the [crate's documentation](crate) for an example.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    _follower: Arc<Follower>,
}

/// Ends the background task with the last clone of the client.
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a client is made, where the defaults do not fit.
#[derive(Debug, Clone)]
pub struct Builder {
    addresses: Vec<String>,
    chain: ChainId,
    timeout: Duration,
}

impl Builder {
    /// The chain; `default` unless given.
    #[must_use]
    pub fn chain(mut self, chain: ChainId) -> Self {
        self.chain = chain;
        self
    }

    /// How long a call may take if it does not say so itself; [`TIMEOUT_DEFAULT`] unless given.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the client without asking anybody: the first call does. Must be called on a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let seeds = dial_all(self.addresses.iter().map(String::as_str))?;
        let shared = Arc::new(Shared::new(seeds, self.chain, self.timeout));
        let task = tokio::spawn(follow::follow(Arc::clone(&shared)));
        Ok(Client { shared, _follower: Arc::new(Follower(task.abort_handle())) })
    }

    /// Makes the client, and returns when one of the addresses has answered; [`Error::Unreachable`] at once if none
    /// can be connected to.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build()?;
        let until = Instant::now() + client.shared.timeout.min(ASK_TIMEOUT * 2);
        match first_view(&client.shared, until).await {
            Err(failure) if !failure.connected => Err(Error::Unreachable { message: failure.error.message }),
            _ => Ok(client),
        }
    }
}

impl Client {
    /// A client that starts from these addresses: coordinators, nodes, or both, as `host:port`; `:1234` means this
    /// machine. Returns when one of them has answered.
    pub async fn connect<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder(addresses).connect().await
    }

    /// A client that starts from these addresses, with settings to follow.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Builder {
        Builder {
            addresses: addresses.into_iter().map(Into::into).collect(),
            chain: ChainId::default_chain(),
            timeout: TIMEOUT_DEFAULT,
        }
    }

    /// The cluster, once a reply has named it.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.shared.cluster()
    }

    /// The newest view that the client knows. Does not ask.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.routes.lock().view().cloned()
    }

    /// Returns as soon as the client knows a view that is `wanted`; [`Error::Unavailable`] after `timeout`.
    pub async fn wait_for_view(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&View) -> bool,
    ) -> Result<Arc<View>, Error> {
        let mut views = self.shared.views.subscribe();
        let found = async {
            loop {
                // A copy, so that no lock is held while the caller's closure runs.
                let view = views.borrow_and_update().clone();
                if let Some(view) = view.filter(|view| wanted(view)) {
                    return Some(view);
                }
                views.changed().await.ok()?;
            }
        };
        let found = timeout_at(Instant::now() + timeout, found).await;
        found.ok().flatten().ok_or_else(|| Error::Unavailable {
            message: format!("no such view of the chain in {timeout:?}"),
        })
    }

    /// Checks the options of a call that begins now: when it must have ended.
    pub(crate) fn begin(&self, options: &Options) -> Result<Instant, Error> {
        // A year stands for a timeout that the clock can't hold.
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
        if let Some(node) = &options.node {
            dial(node)?;
        }
        let timeout = options.timeout.unwrap_or(self.shared.timeout);
        Ok(Instant::now() + timeout.min(LONGEST))
    }

    /// The address of a node as it can be connected to: `:1235` becomes `localhost:1235`.
    pub fn dial(address: &str) -> Result<String, Error> {
        dial(address)
    }
}
