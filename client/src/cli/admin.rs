//! `node` and `chain`: changing a chain by hand.

use craq_client::{
    Client,
    proto::{Epoch, NodeId, View},
};
use serde::Serialize;

use super::{
    args::{ChainArgs, ChainCommand, Format, Globals, NodeArgs, NodeCommand},
    exit::usage,
    output::{Number, Output},
    session::Session,
};

/// Commands on a node.
pub(crate) async fn node(globals: &Globals, args: NodeArgs) -> anyhow::Result<()> {
    let NodeCommand::Remove { which, accept_data_loss } = args.command;
    let session = Session::open(globals).await?;
    let node = resolve(&session.client, &which)?;
    let epoch = session.client.remove_node(node, accept_data_loss, &session.options).await?;
    done(globals, epoch)
}

/// Commands on a chain.
pub(crate) async fn chain(globals: &Globals, args: ChainArgs) -> anyhow::Result<()> {
    let ChainCommand::Reorder { order } = args.command;
    let session = Session::open(globals).await?;
    let order =
        order.iter().map(|which| resolve(&session.client, which)).collect::<anyhow::Result<Vec<_>>>()?;
    let epoch = session.client.reorder(&order, &session.options).await?;
    done(globals, epoch)
}

/// The node that is meant: by its id, or by its address in the view.
fn resolve(client: &Client, which: &str) -> anyhow::Result<NodeId> {
    if let Ok(node) = which.parse() {
        return Ok(node);
    }
    let address = Client::dial(which)?;
    let at = |view: &View| {
        let members = view.members.iter().map(|member| (member.node, &member.address));
        let learners = view.learners.iter().map(|learner| (learner.node, &learner.address));
        let is_at = |known: &str| Client::dial(known).is_ok_and(|known| known == address);
        members.chain(learners).find(|(_, known)| is_at(known)).map(|(node, _)| node)
    };
    client
        .view()
        .and_then(|view| at(&view))
        .ok_or_else(|| usage(format!("no node of the chain is at {which}; `craq status` shows the nodes")))
}

/// The epoch that the command made.
#[derive(Serialize)]
struct Done {
    epoch: Number,
}

fn done(globals: &Globals, epoch: Epoch) -> anyhow::Result<()> {
    let mut output = Output::new(globals);
    match output.format() {
        Format::Plain | Format::Table | Format::Csv => output.line(format!("OK epoch={epoch}"))?,
        Format::Json => output.json(&Done { epoch: Number(epoch.0) })?,
    }
    output.finish()
}
