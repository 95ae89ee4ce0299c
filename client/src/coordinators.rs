//! Who leads the coordinators, and what they remember. Asked of the addresses that the client started from.

use craq_proto::{Epoch, View, wire};
use futures::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::{
    Client, Error, Options,
    call::{ASK_TIMEOUT, failed},
    failure::Failure,
    follow,
    shared::Shared,
};

/// What one coordinator says of the leadership. Its JSON form is what `craq coordinator list -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoordinatorStatus {
    /// host:port at which it was asked.
    pub address: String,
    /// Whether it leads.
    pub leads: bool,
    /// The newest term that it knows; each leader has one of its own.
    pub term: u64,
    /// host:port of who leads in its eyes; none if nobody does.
    pub leader: Option<String>,
    /// When the term began, by the leader's clock (RFC 3339).
    pub since: String,
    /// How long the log's store took for the last operation, in microseconds.
    pub store_micros: u64,
    /// How many records the log ever had.
    pub records: u64,
    /// Where the log is.
    pub data: String,
}

/// A view of the past. `craq topology history` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastView {
    /// The view, with its reason.
    pub view: View,
    /// When it was made, by the clock of who made it (RFC 3339).
    pub time: String,
    /// In which term; zero: before there were terms.
    pub term: u64,
    /// host:port of the coordinator that made it; none if that is not known.
    pub coordinator: Option<String>,
}

impl Client {
    /// What each of the addresses that the client started from says of the leadership, in their order; none of nodes and of
    /// processes that do not answer. Of the options, `timeout` counts.
    pub async fn coordinators(
        &self,
        options: &Options,
    ) -> Result<Vec<(String, Option<CoordinatorStatus>)>, Error> {
        let until = self.begin(options)?;
        let ask = async |address: &String| {
            let status = leadership(&self.shared, address, until).await;
            let status =
                status.inspect_err(|f| tracing::debug!(%address, error = %f.error, "no coordinator"));
            (address.clone(), status.ok())
        };
        Ok(join_all(self.shared.seeds.iter().map(ask)).await)
    }

    /// Has the coordinator that leads give up, and another one take over; returns the term that has ended. Of the options,
    /// `timeout` counts.
    pub async fn transfer_leadership(&self, options: &Options) -> Result<CoordinatorStatus, Error> {
        let until = self.begin(options)?;
        let message = wire::TransferLeadershipRequest { header: Some(self.shared.header(Epoch::ZERO)) };
        let mut last = None;
        for address in &self.shared.seeds {
            let transferred = async {
                let connection = self.shared.channels.get(address, until).await?;
                let mut client = follow::client(&connection);
                let reply = client.transfer_leadership(Shared::request(message.clone(), until)).await;
                reply.map_err(|status| failed(&self.shared, address, &connection, &status))
            };
            match transferred.await {
                Ok(reply) => return Ok(status(address, reply.into_inner())),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.map_or_else(nobody, |failure| (*failure.error).into()))
    }

    /// Every view that the coordinators remember, of all chains, oldest first. Of the options, `timeout` counts.
    pub async fn history(&self, options: &Options) -> Result<Vec<PastView>, Error> {
        let until = self.begin(options)?;
        let mut last = None;
        for address in &self.shared.seeds {
            match history(&self.shared, address, until).await {
                Ok(history) => return Ok(history),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.map_or_else(nobody, |failure| (*failure.error).into()))
    }
}

fn nobody() -> Error {
    Error::Unreachable { message: "no coordinator is known".to_owned() }
}

async fn leadership(shared: &Shared, address: &str, until: Instant) -> Result<CoordinatorStatus, Failure> {
    let until = until.min(Instant::now() + ASK_TIMEOUT);
    let connection = shared.channels.get(address, until).await?;
    let message = wire::GetLeadershipRequest { header: Some(shared.header(Epoch::ZERO)) };
    let mut client = follow::client(&connection);
    let reply = timeout_at(until, client.get_leadership(Shared::request(message, until))).await;
    let reply = reply.map_err(|_| Failure::no_answer(address, "no answer in time"))?;
    let reply = reply.map_err(|status| failed(shared, address, &connection, &status))?.into_inner();
    shared.check(reply.header.clone(), address)?;
    Ok(status(address, reply))
}

fn status(address: &str, reply: wire::GetLeadershipReply) -> CoordinatorStatus {
    let wire::GetLeadershipReply { leads, term, leader, since, store_micros, records, data, .. } = reply;
    let leader = Some(leader).filter(|leader| !leader.is_empty());
    CoordinatorStatus { address: address.to_owned(), leads, term, leader, since, store_micros, records, data }
}

async fn history(shared: &Shared, address: &str, until: Instant) -> Result<Vec<PastView>, Failure> {
    let connection = shared.channels.get(address, until).await?;
    let message = wire::GetHistoryRequest { header: Some(shared.header(Epoch::ZERO)) };
    let told = |status| failed(shared, address, &connection, &status);
    let late = |_| Failure::no_answer(address, "no history in time");
    let mut client = follow::client(&connection);
    let opened = timeout_at(until, client.get_history(Shared::request(message, until))).await;
    let mut stream = opened.map_err(late)?.map_err(told)?.into_inner();
    let mut history = Vec::new();
    while let Some(entry) = timeout_at(until, stream.message()).await.map_err(late)?.map_err(told)? {
        let Some(Ok(view)) = entry.view.map(View::try_from) else {
            let kind = craq_proto::ErrorKind::Corrupt;
            return Err(Failure::bad_answer(address, kind, "a malformed view in the history"));
        };
        let coordinator = Some(entry.coordinator).filter(|coordinator| !coordinator.is_empty());
        history.push(PastView { view, time: entry.time, term: entry.term, coordinator });
    }
    Ok(history)
}
