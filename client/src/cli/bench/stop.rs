//! Ctrl-C, or SIGTERM: the first ends a measurement early, and its figures are printed; the second ends the process.

use std::{io, process};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::AbortHandle,
};

/// As a shell reports a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Whether somebody wants this to end.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

/// What a second signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    /// Ends the process at once; what was loaded stays.
    Exits,
    /// Nothing: children have to be stopped.
    Waits,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Listener(AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stop {
    /// From now on, signals ask instead of killing.
    pub(super) fn listen(second: Second) -> io::Result<(Self, Listener)> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                match (sender.send_replace(true), second) {
                    (false, Second::Exits) => {
                        eprintln!("ending early; once more leaves everything as it is");
                    }
                    (true, Second::Exits) => process::exit(INTERRUPTED),
                    (_, Second::Waits) => eprintln!("ending early"),
                }
            }
        });
        Ok((Self(receiver), Listener(task.abort_handle())))
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
