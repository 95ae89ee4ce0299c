//! The end of a process that must not go on: one line in the log, then the exit, whatever else is going on.
//!
//! From the first call on nothing is answered any more. A panic in any task ends the process too.

use std::{
    backtrace::Backtrace,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tracing::error;

use crate::{error::NodeError, logging};

/// How long the last log lines may take to leave; a log that nobody reads must not keep a broken node alive.
const FAREWELL: Duration = Duration::from_millis(200);

static ENDING: AtomicBool = AtomicBool::new(false);

/// Logs why and ends the process. The first call decides the exit code; a later one only waits for the end.
pub(crate) fn exit(error: &NodeError) -> ! {
    if ENDING.swap(true, Ordering::SeqCst) {
        loop {
            thread::park();
        }
    }
    error!(exit_code = error.exit_code(), "this node stops at once: {error}");
    logging::flush(FAREWELL);
    std::process::exit(error.exit_code())
}

/// Whether the process is about to end, and must answer nobody.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Makes a panic in any thread or task end the process, in builds that unwind as well.
pub(crate) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        ENDING.store(true, Ordering::SeqCst);
        error!("{info}\n{}", Backtrace::capture());
        logging::flush(FAREWELL);
        std::process::abort();
    }));
}
