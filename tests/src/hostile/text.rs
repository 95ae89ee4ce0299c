//! Words that people write: addresses, ids, request tokens; and keys and values in each encoding.

use craq_client::RequestToken;
use craq_proto::{ChainId, NodeId};

use super::command_line::encodings;

/// One word.
pub(super) fn text(bytes: &[u8]) {
    encodings(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = craq_client::decode::address(text) {
        assert_eq!(craq_client::decode::address(&address).as_ref(), Ok(&address));
        assert!(tonic::transport::Endpoint::from_shared(format!("http://{address}")).is_ok(), "{address}");
    }
    let _ = craq_node::config::connectable(text);
    if let Ok(chain) = text.parse::<ChainId>() {
        assert_eq!(chain.as_str(), text);
    }
    if let Ok(node) = text.parse::<NodeId>() {
        assert_eq!(node.to_string().parse(), Ok(node));
    }
    if let Ok(token) = text.parse::<RequestToken>() {
        let printed = token.repeated();
        assert_eq!(printed.to_string().parse(), Ok(printed), "{text}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let words = [
        ":1234",
        "http://db-1.example:80/",
        "[::1]:80",
        "0.0.0.0:1",
        "default",
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0000-0000-000000000001:3:9",
        "order-17",
        "ff00ab",
        "a2V5IQ==",
        "grüße",
    ];
    words.map(|word| word.as_bytes().to_vec()).to_vec()
}
