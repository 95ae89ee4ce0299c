//! `craq`, the command line. What it can do stands in `cli/`; here it is only started and its exit code returned.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
