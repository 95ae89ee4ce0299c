//! The playground's self-check: waits for the whole chain, writes a key, reads it at every node, and says what to try.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use craq_client::{Client, Options, proto::View};

use super::process::Summary;
use crate::cli::{output::Output, status};

/// How long the chain may take to become whole.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
const KEY: &str = "playground";
const VALUE: &str = "hello from craq";

/// Checks a cluster.
pub(super) async fn check(coordinators: &[Summary], nodes: &[Summary]) -> anyhow::Result<()> {
    let client = Client::connect(coordinators.iter().map(|coordinator| coordinator.address.as_str())).await?;
    let whole = |view: &View| {
        let here = |address: &str| nodes.iter().any(|node| node.address == address);
        view.members.len() == nodes.len() && view.members.iter().all(|m| m.in_sync && here(&m.address))
    };
    if let Err(error) = client.wait_for_view(WHOLE_TIMEOUT, whole).await {
        let status = client.status(&Options::new()).await;
        let reason = status.map(|status| status.chains.iter().map(|c| c.reason.clone()).collect::<Vec<_>>());
        let reason = reason.map_or_else(|error| error.to_string(), |reasons| reasons.join("; "));
        return Err(error).context(format!("the chain is not whole: {reason}"));
    }
    let written = client.write(KEY, VALUE).await.context("the first write")?;
    for node in nodes {
        let options = Options::new().node(node.address.as_str());
        let read = client.read_with(KEY, &options).await;
        let read = read.with_context(|| format!("reading at {}", node.address))?;
        let as_written = read.value.as_deref() == Some(VALUE.as_bytes()) && read.version == written.version;
        ensure!(as_written, "{} does not have what was written: {read:?}", node.address);
    }
    tell(&client, coordinators, nodes).await
}

async fn tell(client: &Client, coordinators: &[Summary], nodes: &[Summary]) -> anyhow::Result<()> {
    let mut output = Output::for_people();
    status::table(&mut output, &client.status(&Options::new()).await?)?;
    output.line(format!("Wrote the key {KEY:?} and read it at each of the {} nodes.", nodes.len()))?;
    output.line("\nTry next, from another terminal:")?;
    let craq = std::env::args().next().unwrap_or_else(|| "craq".to_owned());
    let addresses: Vec<&str> = coordinators.iter().map(|coordinator| coordinator.address.as_str()).collect();
    let craq = format!("{craq} -c {}", addresses.join(","));
    let mut step = |command: String, what: &str| output.line(format!("  {command:<58} # {what}"));
    step(format!("{craq} write hello world"), "write a key")?;
    step(format!("{craq} read hello"), "read it from any replica")?;
    if let Some(last) = nodes.last() {
        step(format!("{craq} -n {} read hello --meta", last.address), "read it from exactly this node")?;
    }
    step(format!("{craq} list"), "all keys and values")?;
    step(format!("{craq} status"), "who makes up the chain")?;
    step(format!("{craq} topology history"), "who made it up before, and why")?;
    if let [_, _, ..] = coordinators {
        step(format!("{craq} coordinator list"), "which coordinator leads; kill it, and another one does")?;
    }
    if let [node, _, ..] = nodes {
        step(format!("kill -9 {}", node.pid), "a node dies: the chain goes on without it")?;
    }
    output.finish()
}
