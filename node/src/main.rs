//! `craq-node`: see the library for what it does.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    craq_node::start(&craq_node::Config::parse())
}
