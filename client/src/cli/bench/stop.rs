//! Ctrl-C: the first ends a measurement early, and its figures are printed; the second ends the process at once.

use std::process;

use tokio::{sync::watch, task::AbortHandle};

/// As a shell reports a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Whether somebody wants this to end.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

/// Listens for Ctrl-C until it is dropped.
#[derive(Debug)]
pub(super) struct Listener(AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stop {
    /// From now on, Ctrl-C asks instead of killing.
    pub(super) fn listen() -> (Self, Listener) {
        let (sender, receiver) = watch::channel(false);
        let task = tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_err() {
                // Then nobody can ask; the sender stays, so that nobody believes it.
                return std::future::pending().await;
            }
            let _ = sender.send(true);
            eprintln!("ending early; Ctrl-C again leaves everything as it is");
            if tokio::signal::ctrl_c().await.is_ok() {
                process::exit(INTERRUPTED);
            }
            drop(sender);
        });
        (Self(receiver), Listener(task.abort_handle()))
    }

    pub(super) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when somebody wants it.
    pub(super) async fn requested(&self) {
        let mut receiver = self.0.clone();
        let asked = receiver.wait_for(|is| *is).await.is_ok();
        if !asked {
            std::future::pending::<()>().await;
        }
    }
}
