//! The process `craq-coordinator`.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let config = craq_coordinator::Config::parse();
    config.start_log();
    craq_coordinator::abort_on_panic();
    match craq_coordinator::run(config, craq_coordinator::signalled()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
