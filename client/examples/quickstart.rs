//! Writes a key and reads it: `cargo run -p craq-client --example quickstart -- :1234`.
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use craq_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| ":1234".to_owned());
    let client = Client::connect([address]).await?;

    let written = client.write("greeting", "hello").await?;
    println!("written as version {}", written.version);

    let read = client.read("greeting").await?;
    println!("{} answered: {:?}", read.node, read.value.as_deref().map(String::from_utf8_lossy));
    Ok(())
}
