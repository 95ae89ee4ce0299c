//! The ceiling of one call at a time: a bare tonic service in a process of its own, and clients that call it. It has no
//! part in craq; strong reads are compared with it.
//!
//! `cargo run --release -p craq-node --example echo -- --clients 64`

#![allow(clippy::print_stdout, reason = "it is made to print")]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Each connection carries the calls of so many clients.
const CLIENTS_PER_CONNECTION: usize = 64;

#[derive(Parser)]
struct Arguments {
    /// How many clients, each with one call under way.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// For how long.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Serve only, and print the address.
    #[arg(long)]
    serve: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.serve { serve().await } else { load(&arguments).await }
}

async fn serve() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let connections = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let (_reporter, service) = tonic_health::server::health_reporter();
    Ok(Server::builder().add_service(service).serve_with_incoming(connections).await?)
}

async fn load(arguments: &Arguments) -> anyhow::Result<()> {
    let mut server = Command::new(std::env::current_exe()?).arg("--serve").stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    let output = server.stdout.take().ok_or_else(|| anyhow::anyhow!("the server has no output"))?;
    BufReader::new(output).read_line(&mut address)?;
    let endpoint = Endpoint::from_shared(format!("http://{}", address.trim()))?.tcp_nodelay(true);
    let until = Instant::now() + arguments.duration;
    let mut clients = Vec::new();
    for first in (0..arguments.clients).step_by(CLIENTS_PER_CONNECTION) {
        let client = HealthClient::new(endpoint.connect().await?);
        for _ in first..arguments.clients.min(first + CLIENTS_PER_CONNECTION) {
            clients.push(tokio::spawn(call(client.clone(), until)));
        }
    }
    let mut calls = 0;
    for client in clients {
        calls += client.await??;
    }
    server.kill()?;
    server.wait()?;
    println!(
        "{} clients: {:.0} calls/s",
        arguments.clients,
        f64::from(calls) / arguments.duration.as_secs_f64()
    );
    Ok(())
}

async fn call(mut client: HealthClient<tonic::transport::Channel>, until: Instant) -> anyhow::Result<u32> {
    let mut calls = 0;
    while Instant::now() < until {
        client.check(HealthCheckRequest::default()).await?;
        calls += 1;
    }
    Ok(calls)
}
