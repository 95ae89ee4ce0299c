//! Writes the inputs that the targets in `tests/fuzz/` begin from.
//!
//! `cargo run -p craq-tests --example fuzz_seeds -- tests/fuzz/corpus`

use std::{fs, path::Path};

use anyhow::Context;
use craq_tests::hostile::TARGETS;

fn main() -> anyhow::Result<()> {
    let corpus = std::env::args().nth(1).context("which FOLDER?")?;
    for target in TARGETS {
        let folder = Path::new(&corpus).join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
