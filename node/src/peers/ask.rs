//! What members ask each other in single calls: promises, releases from them, committed versions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use craq_proto::{
    CallError, ChainId, Epoch, Key, NodeId, Seq, Time, Version, View,
    convert::{Malformed, number},
    wire,
};
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::Status;
use tracing::debug;

use super::{Failure, Lane, Peers, link::learn, timed_out};
use crate::{
    clock,
    driver::Chain,
    limits::{QUESTION_BYTES_MAX, QUESTION_KEYS_MAX, QUESTION_TIMEOUT},
    replica::event::{Input, Position, TailAnswer},
};

/// The pings to one node. At most one is under way; what is wanted meanwhile goes with the next, for all chains together.
#[derive(Default)]
pub(super) struct Pings {
    state: Mutex<PingState>,
}

#[derive(Default)]
struct PingState {
    wanted: Wanted,
    address: String,
    is_busy: bool,
}

type Wanted = BTreeMap<ChainId, (Arc<Chain>, Epoch)>;

impl Peers {
    /// Asks these members for promises.
    pub(crate) fn ping(self: &Arc<Self>, chain: &Arc<Chain>, to: Vec<(NodeId, String)>, epoch: Epoch) {
        for (node, address) in to {
            let pings = Arc::clone(self.pings.lock().entry(node).or_default());
            {
                let mut state = pings.state.lock();
                state.wanted.insert(chain.id.clone(), (Arc::clone(chain), epoch));
                state.address = address;
                if std::mem::replace(&mut state.is_busy, true) {
                    continue;
                }
            }
            let peers = Arc::clone(self);
            tokio::spawn(async move {
                while let Some((wanted, address)) = pings.take() {
                    peers.ping_once(node, &address, wanted).await;
                }
            });
        }
    }

    async fn ping_once(&self, node: NodeId, address: &str, wanted: Wanted) {
        let chains = wanted.iter().map(|(id, (_, epoch))| chain_epoch(id, *epoch)).collect();
        let request = wire::PingRequest { header: Some(self.me.bare_header()), chains, released: Vec::new() };
        // Before it is sent: the lease counts from here.
        let sent = clock::now();
        match self.send_ping(address, request, self.lease).await {
            Ok(reply) => self.on_ping_reply(node, sent, &wanted, reply),
            Err(status) => {
                debug!(peer = address, reason = super::reason(&status), "no answer to a ping");
                // An answer that promises nothing is as bad as none: a process that still reads its store, say.
                self.missed(node, newest_view(&wanted).as_deref(), Failure::of(&status));
            }
        }
    }

    async fn send_ping(
        &self,
        address: &str,
        request: wire::PingRequest,
        patience: Duration,
    ) -> Result<wire::PingReply, Status> {
        let mut client = self.chain(address, Lane::Control)?;
        let reply = timeout(patience, client.ping(request)).await;
        Ok(reply.map_err(|_| timed_out("no answer in time"))??.into_inner())
    }

    fn on_ping_reply(&self, node: NodeId, sent: Time, wanted: &Wanted, reply: wire::PingReply) {
        match self.me.check_peer(reply.header) {
            Ok((header, sender)) if sender == node => {
                let view = newest_view(wanted);
                let meant = view.as_ref().and_then(|view| view.incarnation(node));
                if meant.is_some_and(|meant| meant < header.incarnation) {
                    debug!(%node, "a member has been started again: the process that the view means is gone");
                    self.missed(node, view.as_deref(), Failure::Refused);
                } else {
                    self.reach.reached(node);
                }
            }
            Ok((_, sender)) => return debug!(%node, %sender, "another node answers at a member's address"),
            Err(error) => return debug!(%node, %error, "an answer to a ping is not taken"),
        }
        for granted in reply.granted {
            if let Some((chain, epoch)) = asked(wanted, &granted)
                && epoch.0 == granted.epoch
            {
                chain.note(Input::Promised { by: node, epoch: *epoch, sent });
            }
        }
        for refused in reply.refused {
            if let Some((chain, epoch)) = asked(wanted, &refused)
                && epoch.0 < refused.epoch
            {
                chain.note(Input::NewerEpoch { epoch: Epoch(refused.epoch) });
            }
        }
    }

