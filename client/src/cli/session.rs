//! From the flags of all commands to a client and the options of its calls.

use craq_client::{Client, Error, Options};
use tokio::time::Instant;

use super::args::Globals;

/// Where a command starts from, unless a coordinator or a node is given.
const COORDINATOR_DEFAULT: &str = ":1234";

/// A client, and the options of the command's call.
pub(crate) struct Session {
    /// The client.
    pub(crate) client: Client,
    /// With what is left of the timeout.
    pub(crate) options: Options,
}

impl Session {
    /// Connects to whichever of the addresses answers; fails at once if none can be connected to.
    pub(crate) async fn open(globals: &Globals) -> Result<Self, Error> {
        let start = Instant::now();
        let client = Client::builder(starts(globals)).timeout(globals.timeout).connect().await?;
        let options = Options::new().timeout(globals.timeout.saturating_sub(start.elapsed()));
        Ok(Self { client, options })
    }

    /// The options of a read: by the node that is named, if one is.
    pub(crate) fn of_read(&self, globals: &Globals) -> Options {
        match globals.at_node.as_deref().filter(|node| !node.is_empty()) {
            Some(node) => self.options.clone().node(node),
            None => self.options.clone(),
        }
    }
}

/// Where to start from: the coordinators, then the node.
fn starts(globals: &Globals) -> Vec<String> {
    let given = globals.coordinators.iter().chain(&globals.at_node);
    // A variable of the environment may be set and empty.
    let mut starts: Vec<String> = given.filter(|address| !address.is_empty()).cloned().collect();
    if starts.is_empty() {
        starts.push(COORDINATOR_DEFAULT.to_owned());
    }
    starts
}
