//! The command line: one file for each group of commands.
//!
//! stdout carries data only and goes through [`output`]; messages go to stderr. Values never reach a message.

mod admin;
mod args;
mod bench;
mod check;
mod encoding;
mod exit;
mod kv;
mod list;
mod output;
mod playground;
mod session;
mod status;
mod topology;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Args, Command, Format, Globals};
use output::Output;

/// Parses the arguments, does what they say, and brings the exit code.
pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    start_log();
    // One thread is enough, and starts at once; a load needs all cores.
    let mut builder = match &args.command {
        Command::Bench(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&error.into()),
    };
    let outcome = runtime.block_on(run(args));
    // Whatever still runs in the background has nothing to say any more.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

async fn run(Args { globals, command }: Args) -> anyhow::Result<()> {
    if globals.format == Some(Format::Csv) && !matches!(command, Command::Bench(_)) {
        return Err(exit::usage("-o csv is for `craq bench`"));
    }
    match command {
        Command::Bench(args) => Box::pin(bench::bench(&globals, args)).await,
        Command::Write(args) => kv::write(&globals, args).await,
        Command::Read(args) => kv::read(&globals, args).await,
        Command::Delete(args) => kv::delete(&globals, args).await,
        Command::List(args) => Box::pin(list::list(&globals, args)).await,
        Command::Status => Box::pin(status::status(&globals)).await,
        Command::Node(args) => admin::node(&globals, args).await,
        Command::Chain(args) => admin::chain(&globals, args).await,
        Command::Topology(args) => Box::pin(topology::topology(&globals, args)).await,
        Command::Coordinator(args) => topology::coordinator(&globals, args).await,
        Command::Check(args) => Box::pin(check::check(&globals, args)).await,
        Command::Playground(args) => Box::pin(playground::run(args)).await,
        Command::Completions { shell } => completions(&globals, shell),
    }
}

fn completions(globals: &Globals, shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "craq", &mut script);
    let mut output = Output::new(globals);
    output.raw(&script)?;
    output.finish()
}

/// Log lines go to stderr, and only if `RUST_LOG` asks for them.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
