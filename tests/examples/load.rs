//! Writes many keys to a running cluster, and says how fast: to measure starts, transfers and memory on real sizes.
//!
//! `cargo run --release -p craq-tests --example load -- ADDRESS KEYS [VALUE_BYTES [WRITERS [FIRST]]]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use craq_client::Client;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default| arguments.get(index).map_or(Ok(default), |text| text.parse::<u64>());
    let address = arguments.first().context("which ADDRESS?")?.clone();
    let (keys, value_bytes, writers) = (number(1, 10_000)?, number(2, 500)?, number(3, 256)?);
    let first = number(4, 0)?;
    let client = Arc::new(Client::connect([address]).await?);
    let next = Arc::new(AtomicU64::new(first));
    let longest = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (client, next, longest) = (Arc::clone(&client), Arc::clone(&next), Arc::clone(&longest));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + keys {
                        return anyhow::Ok(());
                    }
                    let value = vec![(number % 251) as u8 ^ writer as u8; value_bytes as usize];
                    let called = Instant::now();
                    client.write(format!("key-{number:012}"), value).await?;
                    longest.fetch_max(called.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let took = began.elapsed();
    let rate = keys as f64 / took.as_secs_f64();
    let longest = Duration::from_micros(longest.load(Ordering::Relaxed));
    eprintln!(
        "{keys} keys of {value_bytes} bytes in {took:.1?}: {rate:.0} writes/s, the longest {longest:.0?}"
    );
    Ok(())
}
