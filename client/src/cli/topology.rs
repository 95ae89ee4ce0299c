//! `topology` and `coordinator`: the chains of the past, and who leads the coordinators.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use craq_client::{PastView, proto::View};
use craq_log::Location;
use serde::Serialize;

use super::{
    args::{CoordinatorArgs, CoordinatorCommand, Format, Globals, LogPlace, TopologyArgs, TopologyCommand},
    exit::usage,
    output::{Number, Output},
    session::Session,
};

/// What a table shows of a reason, in characters; the other formats have all of it.
const REASON_SHOWN: usize = 80;

/// Commands on the chains of the past.
pub(crate) async fn topology(globals: &Globals, args: TopologyArgs) -> anyhow::Result<()> {
    match args.command {
        TopologyCommand::History { place } => show(globals, &history(globals, &place).await?),
        TopologyCommand::Show { place, epoch, at } => {
            let mut history = history(globals, &place).await?;
            if let Some(epoch) = epoch {
                history.retain(|past| past.view.epoch.0 == epoch);
            }
            if let Some(at) = &at {
                history = at_time(history, moment(at)?);
            }
            if history.is_empty() {
                return Err(usage(
                    "no view of that epoch or time is kept; `craq topology history` shows those that are",
                ));
            }
            show(globals, &history)
        }
    }
}

/// The newest view of each chain that had been made by then.
fn at_time(history: Vec<PastView>, at: SystemTime) -> Vec<PastView> {
    let mut newest: std::collections::BTreeMap<String, PastView> = std::collections::BTreeMap::new();
    for past in history {
        if humantime::parse_rfc3339(&past.time).is_ok_and(|time| time <= at) {
            newest.insert(past.view.chain.to_string(), past);
        }
    }
    newest.into_values().collect()
}

/// A time as people write it: RFC 3339, with a space and without a zone too (UTC), or so long ago.
fn moment(text: &str) -> anyhow::Result<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text.trim_end_matches(" ago").trim());
    let time = ago.ok().and_then(|ago: Duration| SystemTime::now().checked_sub(ago));
    time.ok_or_else(|| usage(format!("{text:?} is no time: write it like 2026-11-21T12:00:00Z or 10m")))
}

/// From the records themselves, if their place is given; else from a coordinator.
async fn history(globals: &Globals, place: &LogPlace) -> anyhow::Result<Vec<PastView>> {
    let Some(data) = &place.data else {
        let session = Session::open(globals).await?;
        return Ok(session.client.history(&session.options).await?);
    };
    if let Location::Directory(path) = data
        && !path.is_dir()
    {
        return Err(usage(format!("there is no directory {}", path.display())));
    }
    let store = data.open(place.data_endpoint.as_deref(), globals.timeout)?;
    let entries = craq_log::history(&store).await.with_context(|| format!("the log at {data}"))?;
    let past = |entry: craq_log::Entry| PastView {
        view: entry.view,
        time: entry.wall_time,
        term: entry.term.0,
        coordinator: entry.holder.map(|holder| holder.address),
    };
    Ok(entries.into_iter().map(past).collect())
}

/// A view as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    chain: &'a str,
    epoch: Number,
    time: &'a str,
    term: Number,
    coordinator: Option<&'a str>,
    reason: &'a str,
    members: Vec<Replica<'a>>,
    learners: Vec<Replica<'a>>,
}

#[derive(Serialize)]
struct Replica<'a> {
    node: String,
    address: &'a str,
    incarnation: Number,
    in_sync: bool,
}

fn shown(past: &PastView) -> Shown<'_> {
    let PastView { view, time, term, coordinator } = past;
    let members = view.members.iter().map(|member| Replica {
        node: member.node.to_string(),
        address: &member.address,
        incarnation: Number(member.incarnation.0),
        in_sync: member.in_sync,
    });
    let learners = view.learners.iter().map(|learner| Replica {
        node: learner.node.to_string(),
        address: &learner.address,
        incarnation: Number(learner.incarnation.0),
        in_sync: false,
    });
    Shown {
        chain: view.chain.as_str(),
        epoch: Number(view.epoch.0),
        time,
        term: Number(*term),
        coordinator: coordinator.as_deref(),
        reason: &view.reason,
        members: members.collect(),
        learners: learners.collect(),
    }
}

