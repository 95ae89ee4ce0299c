//! What the services of a node share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use craq_proto::{CallError, ChainId, wire};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{driver::Chain, identity::Identity, peers::Peers, service::RequestIds};

/// The replicas of a node. Which chains there are is fixed when it starts.
pub(crate) type Chains = Arc<BTreeMap<ChainId, Arc<Chain>>>;

/// A node, as its services see it.
pub(crate) struct Node {
    pub(crate) me: Arc<Identity>,
    pub(crate) chains: Chains,
    pub(crate) peers: Arc<Peers>,
    pub(crate) admission: Admission,
    /// For writes that come without an id.
    pub(crate) request_ids: RequestIds,
    /// Longest value that is taken, in bytes.
    pub(crate) value_bytes_max: usize,
    /// Who decides about the chains.
    pub(crate) coordinators: Vec<String>,
    /// Ends the streams that would never end by themselves.
    pub(crate) closing: CancellationToken,
}

impl Node {
    /// The replica of the chain that a message names, if this node may answer the message at all.
    pub(crate) fn chain(&self, chain: &ChainId) -> Result<&Arc<Chain>, CallError> {
        let unknown = || CallError::unavailable(format!("this node has no replica of chain {chain}"));
        self.chains.get(chain).ok_or_else(unknown)
    }

    /// The chains that a message is about: all of them if it names none.
    pub(crate) fn named_chains(&self, header: Option<wire::Header>) -> Result<Vec<&Arc<Chain>>, CallError> {
        let names_none = header.as_ref().is_none_or(|header| header.chain.is_empty());
        let header = self.me.check(header)?;
        if names_none { Ok(self.chains.values().collect()) } else { Ok(vec![self.chain(&header.chain)?]) }
    }
}

/// How many requests of clients may be in flight at once.
pub(crate) struct Admission {
    free: Arc<Semaphore>,
    max: usize,
    is_over: AtomicBool,
}

impl Admission {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), max, is_over: AtomicBool::new(false) }
    }

    /// Admits a request until what is returned is dropped.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, CallError> {
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            if self.is_over.load(Ordering::Relaxed) {
                return CallError::unavailable("this node is stopping");
            }
            let text =
                format!("{} requests are in flight at this node, as many as --requests-max allows", self.max);
            CallError::new(craq_proto::ErrorKind::ResourceExhausted, text)
        })
    }

    /// Waits until no request is in flight. None is admitted from then on.
    pub(crate) async fn drained(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let all = u32::try_from(self.max).unwrap_or(u32::MAX);
        if let Ok(permits) = self.free.acquire_many(all).await {
            permits.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exactly_so_many_requests_are_admitted_at_once() {
        let admission = Admission::new(2);
        let first = admission.admit().unwrap();
        let second = admission.admit().unwrap();
        let refused = admission.admit().unwrap_err();
        assert_eq!(refused.kind, craq_proto::ErrorKind::ResourceExhausted);
        assert!(refused.message.contains("--requests-max"), "{refused}");
        drop(first);
        let third = admission.admit().unwrap();
        drop((second, third));
        admission.drained().await;
        assert_eq!(admission.admit().unwrap_err().kind, craq_proto::ErrorKind::Unavailable);
    }
}
