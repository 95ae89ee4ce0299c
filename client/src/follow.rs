//! Follows the views in the background: from any coordinator or node that can be reached, in turn.
//!
//! Never waited for by a call: calls learn from errors too, and ask for the first view themselves.

use std::{sync::Arc, time::Duration};

use craq_proto::{Epoch, View, wire};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout_at};
use wire::coordinator_client::CoordinatorClient;

use crate::{
    call::{ASK_TIMEOUT, failed},
    channels::Connection,
    failure::Failure,
    shared::Shared,
};

/// The first pause after nobody could be followed; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// At least so long between two rounds of questions.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs until it is aborted.
pub(crate) async fn follow(shared: Arc<Shared>) {
    tokio::join!(watch(&shared), ask_when_in_doubt(&shared));
}

/// Keeps one stream of views open.
async fn watch(shared: &Shared) {
    let mut pause = PAUSE_FIRST;
    loop {
        for address in known(shared) {
            match watch_one(shared, &address).await {
                Ok(()) => pause = PAUSE_FIRST,
                Err(failure) => tracing::debug!(%address, error = %failure.error, "cannot follow the views"),
            }
        }
        sleep(pause.mul_f64(0.5 + 0.5 * Shared::random())).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Follows one process until its stream ends; an error if it never began.
async fn watch_one(shared: &Shared, address: &str) -> Result<(), Failure> {
    let until = Instant::now() + ASK_TIMEOUT;
    let connection = shared.channels.get(address, until).await?;
    let request = wire::WatchViewsRequest { header: Some(shared.header(Epoch::ZERO)) };
    let mut client = client(&connection);
    let opened = timeout_at(until, client.watch_views(request)).await;
    let opened = opened.map_err(|_| Failure::no_answer(address, "no stream of views in time"))?;
    let mut stream = opened.map_err(|status| failed(shared, address, &connection, &status))?.into_inner();
    let mut begun = Err(Failure::no_answer(address, "the stream of views ended at once"));
    loop {
        match stream.message().await {
            Ok(Some(reply)) => {
                take(shared, reply, address)?;
                begun = Ok(());
            }
            Ok(None) => return begun,
            Err(status) => {
                let failure = failed(shared, address, &connection, &status);
                return begun.or(Err(failure));
            }
        }
    }
}

/// Asks everybody for the views when a call has reason to believe that the own is old.
async fn ask_when_in_doubt(shared: &Shared) {
    loop {
        shared.doubt.notified().await;
        if let Err(failure) = ask_all(shared, Instant::now() + ASK_TIMEOUT).await {
            tracing::debug!(error = %failure.error, "nobody told the views");
        }
        sleep(ASK_INTERVAL).await;
    }
}

/// Asks every known process for the views, all at once. Returns when one of them told a view, or when all have
/// answered or failed; an error if none answered.
pub(crate) async fn ask_all(shared: &Shared, until: Instant) -> Result<(), Failure> {
    let addresses = known(shared);
    let mut questions: FuturesUnordered<_> =
        addresses.iter().map(|address| ask(shared, address, until)).collect();
    let mut outcome = Err(Failure::no_route("no address is known", false));
    while let Some(answer) = questions.next().await {
        match answer {
            Ok(true) => return Ok(()),
            Ok(false) => outcome = Ok(()),
            Err(failure) => outcome = outcome.or(Err(failure)),
        }
    }
    outcome
}

/// Asks one process; true if it told something new.
async fn ask(shared: &Shared, address: &str, until: Instant) -> Result<bool, Failure> {
    let connection = shared.channels.get(address, until).await?;
    let message = wire::GetViewRequest { header: Some(shared.header(Epoch::ZERO)) };
    let mut client = client(&connection);
    match timeout_at(until, client.get_view(Shared::request(message, until))).await {
        Ok(Ok(reply)) => take(shared, reply.into_inner(), address),
        Ok(Err(status)) => Err(failed(shared, address, &connection, &status)),
        Err(_) => Err(Failure::no_answer(address, "no view in time")),
    }
}

fn take(shared: &Shared, reply: wire::GetViewReply, address: &str) -> Result<bool, Failure> {
    shared.check(reply.header, address)?;
    let views = reply.views.into_iter().filter_map(|view| match View::try_from(view) {
        Ok(view) => Some(view),
        Err(error) => {
            tracing::warn!(%address, %error, "a malformed view");
            None
        }
    });
    Ok(shared.install(views))
}

/// Where the client started from, then the chain.
fn known(shared: &Shared) -> Vec<String> {
    let mut addresses = shared.seeds.clone();
    for address in shared.routes.lock().addresses() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// A client of the control service on a connection, with the limits of all messages.
pub(crate) fn client(connection: &Connection) -> CoordinatorClient<tonic::transport::Channel> {
    use craq_proto::key::MESSAGE_BYTES_MAX;
    CoordinatorClient::new(connection.channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
