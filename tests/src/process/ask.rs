//! What one process tells of itself, asked directly: the client library would ask around.

use std::time::Duration;

use craq_proto::wire::{self, coordinator_client::CoordinatorClient, kv_client::KvClient};
use tonic::transport::{Channel, Endpoint};

const TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to one process.
pub async fn dial(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT);
    endpoint.connect().await.map_err(|error| format!("{address}: {error}"))
}

/// A node's replicas.
pub async fn node(address: &str) -> Result<wire::NodeStatus, String> {
    let mut client = KvClient::new(dial(address).await?);
    let reply = client.get_node_status(wire::NodeStatusRequest { header: None }).await;
    reply.map(tonic::Response::into_inner).map_err(|status| format!("{address}: {status}"))
}

/// A node's replica of the chain `default`.
pub async fn replica(address: &str) -> Result<wire::ReplicaStatus, String> {
    let status = node(address).await?;
    let replica = status.replicas.into_iter().find(|replica| replica.chain == "default");
    replica.ok_or_else(|| format!("{address} has no replica of the chain"))
}

/// The cluster, as the coordinator (or a node) at this address sees it.
pub async fn cluster(address: &str) -> Result<wire::GetStatusReply, String> {
    let mut client = CoordinatorClient::new(dial(address).await?);
    let reply = client.get_status(wire::GetStatusRequest { header: None }).await;
    reply.map(tonic::Response::into_inner).map_err(|status| format!("{address}: {status}"))
}

/// Who leads, as the coordinator at this address sees it.
pub async fn leadership(address: &str) -> Result<wire::GetLeadershipReply, String> {
    let mut client = CoordinatorClient::new(dial(address).await?);
    let reply = client.get_leadership(wire::GetLeadershipRequest { header: None }).await;
    reply.map(tonic::Response::into_inner).map_err(|status| format!("{address}: {status}"))
}

/// The chain `default`, as the coordinator (or a node) at this address sees it.
pub async fn chain(address: &str) -> Result<wire::ChainStatus, String> {
    let status = cluster(address).await?;
    let chain = status.chains.into_iter().find(|chain| chain.chain == "default");
    chain.ok_or_else(|| format!("{address} knows no chain"))
}
