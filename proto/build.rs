//! Generates the wire types. Pure Rust: no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost_reflect::prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["types", "kv", "chain", "coordinator"].map(|name| format!("proto/craq/v1/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Without copying: what is decoded borrows the receive buffer.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
