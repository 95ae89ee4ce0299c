//! Who this node is, and whose messages it listens to.

use std::sync::OnceLock;

use craq_proto::{
    CallError, ChainId, ClusterId, Epoch, ErrorKind, Incarnation, NodeId,
    convert::{Header, uuid_bytes},
    wire,
};

/// The node as the others know it. The same for the life of the process, but for the cluster, which is learnt once.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Of its store.
    pub(crate) node: NodeId,
    /// Of this process.
    pub(crate) incarnation: Incarnation,
    /// host:port at which the others reach it.
    pub(crate) address: String,
    cluster: OnceLock<ClusterId>,
}

impl Identity {
    pub(crate) fn new(
        node: NodeId,
        incarnation: Incarnation,
        address: String,
        cluster: Option<ClusterId>,
    ) -> Self {
        Self { node, incarnation, address, cluster: cluster.map(OnceLock::from).unwrap_or_default() }
    }

    /// The cluster, once the node has been registered in one.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    /// Takes the cluster if none is known, and says which one it is then.
    pub(crate) fn learn_cluster(&self, cluster: ClusterId) -> ClusterId {
        *self.cluster.get_or_init(|| cluster)
    }

    /// The header of a message about one chain.
    pub(crate) fn header(&self, chain: &ChainId, epoch: Epoch) -> wire::Header {
        wire::Header { chain: chain.to_string(), epoch: epoch.0, ..self.bare_header() }
    }

    /// The header of a message about no chain in particular.
    pub(crate) fn bare_header(&self) -> wire::Header {
        wire::Header {
            cluster_id: self.cluster().map(|id| uuid_bytes(id.0)).unwrap_or_default(),
            chain: String::new(),
            epoch: 0,
            sender: uuid_bytes(self.node.0),
            incarnation: self.incarnation.0,
        }
    }

    /// Refuses a message that names another cluster. A client may name none.
    pub(crate) fn check(&self, header: Option<wire::Header>) -> Result<Header, CallError> {
        let header = Header::try_from(header)?;
        match (header.cluster, self.cluster()) {
            (Some(theirs), Some(own)) if theirs != own => Err(CallError::new(
                ErrorKind::WrongCluster,
                format!("the message is for cluster {theirs}, this node belongs to {own}"),
            )),
            _ => Ok(header),
        }
    }

    /// Refuses a message between nodes that does not name this very cluster and its sender.
    pub(crate) fn check_peer(&self, header: Option<wire::Header>) -> Result<(Header, NodeId), CallError> {
        let header = self.check(header)?;
        header.cluster()?;
        let sender = header.node()?;
        if self.cluster().is_none() {
            return Err(CallError::unavailable("this node is not registered in a cluster yet"));
        }
        Ok((header, sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(n)
    }

    fn identity(cluster: Option<u128>) -> Identity {
        let cluster = cluster.map(|n| ClusterId(id(n)));
        Identity::new(NodeId(id(1)), Incarnation(3), "localhost:1".into(), cluster)
    }

    #[test]
    fn a_message_for_another_cluster_is_refused() {
        let own = identity(Some(7));
        let foreign = identity(Some(8)).header(&ChainId::default_chain(), Epoch(2));
        assert_eq!(own.check(Some(foreign.clone())).unwrap_err().kind, ErrorKind::WrongCluster);
        assert_eq!(own.check_peer(Some(foreign)).unwrap_err().kind, ErrorKind::WrongCluster);
        assert!(own.check(None).is_ok(), "a client need not name one");
        assert_eq!(own.check_peer(None).unwrap_err().kind, ErrorKind::Invalid, "a node must");
    }

    #[test]
    fn a_node_without_a_cluster_takes_no_messages_of_nodes() {
        let header = identity(Some(7)).header(&ChainId::default_chain(), Epoch(2));
        let own = identity(None);
        assert_eq!(own.check_peer(Some(header.clone())).unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(own.learn_cluster(ClusterId(id(7))), ClusterId(id(7)));
        assert_eq!(own.learn_cluster(ClusterId(id(8))), ClusterId(id(7)), "a cluster is learnt once");
        let (header, sender) = own.check_peer(Some(header)).unwrap();
        assert_eq!((header.epoch, header.incarnation, sender), (Epoch(2), Incarnation(3), NodeId(id(1))));
    }
}
