//! The state of the cluster, with a coordinator and without; and what only a coordinator does.

use craq_client::{
    Client, Error, Options,
    proto::{Epoch, NodeId},
};

use crate::process::{Fake, chain};

#[tokio::test]
async fn a_coordinator_tells_the_status() {
    let (coordinator, node) = (Fake::coordinator(), Fake::node());
    coordinator.tells(&chain(4, &[&node]));
    let client = Client::connect([coordinator.address.as_str()]).await.unwrap();
    let status = client.status(&Options::new()).await.unwrap();
    let json = serde_json::to_value(&status).unwrap();
    let expected = serde_json::json!({
        "cluster": crate::process::CLUSTER.to_string(),
        "chains": [{
            "chain": "default",
            "epoch": 4,
            "members": [{
                "node": node.id().to_string(), "address": node.address, "role": "middle",
                "in_sync": true, "alive": true, "commit": null,
            }],
            "learners": [],
            "reason": "as the test wants",
        }],
    });
    assert_eq!(json, expected, "this form is a contract");
}

#[tokio::test]
async fn without_a_coordinator_the_nodes_tell_the_status_together() {
    let (coordinator, old, new, dead) = (Fake::coordinator(), Fake::node(), Fake::node(), Fake::node());
    chain(4, &[&old, &new, &dead]);
    // The first node asked has not heard of the newest epoch.
    let newest = chain(5, &[&new, &dead]);
    new.tells(&newest);
    new.commits(9);
    coordinator.dies();
    dead.dies();
    let client = Client::connect([coordinator.address.as_str(), old.address.as_str()]).await.unwrap();
    let status = client.status(&Options::new()).await.unwrap();
    let chain = &status.chains[0];
    assert_eq!(chain.epoch, 5);
    let members: Vec<_> = chain.members.iter().map(|member| (member.alive, member.commit)).collect();
    assert_eq!(members, [(true, Some(9)), (false, None)]);
}

#[tokio::test]
async fn an_order_goes_to_the_coordinator_among_the_addresses() {
    let (coordinator, node) = (Fake::coordinator(), Fake::node());
    coordinator.tells(&chain(4, &[&node]));
    let client = Client::connect([node.address.as_str(), coordinator.address.as_str()]).await.unwrap();
    let epoch = client.remove_node(NodeId(node.id()), false, &Options::new()).await;
    assert_eq!(epoch, Ok(Epoch(4)));
    let refused = client.reorder(&[], &Options::new()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    coordinator.dies();
    let gone = client.remove_node(NodeId(node.id()), false, &Options::new()).await;
    assert!(matches!(gone, Err(Error::Unreachable { .. } | Error::Unclear { .. })), "{gone:?}");
}
