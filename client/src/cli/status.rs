//! `status`: who makes up the chain.

use craq_client::{ChainStatus, MemberStatus, Status};

use super::{
    args::{Format, Globals},
    output::Output,
    session::Session,
};

/// Shows the state of the cluster.
pub(crate) async fn status(globals: &Globals) -> anyhow::Result<()> {
    let session = Session::open(globals).await?;
    let status = session.client.status(&session.options).await?;
    let mut output = Output::new(globals);
    match output.format_for_people() {
        Format::Plain => plain(&mut output, &status)?,
        Format::Json => output.json(&status)?,
        Format::Table | Format::Csv => table(&mut output, &status)?,
    }
    output.finish()
}

/// One line for each member and learner, fields separated by tabs.
fn plain(output: &mut Output, status: &Status) -> anyhow::Result<()> {
    for chain in &status.chains {
        for member in chain.members.iter().chain(&chain.learners) {
            let MemberStatus { node, address, role, in_sync, alive, .. } = member;
            let (name, epoch, commit) = (&chain.chain, chain.epoch, commit(member));
            output
                .line(format!("{name}\t{epoch}\t{role}\t{node}\t{address}\t{in_sync}\t{alive}\t{commit}"))?;
        }
    }
    Ok(())
}

/// For people: a table for each chain, and why it is as it is.
pub(crate) fn table(output: &mut Output, status: &Status) -> anyhow::Result<()> {
    output.line(format!("cluster {}", status.cluster.as_deref().unwrap_or("unknown")))?;
    if status.chains.is_empty() {
        output.line("no chain yet: no node has registered")?;
    }
    for chain in &status.chains {
        let ChainStatus { chain: name, epoch, reason, .. } = chain;
        output.line(format!("chain {name}, epoch {epoch}"))?;
        output.line(format!("  {reason}"))?;
        let row = |member: &MemberStatus| {
            [
                member.role.clone(),
                member.address.clone(),
                yes(member.in_sync),
                yes(member.alive),
                commit(member),
                member.node.clone(),
            ]
        };
        let rows = chain.members.iter().chain(&chain.learners).map(row);
        output.table(["role", "address", "in sync", "alive", "commit", "node"], rows)?;
    }
    for spare in &status.spares {
        output.line(format!("spare {} at {}: {}", spare.node, spare.address, spare.reason))?;
    }
    Ok(())
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn commit(member: &MemberStatus) -> String {
    member.commit.map_or_else(|| "-".to_owned(), |commit| commit.to_string())
}
