//! What a check says in the end.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use craq_client::check::{
    picture,
    verdict::{self, Verdict},
};
use serde::Serialize;

use super::load::Run;
use crate::cli::{
    args::{Format, Globals},
    exit::Exit,
    output::Output,
};

/// A verdict. The names of the fields are a contract.
#[derive(Serialize)]
struct Report<'a> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    calls: BTreeMap<&'static str, usize>,
    applied: usize,
    refused: usize,
    read: usize,
    unknown: usize,
    failed: usize,
    longest_ms: u128,
    reads_per_node: BTreeMap<&'a str, usize>,
}

/// Prints the verdict, draws a violation, and ends as the verdict is.
pub(super) fn report(
    globals: &Globals,
    run: &Run,
    verdict: &Verdict,
    html: Option<&Path>,
) -> anyhow::Result<()> {
    let summary = verdict::summary(&run.ops);
    let why = match verdict {
        Verdict::Linearizable => None,
        Verdict::Violation { what, .. } => Some(what.as_str()),
        Verdict::Unknown { why } => Some(why.as_str()),
    };
    let mut output = Output::new(globals);
    if output.format() == Format::Json {
        let counts = summary.counts;
        output.json(&Report {
            verdict: verdict.as_str(),
            why,
            calls: summary.kinds,
            applied: counts.acked,
            refused: counts.refused,
            read: counts.read,
            unknown: counts.unknown,
            failed: counts.failed,
            longest_ms: summary.longest.as_millis(),
            reads_per_node: run.nodes.iter().map(|(node, reads)| (node.as_str(), *reads)).collect(),
        })?;
    } else {
        output.line(format!("verdict: {}", verdict.as_str()))?;
        if let Some(why) = why {
            output.line(why.trim_end())?;
        }
        let kinds: Vec<_> = summary.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        output.line(format!("calls: {}", kinds.join(", ")))?;
        output.line(format!("answers: {summary}"))?;
        for (node, reads) in &run.nodes {
            output.line(format!("reads at {node}: {reads}"))?;
        }
    }
    output.finish()?;
    if let (Some(html), Verdict::Violation { shown: Some(shown), .. }) = (html, verdict) {
        std::fs::write(html, picture::html(shown))
            .with_context(|| format!("cannot write {}", html.display()))?;
        eprintln!("the picture is in {}", html.display());
    }
    match verdict {
        Verdict::Linearizable => Ok(()),
        Verdict::Violation { .. } => Err(Exit::Violation.into()),
        Verdict::Unknown { .. } => Err(Exit::NoVerdict.into()),
    }
}