    /// Tells these nodes that this one has given up its lease. Whoever does not hear it only waits longer.
    pub(crate) fn release(self: &Arc<Self>, chain: &Arc<Chain>, to: Vec<(NodeId, String)>, epoch: Epoch) {
        for (_, address) in to {
            let request = wire::PingRequest {
                header: Some(self.me.bare_header()),
                chains: Vec::new(),
                released: vec![chain_epoch(&chain.id, epoch)],
            };
            let peers = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(status) = peers.send_ping(&address, request, peers.lease).await {
                    debug!(peer = address, reason = super::reason(&status), "a release was not heard");
                }
            });
        }
    }

    /// Asks the tail which versions are committed, and tells the replica what it says.
    pub(crate) fn ask_tail(
        self: &Arc<Self>,
        chain: &Arc<Chain>,
        question: u64,
        tail: (NodeId, String),
        epoch: Epoch,
        keys: Vec<Key>,
    ) {
        let peers = Arc::clone(self);
        let chain = Arc::clone(chain);
        tokio::spawn(async move {
            // Answers to parts of a question are all given after it was asked, so the newest of their commits is one.
            let parts = pieces(&keys).into_iter().inspect(|_| chain.reads.asked());
            let asked = parts.map(|part| peers.ask_tail_once(&chain.id, &tail, epoch, part));
            let answer = match timeout(QUESTION_TIMEOUT, try_join_all(asked)).await {
                Ok(Ok(answers)) => Some(join(answers)),
                Ok(Err(status)) => {
                    debug!(tail = tail.1, reason = super::reason(&status), "the tail does not answer");
                    learn(&chain, &status);
                    None
                }
                Err(_) => None,
            };
            chain.note(Input::TailAnswered { question, answer });
        });
    }

    async fn ask_tail_once(
        &self,
        chain: &ChainId,
        (node, address): &(NodeId, String),
        epoch: Epoch,
        keys: &[Key],
    ) -> Result<TailAnswer, Status> {
        let request = wire::LatestVersionsRequest {
            header: Some(self.me.header(chain, epoch)),
            keys: keys.iter().map(|key| key.as_bytes().clone()).collect(),
        };
        let mut client = self.chain(address, Lane::Control)?;
        let reply = client.latest_versions(request).await?.into_inner();
        let (header, sender) = self.me.check_peer(reply.header)?;
        if sender != *node || header.epoch != epoch || reply.versions.len() != keys.len() {
            let text =
                format!("node {sender} answers {} keys in epoch {}", reply.versions.len(), header.epoch);
            return Err(CallError::invalid(text).to_status());
        }
        let position = |latest: wire::LatestVersion| -> Result<Option<Position>, Malformed> {
            let seq = Seq(number(latest.seq, "latest.seq")?);
            let version = Version(number(latest.version, "latest.version")?);
            let (index, deleted) = (latest.index, latest.deleted);
            Ok((seq > Seq::ZERO).then_some(Position { seq, index, version, deleted }))
        };
        let versions = reply.versions.into_iter().map(position).collect::<Result<_, _>>()?;
        Ok(TailAnswer { versions, commit: Seq(number(reply.commit, "commit")?) })
    }
}

impl Pings {
    /// What the next ping asks for; none: nothing is wanted, and the task may end.
    fn take(&self) -> Option<(Wanted, String)> {
        let mut state = self.state.lock();
        if state.wanted.is_empty() {
            state.is_busy = false;
            return None;
        }
        Some((std::mem::take(&mut state.wanted), state.address.clone()))
    }
}

fn newest_view(wanted: &Wanted) -> Option<Arc<View>> {
    wanted.values().find_map(|(chain, _)| chain.view())
}

fn chain_epoch(chain: &ChainId, epoch: Epoch) -> wire::ChainEpoch {
    wire::ChainEpoch { chain: chain.to_string(), epoch: epoch.0 }
}

fn asked<'a>(wanted: &'a Wanted, answer: &wire::ChainEpoch) -> Option<&'a (Arc<Chain>, Epoch)> {
    wanted.get(&answer.chain.parse::<ChainId>().ok()?)
}

/// Cuts a question into parts that fit in a message; one at least, since a question without keys asks for the commit.
fn pieces(keys: &[Key]) -> Vec<&[Key]> {
    let mut pieces = Vec::new();
    let mut rest = keys;
    loop {
        let mut bytes = 0;
        let fitting = rest.iter().take(QUESTION_KEYS_MAX).take_while(|key| {
            bytes += key.as_bytes().len();
            bytes <= QUESTION_BYTES_MAX
        });
        let count = fitting.count();
        let (piece, more) = rest.split_at(count);
        pieces.push(piece);
        rest = more;
        if rest.is_empty() {
            return pieces;
        }
    }
}

fn join(answers: Vec<TailAnswer>) -> TailAnswer {
    let commit = answers.iter().map(|answer| answer.commit).max().unwrap_or_default();
    TailAnswer { versions: answers.into_iter().flat_map(|answer| answer.versions).collect(), commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize, bytes: usize) -> Vec<Key> {
        (0..count).map(|n| Key::new(format!("{n:0bytes$}")).unwrap()).collect()
    }

    #[test]
    fn a_question_is_cut_so_that_each_part_fits_and_none_is_lost() {
        assert_eq!(pieces(&[]).len(), 1, "the commit alone is a question too");
        for (count, bytes) in [(1, 1), (1_000, 8), (1_001, 8), (5_000, 300), (1_000, 4_096)] {
            let keys = keys(count, bytes);
            let pieces = pieces(&keys);
            assert_eq!(pieces.concat(), keys);
            for piece in pieces {
                let size: usize = piece.iter().map(|key| key.as_bytes().len()).sum();
                assert!(!piece.is_empty() && piece.len() <= QUESTION_KEYS_MAX && size <= QUESTION_BYTES_MAX);
            }
        }
    }
}
