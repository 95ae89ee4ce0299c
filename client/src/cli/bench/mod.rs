//! `bench`: how fast is this cluster?
//!
//! [`plan`] checks what was asked for, [`setup`] writes the keys, [`load`] runs a round of clients, each of which does
//! what [`operation`] says; [`figures`] count, [`report`] sums up, [`print`](mod@print) and [`plot`] show it.
//! Never here: anything but the public interface of the client library.

pub(super) mod args;
mod counters;
mod figures;
mod keys;
mod load;
mod machine;
mod operation;
mod paper;
mod plan;
mod plot;
mod print;
mod progress;
mod report;
mod schedule;
mod setup;
mod stop;
mod window;

use anyhow::{Context as _, ensure};
use craq_client::{Client, Error};

use super::{args::Globals, exit::usage, output::Output, session::Session};
use args::{BenchArgs, BenchCommand};
use plan::{Nodes, Plan, Workload};
use progress::Progress;
use report::{CounterCheck, Report, RoundReport};
use stop::{Second, Stop};

/// Measures what was asked for.
pub(crate) async fn bench(globals: &Globals, args: BenchArgs) -> anyhow::Result<()> {
    let (workload, load) = match &args.command {
        BenchCommand::Write(load) => (Workload::Write, load),
        BenchCommand::Read(load) => (Workload::Read, load),
        BenchCommand::Mixed(load) => (Workload::Mixed, load),
        BenchCommand::Scan(load) => (Workload::Scan, load),
        BenchCommand::Cas(load) => (Workload::Cas, load),
        BenchCommand::Paper(paper) => return Box::pin(paper::run(paper)).await,
    };
    let plan = Plan::new(workload, load, globals).map_err(usage)?;
    let mut globals = globals.clone();
    if plan.nodes == Nodes::All {
        // That is no address to start from.
        globals.at_node = None;
    }
    let (stop, _listener) = Stop::listen(Second::Exits)?;
    let report = Box::pin(measure(&globals, &plan, &stop)).await?;
    let mut output = Output::new(&globals);
    print::print(&mut output, &report)?;
    output.finish()?;
    if let Some(file) = &plan.plot {
        std::fs::write(file, plot::of_report(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("the picture is in {}", file.display());
    }
    judge(&report)
}

/// Loads, runs all rounds, and cleans up, however they ended.
async fn measure(globals: &Globals, plan: &Plan, stop: &Stop) -> anyhow::Result<Report> {
    let most = plan.clients.iter().map(|clients| plan.connections(*clients)).max().unwrap_or(1);
    let mut instances = Vec::new();
    for _ in 0..most {
        instances.push(Session::open(globals).await?.client);
    }
    let first = instances.first().context("there is no client")?.clone();
    let nodes = nodes(plan, &first)?;
    let outcome = Box::pin(rounds(plan, &instances, &nodes, stop)).await;
    if !plan.keep {
        setup::clean_up(&plan.keys, &first).await;
    }
    outcome
}

/// The nodes that are read from; none: the client library chooses.
fn nodes(plan: &Plan, client: &Client) -> anyhow::Result<Vec<String>> {
    Ok(match &plan.nodes {
        Nodes::Any => vec![],
        Nodes::One(node) => vec![node.clone()],
        Nodes::All => {
            let view = client.view().context("no view of the chain is known yet")?;
            let members: Vec<_> = view.members.iter().map(|member| member.address.clone()).collect();
            ensure!(!members.is_empty(), "the chain has no members yet");
            members
        }
    })
}

async fn rounds(plan: &Plan, instances: &[Client], nodes: &[String], stop: &Stop) -> anyhow::Result<Report> {
    let client = &instances[0];
    ensure!(!plan.load || setup::load(plan, client, stop).await?, "ended before anything was measured");
    let counts = plan.workload == Workload::Cas;
    let before = if counts { setup::sum(&plan.keys, client).await? } else { 0 };
    let (mut reports, mut increments) = (Vec::new(), (0, 0));
    'all: for clients in &plan.clients {
        for number in 1..=plan.rounds {
            if stop.is_requested() {
                break 'all;
            }
            let millis = u64::try_from((plan.warmup + plan.duration).as_millis())?;
            let progress = Progress::new(&format!("{clients} clients, round {number}"), millis);
            let shared = &instances[..plan.connections(*clients) as usize];
            let round = Box::pin(load::round(plan, *clients, shared, nodes, stop, progress.clone())).await?;
            progress.finish();
            increments = (increments.0 + round.increments.0, increments.1 + round.increments.1);
            // A round that was ended in its warmup has no figures.
            if !round.measured.is_zero() {
                reports.push(RoundReport::new(round, number));
            }
        }
    }
    ensure!(!reports.is_empty(), "ended before anything was measured");
    let counters = match counts {
        false => None,
        true => Some(CounterCheck {
            acknowledged: increments.0,
            unknown: increments.1,
            found: setup::sum(&plan.keys, client).await?.wrapping_sub(before),
        }),
    };
    Ok(Report::new(plan, reports, counters))
}

/// Figures of a store that answers wrongly are no figures.
fn judge(report: &Report) -> anyhow::Result<()> {
    let wrong: u64 = report.rounds.iter().map(RoundReport::wrong_values).sum();
    let message = match report.counters {
        _ if wrong > 0 => format!("{wrong} reads brought a wrong value, or none where one was written"),
        Some(counters) if !counters.is_right() => {
            format!(
                "{} increments were acknowledged, {} of unknown outcome, and {} are there",
                counters.acknowledged, counters.unknown, counters.found
            )
        }
        _ => return Ok(()),
    };
    Err(Error::Corrupt { message }.into())
}