/// The addresses, head first; with `?` those that are not in sync, in brackets those that learn.
fn order(view: &View) -> String {
    let member = |member: &craq_client::proto::Member| {
        let mark = if member.in_sync { "" } else { "?" };
        format!("{}{mark}", member.address)
    };
    let members = view.members.iter().map(member);
    let learners = view.learners.iter().map(|learner| format!("({})", learner.address));
    members.chain(learners).collect::<Vec<_>>().join(" ")
}

fn show(globals: &Globals, history: &[PastView]) -> anyhow::Result<()> {
    let mut output = Output::new(globals);
    match output.format_for_people() {
        Format::Plain => {
            for PastView { view, time, term, coordinator } in history {
                let (chain, epoch, nodes) = (&view.chain, view.epoch, order(view));
                let coordinator = coordinator.as_deref().unwrap_or("-");
                let reason = &view.reason;
                output.line(format!("{chain}\t{epoch}\t{time}\t{term}\t{coordinator}\t{nodes}\t{reason}"))?;
            }
        }
        Format::Json => {
            for past in history {
                output.json(&shown(past))?;
            }
        }
        Format::Table | Format::Csv => {
            let row = |past: &PastView| {
                let PastView { view, time, .. } = past;
                let reason: String = view.reason.chars().take(REASON_SHOWN).collect();
                [view.chain.to_string(), view.epoch.to_string(), time.clone(), order(view), reason]
            };
            output.table(["chain", "epoch", "time", "head to tail", "reason"], history.iter().map(row))?;
        }
    }
    output.finish()
}

/// Commands on coordinators.
pub(crate) async fn coordinator(globals: &Globals, args: CoordinatorArgs) -> anyhow::Result<()> {
    let session = Session::open(globals).await?;
    let mut output = Output::new(globals);
    if let CoordinatorCommand::Transfer = args.command {
        let status = session.client.transfer_leadership(&session.options).await?;
        match output.format() {
            Format::Json => output.json(&status)?,
            _ => output.line(format!("OK term={} ended", status.term))?,
        }
        return output.finish();
    }
    let all = session.client.coordinators(&session.options).await?;
    let millis = |micros: u64| format!("{}.{:03} ms", micros / 1_000, micros % 1_000);
    match output.format_for_people() {
        Format::Json => {
            for status in all.iter().filter_map(|(_, status)| status.as_ref()) {
                output.json(status)?;
            }
        }
        Format::Plain => {
            for (address, status) in &all {
                match status {
                    Some(s) => {
                        let role = if s.leads { "leads" } else { "follows" };
                        let leader = s.leader.as_deref().unwrap_or("-");
                        let (term, since, micros) = (s.term, &s.since, s.store_micros);
                        output.line(format!(
                            "{address}\t{role}\t{term}\t{leader}\t{since}\t{micros}\t{}",
                            s.data
                        ))?;
                    }
                    None => output.line(format!("{address}\taway"))?,
                }
            }
        }
        Format::Table | Format::Csv => {
            let row = |(address, status): &(String, Option<craq_client::CoordinatorStatus>)| match status {
                Some(s) => [
                    address.clone(),
                    if s.leads { "leads" } else { "follows" }.to_owned(),
                    s.term.to_string(),
                    s.since.clone(),
                    millis(s.store_micros),
                    s.data.clone(),
                ],
                None => [address.clone(), "away".to_owned(), "-".into(), "-".into(), "-".into(), "-".into()],
            };
            output
                .table(["coordinator", "role", "term", "since", "store took", "data"], all.iter().map(row))?;
        }
    }
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text| moment(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds("2026-11-21T12:00:00Z"), seconds("2026-11-21 12:00:00"));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for text in ["10m", "10m ago"] {
            assert!((now - 601..=now - 600).contains(&seconds(text)), "{text}");
        }
        assert!(moment("yesterday").is_err());
    }
}
