//! craq's coordinator: decides who makes up each chain, and in which order. Not on the way of a read or a write.
//!
//! [`leadership`] decides which of several coordinators leads, and [`cluster`] decides for the one that does, both purely;
//! [`driver`] is the one loop around them; the crate `craq-log` remembers; [`service`] is the gRPC face and [`server`]
//! puts all of it together. `protocol.md` 7 says what the rules are and why.

pub mod clock;
pub mod cluster;
mod config;
mod convert;
#[doc(hidden)]
pub mod decode;
pub mod driver;
mod forward;
pub mod leadership;
pub mod server;
pub mod service;

pub use config::{Config, ConfigError, LogFormat};
pub use forward::WRITE_TIMEOUT;
pub use server::{Error, Server};

/// Runs a coordinator until `shutdown` is done, or until it cannot go on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    Server::open(&config).await?.serve(shutdown).await
}

/// Completes when the process is asked to stop, by SIGTERM or SIGINT. Listens for them from now on, not from the first
/// poll on, so that none is missed in between.
pub fn signalled() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
    async move {
        match signals {
            Ok((mut terminate, mut interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "signals cannot be waited for; only SIGKILL stops this process");
                std::future::pending().await
            }
        }
    }
}

/// Makes a panic in any task end the process, after it has been printed.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
