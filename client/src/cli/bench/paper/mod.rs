//! `bench paper`: the measurements of the CRAQ paper (Terrace & Freedman, 2009, figures 4 to 9) on chains of its own.
//!
//! All nodes share this machine, so each gets the same fixed share of CPU: what the paper's nodes had as machines of
//! their own. Absolute figures are those of the share; what can be compared is how they grow with the chain.

mod cap;
mod measure;
mod page;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use craq_client::{Client, proto::View};

use super::{
    args::PaperArgs,
    stop::{Second, Stop},
};
use crate::cli::{
    exit::usage,
    playground::{Cluster, Place, beside},
};
use cap::{Cap, PERCENT_MIN};
use measure::{Figures, Settings};

const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);
const QUICK_DURATION: Duration = Duration::from_millis(500);
const QUICK_NODES: [u16; 2] = [1, 3];
const NODES_MAX: u16 = 32;

/// Measures chains of each length, and writes the page.
pub(super) async fn run(args: &PaperArgs) -> anyhow::Result<()> {
    let lengths = if args.quick { QUICK_NODES.to_vec() } else { args.nodes.clone() };
    let longest = lengths.iter().max().copied().unwrap_or_default();
    if lengths.iter().any(|nodes| !(1..=NODES_MAX).contains(nodes)) || lengths.is_empty() {
        return Err(usage(format!("--nodes are from 1 to {NODES_MAX}")));
    }
    if args.clients == 0 || args.clients > 10_000 || args.duration.is_zero() {
        return Err(usage("--clients are 1 to 10000, and --duration is above zero"));
    }
    let percent = args.cap.unwrap_or_else(|| default_percent(longest));
    if percent < PERCENT_MIN {
        return Err(usage(format!("--cap is at least {PERCENT_MIN} percent of a core")));
    }
    let mut cap = Cap::prepare(percent)?;
    let duration = if args.quick { QUICK_DURATION } else { args.duration };
    let settings = Settings { duration, clients: args.clients, quick: args.quick };
    let (stop, _listener) = Stop::listen(Second::Waits)?;
    let mut all = Vec::new();
    for nodes in lengths {
        let place = Place::new(None)?;
        let mut cluster = Cluster::default();
        let store = args.store.as_str();
        let outcome = tokio::select! {
            outcome = Box::pin(chain(nodes, &mut cluster, &place, &mut cap, settings, &stop, store)) => outcome,
            () = stop.requested() => Err(anyhow!("ended early")),
        };
        cluster.stop().await;
        cap.clear();
        place.leave();
        match outcome {
            Ok(figures) => all.push(figures),
            Err(error) if stop.is_requested() => {
                eprintln!("{error:#}; the page has what was measured before");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    ensure!(!all.is_empty(), "ended before anything was measured");
    page::write(args, percent, settings, &all)?;
    eprintln!("the page is {}", args.directory.join("paper.md").display());
    Ok(())
}

/// A third of the cores, shared by the longest chain; the clients need the rest.
fn default_percent(longest: u16) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores).unwrap_or(1);
    (cores * 33 / u32::from(longest.max(1))).clamp(PERCENT_MIN, 100)
}

async fn chain(
    nodes: u16,
    cluster: &mut Cluster,
    place: &Place,
    cap: &mut Cap,
    settings: Settings,
    stop: &Stop,
    store: &str,
) -> anyhow::Result<Figures> {
    eprintln!("chain of {nodes}: starting");
    let directory: &Path = place.directory();
    cluster.start_coordinator(&beside("craq-coordinator")?, directory).await?;
    for number in 1..=nodes {
        cluster.start_node(&beside("craq-node")?, number, directory, store).await?;
    }
    let coordinator = cluster.coordinator_addresses();
    let client = Client::connect([coordinator.as_str()]).await?;
    let whole = |view: &View| {
        view.members.len() == usize::from(nodes) && view.members.iter().all(|member| member.in_sync)
    };
    let view = client.wait_for_view(WHOLE_TIMEOUT, whole).await.context("the chain is not whole")?;
    let members: Vec<String> = view.members.iter().map(|member| member.address.clone()).collect();
    for (number, pid) in cluster.node_pids().into_iter().enumerate() {
        cap.put(&format!("node-{nodes}-{}", number + 1), pid)?;
    }
    tokio::select! {
        figures = Box::pin(measure::figures(&coordinator, nodes, &members, settings, stop)) => figures,
        died = cluster.died() => anyhow::bail!(died),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_within_what_the_kernel_gives() {
        assert!((PERCENT_MIN..=100).contains(&default_percent(1)));
        assert_eq!(default_percent(NODES_MAX * 100), PERCENT_MIN);
    }
}
