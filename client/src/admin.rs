//! Changing a chain by hand. Only a coordinator does that; these calls are made once, never repeated.

use craq_proto::{Epoch, ErrorKind, NodeId, convert::uuid_bytes, wire};
use tokio::time::Instant;

use crate::{
    Client, Error, Options,
    call::{reply, sent},
    channels::Connection,
    failure::Failure,
    follow,
    shared::Shared,
};

/// What is asked of a coordinator.
enum Order {
    Remove(wire::RemoveNodeRequest),
    Reorder(wire::ReorderRequest),
}

impl Client {
    /// Takes a node out of the chain; brings the epoch without it. The last in-sync member is taken out only with
    /// `accept_data_loss`: what only it holds is lost then. Of the options, `timeout` counts.
    pub async fn remove_node(
        &self,
        node: NodeId,
        accept_data_loss: bool,
        options: &Options,
    ) -> Result<Epoch, Error> {
        let header = Some(self.shared.header(Epoch::ZERO));
        let node = uuid_bytes(node.0);
        self.order(&Order::Remove(wire::RemoveNodeRequest { header, node, accept_data_loss }), options).await
    }

    /// Puts the members of the chain into this order, head first; brings the epoch that has it. Of the options,
    /// `timeout` counts.
    pub async fn reorder(&self, order: &[NodeId], options: &Options) -> Result<Epoch, Error> {
        let header = Some(self.shared.header(Epoch::ZERO));
        let order = order.iter().map(|node| uuid_bytes(node.0)).collect();
        self.order(&Order::Reorder(wire::ReorderRequest { header, order }), options).await
    }

    /// Gives an order to the first coordinator that takes it. One that can't be connected to, or does not do such
    /// things, has certainly not carried it out.
    async fn order(&self, order: &Order, options: &Options) -> Result<Epoch, Error> {
        let until = self.begin(options)?;
        let mut connected = false;
        let (mut message, mut hint) = (String::new(), String::new());
        for address in &self.shared.seeds {
            let failure = match give(&self.shared, order, address, until).await {
                Ok(epoch) => return Ok(epoch),
                Err(failure) => failure,
            };
            // A node: its words count only if no coordinator has any.
            if failure.unserved {
                hint = failure.error.message.clone();
                continue;
            }
            connected |= failure.connected;
            message.clone_from(&failure.error.message);
            match failure.error.kind {
                ErrorKind::Unavailable | ErrorKind::NotHead | ErrorKind::NotLeader => {}
                ErrorKind::OutcomeUnknown => return Err(Error::Unclear { message }),
                _ => return Err((*failure.error).into()),
            }
        }
        let message = if message.is_empty() { hint } else { message };
        Err(if connected { Error::Unavailable { message } } else { Error::Unreachable { message } })
    }
}

async fn give(shared: &Shared, order: &Order, address: &str, until: Instant) -> Result<Epoch, Failure> {
    let connection: Connection = shared.channels.get(address, until).await?;
    let mut client = follow::client(&connection);
    let answer = match order {
        Order::Remove(message) => {
            let answer = client.remove_node(Shared::request(message.clone(), until));
            reply(shared, address, until, false, sent(shared, address, &connection, answer)).await?
        }
        Order::Reorder(message) => {
            let answer = client.reorder(Shared::request(message.clone(), until));
            reply(shared, address, until, false, sent(shared, address, &connection, answer)).await?
        }
    };
    shared.check(answer.header, address)
}
