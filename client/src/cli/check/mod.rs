//! `check`: is this cluster, or was that history, linearizable?

mod load;
mod report;

use std::{fs::File, io::BufReader, path::Path};

use anyhow::Context as _;
use craq_client::check::{history::Op, saved, verdict};

use super::{
    args::{CheckArgs, CheckCommand, Globals, HistoryArgs},
    exit::usage,
};

/// Less than so many acknowledged writes, or answered reads, show nothing.
const LEAST: usize = 10;

/// Runs a check.
pub(crate) async fn check(globals: &Globals, args: CheckArgs) -> anyhow::Result<()> {
    match args.command {
        CheckCommand::Linearizability(args) => {
            let run = Box::pin(load::run(globals, &args)).await?;
            if let Some(file) = &args.history {
                save(&run.ops, file)?;
            }
            judge(globals, &run, args.html.as_deref())
        }
        CheckCommand::History(HistoryArgs { file, html }) => {
            let from = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let ops = saved::load(BufReader::new(from))
                .map_err(|why| usage(format!("{} is no history: {why}", file.display())))?;
            judge(globals, &load::Run { ops, nodes: vec![] }, html.as_deref())
        }
    }
}

fn save(ops: &[Op], file: &Path) -> anyhow::Result<()> {
    let save = || saved::save(ops, std::io::BufWriter::new(File::create(file)?));
    save().with_context(|| format!("cannot write {}", file.display()))
}

fn judge(globals: &Globals, run: &load::Run, html: Option<&Path>) -> anyhow::Result<()> {
    eprintln!("judging {} calls …", run.ops.len());
    let verdict = verdict::judge(&run.ops, LEAST);
    report::report(globals, run, &verdict, html)
}
